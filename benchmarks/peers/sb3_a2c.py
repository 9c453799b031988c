"""A2C of Stable-Baselines3 on one task: steps per second of `learn`, after some iterations to warm up.

    python3 sb3_a2c.py CartPole-v1 --n-envs 64 --n-steps 5 --steps 100000

Needs: pip install stable-baselines3 gymnasium
"""
import argparse
import json
import time

import torch
from stable_baselines3 import A2C
from stable_baselines3.common.env_util import make_vec_env

parser = argparse.ArgumentParser()
parser.add_argument("env")
parser.add_argument("--n-envs", type=int, default=64)
parser.add_argument("--n-steps", type=int, default=5)
parser.add_argument("--steps", type=int, default=100_000)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--seed", type=int, default=1)
args = parser.parse_args()

torch.set_num_threads(args.threads)
envs = make_vec_env(args.env, n_envs=args.n_envs, seed=args.seed)
model = A2C("MlpPolicy", envs, n_steps=args.n_steps, ent_coef=0.01, seed=args.seed, device="cpu")
model.learn(20 * args.n_envs * args.n_steps)
start = time.perf_counter()
model.learn(args.steps, reset_num_timesteps=False)
seconds = time.perf_counter() - start
returns = [e["r"] for e in model.ep_info_buffer]
print(json.dumps({"peer": "stable-baselines3", "algo": "a2c", "env": args.env,
                  "steps_per_second": round(args.steps / seconds, 1), "seconds": round(seconds, 2),
                  "return_last_100": round(sum(returns) / max(1, len(returns)), 1)}))
