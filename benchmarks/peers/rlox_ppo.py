"""PPO of rlox (environments in Rust, update in PyTorch): steps per second.

    python3 rlox_ppo.py CartPole-v1 --n-envs 64 --minibatch 2048 --steps 200000

Needs: pip install rlox torch
"""
import argparse
import json
import time

import torch
from rlox import Trainer

parser = argparse.ArgumentParser()
parser.add_argument("env")
parser.add_argument("--n-envs", type=int, default=8)
parser.add_argument("--n-steps", type=int, default=128)
parser.add_argument("--epochs", type=int, default=4)
parser.add_argument("--minibatch", type=int, default=256)
parser.add_argument("--steps", type=int, default=100_000)
parser.add_argument("--threads", type=int, default=2)
args = parser.parse_args()

torch.set_num_threads(args.threads)
settings = {"n_envs": args.n_envs, "n_steps": args.n_steps, "n_epochs": args.epochs, "batch_size": args.minibatch,
            "learning_rate": 2.5e-4}
trainer = Trainer("ppo", env=args.env, seed=1, config=settings)
start = time.perf_counter()
trainer.train(total_timesteps=args.steps)
seconds = time.perf_counter() - start
print(json.dumps({"peer": "rlox", "env": args.env, "steps_per_second": round(args.steps / seconds, 1)}))
