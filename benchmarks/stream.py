"""Memory and time while a process's output streams through Ralph, and what starting and stopping costs.

    python benchmarks/stream.py [MB]        (default: 1000, which is written to a temporary directory and deleted)

Each row is measured in a fresh Python; "RSS" is how much its peak grew over what it was before the stream.
"""

import asyncio
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ralph_core.contracts import Command
from ralph_core.process import Supervisor

WRITER = "import os, sys\nblock = (b'x' * (int(sys.argv[1]) - 1) + b'\\n') * int(sys.argv[2])\nfor _ in range(int(sys.argv[3])): os.write(1, block)"
ROWS = {
    "lines of 100 B": (100, 10_000),
    "lines of 10 KB": (10_000, 100),
    "lines of 1 MB": (1_000_000, 1),
    "lines of 20 MB": (20_000_000, 1),
}


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def program(*argv: str) -> Command:
    return Command((sys.executable, "-I", "-S", "-c", *argv), {}, "/")


async def stream(length: int, repeat: int, blocks: int, folder: Path) -> None:
    async with await Supervisor.open("benchmark") as supervisor:
        before, began, count, size = peak(), time.perf_counter(), 0, 0
        job = await supervisor.start(program(WRITER, str(length), str(repeat), str(blocks)), output=folder / "out")
        async for line in job.lines():
            count += 1
            size += len(line) + 1
        took = time.perf_counter() - began
        assert size == length * repeat * blocks == (folder / "out").stat().st_size, (await job.wait()).stderr
        print(f"{count:>11,} {took:>8.2f} {size / took / 1e6:>8.0f} {peak() - before:>8.1f} {peak():>8.1f}")


async def times(folder: Path) -> None:
    taken: dict[str, list[float]] = {}

    def note(what: str, began: float) -> float:
        taken.setdefault(what, []).append((now := time.perf_counter()) - began)
        return now

    for _ in range(10):
        now = time.perf_counter()
        supervisor = await Supervisor.open("benchmark")
        note("supervisor, start", now)
        for _ in range(10):
            now = time.perf_counter()
            job = await supervisor.start(Command(("true",), {}, "/"), output=folder / "out")
            note("job, start", now)
            await job.wait()
            note("job `true`, start to end", now)
        job = await supervisor.start(
            Command(("sh", "-c", "sleep 60 & setsid sleep 60 & wait"), {}, "/"), output=folder / "out"
        )
        await asyncio.sleep(0.05)
        now = time.perf_counter()
        await job.stop(now=True)
        now = note("job with two children, stop now", now)
        await supervisor.close()
        note("supervisor, close", now)
    for what, values in taken.items():
        print(f"{what:<34}{statistics.median(values) * 1000:>7.1f} ms   (least {min(values) * 1000:.1f})")


def main() -> None:
    if sys.argv[1:2] == ["row"]:
        asyncio.run(stream(*map(int, sys.argv[2:5]), Path(sys.argv[5])))
        return
    total = int(sys.argv[1] if len(sys.argv) > 1 else 1000) * 1_000_000
    print(f"{total // 1_000_000} MB     {'lines':>11} {'seconds':>8} {'MB/s':>8} {'RSS +MB':>8} {'RSS MB':>8}")
    for name, (length, repeat) in ROWS.items():
        with tempfile.TemporaryDirectory() as folder:
            print(f"{name:<16}", end="", flush=True)
            row = [__file__, "row", *map(str, (length, repeat, total // (length * repeat))), folder]
            subprocess.run([sys.executable, *row], check=True)
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(times(Path(folder)))


if __name__ == "__main__":
    main()
