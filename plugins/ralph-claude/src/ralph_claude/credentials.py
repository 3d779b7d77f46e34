"""What Claude Code could log in with, without asking it: it has no quick way to say so before it spends.

The names were read in the bundle of Claude Code 2.1.197 (npm, November 2026). Nothing here reads or keeps a secret itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

VARIABLES = ("CLAUDE_API_KEY", "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN")

CLOUDS = {
    "CLAUDE_CODE_USE_BEDROCK": "Amazon Bedrock",
    "CLAUDE_CODE_USE_VERTEX": "Google Vertex",
    "CLAUDE_CODE_USE_FOUNDRY": "Microsoft Foundry",
    "CLAUDE_CODE_USE_ANTHROPIC_AWS": "Claude Platform on AWS",
    "CLAUDE_CODE_USE_MANTLE": "Mantle",
    "CLAUDE_CODE_USE_GATEWAY": "a gateway",
}
"""Switches to providers with credentials of their own, which are not looked for."""

MANAGED = (
    Path("/etc/claude-code/managed-settings.json"),
    Path("/Library/Application Support/ClaudeCode/managed-settings.json"),
)


def credentials(env: Mapping[str, str], workspace: Path, *, user: bool = True) -> str | None:
    """Where credentials were found, in words; None if they are nowhere that can be looked at.

    `user`: whether Claude Code reads the user's settings file, too.
    """
    for name in VARIABLES:
        if env.get(name):
            return name
    for name, cloud in CLOUDS.items():
        if env.get(name, "").lower() not in ("", "0", "false", "no", "off"):
            return f"{name} ({cloud})"
    home = Path(env["HOME"]) if env.get("HOME") else Path.home()
    folder = Path(env["CLAUDE_CONFIG_DIR"]) if env.get("CLAUDE_CONFIG_DIR") else home / ".claude"
    login = folder / ".credentials.json"
    if login.is_file():
        return str(login)
    accounts = (folder if env.get("CLAUDE_CONFIG_DIR") else home) / ".claude.json"
    if _json(accounts).get("primaryApiKey"):
        return str(accounts)
    return next(_in_settings(folder if user else None, workspace), None)


def _in_settings(folder: Path | None, workspace: Path) -> Iterator[str]:
    project = workspace / ".claude"
    own = (folder / "settings.json",) if folder else ()
    for path in (*own, project / "settings.json", project / "settings.local.json", *MANAGED):
        settings = _json(path)
        if settings.get("apiKeyHelper"):
            yield f"apiKeyHelper in {path}"
        env = settings.get("env")
        if isinstance(env, dict):
            yield from (f"{name} in {path}" for name in (*VARIABLES[1:], *CLOUDS) if env.get(name))


def _json(path: Path) -> dict[str, Any]:
    """The object in the file; empty if there is none that can be read."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
