"""Tells processes apart for good, and ends what is left of a run whose Ralph is dead."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from . import supervisor as helper

MARKER = "RALPH_RUN_ID"
"""The variable in the environment of everything that a run starts; by it survivors are found when all else is dead."""

PATIENCE = 4.0
"""Seconds after which processes that are killed and do not die are given up."""


def process_identity(pid: int) -> str | None:
    """When the process started, in a form that with the pid is never used again; None: no such process is running."""
    if not sys.platform.startswith("linux"):
        listed = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
        return listed.stdout.strip() or None
    stat = helper.stat_of(pid)
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}:{stat[3]}" if stat and stat[2] else None


def kill_survivors(run: str, agent: tuple[int, str] | None = None) -> int:
    """Kill what is left of a run whose Ralph and supervisor are both dead; returns how many processes that were.

    They are known by the run's marker in their environment, and by descending from such a process or from the `agent`: the
    pid and identity that were recorded of it (one started by sudo has no marker). This process and its ancestors are
    spared. Only on Linux; a process that cleared its environment after it was orphaned is not found.
    """
    spared, pid = set(), os.getpid()
    while pid > 1 and (stat := helper.stat_of(pid)):
        spared.add(pid)
        pid = stat[0]
    met: set[int] = set()
    deadline = time.monotonic() + PATIENCE
    while (found := _marked(run, agent, spared)) and time.monotonic() < deadline:
        fresh = found - met
        met |= found
        for pid in sorted(found, reverse=True):
            helper.send(pid, signal.SIGSTOP if fresh else signal.SIGKILL)
        if not fresh:
            time.sleep(0.005)
    return len(met)


def _marked(run: str, agent: tuple[int, str] | None, spared: set[int]) -> set[int]:
    """The live processes that bear the run's marker, and the agent that was recorded, with their descendants."""
    marker = os.fsencode(f"{MARKER}={run}")
    known = {0: False, 1: False}
    if agent is not None and process_identity(agent[0]) == agent[1]:
        known[agent[0]] = True
    pids = list(helper.newest_first())
    for pid in pids:
        try:
            if marker in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") and pid not in spared:
                known[pid] = True
        except OSError:
            pass  # another user's, or gone
    alive = (pid for pid in pids if pid not in spared and (stat := helper.stat_of(pid)) and stat[2])
    return {pid for pid in alive if helper.descends(pid, known)}
