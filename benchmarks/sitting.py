#!/usr/bin/env python3
"""One sitting: pgrad and its peers in turn, on one machine, with one build, and the tables that come of it.

    python3 benchmarks/sitting.py benchmarks/DATE-MACHINE            # all of it, about a quarter of an hour
    python3 benchmarks/sitting.py FOLDER --rows ppo-64 gym-16        # some rows
    python3 benchmarks/sitting.py FOLDER --tables                    # the tables again, from FOLDER/raw.jsonl

Builds pgrad, makes a Python environment with the peers below target/, and runs each row for some rounds: pgrad, peer,
peer, ..., then again. FOLDER gets raw.jsonl (a line for each run, in order) and summary.md; the README's table is
written anew between its marks. A ratio is that of neighbouring runs; of a row's ratios the median and the range are
shown. Nothing else should run meanwhile: the load before each row is in raw.jsonl.
"""
import argparse
import json
import os
import pathlib
import platform
import re
import statistics
import subprocess
import sys
import textwrap
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
PEERS = ["rejax", "gymnax<1", "rlox", "stable-baselines3", "sb3-contrib", "gymnasium[mujoco]"]
PPO_64 = "--n-envs 64 --set n_steps=128 --set minibatch_size=2048 --set epochs=4 --set gamma=0.99"
PPO_8 = "--n-envs 8 --set n_steps=128 --set minibatch_size=256 --set epochs=4 --set gamma=0.99"
LSTM = ("--set recurrent=lstm --set n_envs=8 --set n_steps=128 --set minibatch_size=256 --set epochs=4 "
        "--set hidden=64")
TRPO = ("--n-envs 8 --set n_steps=128 --set minibatch_size=128 --set critic_epochs=10 --set cg_iterations=10 "
        "--set cg_damping=0.1")

# Name; what it is; arguments of `pgrad bench`; peers with their scripts.
ROWS = [
    ("ppo-64", "PPO, 64 envs x 128 steps, 4 epochs x 4 minibatches", f"ppo CartPole-v1 {PPO_64}", {
        "rejax": "rejax_ppo.py CartPole-v1 --n-envs 64 --steps 1048576",
        "rlox": "rlox_ppo.py CartPole-v1 --n-envs 64 --minibatch 2048 --steps 100000",
        "SB3": "sb3_ppo.py CartPole-v1 --n-envs 64 --minibatch 2048 --steps 100000",
        "SB3, 1 torch thread": "sb3_ppo.py CartPole-v1 --n-envs 64 --minibatch 2048 --steps 100000 --threads 1",
    }),
    ("ppo-8", "PPO, 8 envs x 128 steps, 4 epochs x 4 minibatches", f"ppo CartPole-v1 {PPO_8}", {
        "rejax": "rejax_ppo.py CartPole-v1 --n-envs 8 --steps 524288",
        "SB3": "sb3_ppo.py CartPole-v1 --n-envs 8 --minibatch 256 --steps 40000",
        "SB3, 1 torch thread": "sb3_ppo.py CartPole-v1 --n-envs 8 --minibatch 256 --steps 40000 --threads 1",
    }),
    ("a2c-64", "A2C, 64 envs x 5 steps", "a2c CartPole-v1 --n-envs 64 --set n_steps=5", {
        "SB3": "sb3_a2c.py CartPole-v1 --n-envs 64 --n-steps 5 --steps 100000",
    }),
    ("trpo-8", "TRPO, 8 envs x 128 steps", f"trpo CartPole-v1 {TRPO}", {
        "SB3": "sb3_trpo.py CartPole-v1 --n-envs 8 --steps 20000",
    }),
    ("lstm-8", "recurrent PPO (LSTM of 64), 8 envs x 128 steps", f"ppo CartPoleNoVel-v1 {LSTM}", {
        "SB3": "sb3_recurrent_ppo.py --n-envs 8 --n-steps 128 --steps 10240",
    }),
    ("gym-16", "16 CartPoles of Gymnasium, random actions", "ppo gym:CartPole-v1 --env-only --n-envs 16", {
        "SyncVectorEnv": "gym_vector.py sync CartPole-v1",
        "AsyncVectorEnv": "gym_vector.py async CartPole-v1",
        "vector entry point": "gym_vector.py entry CartPole-v1",
        "DummyVecEnv": "gym_vector.py dummy CartPole-v1",
        "SubprocVecEnv": "gym_vector.py subproc CartPole-v1",
    }),
]


