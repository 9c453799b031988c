"""Steps per second of an environment of Gymnasium in the vector classes that people use, with random actions and no
learning.

    python3 gym_vector.py sync CartPole-v1 --n-envs 16

Classes: `sync` and `async` of Gymnasium, `entry` (the environment's own vectorised form, where it has one), `dummy` and
`subproc` of Stable-Baselines3.

Needs: pip install stable-baselines3 gymnasium
"""
import argparse
import json
import time

import gymnasium as gym
import numpy as np

parser = argparse.ArgumentParser()
parser.add_argument("kind", choices=["sync", "async", "entry", "dummy", "subproc"])
parser.add_argument("env")
parser.add_argument("--n-envs", type=int, default=16)
parser.add_argument("--seconds", type=float, default=3.0)
args = parser.parse_args()


def one():
    return gym.make(args.env)


def make():
    if args.kind == "sync":
        return gym.vector.SyncVectorEnv([one] * args.n_envs)
    if args.kind == "async":
        return gym.vector.AsyncVectorEnv([one] * args.n_envs)
    if args.kind == "entry":
        return gym.make_vec(args.env, num_envs=args.n_envs, vectorization_mode="vector_entry_point")
    from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

    if args.kind == "dummy":
        return DummyVecEnv([one] * args.n_envs)
    return SubprocVecEnv([one] * args.n_envs, start_method="fork")


def main():
    space = one().action_space
    actions = [np.array([space.sample() for _ in range(args.n_envs)]) for _ in range(64)]
    envs = make()
    envs.reset()

    def steps(n):
        for i in range(n):
            envs.step(actions[i % 64])

    steps(200)
    rates = []
    for _ in range(5):
        start, done = time.perf_counter(), 0
        while time.perf_counter() - start < args.seconds / 5:
            steps(20)
            done += 20
        rates.append(args.n_envs * done / (time.perf_counter() - start))
    envs.close()
    print(json.dumps({"peer": args.kind, "env": args.env, "steps_per_second": round(float(np.median(rates)), 1)}))


if __name__ == "__main__":
    main()
