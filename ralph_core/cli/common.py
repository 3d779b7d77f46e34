"""What several commands do: gather settings, build the plugins, and print lines that no text can spoil."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from ralph_core.plugins.discovery import PluginChoice, build_manager, plugin_choice
from ralph_core.plugins.registry import HookCall, Plugins
from ralph_core.settings.sources import environment, gather

from .output import reserve, stdout

if TYPE_CHECKING:
    from ralph_core.session import Session


def session(
    overrides: Mapping[str, Any],
    *,
    config: Path | None,
    no_plugin: Sequence[str] = (),
    given: Mapping[str, Any] | None = None,
    like: Session | None = None,
) -> Session:
    """A session from the command line, the environment and the settings file. Raises `UserError`.

    `like` is one that this process has had before: by now plugins may have changed environment and working directory.
    """
    from ralph_core.session import Session
    from ralph_core.settings.model import settings_from

    env, cwd = (like.env, like.cwd) if like is not None else (environment(), Path.cwd())
    config = config and Path(cwd, config)
    sources = gather(overrides, env, config=config, cwd=cwd)
    calls: list[HookCall] = []
    plugins = load_plugins(plugin_choice(sources, env, disabled=tuple(no_plugin)), calls.extend)
    settings = settings_from(sources)
    _check_sections(plugins, settings, sources)
    if given is None:
        given = {**overrides, "no_plugin": list(no_plugin), **({"config": str(config.absolute())} if config else {})}
    return Session(
        settings,
        plugins,
        env,
        cwd,
        given=given,
        calls=calls,
        sources=sources,
        reload=lambda: settings_from(gather(overrides, env, config=config, cwd=cwd)),
    )


def load_plugins(choice: PluginChoice, watch: Callable[[Sequence[HookCall]], None] | None = None) -> Plugins:
    """`build_manager`, with standard output kept from the plugins."""
    reserve()
    return build_manager(choice, watch)


def _check_sections(plugins: Plugins, settings: Any, sources: Any) -> None:
    """Every section of the settings belongs to something that is there."""
    from ralph_core.plugins.registry import KINDS

    for kind, (_, table) in KINDS.items():
        for name in getattr(settings, table):
            plugins.provider(kind, name, where=sources.origin((table, name)))


def printable(text: str) -> str:
    """One line without control characters: what an agent says can't move the cursor, change colours or ring the bell."""
    return "".join(char if char.isprintable() else " " for char in text)


def say(line: str = "", stream: TextIO | None = None) -> None:
    """Print a line for a person, whatever characters the terminal can show; when nobody reads it any more, do nothing."""
    stream = stream or stdout()
    encoding = stream.encoding or "utf-8"
    try:
        print(line.encode(encoding, "replace").decode(encoding), file=stream, flush=True)
    except OSError:  # `| head`, or a terminal that is gone: what Ralph does and how it ends is the same
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())  # else Python tries again when it ends, and changes the exit code
        os.close(nowhere)


def say_json(value: Any) -> None:
    """Print a value for a program."""
    say(json.dumps(value, indent=2, ensure_ascii=True, default=str))


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows with their columns in line; the last one as long as it is."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)] if rows else []
    return [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]) for row in rows
    ]
