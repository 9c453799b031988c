"""RecurrentPPO of sb3-contrib on CartPole without velocities: steps per second of `learn`, after an iteration to warm up.

    python3 sb3_recurrent_ppo.py --n-envs 8 --n-steps 128 --steps 10240

The same settings here: `pgrad bench ppo CartPoleNoVel-v1 --set recurrent=lstm --set n_envs=8 --set n_steps=128
--set minibatch_size=256 --set epochs=4 --set hidden=64`.

Needs: pip install sb3-contrib stable-baselines3 gymnasium
"""
import argparse
import json
import time

import gymnasium
import numpy as np
import torch
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.env_util import make_vec_env

parser = argparse.ArgumentParser()
parser.add_argument("--n-envs", type=int, default=8)
parser.add_argument("--n-steps", type=int, default=128)
parser.add_argument("--minibatch", type=int, default=256)
parser.add_argument("--epochs", type=int, default=4)
parser.add_argument("--lstm", type=int, default=64)
parser.add_argument("--steps", type=int, default=10_240)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--seed", type=int, default=1)
args = parser.parse_args()


class NoVelocity(gymnasium.ObservationWrapper):
    """CartPole whose velocities are shown as 0."""

    def observation(self, observation):
        return observation * np.array([1.0, 0.0, 1.0, 0.0], dtype=np.float32)


torch.set_num_threads(args.threads)
envs = make_vec_env("CartPole-v1", n_envs=args.n_envs, seed=args.seed, wrapper_class=NoVelocity)
model = RecurrentPPO(
    "MlpLstmPolicy", envs, n_steps=args.n_steps, batch_size=args.minibatch, n_epochs=args.epochs,
    gamma=0.99, gae_lambda=0.95, clip_range=0.2, learning_rate=2.5e-4, seed=args.seed, device="cpu",
    policy_kwargs={"lstm_hidden_size": args.lstm, "net_arch": [64]},
)
model.learn(args.n_envs * args.n_steps)
start = time.perf_counter()
model.learn(args.steps, reset_num_timesteps=False)
seconds = time.perf_counter() - start
returns = [e["r"] for e in model.ep_info_buffer]
print(json.dumps({"peer": "sb3-contrib", "algo": "recurrent-ppo", "env": "CartPoleNoVel-v1",
                  "steps_per_second": round(args.steps / seconds, 1), "seconds": round(seconds, 2),
                  "return_last_100": round(sum(returns) / max(1, len(returns)), 1)}))
