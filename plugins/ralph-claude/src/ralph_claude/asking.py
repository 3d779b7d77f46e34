"""Makes Claude Code ask Ralph before it uses a tool: a PreToolUse hook for all tools, added to whatever settings there are.

Seen with 2.1.197: the hook is run with `sh -c` for each tool, those of sub-agents included, in every permission mode, and its
"deny" wins over every other permission. But a hook that fails, prints nonsense, or takes longer than its timeout denies
nothing: only exit code 2 does. `disableAllHooks` in a project's settings, which the agent itself can write, switches it off,
unless `--settings` says the opposite. Of several `--settings` the last one counts, and the others do not. Hence what is below.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ralph_core.contracts import AskChannel, SpawnError

ASKING_ENV = {
    # Each shell command starts in the workspace, whatever an earlier one changed to: so relative paths mean what they say.
    "CLAUDE_BASH_MAINTAIN_PROJECT_WORKING_DIR": "1",
}

HOOKLESS = ("--bare", "--safe-mode")
"""Options with which Claude Code runs no hooks."""

NEVER = 1_000_000
"""Seconds, the hook's timeout: it must not be reached, since the tool would then run. Ralph's own limits are far below."""


def asking(ask: AskChannel, arguments: Sequence[str], workspace: Path, *, allows: bool) -> tuple[str, ...]:
    """The user's `arguments` with the hook added; raises `SpawnError` where they rule hooks out.

    `allows`: what Ralph allows is allowed. Otherwise it is left to Claude Code's own permissions, as without Ralph.
    """
    rest: list[str] = []
    settings: dict[str, Any] = {}
    words = iter(arguments)
    for word in words:
        if word in HOOKLESS:
            raise SpawnError(
                f"{word} in agents.claude.extra_args switches off the hooks by which it asks about its tools"
            )
        if word == "--settings" or word.startswith("--settings="):
            settings = _settings(word, words, workspace)
        else:
            rest.append(word)
    program = shlex.join((*ask.argv, "claude" if allows else "claude-defer"))
    hook = {"type": "command", "command": f"{program} || exit 2", "timeout": NEVER}
    hooks = settings.get("hooks") if isinstance(settings.get("hooks"), dict) else {}
    before = [*(hooks or {}).get("PreToolUse", ()), {"matcher": "*", "hooks": [hook]}]
    settings = {**settings, "disableAllHooks": False, "hooks": {**(hooks or {}), "PreToolUse": before}}
    return (*rest, "--settings", json.dumps(settings))


def _settings(word: str, words: Iterator[str], workspace: Path) -> dict[str, Any]:
    """What the user's own `--settings` holds: JSON, or the path of a file."""
    value = word.partition("=")[2] if "=" in word else next(words, "")
    try:
        text = value if value.lstrip().startswith("{") else (workspace / value).read_text(encoding="utf-8")
        settings = json.loads(text)
    except (OSError, ValueError) as error:
        raise SpawnError(f"--settings in agents.claude.extra_args can't be read: {error}") from None
    if not isinstance(settings, dict):
        raise SpawnError("--settings in agents.claude.extra_args is no table")
    return settings
