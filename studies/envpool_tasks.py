"""Runs every task of the installed EnvPool through `pgrad check-env`, two at a time.

    python3 studies/envpool_tasks.py PYTHON [WORD...]

PYTHON is an interpreter with `envpool`; with words only tasks that contain one of them are run. Writes
studies/results/envpool-tasks/tasks.csv (a line a task: its family, exit code, seconds, space of actions, what was
found) and summary.md (by family, and what stands in the way of those that do not work). Needs a built `pgrad`
(`cargo build --release`). Tasks that are in the table are not run again. A task takes 20 to 35 seconds on two cores,
since a check starts some ten pools; all 1651 of EnvPool 1.2.5 take about six hours.
"""

import collections
import concurrent.futures
import csv
import pathlib
import re
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
OUT = HERE / "results" / "envpool-tasks"
PGRAD = HERE.parent / "target" / "release" / "pgrad"
FIELDS = ["task", "family", "exit", "seconds", "actions", "found"]
LIMIT_SECS = 300
LIST = """
import envpool, importlib.metadata as m
from envpool.registration import registry
print(f"envpool {m.version('envpool')}, gymnasium {m.version('gymnasium')}, numpy {m.version('numpy')}")
for task in sorted(envpool.list_all_envs()):
    print(task, registry.specs[task][0])
"""


def check(python, task, family):
    start = time.monotonic()
    command = [PGRAD, "check-env", f"envpool:{task}", "--python", python]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_SECS)
        code, text = done.returncode, done.stdout + done.stderr
    except subprocess.TimeoutExpired as e:
        code, text = "time", (e.stdout or b"").decode()
    actions = re.search(r"actions?:? +(.*)", text)
    found = [line.strip() for line in text.splitlines() if re.match(r"\s*(error|warning)\b", line)]
    return {
        "task": task,
        "family": family,
        "exit": code,
        "seconds": f"{time.monotonic() - start:.1f}",
        "actions": actions[1] if actions else "",
        "found": " | ".join(found)[:400],
    }


def kind(found):
    """What was found, without what differs from task to task."""
    return re.sub(r"`[^`]*`", "`…`", re.sub(r"[-+]?\d[\d.e+-]*", "N", found))


def summary(version, rows):
    families = collections.defaultdict(list)
    for row in rows:
        families[row["family"]].append(row)
    yield f"# EnvPool's tasks, one by one\n\n{version}; {len(rows)} tasks.\n"
    yield "| family | tasks | no finding | warnings | errors |\n|---|--:|--:|--:|--:|"
    for family, own in sorted(families.items()):
        clean = sum(r["exit"] == "0" and not r["found"] for r in own)
        warned = sum(r["exit"] == "0" and bool(r["found"]) for r in own)
        yield f"| {family} | {len(own)} | {clean} | {warned} | {len(own) - clean - warned} |"
    yield "\nWhat was found, and for how many tasks of which families:\n"
    found = collections.defaultdict(list)
    for row in rows:
        if row["found"] or row["exit"] != "0":
            found[row["exit"], kind(row["found"])].append(row)
    for (code, text), own in sorted(found.items(), key=lambda x: -len(x[1])):
        where = ", ".join(sorted({r["family"] for r in own}))
        yield f"- {len(own)} ({where}; exit {code}; for instance {own[0]['task']}): {own[0]['found'] or text}"
    yield "\nMade by `python3 studies/envpool_tasks.py PYTHON`."


def main():
    python, words = sys.argv[1], sys.argv[2:]
    version, *lines = subprocess.run([python, "-c", LIST], capture_output=True, text=True, check=True).stdout.splitlines()
    tasks = [line.split() for line in lines]
    tasks = [(task, path.split(".")[1] if "." in path else path) for task, path in tasks]
    tasks = [t for t in tasks if not words or any(word in t[0] for word in words)]
    OUT.mkdir(parents=True, exist_ok=True)
    table = OUT / "tasks.csv"
    rows = list(csv.DictReader(table.open())) if table.exists() else []
    done = {row["task"] for row in rows}
    with table.open("a", newline="") as file, concurrent.futures.ThreadPoolExecutor(2) as pool:
        writer = csv.DictWriter(file, FIELDS)
        if not rows:
            writer.writeheader()
        jobs = [pool.submit(check, python, *task) for task in tasks if task[0] not in done]
        for job in concurrent.futures.as_completed(jobs):
            row = {key: str(x) for key, x in job.result().items()}
            rows.append(row)
            writer.writerow(row)
            file.flush()
            print(row["exit"], row["seconds"], row["task"], row["found"][:100], flush=True)
    rows.sort(key=lambda row: row["task"])
    (OUT / "summary.md").write_text("\n".join(summary(version, rows)) + "\n")


main()
