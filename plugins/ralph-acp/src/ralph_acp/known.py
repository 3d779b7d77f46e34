"""The agents that are known to speak the protocol: how each is started, what it says of itself, and its traps.

Seen: run in November 2026 against a model API on loopback, in the version of `tried`. Not seen (`tried` is empty): the
command is what the vendor's documentation says.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Known:
    """One agent."""

    command: tuple[str, ...] = ()
    install: str = ""
    tried: str = ""
    environment: tuple[str, ...] = ()
    """The variables that it needs (`Provider.environment`)."""
    env: Mapping[str, str] = field(default_factory=dict)
    drop: tuple[str, ...] = ()
    """Variables that it must not be given."""
    asks: bool = True
    """Whether it asks before the tools that change something, unless its own settings allow them."""
    asking_env: Mapping[str, str] = field(default_factory=dict)
    """Variables that make it ask, given where policies want to see its tools."""
    usage: bool = False
    """Whether the tokens that it reports at the end are those of the whole turn."""
    cost: bool = False
    """Whether it reports what the session cost."""
    leave: float = 2.0
    """Seconds in which it ends once its input is closed."""
    announces: bool = False
    """Whether it names a tool only where it announces the call, which may come after its question for permission."""
    tool_in_id: re.Pattern[str] | None = None
    """Where the id of a tool call begins with the name of the tool: group 1 is the name."""
    titled: bool = False
    """Whether the first title of a tool call is the name of the tool."""
    error_text: re.Pattern[str] | None = None
    """What an error of the model's API looks like that it reports as its answer, without figures: group 1 is the message."""


ANY = Known()

KNOWN: Mapping[str, Known] = {
    "gemini": Known(
        ("gemini", "--acp"),
        install="npm install -g @google/gemini-cli",
        tried="0.61.0",
        environment=("GEMINI_*", "GOOGLE_*", "CODE_ASSIST_*"),
        # Without the first it is a wrapper around itself that ignores INT and TERM; without the second there is no run in a
        # folder that was never trusted by hand; its telemetry sends prompts.
        env={
            "GEMINI_CLI_NO_RELAUNCH": "true",
            "GEMINI_CLI_TRUST_WORKSPACE": "true",
            "GEMINI_TELEMETRY_ENABLED": "false",
        },
        usage=True,
        tool_in_id=re.compile(r"(\w+?)__\1_\d"),
    ),
    "claude": Known(
        ("claude-agent-acp",),
        install="npm install -g @agentclientprotocol/claude-agent-acp",
        tried="0.49.0",
        environment=("ANTHROPIC_*", "CLAUDE_*", "API_TIMEOUT_MS", "AWS_*", "GOOGLE_*", "IS_SANDBOX"),
        env={
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "DISABLE_AUTOUPDATER": "1",
            # By itself it repeats a refused request ten times, for minutes; waiting is Ralph's business.
            "CLAUDE_CODE_MAX_RETRIES": "1",
        },
        drop=("CLAUDECODE",),
        usage=True,
        cost=True,
        announces=True,
    ),
    "opencode": Known(
        ("opencode", "acp"),
        install="npm install -g opencode-ai",
        tried="1.18.33",
        environment=("OPENCODE_*", "ANTHROPIC_*", "OPENAI_*", "OPENROUTER_*", "GOOGLE_*", "GEMINI_*", "AWS_*"),
        env={"OPENCODE_DISABLE_AUTOUPDATE": "1"},
        # Told "no", it ends its turn. The tokens that it reports are those of the last step alone.
        asking_env={"OPENCODE_PERMISSION": '{"*":"ask"}'},
        cost=True,
        announces=True,
        titled=True,
    ),
    "copilot": Known(
        ("copilot", "--acp"),
        install="npm install -g @github/copilot",
        tried="1.0.102",
        environment=("COPILOT_*", "GH_*", "GITHUB_*"),
        env={"COPILOT_AUTO_UPDATE": "false"},
        usage=True,
        error_text=re.compile(r"Error: (.+)", re.DOTALL),
    ),
    "codex": Known(
        ("codex-acp",),
        install="npm install -g @zed-industries/codex-acp",
        tried="0.16.0",
        environment=("CODEX_*", "OPENAI_*"),
        # Its sandbox refuses in silence; it asks only to leave it. Its input closed, it stays.
        asks=False,
        leave=0.1,
    ),
    "kiro": Known(
        ("kiro-cli", "acp"), install="https://kiro.dev", environment=("KIRO_*", "Q_*", "AMAZON_Q_*", "AWS_*")
    ),
    "goose": Known(
        ("goose", "acp"),
        install="https://goose-docs.ai",
        environment=("GOOSE_*", "ANTHROPIC_*", "OPENAI_*", "OPENROUTER_*", "GOOGLE_*", "GEMINI_*", "AWS_*"),
    ),
}
