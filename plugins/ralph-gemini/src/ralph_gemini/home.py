"""A configuration folder of Ralph's own for Gemini CLI: the user's, with a few settings laid over it.

Gemini CLI sets its retries, its usage statistics and its turn limit by settings files alone, and takes such a file from
elsewhere only if root owns it (`GEMINI_CLI_SYSTEM_SETTINGS_PATH`). But it takes another home (`GEMINI_CLI_HOME`, of which
`.gemini` is its folder): there lie the merged settings, and links to all else that the user has, logins and extensions
included. Its sessions stay there, apart from the user's own. (Read in the bundle of 0.61.0, and tried.)
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ralph_core.contracts import McpServers, SpawnError

from .settings import GeminiSettings

FOLDER = ".gemini"
SESSIONS = frozenset({"history", "projects.json", "settings.json", "tmp"})
"""What is not linked to: what it keeps of sessions, by project, and its settings, which are merged."""
COMMENT = re.compile(r'("(?:\\.|[^"\\])*")|//[^\n]*|/\*.*?\*/', re.DOTALL)
"""A string, which is kept, or a comment: its settings are JSON with comments (strip-json-comments)."""


def user_home(env: Mapping[str, str], ours: Path) -> Path:
    """The user's own home, as Gemini CLI would see it; `ours` is none, even if the environment says so."""
    told = env.get("GEMINI_CLI_HOME")
    return Path(told if told and Path(told).absolute() != ours.absolute() else env.get("HOME") or Path.home())


def prepare(home: Path, settings: GeminiSettings, env: Mapping[str, str], mcp: McpServers | None = None) -> None:
    """Make `home` what Gemini CLI is to start with, anew for each attempt. Raises `SpawnError` if that can't be."""
    theirs = user_home(env, home)
    try:
        ours = home / FOLDER
        ours.mkdir(mode=0o700, parents=True, exist_ok=True)
        _link(theirs / FOLDER, ours)
        for name in (".env", ".agents"):
            _link_to(home / name, theirs / name)
        write(ours / "settings.json", merged(user_settings(theirs), settings, env, mcp))
    except OSError as error:
        raise SpawnError(f"can't prepare Gemini CLI's home {home}: {error.strerror or error}") from error


def user_settings(home: Path) -> dict[str, Any]:
    """The user's own settings. Raises `SpawnError` if they can't be read: Gemini CLI would not start with them either."""
    path = home / FOLDER / "settings.json"
    try:
        table = json.loads(COMMENT.sub(lambda found: found[1] or " ", path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise SpawnError(f"{path} can't be read: {error}") from None
    if not isinstance(table, dict):
        raise SpawnError(f"{path} is no table of settings")
    return table


def merged(
    theirs: Mapping[str, Any], settings: GeminiSettings, env: Mapping[str, str], mcp: McpServers | None = None
) -> dict[str, Any]:
    """The user's settings with Ralph's over them. A project's own `.gemini/settings.json` is read over both."""
    found = {name: dict(table) if isinstance(table, dict) else table for name, table in theirs.items()}
    _lay(found, "general", {"maxAttempts": settings.max_retries + 1, "enableAutoUpdate": False})
    _lay(found, "general", {"enableAutoUpdateNotification": False})
    _lay(found, "privacy", {"usageStatisticsEnabled": False})
    if settings.max_turns is not None:
        _lay(found, "model", {"maxSessionTurns": settings.max_turns})
    if mcp is not None:
        # It has one limit for both, in milliseconds.
        limit = {"timeout": round(max(mcp.connection_timeout, mcp.call_timeout) * 1000)}
        found["mcpServers"] = {name: {**server, **limit} for name, server in mcp.servers.items()}
    auth = _object(_object(found.get("security")).get("auth"))
    # With the address of an API in the environment, it takes that for a way to log in, and refuses it.
    if not auth.get("selectedType") and env.get("GEMINI_API_KEY") and not _elsewhere(env):
        _lay(found, "security", {"auth": {**auth, "selectedType": "gemini-api-key"}})
    return found


def write(path: Path, table: Mapping[str, Any]) -> None:
    """Write a private file of JSON, in place of what is there."""
    temporary = path.with_name(f"{path.name}.new")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        json.dump(table, file, indent=1)
    temporary.replace(path)


def _link(theirs: Path, ours: Path) -> None:
    """Links to what the user has, and none to what they no longer have. What it made here itself stays."""
    for path in ours.iterdir():
        if path.is_symlink() and not path.exists():
            path.unlink()
    for name in _names(theirs):
        _link_to(ours / name, theirs / name)


def _names(folder: Path) -> Iterator[str]:
    if folder.is_dir():
        yield from (path.name for path in folder.iterdir() if path.name not in SESSIONS)


def _link_to(link: Path, target: Path) -> None:
    if link.is_symlink():
        if str(link.readlink()) == str(target.absolute()) and target.exists():
            return
        link.unlink()
    elif link.is_file() and target.is_file() and link.stat().st_mtime < target.stat().st_mtime:
        link.unlink()  # it had written its own, and the user has logged in, or whatever it is, since
    if target.exists() and not link.exists():
        link.symlink_to(target.absolute())


def _lay(table: dict[str, Any], name: str, values: Mapping[str, Any]) -> None:
    table[name] = {**_object(table.get(name)), **values}


def _elsewhere(env: Mapping[str, str]) -> bool:
    """Whether the environment chooses another way to log in than by a key."""
    return "true" in (env.get("GOOGLE_GENAI_USE_GCA"), env.get("GOOGLE_GENAI_USE_VERTEXAI"))


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
