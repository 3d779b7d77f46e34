"""`ralph doctor`: which agents can be used here, and what the others lack."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ralph_core.contracts import Probe
from ralph_core.verdicts import ExitCode

from .common import printable, say, say_json, session


def examine(overrides: Mapping[str, Any], *, config: Path | None, as_json: bool) -> int:
    """Probe every agent, or those that are asked for. Exit code 1 if none of them can be used."""
    here = session(overrides, config=config)
    wanted = here.settings.agent if "agent" in overrides else ("auto",)
    for name in wanted:
        if name != "auto":
            here.plugins.provider("agent", name)
    names = [name for entry in wanted for name in (here.auto_order() if entry == "auto" else [entry])]
    probes = {name: here.probe(name) for name in dict.fromkeys(names)}
    broken = [row for row in here.plugins.rows if row.status == "error"]
    usable = [name for name, probe in probes.items() if probe.usable]
    if as_json:
        say_json({"agents": {name: {**asdict(probe), "usable": probe.usable} for name, probe in probes.items()},
                  "auto": usable[0] if usable else None})  # fmt: skip
    else:
        for name, probe in probes.items():
            _describe(name, probe)
        for row in broken:
            say(f"✗ plugin {row.name} ({row.distribution}): {printable(row.error)}")
        say(f"\n`--agent auto` would use: {usable[0] if usable else 'nothing, since no agent can be used'}")
    return ExitCode.COMPLETED if usable else ExitCode.FAILED


def _describe(name: str, probe: Probe) -> None:
    found = " ".join(part for part in (probe.executable, probe.version) if part)
    say(f"{'✓' if probe.usable else '✗'} {name}: {printable(found) or 'not found'}")
    for item in probe.missing:
        say(f"    missing: {printable(item)}")
    for item in probe.notes:
        say(f"    note: {printable(item)}")