def run(command, **kwargs):
    return subprocess.run(command, check=True, text=True, capture_output=True, **kwargs).stdout


def prepare():
    """The binary, and a Python with the peers; their versions."""
    run(["cargo", "build", "--release", "--locked"], cwd=ROOT)
    venv = ROOT / "target/peers"
    python = venv / "bin/python"
    if not python.exists():
        run([sys.executable, "-m", "venv", str(venv)])
        run([str(python), "-m", "pip", "install", "-q", *PEERS])
    listed = json.loads(run([str(python), "-m", "pip", "list", "--format", "json"]))
    names = {"rejax", "jax", "gymnax", "rlox", "stable_baselines3", "sb3_contrib", "gymnasium", "torch", "numpy"}
    return str(python), {p["name"]: p["version"] for p in listed if p["name"].lower().replace("-", "_") in names}


def rate(output):
    found = json.loads(output.strip().splitlines()[-1])
    return found, found.get("steps_per_second") or found.get("env_steps_per_second")


def measure(rows, rounds, seconds, folder):
    python, versions = prepare()
    cpu = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    revision = run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT).strip()
    if run(["git", "status", "--porcelain", "--untracked-files=no"], cwd=ROOT):
        revision += " with changes"
    about = {"about": {"date": time.strftime("%Y-%m-%d"), "revision": revision, "versions": versions,
                       "processor": cpu and cpu[1], "cores": len(os.sched_getaffinity(0)),
                       "system": platform.system()}}
    binary = str(ROOT / "target/release/pgrad")
    with open(folder / "raw.jsonl", "w", encoding="utf-8") as raw:
        raw.write(json.dumps(about) + "\n")
        for name, _, ours, peers in rows:
            commands = {"pgrad": [binary, "bench", *ours.split(), "--threads", "2", "--seconds", str(seconds), "--json"]}
            if "gym:" in ours:
                commands["pgrad"] += ["--python", python]
            for peer, script in peers.items():
                script, *rest = script.split()
                commands[peer] = [python, str(ROOT / "benchmarks/peers" / script), *rest]
            for number in range(rounds):
                for who, command in commands.items():
                    found, per_second = rate(run(command))
                    line = {"row": name, "round": number, "who": who, "steps_per_second": per_second,
                            "load": os.getloadavg()[0]}
                    for key in ("update_share", "gemm_peak_gflops", "peak_rss_mib", "instruction_set"):
                        if key in found:
                            line[key] = found[key]
                    print(json.dumps(line), flush=True)
                    raw.write(json.dumps(line) + "\n")
                    raw.flush()


def human(x):
    return f"{x / 1e6:.2f} M" if x >= 1e6 else f"{x / 1e3:.0f} k" if x >= 1e4 else f"{x / 1e3:.1f} k"


def median(lines, key="steps_per_second"):
    return statistics.median(line[key] for line in lines if key in line)


