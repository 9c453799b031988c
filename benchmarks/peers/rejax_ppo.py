"""PPO of rejax (JAX: environment, rollout and update in one compiled program): steps per second of a
second run, compilation apart.

    python3 rejax_ppo.py CartPole-v1 --n-envs 64 --steps 2000000

Needs: pip install rejax 'gymnax<1'
"""
import argparse
import json
import time

import jax
from rejax import PPO

parser = argparse.ArgumentParser()
parser.add_argument("env")
parser.add_argument("--n-envs", type=int, default=8)
parser.add_argument("--n-steps", type=int, default=128)
parser.add_argument("--epochs", type=int, default=4)
parser.add_argument("--minibatches", type=int, default=4)
parser.add_argument("--steps", type=int, default=1_000_000)
args = parser.parse_args()

ppo = PPO.create(env=args.env, num_envs=args.n_envs, num_steps=args.n_steps, num_epochs=args.epochs,
                 num_minibatches=args.minibatches, learning_rate=2.5e-4, total_timesteps=args.steps,
                 eval_freq=args.steps, skip_initial_evaluation=True,
                 agent_kwargs={"hidden_layer_sizes": (64, 64), "activation": "tanh"})
ppo = ppo.replace(eval_callback=lambda *_: ())  # training alone
begin = time.perf_counter()
train = jax.jit(ppo.train).lower(jax.random.PRNGKey(0)).compile()
compiled = time.perf_counter()
jax.block_until_ready(train(jax.random.PRNGKey(0)))
start = time.perf_counter()
jax.block_until_ready(train(jax.random.PRNGKey(1)))
seconds = time.perf_counter() - start
print(json.dumps({"peer": "rejax", "env": args.env, "steps_per_second": round(args.steps / seconds, 1),
                  "compile_seconds": round(compiled - begin, 1)}))
