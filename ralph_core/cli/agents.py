"""`ralph agents`: what each agent can do, as its plugin declares it. Imports neither pydantic nor the OpenTelemetry SDK."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ralph_core.contracts import Agent, Capability, Provider
from ralph_core.plugins.discovery import plugin_choice
from ralph_core.settings.sources import environment, gather
from ralph_core.verdicts import ExitCode

from .common import load_plugins, say, say_json, table

COLUMNS = {
    "TOOLS": Capability.TOOLS,
    "COST": Capability.COST,
    "SESSION": Capability.SESSION,
    "BUDGET": Capability.BUDGET,
    "ASKS": Capability.ASKS,
    "QUOTA": Capability.QUOTA,
    "MODEL": Capability.MODEL,
    "MCP": Capability.MCP,
    "TRACE": Capability.TRACE,
}
"""Column: the capability that it is about. That of usage has three answers."""


def show(overrides: Mapping[str, Any], *, config: Path | None, no_plugin: Sequence[str], as_json: bool) -> int:
    """Print a row for every agent, usable here or not."""
    env = environment()
    choice = plugin_choice(gather(overrides, env, config=config), env, disabled=tuple(no_plugin))
    found = load_plugins(choice).providers["agent"]
    if as_json:
        say_json([_object(plugin, provider) for _, (plugin, provider) in sorted(found.items())])
        return ExitCode.COMPLETED
    for line in table(rows([provider for _, (_, provider) in sorted(found.items())])):
        say(line)
    say("\nUSAGE: when tokens are known. ASKS: asks before it uses a tool. BUDGET: ends by itself when it is used up.")
    say("`ralph doctor` says which of them can be used here.")
    return ExitCode.COMPLETED


def rows(agents: Sequence[Provider[Agent]]) -> list[tuple[str, ...]]:
    """The table, with its heading."""
    heading = ("AGENT", "USAGE", *COLUMNS, "WHAT")
    return [heading, *((agent.name, usage(agent), *_marks(agent), agent.summary) for agent in agents)]


def usage(agent: Provider[Agent]) -> str:
    """When the tokens of an attempt are known."""
    if Capability.USAGE_LIVE in agent.capabilities:
        return "live"
    return "at end" if Capability.USAGE in agent.capabilities else "never"


def _marks(agent: Provider[Agent]) -> tuple[str, ...]:
    return tuple("yes" if capability in agent.capabilities else "-" for capability in COLUMNS.values())


def _object(plugin: str, agent: Provider[Agent]) -> dict[str, Any]:
    return {
        "name": agent.name,
        "plugin": plugin,
        "summary": agent.summary,
        "usage": usage(agent),
        "capabilities": sorted(agent.capabilities),
        "environment": list(agent.environment),
    }
