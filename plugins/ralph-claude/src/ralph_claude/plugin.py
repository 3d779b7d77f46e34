"""What ralph-claude brings. Imported when plugins are listed, so it imports nothing heavy."""

from __future__ import annotations

from collections.abc import Sequence

from ralph_core.contracts import Agent, Provider
from ralph_core.hookspecs import hookimpl

RALPH_CONTRACT = "0.1"


@hookimpl
def ralph_agents() -> Sequence[Provider[Agent]]:
    """One agent: `claude`."""
    return (
        Provider(
            name="claude",
            summary="Claude Code, headless (claude -p), with streamed JSON",
            factory="ralph_claude.agent:ClaudeAgent",
            settings="ralph_claude.settings:ClaudeSettings",
            capabilities=frozenset(
                {"tools", "asks", "session", "usage", "usage-live", "cost", "budget", "sub-agents", "quota"}
                | {"model", "mcp", "trace"}
            ),
            environment=(
                *("ANTHROPIC_*", "CLAUDE_*", "API_TIMEOUT_MS", "MAX_*", "BASH_*", "DISABLE_*", "ENABLE_*", "MCP_*"),
                # clouds that serve its models
                *("AWS_*", "GOOGLE_*", "CLOUD_ML_REGION", "VERTEX_*", "AZURE_*"),
                *("IS_SANDBOX", "USE_BUILTIN_RIPGREP"),
            ),
        ),
    )
