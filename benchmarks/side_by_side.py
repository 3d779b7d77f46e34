"""Memory of Ralph's own processes while the agents of many runs sleep, and that nothing of them is left after SIGTERM.

    python benchmarks/side_by_side.py [--runs 100] [--peers 10]        (--peers 0 leaves ralph-orchestrator out)

Each run has a workspace of its own; its agent is `sleep`. When all agents sleep, the memory of Ralph and its supervisor,
without the agent, is read from /proc (so this needs Linux): PSS, in which memory that n processes share counts one n-th for
each, and RSS, in which it counts in full for each. Then all are sent SIGTERM. Exit code 1 if a bar is missed.
"""

import os
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import orchestrator
from tables import ENV, RALPH, Row, command, repository

AGENT = "#!/bin/sh\necho $$ > pid.new\nmv pid.new pid\nexec sleep 3600\n"
FILES = {"agent.sh": AGENT, "PROMPT.md": "Sleep.\n", ".gitignore": "pid*\n"}
START_LIMIT, STOP_LIMIT = 600.0, 120.0
"""Seconds for all runs together."""
BAR = 60.0
"""MB (10⁶ bytes)."""


@dataclass
class Run:
    process: subprocess.Popen[bytes]
    agent: Path
    """File with the agent's process id."""
    seen: dict[int, str] = field(default_factory=dict)
    """When each process of the run was started, by its id: what a new process of the same id differs in."""

    @property
    def sleeps(self) -> bool:
        assert self.process.poll() is None, f"a run ended early, with exit code {self.process.returncode}"
        return self.agent.exists()

    def own(self) -> list[int]:
        """Its processes without the agent."""
        agent = int(self.agent.read_text())
        found = [self.process.pid]
        for pid in found:
            found += [child for child in children(pid) if child != agent]
        self.seen = {pid: started(pid) for pid in [*found, agent]}
        return found

    def left(self) -> list[int]:
        return [pid for pid, when in self.seen.items() if started(pid) == when]


def children(pid: int) -> list[int]:
    return [
        int(each) for task in Path(f"/proc/{pid}/task").iterdir() for each in (task / "children").read_text().split()
    ]


def started(pid: int) -> str:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "never"
    return "never" if fields[0] == "Z" else fields[19]


def memory(pids: list[int]) -> tuple[float, float]:
    """MB of PSS and of RSS, of all together."""
    total = {"Pss:": 0, "Rss:": 0}
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
            name, kib, *_ = line.split()
            if name in total:
                total[name] += int(kib)
    return total["Pss:"] * 1024 / 1e6, total["Rss:"] * 1024 / 1e6


def until(holds: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def stop(runs: list[Run]) -> tuple[float, int, int]:
    """End all by SIGTERM: the seconds that took, how many processes were left, and how many exit codes were wrong."""
    began = time.monotonic()
    for run in runs:
        run.process.terminate()
    until(lambda: all(run.process.poll() is not None for run in runs), STOP_LIMIT)
    took = time.monotonic() - began
    wrong = sum(run.process.returncode != 128 + signal.SIGTERM for run in runs)
    return took, sum(len(run.left()) for run in runs), wrong


@contextmanager
def asleep(count: int, argv: list[str], program: Callable[[Path], Mapping[str, str]]) -> Iterator[list[Run]]:
    """So many runs whose agents sleep, in new workspaces; `program` gives the environment in one. What is left is killed."""
    runs: list[Run] = []
    with tempfile.TemporaryDirectory(prefix="ralph-benchmark-") as scratch:
        try:
            for number in range(count):
                folder = repository(Path(scratch, str(number)), FILES)
                silent = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
                runs.append(Run(subprocess.Popen(argv, cwd=folder, env=program(folder), **silent), folder / "pid"))
            assert until(lambda: all(run.sleeps for run in runs), START_LIMIT), "not all agents were started in time"
            time.sleep(1)  # what is written and freed after the start
            yield runs
        finally:
            for run in runs:
                if run.process.poll() is None and run.agent.exists():
                    run.own()
                for pid in run.left():
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                run.process.kill()
                run.process.wait()
            until(lambda: not any(run.left() for run in runs), 10)


def measure(runs: int, peers: int) -> Iterator[Row]:
    with asleep(runs, [RALPH, "run", "-a", "command", "--command", "./agent.sh"], lambda _: ENV) as ours:
        pss, rss = (list(column) for column in zip(*[memory(run.own()) for run in ours], strict=True))
        took, left, wrong = stop(ours)
    shared, full = of_peers(peers) if orchestrator.wanted(peers) else ("", "")
    yield Row(f"memory of a run while its agent sleeps, {runs} at once (PSS, mean)", f"{statistics.mean(pss):.1f} MB", "", shared, f"each < {BAR:g} MB", max(pss) < BAR, front=True)  # fmt: skip
    yield Row("    the largest of them", f"{max(pss):.1f} MB")
    yield Row("    RSS, mean: shared memory counts in full for each", f"{statistics.mean(rss):.1f} MB", "", full)
    yield Row("    from SIGTERM until all had ended", f"{took:.1f} s")
    yield Row("    processes left then; exit codes other than 143", f"{left}; {wrong}", "", "", "0; 0", not left and not wrong)  # fmt: skip


def of_peers(count: int) -> list[str]:
    """Mean PSS and RSS of so many at once."""

    def program(folder: Path) -> Mapping[str, str]:
        return orchestrator.environment(folder / "agent.sh", folder.with_name(f"{folder.name}-bin"))

    with asleep(count, orchestrator.command(1), program) as runs:
        found = [memory(run.own()) for run in runs]
    return [f"{statistics.mean(column):.1f} MB" for column in zip(*found, strict=True)]


if __name__ == "__main__":
    command(measure, __doc__, runs=100, peers=10)
