#!/usr/bin/env python3
"""Records trajectories of Gymnasium's MuJoCo tasks, for the tests to compare with: one file a task.

Run:   python3 goldens/mujoco/trajectories.py FOLDER
`cargo xtask mujoco` does that, with the Python that holds the library which pgrad is linked with. The files are not
committed: they would be tens of megabytes, and numbers of one machine's arithmetic. So the comparison is live, on the
same library, model files and machine, and covers every number of every step.

A file is a run of f64, little endian:

    time limit, threshold (nan: none), nq, nv, nu, nobs, trajectories,
    action low [nu], action high [nu],
    of RESETS first states: mean [nq + nv], standard deviation [nq + nv], least [nq + nv], greatest [nq + nv]
    then for each trajectory:
        steps, qpos [nq], qvel [nv], observation [nobs]
        then for each step: action [nu] (f32), observation after [nobs], reward, terminated

The episode goes on behind a termination, so that flags and rewards of fallen bodies are compared as well.
"""

import pathlib
import sys
import warnings

import gymnasium
import mujoco
import numpy as np

STEPS = 200
RESETS = 400
TASKS = [
    "HalfCheetah",
    "Hopper",
    "Walker2d",
    "Ant",
    "Humanoid",
    "HumanoidStandup",
    "Swimmer",
    "Reacher",
    "Pusher",
    "InvertedPendulum",
    "InvertedDoublePendulum",
]

warnings.filterwarnings("ignore")
gymnasium.logger.min_level = gymnasium.logger.ERROR


def make(task):
    """The environment; Gymnasium refuses Pusher-v4 by the version of the package, which is hidden from it."""
    version = mujoco.__version__
    if task == "Pusher-v4":
        mujoco.__version__ = "2.3.7"
    try:
        return gymnasium.make(task)
    finally:
        mujoco.__version__ = version


def controllers(low, high, rng):
    """What each trajectory does: (spread of its first state beyond a reset, actions)."""
    n = len(low)
    middle, half = (low + high) / 2, (high - low) / 2
    phases, rates = rng.uniform(0, 6, n), rng.uniform(0.05, 0.5, n)
    yield 0.0, lambda t: rng.uniform(low, high)
    yield 0.0, lambda t: np.zeros(n)
    yield 0.0, lambda t: middle + half * np.sin(rates * t + phases)
    yield 0.3, lambda t: rng.uniform(low, high)
    yield 0.0, lambda t: np.where(rng.random(n) < 0.5, low, high)
    # Out of bounds: MuJoCo cuts the control, the cost of control does not.
    yield 0.1, lambda t: middle + 1.5 * half * rng.uniform(-1, 1, n)


def record(task, out):
    env = make(task)
    spec, env = env.spec, env.unwrapped
    low = env.action_space.low.astype(np.float64)
    high = env.action_space.high.astype(np.float64)
    model, data = env.model, env.data
    nobs = len(env.reset(seed=0)[0])
    states = []
    for _ in range(RESETS):
        env.reset()
        states.append(np.concatenate([data.qpos, data.qvel]))
    states = np.array(states)
    rng = np.random.default_rng(len(task) + int(task[-1]))
    cases = list(controllers(low, high, rng))
    threshold = np.nan if spec.reward_threshold is None else spec.reward_threshold
    numbers = [[spec.max_episode_steps, threshold, model.nq, model.nv, model.nu, nobs, len(cases)], low, high]
    numbers += [states.mean(0), states.std(0), states.min(0), states.max(0)]
    for seed, (spread, control) in enumerate(cases):
        env.reset(seed=seed)
        qpos = data.qpos + spread * rng.uniform(-1, 1, model.nq)
        qvel = data.qvel + 10 * spread * rng.uniform(-1, 1, model.nv)
        # Nothing of the reset is left but these numbers.
        mujoco.mj_resetData(model, data)
        env.set_state(qpos, qvel)
        numbers += [[STEPS], qpos, qvel, env._get_obs()]
        for t in range(STEPS):
            action = control(t).astype(np.float32)
            obs, reward, terminated, truncated, _ = env.step(action)
            assert not truncated
            numbers += [action, obs, [reward, terminated]]
    flat = np.concatenate([np.asarray(x, dtype="<f8") for x in numbers])
    (out / f"{task}.f64").write_bytes(flat.tobytes())


if __name__ == "__main__":
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name in TASKS:
        for version in ("v4", "v5"):
            record(f"{name}-{version}", folder)
