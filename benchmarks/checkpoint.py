"""What a snapshot costs, beside `git add -A && git commit` of the same change in a twin of the repository.

    python benchmarks/checkpoint.py [--files 10 1000 100000] [--changed 1 100] [--rounds 15]

Both are timed in turn, in one run, with git's own settings for the commit: it does not wait until its objects are on the
disk, a snapshot does. Beside it is a commit that waits too (`core.fsync=committed`). Figures are medians; the ratio is the
median of the ratios of the rounds. Exit code 1 if one to the plain commit is over 1.3.
"""

import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tables import ENV, Row, command, git, ms, repository

from ralph_core.builtin.git import GitStore
from ralph_core.contracts import Context
from ralph_core.state import Attempt, RunState, Task

BAR = 1.3
RUN = "20250101-120000-abc123"


def measure(files: tuple[int, ...], changed: tuple[int, ...], rounds: int, where: str | None) -> Iterator[Row]:
    with tempfile.TemporaryDirectory(prefix="ralph-benchmark-", dir=where) as scratch:
        for many in files:
            texts = {str(path_of(Path(), number)): f"{number}\n" * 40 for number in range(many)}
            base = repository(Path(scratch) / f"base{many}", texts)
            git(base, "gc", "--quiet")
            for few in changed:
                if few <= many:
                    yield from compare(base, many, few, rounds)
            shutil.rmtree(base)


def compare(base: Path, files: int, changed: int, rounds: int) -> Iterator[Row]:
    """Time the three in turn, each in a copy of its own that sees the same changes."""
    roots = [base.with_name(f"{base.name}-{name}") for name in ("snapshot", "commit", "durable")]
    for root in roots:
        subprocess.run(["cp", "-a", base, root], check=True)
        git(root, "status")  # the copies have new times: nobody shall pay for that below
    store = GitStore(None, Context(roots[0], roots[0] / ".agent", ENV))
    state, lease = a_state(), store.claim(RUN)
    first = timed(lambda: store.snapshot(state, lease))
    ways = [
        lambda: store.snapshot(state, lease),
        lambda: commit(roots[1]),
        lambda: commit(roots[2], "-c", "core.fsync=committed"),
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
    what = f"a snapshot: {changed} of {files:,} files changed"
    yield Row(f"{what} (git commit)", ms(snapshot), ms(plain), "", f"{ratio:.2f}, ≤ {BAR} × git", ratio <= BAR)
    yield Row("    the first one (a commit that waits for the disk)", ms(first), ms(durable))
    for root in roots:
        shutil.rmtree(root)


def change(root, files, changed, turn):
    for number in range(changed):
        path_of(root, number * (files // changed)).write_text(f"turn {turn} of {number}\n" * 40)


def commit(root, *settings):
    git(root, *settings, "add", "-A")
    git(root, *settings, "commit", "-q", "-m", "change")


def path_of(root, number):
    return root / f"d{number // 10000:02d}" / f"d{number // 100 % 100:02d}" / f"f{number % 100:02d}.txt"


def a_state():
    recent = tuple(Attempt(number, 1, "scripted", 1.0, 2.0, "finished", message="m" * 200) for number in range(20))
    return RunState(run=RUN, workspace="/w", agent="scripted", task=Task("d"), started=1.0, recent=recent)


def timed(call):
    """Seconds."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


if __name__ == "__main__":
    command(measure, __doc__, files=(10, 1000, 100000), changed=(1, 100), rounds=15, where=None)
