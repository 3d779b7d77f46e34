"""Finds plugins by their entry points, chooses among them, and loads each one apart from the others."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pluggy

from ralph_core.errors import SettingsError, UnknownName, UserError
from ralph_core.hookspecs import PROJECT, RalphSpec
from ralph_core.values import dataclass

from .bounds import bounded
from .compatibility import pinned_to_another
from .registry import DEADLINE, HookCall, PluginRow, Plugins, words_of

if TYPE_CHECKING:
    from ralph_core.settings.sources import Sources

GROUP = "ralph.plugins"
BUILTIN = "builtin"
BUILTIN_MODULE = "ralph_core.builtin.plugin"


@dataclass(frozen=True)
class PluginChoice:
    """Which plugins take part: all, less `disable`; or, with `allow`, those alone. `require` must be in good order.

    Each of their calls may take `deadline` seconds.
    """

    disable: frozenset[str] = frozenset()
    require: frozenset[str] = frozenset()
    allow: frozenset[str] | None = None
    strict: bool = False
    deadline: float = DEADLINE


def plugin_choice(sources: Sources, env: Mapping[str, str], *, disabled: tuple[str, ...] = ()) -> PluginChoice:
    """Which plugins the settings, `RALPH_PLUGINS` and `--no-plugin` choose. Raises `SettingsError`."""
    table = sources.values.get("plugins") or {}
    lists: dict[str, frozenset[str]] = {}
    for key in ("disable", "require"):
        names = table.get(key, []) if isinstance(table, dict) else None
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise SettingsError(f"{sources.origin(('plugins', key))}: plugins.{key} has to be a list of plugin names")
        lists[key] = frozenset(names)
    deadline = table.get("deadline", PluginChoice.deadline)
    if isinstance(deadline, bool) or not isinstance(deadline, (int, float)) or not 0 < deadline < float("inf"):
        place = sources.origin(("plugins", "deadline"))
        raise SettingsError(f"{place}: plugins.deadline: {deadline!r} is not valid", mend="a number greater than 0")
    allow = env.get("RALPH_PLUGINS")
    return PluginChoice(
        deadline=float(deadline),
        disable=lists["disable"] | set(disabled),
        require=lists["require"],
        allow=None if allow is None else frozenset(name.strip() for name in allow.split(",") if name.strip()),
        strict=env.get("RALPH_STRICT_PLUGINS", "") == "1",
    )


def build_manager(choice: PluginChoice, watch: Callable[[Sequence[HookCall]], None] | None = None) -> Plugins:
    """Load the built-ins and every chosen entry point, each one guarded; the rows say what became of each.

    Raises `UnknownName` for a chosen name that is no plugin; with `choice.strict`, what a plugin raised.
    """
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(RalphSpec)
    plugins = Plugins(manager, deadline=choice.deadline)
    if watch is not None:
        plugins.watch = watch
    found = _entry_points()
    _check_names(choice, {BUILTIN, *(entry.name for entry, _ in found)})
    from ralph_core import __version__

    plugins.rows.append(_load(plugins, PluginRow(BUILTIN, "ralph-core", __version__, "active"), _builtin, strict=True))
    for entry, head in found:
        row = PluginRow(entry.name, _field(head, "Name"), _field(head, "Version"), "active")
        if entry.name in choice.disable or (choice.allow is not None and entry.name not in choice.allow):
            plugins.rows.append(replace(row, status="disabled"))
            continue
        taken = next((other for other in plugins.rows if other.name == entry.name), None)
        if taken is not None:
            plugins.rows.append(replace(row, status="error", error=f"the name is taken by {taken.distribution}"))
            continue
        plugins.rows.append(_load(plugins, row, partial(_import, entry, head), strict=choice.strict))
    plugins.require(choice.require)
    return plugins


def _load(plugins: Plugins, row: PluginRow, load: Callable[[], Any], *, strict: bool) -> PluginRow:
    started = time.perf_counter()
    try:
        plugin = bounded(lambda: _loaded(load), plugins.deadline)
        row = replace(row, load_ms=(time.perf_counter() - started) * 1000)
        return plugins.adopt(row, plugin)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        if strict:
            raise
        load_ms = (time.perf_counter() - started) * 1000
        return replace(row, status="error", error=words_of(error), load_ms=load_ms)


def _loaded(load: Callable[[], Any]) -> Any:
    plugin = load()
    return plugin() if isinstance(plugin, type) else plugin


def _field(head: str, name: str) -> str:
    """A field of a METADATA file; the package `email`, which reads these else, takes ten times as long."""
    found = re.search(rf"^{name}: *(.*?) *$", head, re.MULTILINE)
    return found[1] if found else ""


def _entry_points() -> list[tuple[Any, str]]:
    """The plugins' entry points, each with the head of its distribution's METADATA file, "" without one."""
    from importlib_metadata import entry_points

    found = []
    for entry in entry_points(group=GROUP):
        text = (entry.dist.read_text("METADATA") or entry.dist.read_text("PKG-INFO") or "") if entry.dist else ""
        found.append((entry, text.partition("\n\n")[0]))
    return sorted(found, key=lambda pair: (pair[0].name, _field(pair[1], "Name")))


def _import(entry: Any, head: str) -> Any:
    """What the entry point names. Raises `UserError` if it is meant for another ralph-core: what it imports may not be there."""
    unfit = pinned_to_another(head, _field(head, "Name"))
    if unfit:
        raise UserError(unfit)
    return entry.load()


def _builtin() -> object:
    return import_module(BUILTIN_MODULE)


def _check_names(choice: PluginChoice, known: set[str]) -> None:
    for where, names in (("disabled", choice.disable), ("required", choice.require), ("RALPH_PLUGINS", choice.allow)):
        for name in sorted(names or ()):
            if name not in known:
                raise UnknownName("plugin", name, known, where=where)
