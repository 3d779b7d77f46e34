"""`ralph doctor`: which agents can be used here, and what the others lack."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ralph_core.contracts import Probe
from ralph_core.verdicts import ExitCode

from .common import printable, say, say_json, session

if TYPE_CHECKING:
    from ralph_core.mcpservers import Looked
    from ralph_core.session import Session


def examine(overrides: Mapping[str, Any], *, config: Path | None, as_json: bool, mcp: bool) -> int:
    """Probe every agent, or those that are asked for, and the MCP servers with `mcp`.

    Exit code 1 if no agent can be used, or a server is not there.
    """
    here = session(overrides, config=config)
    wanted = here.settings.agent if "agent" in overrides else ("auto",)
    for name in wanted:
        if name != "auto":
            here.plugins.provider("agent", name)
    names = [name for entry in wanted for name in (here.auto_order() if entry == "auto" else [entry])]
    probes = {name: here.probe(name) for name in dict.fromkeys(names)}
    broken = [row for row in here.plugins.rows if row.status == "error"]
    usable = [name for name, probe in probes.items() if probe.usable]
    servers = _servers(here) if mcp else {}
    if as_json:
        say_json({"agents": {name: {**asdict(probe), "usable": probe.usable} for name, probe in probes.items()},
                  "auto": usable[0] if usable else None,
                  **({"mcp": {name: asdict(found) for name, found in servers.items()}} if mcp else {})})  # fmt: skip
    else:
        for name, probe in probes.items():
            _describe(name, probe)
        for row in broken:
            say(f"✗ plugin {row.name} ({row.distribution}): {printable(row.error)}")
        for name, found in servers.items():
            tools = f"tools: {', '.join(found.tools) or 'none'}"
            say(f"{'✗' if found.error else '✓'} mcp {name}: {printable(found.error or tools)}")
        if mcp and not servers:
            say("no MCP servers are set (mcp.servers)")
        say(f"\n`--agent auto` would use: {usable[0] if usable else 'nothing, since no agent can be used'}")
    well = usable and not any(found.error for found in servers.values())
    return ExitCode.COMPLETED if well else ExitCode.FAILED


def _servers(here: Session) -> dict[str, Looked]:
    """What was found of the MCP servers, without secrets."""
    from ralph_core.mcpservers import look  # heavy
    from ralph_core.redaction import Redactor

    redactor = Redactor(here.env)
    for server in here.settings.mcp.servers.values():
        redactor.learn({**server.env, **server.headers})
    return {
        name: replace(found, error=redactor.text(found.error))
        for name, found in look(here.settings, here.workspace).items()
    }


def _describe(name: str, probe: Probe) -> None:
    found = " ".join(part for part in (probe.executable, probe.version) if part)
    say(f"{'✓' if probe.usable else '✗'} {name}: {printable(found) or 'not found'}")
    for item in probe.missing:
        say(f"    missing: {printable(item)}")
    for item in probe.notes:
        say(f"    note: {printable(item)}")
