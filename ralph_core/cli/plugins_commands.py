"""Commands that plugins bring: entry points of the group `ralph.commands`, each a Typer app, called as `ralph NAME`.

They are looked for when the first argument is no command of Ralph's own, and for `ralph --help`; imported only when called.
"""

from __future__ import annotations

import os
from collections.abc import Container, Sequence
from typing import Any

import typer

from ralph_core.errors import PluginFault

COMMANDS = "ralph.commands"


def add_commands(app: typer.Typer, arguments: Sequence[str], own: Container[str]) -> None:
    """Make the command known that is called, or the names of all for the help; `own` are Ralph's, which can't be replaced.

    Raises `PluginFault` for one that is broken.
    """
    first = arguments[0] if arguments else "--help"
    if first in own or (first.startswith("-") and first not in ("--help", "-h")):
        return
    for entry in _entries():
        if first == entry.name:
            _add(app, entry)
            return
        if first.startswith("-") and entry.name not in own:
            app.command(entry.name, help=f"From {_origin(entry)}.")(_listed)


def _entries() -> list[Any]:
    from importlib_metadata import entry_points

    allowed = os.environ.get("RALPH_PLUGINS")
    names = None if allowed is None else {name.strip() for name in allowed.split(",")}
    found = entry_points(group=COMMANDS)
    return sorted((each for each in found if names is None or each.name in names), key=lambda entry: str(entry.name))


def _add(app: typer.Typer, entry: Any) -> None:
    try:
        command = entry.load()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise PluginFault(entry.name, f"{type(error).__name__}: {error}", distribution=_origin(entry)) from error
    if not isinstance(command, typer.Typer):
        raise PluginFault(entry.name, f"{entry.value} is no typer.Typer", distribution=_origin(entry))
    app.add_typer(command, name=entry.name)


def _origin(entry: Any) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value


def _listed() -> None:
    """Stands for a command in the list of all."""
