#!/usr/bin/env python3
"""Records trajectories of Gymnasium's classic-control tasks, one CSV file per task, next to this script.

Needs: python3, gymnasium, numpy (the versions used are written into the files).
Run:   python3 goldens/gymnasium/make.py

Lines that start with `#` say which versions made the file and what each trajectory is. A row is one step:

    trajectory, step, state before..., action, observation after..., reward, terminated, truncated

States and rewards are f64, actions of a Box space and observations f32; each number is printed with the
fewest digits that give the same bits back. The environments come from `gymnasium.make`, so the time limit is
included. MountainCarContinuous has one more state number: 1 where Gymnasium holds the state in f64 (the first
one of an episode), 0 where it holds it in f32.
"""

import math
import pathlib
import warnings

import gymnasium
import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
# Stepping with an action out of bounds is one of the cases; Gymnasium warns about it.
warnings.filterwarnings("ignore")
gymnasium.logger.min_level = gymnasium.logger.ERROR


class Cases:
    """The trajectories of one task: (what it is, first state or None for a reset, controller)."""

    def __init__(self, task):
        self.task = task
        self.cases = []

    def add(self, what, control, start=None, seed=0):
        self.cases.append((what, control, start, seed))


def random_index(n):
    return lambda rng, obs, t: int(rng.integers(n))


def random_real(low, high):
    return lambda rng, obs, t: rng.uniform(low, high)


def noisy(control, p, other):
    """`other` with probability p."""
    return lambda rng, obs, t: (other if rng.random() < p else control)(rng, obs, t)


def cart_pole():
    c = Cases("CartPole-v1")
    balance = lambda rng, o, t: int(0.1 * o[0] + 0.3 * o[1] + 3.0 * o[2] + o[3] > 0)
    chance = random_index(2)
    for seed in range(4):
        c.add("random actions from a reset", chance, seed=seed)
    c.add("always left from a reset", lambda rng, o, t: 0, seed=4)
    c.add("alternating from a reset", lambda rng, o, t: t % 2, seed=5)
    c.add("balanced to the time limit", balance, seed=6)
    c.add("balanced to the time limit, one action in five random", noisy(balance, 0.2, chance), seed=7)
    c.add("balanced from a fast cart", balance, start=[-1.5, 1.2, 0.05, -0.8], seed=8)
    c.add("over the right edge", lambda rng, o, t: int(o[2] + 0.4 * o[3] > -0.05), start=[2.0, 1.5, 0, 0])
    c.add("over the left edge", balance, start=[-2.3, -2.5, -0.02, 0.3])
    c.add("a pole that turns fast", chance, start=[0.0, 0.0, -0.2, 6.0])
    c.add("leaning, random actions", chance, start=[1.0, -0.5, 0.15, -1.0], seed=9)
    return c


def acrobot():
    c = Cases("Acrobot-v1")
    pump = lambda rng, o, t: 2 if o[5] - 0.0 * o[4] > 0 else 0
    chance = random_index(3)
    for seed in range(3):
        c.add("energy pumped from a reset", pump, seed=seed)
    c.add("energy pumped, one action in five random", noisy(pump, 0.2, chance), seed=3)
    c.add("energy pumped, half the actions random", noisy(pump, 0.5, chance), seed=4)
    c.add("random actions from a reset", chance, seed=5)
    c.add("no torque from a reset", lambda rng, o, t: 1, seed=6)
    c.add("always right, from both links turning", lambda rng, o, t: 2, start=[1.0, -2.0, 3.0, -5.0])
    c.add("speeds at their bounds", chance, start=[0.5, 3.0, 12.5, -28.0])
    c.add("angles that wrap", chance, start=[3.1, -3.1, 4.0, -9.0], seed=7)
    c.add("the other way round", pump, start=[-3.0, 3.0, -6.0, 20.0], seed=8)
    c.add("random actions, folded", chance, start=[-0.3, 3.14, 0.1, 0.2], seed=9)
    return c


def mountain_car():
    c = Cases("MountainCar-v0")
    pump = lambda rng, o, t: 2 if o[1] >= 0 else 0
    chance = random_index(3)
    for seed in range(3):
        c.add("energy pumped from a reset", pump, seed=seed)
    c.add("energy pumped, one action in four random", noisy(pump, 0.25, chance), seed=3)
    c.add("random actions from a reset", chance, seed=4)
    c.add("always left, into the wall", lambda rng, o, t: 0, start=[-1.0, -0.06])
    c.add("along the wall", pump, start=[-1.2, 0.0])
    c.add("at full speed to the goal", lambda rng, o, t: 2, start=[0.1, 0.0699])
    c.add("down again from the goal's edge", lambda rng, o, t: 0, start=[0.49, -0.01])
    c.add("at the speed's bound, random actions", chance, start=[-0.5, 0.07], seed=5)
    c.add("energy pumped from the left", pump, start=[-0.9, 0.01], seed=6)
    return c


