"""What checking one step of Gymnasium's CartPole costs, in ns: minima of seven repetitions.

    python3 benchmarks/gym_checks.py

Needs: pip install gymnasium numpy
"""
import time
import timeit

import gymnasium
import numpy as np

env = gymnasium.make("CartPole-v1", disable_env_checker=True)
env.reset(seed=0)


def step_ns(steps=20_000):
    start = time.perf_counter()
    for t in range(steps):
        _, _, terminated, truncated, _ = env.step(t & 1)
        if terminated or truncated:
            env.reset()
    return (time.perf_counter() - start) / steps * 1e9


memory, x, reward = np.zeros((16, 4), np.float32), np.ones(4, np.float32), 1.0
rows, views = list(memory), [memoryview(row) for row in memory]
reals = frozenset([float, int, bool, np.float32, np.float64])
print(f"{'a step':45} {min(step_ns() for _ in range(7)):7.0f}")
for what, code in [
    ("numpy's copy of an observation, unchecked", "rows[3][...] = x"),
    ("the copy that compares (worker.py)", "views[3][:] = x"),
    ("the class of the reward (worker.py)", "reward.__class__ not in reals"),
]:
    ns = min(timeit.repeat(code, globals=globals(), number=200_000, repeat=7)) / 200_000 * 1e9
    print(f"{what:45} {ns:7.0f}")
