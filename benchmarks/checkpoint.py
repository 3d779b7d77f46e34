"""What a snapshot costs, beside `git add -A && git commit` of the same change in a twin of the repository.

    python benchmarks/checkpoint.py [--files 10 1000 100000] [--changed 1 100] [--rounds 15] [--check]

Both are timed in turn, in one run, with git's own settings for the commit: it does not wait until its objects are on the
disk, a snapshot does. The last two columns are for a commit that waits too (`core.fsync=committed`). Figures are medians;
the ratio is the median of the ratios of the rounds. `--check` fails (exit 1) if a ratio to the plain commit is over 1.3.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ralph_core.builtin.git import GitStore
from ralph_core.contracts import Context
from ralph_core.state import Attempt, RunState, Task

BAR = 1.3
RUN = "20250101-120000-abc123"


def main():
    options = _options()
    env = _environment()
    print(
        f"{'files':>8} {'changed':>8} {'first':>9} {'snapshot':>9} {'commit':>9} {'ratio':>6} {'+fsync':>9} {'ratio':>6}   (ms)"
    )
    worst = 0.0
    with tempfile.TemporaryDirectory(dir=options.where) as folder:
        for files in options.files:
            base = make_repository(Path(folder) / f"base{files}", files, env)
            for changed in options.changed:
                if changed <= files:
                    worst = max(worst, compare(base, files, changed, options.rounds, env))
            shutil.rmtree(base)
    print(f"worst ratio to a plain commit: {worst:.2f} (bar: {BAR})")
    return int(options.check and worst > BAR)


def make_repository(root, files, env):
    for number in range(files):
        path = path_of(root, number)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{number}\n" * 40)
    git(root, env, "init", "-q")
    git(root, env, "add", "-A")
    git(root, env, "-c", "gc.auto=0", "commit", "-q", "-m", "base")
    git(root, env, "gc", "-q")
    return root


def compare(base, files, changed, rounds, env):
    """Time the three in turn, each in a copy of its own that sees the same changes; returns the ratio."""
    roots = [base.with_name(f"{base.name}-{name}") for name in ("snapshot", "commit", "durable")]
    for root in roots:
        subprocess.run(["cp", "-a", base, root], check=True)
        git(root, env, "status")  # the copies have new times: nobody shall pay for that below
    store = GitStore(None, Context(roots[0], roots[0] / ".agent", env))
    state, lease = a_state(), store.claim(RUN)
    first = timed(lambda: store.snapshot(state, lease))
    ways = [
        lambda: store.snapshot(state, lease),
        lambda: commit(roots[1], env),
        lambda: commit(roots[2], env, "-c", "core.fsync=committed"),
    ]
    figures = []
    for turn in range(rounds):
        for root in roots:
            change(root, files, changed, turn)
        order = [0, 1, 2] if turn % 2 else [2, 1, 0]
        taken = {way: timed(ways[way]) for way in order}
        figures.append([taken[way] for way in range(3)])
    snapshot, plain, durable = (statistics.median(column) for column in zip(*figures, strict=True))
    ratio = statistics.median(row[0] / row[1] for row in figures)
    ratio_durable = statistics.median(row[0] / row[2] for row in figures)
    print(
        f"{files:8} {changed:8} {first:9.1f} {snapshot:9.1f} {plain:9.1f} {ratio:6.2f} {durable:9.1f} {ratio_durable:6.2f}",
        flush=True,
    )
    for root in roots:
        shutil.rmtree(root)
    return ratio


def change(root, files, changed, turn):
    for number in range(changed):
        path_of(root, number * (files // changed)).write_text(f"turn {turn} of {number}\n" * 40)


def commit(root, env, *settings):
    git(root, env, *settings, "add", "-A")
    git(root, env, *settings, "commit", "-q", "-m", "change")


def path_of(root, number):
    return root / f"d{number // 10000:02d}" / f"d{number // 100 % 100:02d}" / f"f{number % 100:02d}.txt"


def a_state():
    recent = tuple(Attempt(number, 1, "scripted", 1.0, 2.0, "finished", message="m" * 200) for number in range(20))
    return RunState(run=RUN, workspace="/w", agent="scripted", task=Task("d"), started=1.0, recent=recent)


def git(root, env, *args):
    subprocess.run(["git", *args], cwd=root, env=env, check=True, stdin=subprocess.DEVNULL, capture_output=True)


def timed(call):
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e3


def _environment():
    names = ("AUTHOR", "COMMITTER")
    identity = {f"GIT_{name}_{part}": "bench@localhost" for name in names for part in ("NAME", "EMAIL")}
    nothing = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    return {**{name: value for name, value in os.environ.items() if not name.startswith("GIT_")}, **nothing, **identity}


def _options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, nargs="+", default=[10, 1000, 100000])
    parser.add_argument("--changed", type=int, nargs="+", default=[1, 100])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--where", help="directory for the repositories; default: that for temporary files")
    parser.add_argument("--check", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
