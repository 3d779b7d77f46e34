"""Memory and time while a process's output streams through Ralph, and what starting and stopping costs.

    python benchmarks/stream.py [--megabytes 1000]        (written to a temporary directory, and deleted)

Each length of lines is measured in a fresh Python; memory is the peak of all of it. Beside it stands the same output that
a shell has in a file. The bars are those of an agent that prints 50 MB: under 5 s, and under 100 MB. Exit code 1 if one is missed.
"""

import asyncio
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tables import Row, command, ms

from ralph_core.contracts import Command
from ralph_core.processes.process import Supervisor

WRITER = "import os, sys\nblock = (b'x' * (int(sys.argv[1]) - 1) + b'\\n') * int(sys.argv[2])\nfor _ in range(int(sys.argv[3])): os.write(1, block)"
ROWS = {
    "lines of 100 B": (100, 10_000),
    "lines of 10 KB": (10_000, 100),
    "lines of 1 MB": (1_000_000, 1),
    "lines of 20 MB": (20_000_000, 1),
}


def peak() -> float:
    """MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def program(*argv: str) -> Command:
    return Command((sys.executable, "-I", "-S", "-c", *argv), {}, "/")


async def stream(length: int, repeat: int, blocks: int, folder: Path) -> None:
    async with await Supervisor.open("benchmark") as supervisor:
        began, size = time.perf_counter(), 0
        job = await supervisor.start(program(WRITER, str(length), str(repeat), str(blocks)), output=folder / "out")
        async for line in job.lines():
            size += len(line) + 1
        took = time.perf_counter() - began
        assert size == length * repeat * blocks == (folder / "out").stat().st_size, (await job.wait()).stderr
        print(json.dumps([took, peak()]))


async def times(folder: Path) -> dict[str, float]:
    """Seconds."""
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
    return {what: statistics.median(values) for what, values in taken.items()}


def measure(megabytes: int) -> Iterator[Row]:
    for name, (length, repeat) in ROWS.items():
        blocks = [str(length), str(repeat), str(megabytes * 1_000_000 // (length * repeat))]
        with tempfile.TemporaryDirectory(prefix="ralph-benchmark-") as folder:
            argv = [sys.executable, __file__, "row", *blocks, folder]
            took, memory = json.loads(subprocess.run(argv, check=True, stdout=subprocess.PIPE).stdout)
            began = time.perf_counter()
            with Path(folder, "plain").open("wb") as plain:
                subprocess.run([sys.executable, "-I", "-S", "-c", WRITER, *blocks], check=True, stdout=plain)
            rate, other = megabytes / took, megabytes / (time.perf_counter() - began)
        yield Row(f"{megabytes} MB of output, {name} (sh, > file)", f"{rate:,.0f} MB/s", f"{other:,.0f} MB/s", "", "≥ 10 MB/s", rate >= 10)  # fmt: skip
        yield Row("    memory, peak", f"{memory:.1f} MB", "", "", "< 100 MB", memory < 100)
    with tempfile.TemporaryDirectory(prefix="ralph-benchmark-") as folder:
        for what, seconds in asyncio.run(times(Path(folder))).items():
            yield Row(what, ms(seconds))


if __name__ == "__main__":
    if sys.argv[1:2] == ["row"]:
        asyncio.run(stream(*map(int, sys.argv[2:5]), Path(sys.argv[5])))
    else:
        command(measure, __doc__, megabytes=1000)
