"""What ralph-codex brings. Imported when plugins are listed, so it imports nothing heavy."""

from __future__ import annotations

from collections.abc import Sequence

from ralph_core.contracts import Agent, Provider
from ralph_core.hookspecs import hookimpl

RALPH_CONTRACT = "0.1"


@hookimpl
def ralph_agents() -> Sequence[Provider[Agent]]:
    """One agent: `codex`."""
    return (
        Provider(
            name="codex",
            summary="OpenAI Codex, headless (codex exec --json); tokens at the end, no cost",
            factory="ralph_codex.agent:CodexAgent",
            settings="ralph_codex.settings:CodexSettings",
            capabilities=frozenset({"tools", "session", "usage", "model"}),
            environment=("CODEX_*", "OPENAI_*", "AZURE_*"),
        ),
    )
