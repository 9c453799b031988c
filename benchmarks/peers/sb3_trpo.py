"""TRPO of sb3-contrib on one task: steps per second of `learn`, after one rollout to warm up.

    python3 sb3_trpo.py CartPole-v1 --n-envs 8 --steps 20000

Needs: pip install sb3-contrib stable-baselines3 gymnasium
pgrad with the same settings (10 products with the Fisher matrix, 10 epochs of the critic in minibatches of 128, two
networks of 64-64 tanh units):

    pgrad bench trpo CartPole-v1 --set n_envs=8 --set n_steps=128
"""
import argparse
import json
import time

import torch
from sb3_contrib import TRPO
from stable_baselines3.common.env_util import make_vec_env

parser = argparse.ArgumentParser()
parser.add_argument("env")
parser.add_argument("--n-envs", type=int, default=8)
parser.add_argument("--n-steps", type=int, default=128)
parser.add_argument("--minibatch", type=int, default=128)
parser.add_argument("--cg", type=int, default=10)
parser.add_argument("--critic-epochs", type=int, default=10)
parser.add_argument("--steps", type=int, default=20_000)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--seed", type=int, default=1)
args = parser.parse_args()

torch.set_num_threads(args.threads)
envs = make_vec_env(args.env, n_envs=args.n_envs, seed=args.seed)
model = TRPO("MlpPolicy", envs, n_steps=args.n_steps, batch_size=args.minibatch, cg_max_steps=args.cg,
             n_critic_updates=args.critic_epochs, seed=args.seed, device="cpu")
model.learn(args.n_envs * args.n_steps)
start = time.perf_counter()
model.learn(args.steps, reset_num_timesteps=False)
seconds = time.perf_counter() - start
returns = [e["r"] for e in model.ep_info_buffer]
print(json.dumps({"peer": "sb3-contrib", "env": args.env, "steps_per_second": round(args.steps / seconds, 1),
                  "seconds": round(seconds, 2), "return_last_100": round(sum(returns) / max(1, len(returns)), 1)}))
