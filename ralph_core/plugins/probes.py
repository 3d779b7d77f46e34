"""Keeps what the agents' programs said of themselves, so that a start soon after need not ask them again."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ralph_core.contracts import Agent, Probe
from ralph_core.redaction import SECRET_NAME

FILE = "probes.json"


class Probes:
    """The probes of the agents of one start. Those that found a program that can be used hold for `ttl` seconds, for the same
    program, adapter, settings and environment; what is missing is looked for again each time.
    """

    def __init__(self, home: Path, ttl: float) -> None:
        self._path, self._ttl = home / FILE, ttl
        self._kept: dict[str, Any] = _read(self._path) if ttl else {}
        self._fresh: dict[str, Any] = {}
        self.found: dict[str, Probe] = {}

    def of(self, name: str, agent: Agent, version: str, ask: Callable[[], Probe]) -> Probe:
        """The probe of an agent, of whose adapter this is the version: a kept one, or what `ask` gives."""
        mark = _mark(agent, version)
        probe = self._again(name, agent, mark) or ask()
        self.found[name] = probe
        # Without a version nothing was asked that would take time.
        if self._ttl and probe.usable and probe.version and probe.executable and name not in self._kept:
            seen = {"time": time.time(), "mark": mark, "program": _program(probe.executable, agent)}
            self._fresh[name] = {**seen, "probe": asdict(probe)}
        return probe

    def _again(self, name: str, agent: Agent, mark: str) -> Probe | None:
        kept = self._kept.pop(name, None)
        try:
            fields: dict[str, Any] = {
                key: tuple(value) if isinstance(value, list) else value for key, value in kept["probe"].items()
            }
            probe = Probe(**fields)
            same = kept["mark"] == mark and kept["program"] == _program(str(probe.executable), agent)
            if not (same and 0 <= time.time() - kept["time"] < self._ttl):
                return None
        except (KeyError, TypeError, AttributeError):  # none is kept, or another version of Ralph kept it
            return None
        self._kept[name] = kept
        return probe

    def keep(self) -> None:
        """Write what was asked anew. A disk that can't take it costs the next start some milliseconds, and nothing else."""
        if not self._fresh:
            return
        temporary = self._path.with_suffix(f".{os.getpid()}.tmp")
        try:
            temporary.write_text(json.dumps({**self._kept, **self._fresh}), encoding="utf-8")
            temporary.replace(self._path)
        except OSError:
            temporary.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _program(executable: str, agent: Agent) -> list[Any]:
    """What a program is known by: the file that it really is, its size and its time, and which one of its name is found first."""
    try:
        stat = os.stat(executable)  # noqa: PTH116 - a string will do
    except OSError:
        return []
    found = shutil.which(os.path.basename(executable), path=agent.context.env.get("PATH"))  # noqa: PTH119
    return [executable, os.path.realpath(executable), stat.st_size, stat.st_mtime_ns, found]


def _mark(agent: Agent, version: str) -> str:
    """What else a probe hangs on, as a hash; of secrets, only whether they are there."""
    env = {name: value if not SECRET_NAME.search(name) else bool(value) for name, value in agent.context.env.items()}
    settings = agent.settings.model_dump_json() if agent.settings is not None else ""
    words = json.dumps([version, str(agent.context.workspace), settings, sorted(env.items())])
    return hashlib.sha256(words.encode(errors="surrogateescape")).hexdigest()
