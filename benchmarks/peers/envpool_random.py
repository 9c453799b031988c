"""EnvPool on one task with random actions and no learning: environment steps per second.

    python3 envpool_random.py HalfCheetah-v4 --n-envs 16 --threads 2 --seconds 5

Needs: pip install envpool
"""
import argparse
import json
import time

import envpool
import numpy as np

parser = argparse.ArgumentParser()
parser.add_argument("env")
parser.add_argument("--n-envs", type=int, default=16)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--seconds", type=float, default=5.0)
args = parser.parse_args()

envs = envpool.make_gymnasium(args.env, num_envs=args.n_envs, num_threads=args.threads, seed=1)
envs.reset()
space = envs.action_space
rng = np.random.default_rng(1)
if hasattr(space, "n"):
    actions = rng.integers(space.n, size=(997, args.n_envs)).astype(np.int32)
else:
    actions = rng.uniform(space.low, space.high, (997, args.n_envs, *space.shape)).astype(space.dtype)
steps, start = 0, time.perf_counter()
while time.perf_counter() - start < args.seconds:
    for _ in range(50):
        envs.step(actions[steps % 997])
        steps += 1
seconds = time.perf_counter() - start
print(json.dumps({"peer": f"envpool {envpool.__version__}", "env": args.env,
                  "steps_per_second": round(steps * args.n_envs / seconds, 1)}))
