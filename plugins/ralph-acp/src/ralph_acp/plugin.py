"""What ralph-acp brings. Imported when plugins are listed, so it imports nothing heavy."""

from __future__ import annotations

from collections.abc import Sequence

from ralph_core.contracts import Agent, Provider
from ralph_core.hookspecs import hookimpl

from .known import ANY, KNOWN, Known

RALPH_CONTRACT = "0.1"
SETTINGS = "ralph_acp.settings:AcpSettings"


@hookimpl
def ralph_agents() -> Sequence[Provider[Agent]]:
    """`acp`, for any command that speaks the protocol, and one agent for each that is known: `acp-gemini` and so on."""
    return (
        _provider("acp", "any agent that speaks the Agent Client Protocol (agents.acp.command)", ANY),
        *(
            _provider(f"acp-{name}", f"{shown(known)}, by the Agent Client Protocol", known)
            for name, known in KNOWN.items()
        ),
    )


def shown(known: Known) -> str:
    """The command of an agent, as it would be typed."""
    return " ".join(known.command)


def _provider(name: str, summary: str, known: Known) -> Provider[Agent]:
    able = {"tools", "session", "model", "mcp"} | {word for word in ("asks", "usage", "cost") if getattr(known, word)}
    factory = f"ralph_acp.agent:{name.removeprefix('acp').removeprefix('-') or 'acp'}"
    return Provider(name, summary, factory, SETTINGS, frozenset(able), known.environment)
