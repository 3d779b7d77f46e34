"""The figures that the guide of the Q Chat adapter promises, of the adapter alone: with an agent that answers at once.

    python benchmarks/qchat.py [--requests 1000]

All requests are made in one process, through the adapter and the core's own supervisor, as a run makes them: first one
after the other (a tenth of them), then 20 at once, each of them in a run of its own. An agent that takes time adds just
that. Memory is that of the process and of its 20 helpers. Exit code 1 if a bar is missed.
"""

import asyncio
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tables import Row, command, ms

from ralph_core.contracts import Context, Request
from ralph_core.events import Finished
from ralph_core.processes.process import Supervisor
from ralph_core.testing.attempts import Host
from ralph_qchat.agent import QChatAgent
from ralph_qchat.settings import ChatSettings

AT_ONCE = 20
AGENT = """\
#!/bin/sh
cat >/dev/null
printf '\\033[38;5;10m> \\033[39mAll done.\\nLOOP_COMPLETE\\n'
"""
PROMPT = "Do the work.\n" * 100


@dataclass
class Measured:
    """Seconds that each request took, from the call to the final event; how many went wrong; and the seconds of all."""

    took: list[float] = field(default_factory=list)
    errors: int = 0
    wall: float = 0.0
    memory: int = 0

    def quantile(self, share: float) -> float:
        return statistics.quantiles(self.took, n=1000, method="inclusive")[round(share * 1000) - 1]


async def run(folder: Path, number: int, requests: "asyncio.Queue[int]", measured: Measured) -> None:
    """One run: requests one after the other, as long as there are any."""
    env = {"PATH": f"{folder}:/usr/bin:/bin", "HOME": str(folder)}
    settings = ChatSettings(max_concurrent=AT_ONCE, monitoring={"metrics_enabled": True})
    agent = QChatAgent(settings, Context(folder, folder / "state", env))
    async with await Supervisor.open(f"bench-{number}") as supervisor:
        while not requests.empty():
            attempt = requests.get_nowait()
            host = Host(supervisor, folder / f"output-{number}")
            began = time.perf_counter()
            final = None
            async for event in agent.run(Request("bench", attempt, attempt, PROMPT, folder, env, host)):
                final = event
            measured.took.append(time.perf_counter() - began)
            measured.errors += final != Finished("All done.\nLOOP_COMPLETE")
        measured.memory = max(measured.memory, resident())


async def requested(folder: Path, requests: int, at_once: int) -> Measured:
    measured, waiting = Measured(), asyncio.Queue()
    for number in range(1, requests + 1):
        waiting.put_nowait(number)
    began = time.perf_counter()
    await asyncio.gather(*(run(folder, number, waiting, measured) for number in range(at_once)))
    measured.wall = time.perf_counter() - began
    return measured


def resident() -> int:
    """Bytes of memory of this process and of its children."""
    own = Path("/proc/self/task").glob("*/children")
    pids = ["self", *(pid for path in own for pid in path.read_text().split())]
    total = 0
    for pid in pids:
        try:
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
        except (OSError, IndexError):
            pass  # it has ended meanwhile
    return total


def measure(requests: int) -> Iterator[Row]:
    with tempfile.TemporaryDirectory(prefix="ralph-benchmark-") as scratch:
        folder = Path(scratch)
        (folder / "q").write_text(AGENT)
        (folder / "q").chmod(0o755)
        asyncio.run(requested(folder, 20, 4))  # imports, and the page cache
        single = asyncio.run(requested(folder, max(requests // 10, 10), 1))
        many = asyncio.run(requested(folder, requests, AT_ONCE))

    rate = 60 * requests / many.wall
    for what, found in (("one at a time", single), (f"{AT_ONCE} at once", many)):
        p50, p99 = found.quantile(0.5), found.quantile(0.99)
        yield Row(f"a request of the adapter for Q Chat, {what}: p50", ms(p50), "", "", "< 500 ms", p50 < 0.5)
        yield Row("    p99", ms(p99), "", "", "< 2000 ms", p99 < 2)
    yield Row("    requests a minute", f"{rate:,.0f}", "", "", "≥ 100", rate >= 100)
    yield Row("    memory, with the helper processes", f"{many.memory / 1e6:.0f} MB", "", "", "< 500 MB", 0 < many.memory < 500e6)  # fmt: skip
    yield Row(f"    errors in {requests:,}", f"{many.errors}", "", "", "< 0.1 %", many.errors < requests / 1000)


if __name__ == "__main__":
    command(measure, __doc__, requests=1000)
