"""Steps/s of 16 CartPoles of Gymnasium, random actions, no learning: SB3's SubprocVecEnv, Gymnasium's AsyncVectorEnv.

    python benchmarks/peers/gym_vector.py [ENV] [N_ENVS] [SECONDS]
"""

import sys
import time

import gymnasium as gym
import numpy as np


def measure(name, n, step, seconds):
    for _ in range(50):
        step()
    rates = []
    for _ in range(5):
        start, steps = time.perf_counter(), 0
        while time.perf_counter() - start < seconds / 5:
            for _ in range(20):
                step()
            steps += 20
        rates.append(n * steps / (time.perf_counter() - start))
    print(f"{name}: {np.median(rates):.0f} steps/s", flush=True)


def main():
    env = sys.argv[1] if len(sys.argv) > 1 else "CartPole-v1"
    n = int(sys.argv[2]) if len(sys.argv) > 2 else 16
    seconds = float(sys.argv[3]) if len(sys.argv) > 3 else 5.0
    space = gym.make(env).action_space
    actions = [np.array([space.sample() for _ in range(n)]) for _ in range(64)]

    def drive(step):
        at = [0]

        def one():
            at[0] = (at[0] + 1) % 64
            step(actions[at[0]])

        return one

    from stable_baselines3.common.vec_env import SubprocVecEnv

    envs = SubprocVecEnv([lambda: gym.make(env) for _ in range(n)], start_method="fork")
    envs.reset()
    measure("SB3 SubprocVecEnv", n, drive(envs.step), seconds)
    envs.close()
    envs = gym.vector.AsyncVectorEnv([lambda: gym.make(env) for _ in range(n)])
    envs.reset()
    measure("Gymnasium AsyncVectorEnv", n, drive(envs.step), seconds)
    envs.close()


if __name__ == "__main__":
    main()