def tables(folder):
    lines = [json.loads(line) for line in (folder / "raw.jsonl").read_text(encoding="utf-8").splitlines()]
    about, lines = lines[0]["about"], lines[1:]
    ratios, summary = {}, []
    for name, text, ours, peers in ROWS:
        here = [line for line in lines if line["row"] == name]
        mine = {line["round"]: line for line in here if line["who"] == "pgrad"}
        if not mine:
            continue
        cells = []
        for peer in peers:
            theirs = [line for line in here if line["who"] == peer]
            if not theirs:
                continue
            each = sorted(mine[line["round"]]["steps_per_second"] / line["steps_per_second"] for line in theirs)
            ratios[name, peer] = statistics.median(each)
            cells.append((peer, human(median(theirs)), f"{statistics.median(each):.1f} ({each[0]:.1f} to {each[-1]:.1f})"))
        if not cells:
            continue
        share = f", {100 * median(mine.values(), 'update_share'):.0f} % of the product's peak" if "--env-only" not in ours else ""
        summary += [f"## {text}", "", f"pgrad: {human(median(mine.values()))} steps per second{share}.", "",
                    "| peer | steps per second | pgrad / peer |", "|---|--:|--:|",
                    *(f"| {peer} | {figure} | {ratio} |" for peer, figure, ratio in cells), "",
                    f"    pgrad bench {ours} --threads 2", *(f"    python3 benchmarks/peers/{s}" for s in peers.values()), ""]
    rounds = 1 + max(line["round"] for line in lines)
    head = [f"# pgrad beside its peers, {about['date']}", "",
            f"Machine: {about['cores']} cores of {about['processor']} ({about['system']}, virtual). pgrad at revision "
            f"{about['revision']}, 2 threads. In each of {rounds} rounds pgrad and the peers of a row run one after the "
            "other; figures are medians, ratios those of one round: median (smallest to largest).", "",
            "Versions: " + ", ".join(f"{n} {v}" for n, v in sorted(about["versions"].items())) + ".", "",
            f"Command: `python3 benchmarks/sitting.py {folder.relative_to(ROOT)}`; every run is in `raw.jsonl`.", ""]
    (folder / "summary.md").write_text("\n".join(head + summary).rstrip() + "\n", encoding="utf-8")
    readme(folder, about, lines, ratios)


def readme(folder, about, lines, ratios):
    """The README's table: rows with the peers side by side."""
    columns = ["rejax", "rlox", "SB3"]
    rows = []
    for name, text, _, peers in ROWS:
        mine = [line for line in lines if line["row"] == name and line["who"] == "pgrad"]
        if not mine or name.startswith("gym"):
            continue
        cells = []
        for column in columns:
            options = [(ratios[name, p], p) for p in peers
                       if (p == column or p.startswith(column + ",")) and (name, p) in ratios]
            if not options:
                cells.append("")
                continue
            # The peer at its best.
            ratio, best = min(options)
            theirs = [line for line in lines if line["row"] == name and line["who"] == best]
            cells.append(f"{human(median(theirs))} ({ratio:.1f} x)")
        rows.append(f"| {text} | {human(median(mine))} | " + " | ".join(cells) + " |")
    where = folder.relative_to(ROOT)
    words = (f"Environment steps per second on CartPole, collecting and learning, with two 64-64 tanh networks on 2 threads of "
             f"{about['processor']} ({about['date']}, revision {about['revision']}). In brackets, how many times as fast pgrad is, the "
             f"median of neighbouring runs; of Stable-Baselines3 (SB3) the faster of one and two torch threads. "
             f"[All figures, versions and commands]({where}/summary.md); `python3 benchmarks/sitting.py FOLDER` makes this table.")
    block = [*textwrap.wrap(words, 120, break_long_words=False, break_on_hyphens=False), "",
             "| work | pgrad | rejax (JAX) | rlox | SB3 |", "|---|--:|--:|--:|--:|", *rows]
    path = ROOT / "README.md"
    text = path.read_text(encoding="utf-8")
    begin, end = "<!-- sitting: begin -->\n", "<!-- sitting: end -->"
    before, after = text.split(begin)[0], text.split(end)[1]
    path.write_text(before + begin + "\n".join(block) + "\n" + end + after, encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--rows", nargs="+", choices=[row[0] for row in ROWS], default=[row[0] for row in ROWS])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each run of pgrad")
    parser.add_argument("--tables", action="store_true", help="only make the tables again")
    args = parser.parse_args()
    folder = args.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if not args.tables:
        measure([row for row in ROWS if row[0] in args.rows], args.rounds, args.seconds, folder)
    tables(folder)


if __name__ == "__main__":
    main()
