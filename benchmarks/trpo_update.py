"""What an update of TRPO's policy costs, in epochs of PPO on the same batch.

Needs Linux with `perf`, and a built `pgrad`: python3 benchmarks/trpo_update.py target/release/pgrad

The batch is CartPole-v1, 8 environments x 128 steps, networks 64-64, 10 products in conjugate gradient. Counted are
user-mode cycles and instructions of one thread, the lesser of two runs; an iteration is the difference of a run of 40 and
one of 10 iterations. An epoch of PPO is that of 6 epochs minus that of 1, over 5, in minibatches of 64; what is left of the
first is rollout and values. TRPO's policy update is its iteration without rollout, values and the critic's epoch.
"""

import subprocess
import sys
import tempfile

COMMON = ["n_envs=8", "n_steps=128", "hidden=[64,64]", "log_every=1000000", "checkpoint_secs=1000000"]


def counted(pgrad, algo, steps, settings):
    best = None
    for _ in range(2):
        with tempfile.TemporaryDirectory() as folder:
            command = ["perf", "stat", "-x,", "-e", "cycles:u,instructions:u", pgrad, "train", algo, "CartPole-v1"]
            command += ["--threads", "1", "--steps", str(steps), "--seed", "1", "--run-dir", f"{folder}/run", "--quiet"]
            for setting in COMMON + settings:
                command += ["--set", setting]
            done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr)
        found = [float(line.split(",")[0]) for line in done.stderr.splitlines() if ":u" in line]
        best = found if best is None else [min(pair) for pair in zip(best, found)]
    return best


def iteration(pgrad, algo, settings):
    many, few = (counted(pgrad, algo, 1024 * n, settings) for n in (40, 10))
    return [(a - b) / 30 for a, b in zip(many, few)]


def epoch(pgrad, algo, name, settings):
    one, six = (iteration(pgrad, algo, settings + [f"{name}={n}"]) for n in (1, 6))
    return one, [(b - a) / 5 for a, b in zip(one, six)]


def main():
    pgrad = sys.argv[1]
    one, ppo = epoch(pgrad, "ppo", "epochs", ["minibatch_size=64"])
    rest = [a - b for a, b in zip(one, ppo)]
    small = ["critic_hidden=[64,64]", "minibatch_size=64"]
    _, critic = epoch(pgrad, "trpo", "critic_epochs", small)
    print("| fisher_every | update, in epochs of PPO: instructions | cycles |\n|--:|--:|--:|")
    for every in (1, 2, 5, 10):
        all_of_it = iteration(pgrad, "trpo", small + ["critic_epochs=1", f"fisher_every={every}"])
        cycles, instructions = ((a - c - r) / p for a, c, r, p in zip(all_of_it, critic, rest, ppo))
        print(f"| {every} | {instructions:.2f} | {cycles:.2f} |")


if __name__ == "__main__":
    main()
