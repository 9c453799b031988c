"""Which of Gymnasium's MuJoCo tasks give other numbers with another version of MuJoCo.

    python3 studies/mujoco_versions.py PYTHON PYTHON

Each PYTHON is an interpreter with `gymnasium[mujoco]`, with different versions of `mujoco`. Both play each task with the
same seeds and actions, episode after episode; the table tells from which step on observations or rewards differ, and
how far observations are apart after so many steps.
"""

import json
import subprocess
import sys

TASKS = ["Ant", "HalfCheetah", "Hopper", "Humanoid", "HumanoidStandup", "InvertedDoublePendulum", "InvertedPendulum",
         "Pusher", "Reacher", "Swimmer", "Walker2d"]
STEPS = 200
LOOK = [1, 10, 100]

PLAY = """
import json, sys
import gymnasium, mujoco, numpy as np
out = {"versions": f"gymnasium {gymnasium.__version__}, mujoco {mujoco.__version__}, numpy {np.__version__}"}
for task in sys.argv[2:]:
    try:
        env = gymnasium.make(task + "-v5")
        env.action_space.seed(7)
        rows, obs = [], env.reset(seed=11)[0]
        for _ in range(int(sys.argv[1])):
            obs, reward, terminated, truncated, _ = env.step(env.action_space.sample())
            rows.append([float(reward), terminated, *map(float, obs)])
            if terminated or truncated:
                obs = env.reset()[0]
        out[task] = rows
    except Exception as e:
        out[task] = f"{type(e).__name__}: {e}"
print(json.dumps(out))
"""


def play(python):
    done = subprocess.run([python, "-c", PLAY, str(STEPS), *TASKS], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main():
    one, other = (play(python) for python in sys.argv[1:3])
    print(f"{one['versions']} against {other['versions']}; {STEPS} steps with the same seeds and actions.\n")
    print("| task | first step that differs | " + " | ".join(f"largest difference by step {n}" for n in LOOK) + " |")
    print("|---|--:|" + "--:|" * len(LOOK))
    for task in TASKS:
        a, b = one[task], other[task]
        if isinstance(a, str) or isinstance(b, str):
            print(f"| {task}-v5 | does not run: {a if isinstance(a, str) else b} |" + " |" * len(LOOK))
            continue
        first = next((i + 1 for i, (x, y) in enumerate(zip(a, b)) if x != y), None)
        apart = [max(abs(p - q) for x, y in zip(a[:n], b[:n]) for p, q in zip(x[2:], y[2:])) for n in LOOK]
        print(f"| {task}-v5 | {first or 'none'} | " + " | ".join(f"{x:.1e}" if x else "0" for x in apart) + " |")


main()
