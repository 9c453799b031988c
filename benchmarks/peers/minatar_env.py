"""The Python package MinAtar with random actions: steps per second, each with its observation as numbers.

    python3 minatar_env.py breakout --seconds 5

The same of pgrad, on one core: pgrad bench ppo MinAtar/Breakout-v0 --env-only --n-envs 64 --threads 1

Needs: pip install minatar
"""
import argparse
import json
import time

import numpy as np
from minatar import Environment

parser = argparse.ArgumentParser()
parser.add_argument("game", choices=["breakout", "asterix", "freeway", "space_invaders", "seaquest"])
parser.add_argument("--seconds", type=float, default=5.0)
parser.add_argument("--seed", type=int, default=1)
args = parser.parse_args()

env = Environment(args.game)
env.seed(args.seed)
# Drawn beforehand: the choice of actions is not measured.
actions = np.random.default_rng(args.seed).integers(6, size=100_000).tolist()


def run(seconds):
    env.reset()
    steps, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        for action in actions[:1000]:
            _, terminal = env.act(action)
            if terminal:
                env.reset()
            env.state().astype(np.float32)
        steps += 1000
    return steps / (time.perf_counter() - start)


run(0.2)
print(json.dumps({"peer": "MinAtar", "game": args.game, "env_steps_per_second": round(run(args.seconds), 1)}))
