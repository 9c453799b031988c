"""Tries packages of environments, in their newest versions, with `pgrad check-env`.

    python3 studies/packages.py [WORD...]

Each package gets a virtual environment of its own in a temporary folder, which is removed afterwards; with words only
packages that contain one of them. Writes studies/results/packages/packages.csv, a line a task. Needs a built `pgrad`
(`cargo build --release`), Python, pip and the network; half a minute to two minutes a package.
"""

import csv
import json
import pathlib
import re
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
OUT = HERE / "results" / "packages"
PGRAD = HERE.parent / "target" / "release" / "pgrad"
FIELDS = ["package", "versions", "task", "settings", "exit", "outcome"]

# What pip installs; tasks, some with settings.
PACKAGES = {
    "gymnasium[box2d]": ["gym:LunarLander-v3", "gym:BipedalWalker-v3", "gym:CarRacing-v3"],
    "gymnasium[toy-text]": ["gym:FrozenLake-v1", "gym:Blackjack-v1", "gym:Taxi-v4", "gym:CliffWalking-v1"],
    "gymnasium[mujoco]": ["gym:HalfCheetah-v5", "gym:Humanoid-v5"],
    "ale-py": ["gym:ale_py:ALE/Pong-v5"],
    "minigrid": ["gym:minigrid:MiniGrid-Empty-5x5-v0", "gym:minigrid:BabyAI-GoToRedBall-v0 obs_parts=image,direction"],
    "highway-env": ["gym:highway_env:highway-v0", "gym:highway_env:parking-v0"],
    "gymnasium-robotics": ["gym:gymnasium_robotics:FetchReach-v4", "gym:gymnasium_robotics:AdroitHandDoor-v1"],
    "metaworld": ["gym:metaworld:Meta-World/MT1"],
    "miniworld": ["gym:miniworld:MiniWorld-Hallway-v0"],
    "vizdoom": ["gym:vizdoom.gymnasium_wrapper:VizdoomBasic-v1"],
    "panda-gym": ["gym:panda_gym:PandaReach-v3"],
    "mo-gymnasium": ["gym:mo_gymnasium:deep-sea-treasure-v0"],
    "flappy-bird-gymnasium": ["gym:flappy_bird_gymnasium:FlappyBird-v0"],
    "gym-pusht": ["gym:gym_pusht:gym_pusht/PushT-v0"],
    "PyFlyt": ["gym:PyFlyt.gym_envs:PyFlyt/QuadX-Hover-v4"],
    "lbforaging": ["gym:lbforaging:Foraging-8x8-2p-1f-v3"],
    "rware": ["gym:rware:rware-tiny-2ag-v2"],
    "gym-trading-env": ["gym:gym_trading_env:TradingEnv"],
    "gym-anytrading": ["gym:gym_anytrading:stocks-v0"],
    "safety-gymnasium": ["gym:safety_gymnasium:SafetyPointGoal1Gymnasium-v0"],
    "stable-retro": ["gym:stable_retro:Airstriker-Genesis-v0"],
    "craftax gymnasium": ["gym:craftax:Craftax-Symbolic-v1"],
    "pybullet-envs-gymnasium": ["gym:pybullet_envs_gymnasium:HopperBulletEnv-v0"],
    "bluesky-gym": ["gym:bluesky_gym:DescentEnv-v0"],
    "shimmy[dm-control]": ["gym:shimmy:dm_control/cartpole-swingup-v0"],
    "sumo-rl": ["gym:sumo_rl:sumo-rl-v0"],
    "tetris-gymnasium": ["gym:tetris_gymnasium.envs:tetris_gymnasium/Tetris"],
}
INSTALL_SECS, CHECK_SECS = 900, 240
VERSIONS = """
import importlib.metadata as m, json, sys
names = sys.argv[1].replace("[", " ").split()[:1] + ["gymnasium", "numpy", "mujoco"]
found = {}
for name in names:
    try: found[name] = m.version(name)
    except m.PackageNotFoundError: pass
print(json.dumps(found))
"""


def first(text):
    """What was found; the verdict where that is nothing."""
    lines = [line.strip() for line in text.splitlines()]
    found = [line for line in lines if re.match(r"(error|warning)\b", line)]
    return " | ".join(found)[:300] or (lines[0][:300] if lines else "")


def try_package(package, tasks):
    with tempfile.TemporaryDirectory() as folder:
        python = f"{folder}/bin/python"
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        install = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *package.split()]
        try:
            done = subprocess.run(install, capture_output=True, text=True, timeout=INSTALL_SECS)
        except subprocess.TimeoutExpired:
            done = None
        if done is None or done.returncode:
            text = "pip took too long" if done is None else done.stderr.strip().splitlines()[-1][:300]
            return [{"package": package, "exit": "pip", "outcome": text}]
        found = subprocess.run([python, "-c", VERSIONS, package], capture_output=True, text=True, check=True)
        versions = ", ".join(f"{name} {version}" for name, version in json.loads(found.stdout).items())
        rows = []
        for task in tasks:
            task, *settings = task.split()
            command = [PGRAD, "check-env", task, "--python", python]
            command += [x for setting in settings for x in ("--set", setting)]
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=CHECK_SECS)
                code, text = done.returncode, first(done.stdout + done.stderr)
            except subprocess.TimeoutExpired:
                code, text = "time", f"no end after {CHECK_SECS} s"
            text = text.replace(folder, "VENV")
            rows.append({"package": package, "versions": versions, "task": task, "settings": " ".join(settings),
                         "exit": code, "outcome": text})
        return rows


def main():
    words = sys.argv[1:]
    OUT.mkdir(parents=True, exist_ok=True)
    table = OUT / "packages.csv"
    rows = list(csv.DictReader(table.open())) if table.exists() else []
    for package, tasks in PACKAGES.items():
        if words and not any(word in package for word in words):
            continue
        new = try_package(package, tasks)
        rows = [row for row in rows if row["package"] != package] + new
        for row in new:
            print(row["exit"], row.get("task", package), row["outcome"], flush=True)
        rows.sort(key=lambda row: list(PACKAGES).index(row["package"]))
        with table.open("w", newline="") as file:
            writer = csv.DictWriter(file, FIELDS)
            writer.writeheader()
            writer.writerows(rows)


main()
