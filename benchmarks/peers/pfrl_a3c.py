"""A3C of PFRL on CartPole-v1: environment steps per second of all actor-learners together, after some to warm up.

    python3 pfrl_a3c.py --workers 2 --steps 20000

PFRL has the A3C of its predecessor ChainerRL: processes that share the parameters and the mean squares of RMSProp without
locks. Its environments are made for the older Gym; here it steps Gymnasium's, without a wrapper in between but for the
older form of a step.

The same settings here: `pgrad bench a3c CartPole-v1 --set workers=2 --set n_steps=5 --set hidden=64,64`.

Needs: pip install pfrl gymnasium
"""
import argparse
import json
import logging
import multiprocessing
import tempfile
import time

import gymnasium
import numpy as np
import torch
from pfrl.agents import a3c
from pfrl.experiments import train_agent_async
from pfrl.nn import Branched
from pfrl.optimizers import SharedRMSpropEpsInsideSqrt
from pfrl.policies import SoftmaxCategoricalHead
from torch import nn

parser = argparse.ArgumentParser()
parser.add_argument("--workers", type=int, default=2)
parser.add_argument("--t-max", type=int, default=5)
parser.add_argument("--steps", type=int, default=20_000)
parser.add_argument("--warm-up", type=int, default=2_000)
parser.add_argument("--learning-rate", type=float, default=1e-3)
args = parser.parse_args()


class OlderStep(gymnasium.Wrapper):
    """`reset` without a dictionary, `step` with four values; a time limit asks for a reset."""

    def reset(self, **kwargs):
        return self.env.reset(**kwargs)[0]

    def step(self, action):
        obs, reward, terminated, truncated, info = self.env.step(action)
        self.ret += reward
        if terminated or truncated:
            with returns.get_lock():
                returns[0] += 1
                returns[1] += self.ret
            self.ret = 0.0
        return obs, reward, terminated, {**info, "needs_reset": truncated}


def make_env(number, test):
    env = OlderStep(gymnasium.make("CartPole-v1"))
    env.ret = 0.0
    env.reset(seed=number)
    torch.set_num_threads(1)
    return env


def body():
    return [nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh()]


def clock(env, agent, step):
    if step == args.warm_up:
        began.value = time.perf_counter()
    if step == args.warm_up + args.steps:
        ended.value = time.perf_counter()


torch.set_num_threads(1)
logging.disable(logging.CRITICAL)
began, ended = multiprocessing.Value("d", 0.0), multiprocessing.Value("d", 0.0)
returns = multiprocessing.Array("d", 2)
model = Branched(
    nn.Sequential(*body(), nn.Linear(64, 2), SoftmaxCategoricalHead()),
    nn.Sequential(*body(), nn.Linear(64, 1)),
)
optimizer = SharedRMSpropEpsInsideSqrt(model.parameters(), lr=args.learning_rate, eps=1e-5, alpha=0.99)
agent = a3c.A3C(
    model, optimizer, t_max=args.t_max, gamma=0.99, beta=0.01,
    phi=lambda x: np.asarray(x, dtype=np.float32),
)
with tempfile.TemporaryDirectory() as folder:
    train_agent_async(
        folder, args.workers, make_env, steps=args.warm_up + args.steps, eval_interval=None, agent=agent, random_seeds=list(range(args.workers)),
        global_step_hooks=[clock],
    )
seconds = ended.value - began.value
print(json.dumps({"peer": "pfrl", "algo": "a3c", "env": "CartPole-v1", "workers": args.workers,
                  "steps_per_second": round(args.steps / seconds, 1), "seconds": round(seconds, 2),
                  "mean_return": round(returns[1] / max(1, returns[0]), 1)}))