def mountain_car_continuous():
    c = Cases("MountainCarContinuous-v0")
    pump = lambda rng, o, t: 1.0 if o[1] >= 0 else -1.0
    chance = random_real(-1.0, 1.0)
    for seed in range(3):
        c.add("energy pumped from a reset", pump, seed=seed)
    c.add("energy pumped at 0.7", lambda rng, o, t: 0.7 * pump(rng, o, t), seed=3)
    c.add("energy pumped with noise", lambda rng, o, t: 0.8 * pump(rng, o, t) + 0.2 * chance(rng, o, t), seed=4)
    c.add("energy pumped out of bounds", lambda rng, o, t: 1.7 * pump(rng, o, t), seed=5)
    c.add("random actions from a reset", chance, seed=6)
    c.add("left into the wall, then pumped", lambda rng, o, t: -1.0 if t < 20 else pump(rng, o, t), start=[-1.1, -0.05])
    c.add("along the wall", pump, start=[-1.2, 0.0])
    c.add("at full speed to the goal", lambda rng, o, t: 0.3, start=[0.1, 0.069])
    c.add("at the speed's bound", pump, start=[-0.5, 0.07])
    return c


def pendulum():
    c = Cases("Pendulum-v1")
    chance = random_real(-2.0, 2.0)

    def swing(rng, o, t):
        theta = math.atan2(o[1], o[0])
        energy = 0.5 * o[2] ** 2 + 15.0 * (o[0] - 1.0)
        if o[0] > 0.9 and abs(o[2]) < 2.5:
            return float(np.clip(-12.0 * theta - 3.0 * o[2], -2.0, 2.0))
        return -2.0 * math.copysign(1.0, energy * o[2])

    for seed in range(3):
        c.add("random torques from a reset", chance, seed=seed)
    for seed in range(3, 6):
        c.add("swung up from a reset", swing, seed=seed)
    c.add("torques out of bounds", random_real(-4.0, 4.0), seed=6)
    c.add("no torque from upright", lambda rng, o, t: 0.0, start=[0.0, 0.0])
    c.add("turning at the speed's bound", lambda rng, o, t: 2.0, start=[3.0, 7.9])
    c.add("turning the other way, many turns from 0", lambda rng, o, t: -2.0, start=[-60.0, -7.9])
    c.add("random torques from just below the angle's wrap", chance, start=[3.14159, 0.5], seed=7)
    return c


def state_of(env):
    state = np.asarray(env.unwrapped.state)
    numbers = [float(x) for x in state]
    if env.spec.id == "MountainCarContinuous-v0":
        numbers.append(1.0 if state.dtype == np.float64 else 0.0)
    return numbers


def single(x):
    return str(np.float32(x))


def record(cases):
    env = gymnasium.make(cases.task)
    discrete = isinstance(env.action_space, gymnasium.spaces.Discrete)
    lines = [
        f"# {cases.task}: Gymnasium {gymnasium.__version__}, NumPy {np.__version__}",
        "# made by goldens/gymnasium/make.py",
        f"# max_episode_steps,{env.spec.max_episode_steps}",
        f"# reward_threshold,{env.spec.reward_threshold}",
        "# observation_low," + ",".join(single(x) for x in env.observation_space.low),
        "# observation_high," + ",".join(single(x) for x in env.observation_space.high),
    ]
    if discrete:
        lines.append(f"# action_n,{env.action_space.n}")
    else:
        lines.append("# action_low," + ",".join(single(x) for x in env.action_space.low))
        lines.append("# action_high," + ",".join(single(x) for x in env.action_space.high))
    rows, endings = [], []
    for number, (what, control, start, seed) in enumerate(cases.cases):
        lines.append(f"# trajectory {number}: {what}")
        obs, _ = env.reset(seed=seed)
        if start is not None:
            env.unwrapped.state = np.array(start, dtype=np.float64)
            obs = {
                "Acrobot-v1": lambda: env.unwrapped._get_ob(),
                "Pendulum-v1": lambda: env.unwrapped._get_obs(),
            }.get(cases.task, lambda: np.array(start, dtype=np.float32))()
        rng = np.random.default_rng(1000 + seed)
        terminated = truncated = False
        step = 0
        while not (terminated or truncated):
            before = state_of(env)
            a = control(rng, obs, step)
            action = np.int64(a) if discrete else np.array([a], dtype=np.float32)
            obs, reward, terminated, truncated, _ = env.step(action)
            assert obs.dtype == np.float32
            cells = [str(number), str(step)] + [repr(x) for x in before]
            cells += [str(int(a)) if discrete else single(action[0])]
            cells += [single(x) for x in obs]
            cells += [repr(float(reward)), str(int(terminated)), str(int(truncated))]
            rows.append(",".join(cells))
            step += 1
        endings.append(f"{step}{'T' if terminated else ''}{'L' if truncated else ''}")
    n_state, n_obs = len(before), len(obs)
    header = ["trajectory", "step"] + [f"state{i}" for i in range(n_state)] + ["action"]
    header += [f"obs{i}" for i in range(n_obs)] + ["reward", "terminated", "truncated"]
    path = HERE / f"{cases.task}.csv"
    path.write_text("\n".join(lines + [",".join(header)] + rows) + "\n")
    print(f"{path.name}: {len(rows)} rows, {path.stat().st_size} bytes, {' '.join(endings)}")


if __name__ == "__main__":
    for make in (cart_pole, acrobot, mountain_car, mountain_car_continuous, pendulum):
        record(make())
