"""What ralph-gemini brings. Imported when plugins are listed, so it imports nothing heavy."""

from __future__ import annotations

from collections.abc import Sequence

from ralph_core.contracts import Agent, Provider
from ralph_core.hookspecs import hookimpl

RALPH_CONTRACT = "0.1"


@hookimpl
def ralph_agents() -> Sequence[Provider[Agent]]:
    """One agent: `gemini`."""
    return (
        Provider(
            name="gemini",
            summary="Gemini CLI, headless, with streamed JSON; tokens at the end, no cost",
            factory="ralph_gemini.agent:GeminiAgent",
            settings="ralph_gemini.settings:GeminiSettings",
            capabilities=frozenset({"tools", "session", "usage", "model", "mcp"}),
            environment=("GEMINI_*", "GOOGLE_*", "CODE_ASSIST_*"),
        ),
    )
