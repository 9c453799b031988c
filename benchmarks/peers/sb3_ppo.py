"""PPO of Stable-Baselines3 on one task: steps per second of `learn`, after one rollout to warm up.

    python3 sb3_ppo.py CartPole-v1 --n-envs 64 --minibatch 2048 --steps 200000

Needs: pip install stable-baselines3 gymnasium
"""
import argparse
import json
import time

import torch
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env

parser = argparse.ArgumentParser()
parser.add_argument("env")
parser.add_argument("--n-envs", type=int, default=8)
parser.add_argument("--n-steps", type=int, default=128)
parser.add_argument("--epochs", type=int, default=4)
parser.add_argument("--minibatch", type=int, default=256)
parser.add_argument("--steps", type=int, default=100_000)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--seed", type=int, default=1)
parser.add_argument("--zoo", action="store_true", help="the RL Zoo's settings for CartPole-v1; no warm-up")
args = parser.parse_args()

torch.set_num_threads(args.threads)
start = time.perf_counter()
envs = make_vec_env(args.env, n_envs=args.n_envs, seed=args.seed)
extra = {}
if args.zoo:
    extra = dict(gamma=0.98, gae_lambda=0.8, learning_rate=lambda left: 1e-3 * left, clip_range=lambda left: 0.2 * left)
model = PPO("MlpPolicy", envs, n_steps=args.n_steps, batch_size=args.minibatch, n_epochs=args.epochs,
            seed=args.seed, device="cpu", **extra)
if not args.zoo:
    model.learn(args.n_envs * args.n_steps)
    start = time.perf_counter()
model.learn(args.steps, reset_num_timesteps=args.zoo)
seconds = time.perf_counter() - start
returns = [e["r"] for e in model.ep_info_buffer]
print(json.dumps({"peer": "stable-baselines3", "env": args.env, "steps_per_second": round(args.steps / seconds, 1),
                  "seconds": round(seconds, 2), "return_last_100": round(sum(returns) / max(1, len(returns)), 1)}))
