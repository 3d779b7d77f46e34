"""What the contracts of the kit share: how a broken rule is said, and how what is to be tested is found and built."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import pytest

from ralph_core.contracts import Agent, AuditSink, CheckpointStore, Context, LimitPolicy, Provided, Provider
from ralph_core.errors import UserError
from ralph_core.plugins.discovery import PluginChoice, build_manager
from ralph_core.plugins.registry import KINDS, Plugins

BASES: dict[str, type[Provided]] = {
    "agent": Agent,
    "store": CheckpointStore,
    "sink": AuditSink,
    "policy": LimitPolicy,
}
"""Kind of provider: what its factory has to make."""
Named = str | Provider[Any]
"""What is tested: the name of a provider that is installed, or one that is not (yet) declared by a plugin."""


def broken(what: str, *, mend: str) -> NoReturn:
    """Fail the test: `what` was seen, and `mend` says what to change."""
    pytest.fail(f"{what}\n  to mend: {mend}", pytrace=False)


def holds(condition: object, what: str, *, mend: str) -> None:
    """Fail the test unless `condition` is true."""
    if not condition:
        broken(what, mend=mend)


def found(kind: str, named: Named) -> Provider[Any]:
    """The provider that is to be tested; the test fails if there is none of that name."""
    if isinstance(named, Provider):
        return named
    plugins = build_manager(PluginChoice())
    if named in plugins.providers[kind]:
        return plugins.providers[kind][named][1]
    rows = [f"{row.name}: {row.error}" for row in plugins.rows if row.status == "error"]
    broken(
        f"no {kind} {named!r} is installed" + (f"; broken plugins: {'; '.join(rows)}" if rows else ""),
        mend=f"set `provider` of this class to the name that {KINDS[kind][0]} declares, and install the package",
    )


def built(kind: str, provider: Provider[Any], section: Mapping[str, Any] | None, context: Context) -> Any:
    """What the provider's factory makes, with the section of the settings validated as a run does it."""
    from ralph_core.settings.sources import Sources
    from ralph_core.settings.validation import validated

    settings = None
    if provider.settings is not None:
        path = (KINDS[kind][1], provider.name)
        try:
            settings = validated(imported(provider.settings), dict(section or {}), Sources(), path)
        except UserError as error:
            broken(str(error), mend=f"give settings with which {kind} {provider.name!r} can be built")
    made = imported(provider.factory)(settings, context)
    holds(
        isinstance(made, BASES[kind]),
        f"{provider.factory} made a {type(made).__name__}, which is no {BASES[kind].__name__}",
        mend=f"let the factory of {kind} {provider.name!r} return an instance of a subclass of {BASES[kind].__name__}",
    )
    return made


def plugins_here() -> Plugins:
    """All installed plugins, as a run finds them."""
    return build_manager(PluginChoice())


def imported(path: str) -> Any:
    """The object that "package.module:Name" names."""
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


def context_in(folder: Path, env: Mapping[str, str]) -> Context:
    """A workspace and a state directory below `folder`, made if need be."""
    workspace, home = folder / "workspace", folder / "workspace" / ".agent"
    home.mkdir(parents=True, exist_ok=True)
    return Context(workspace, home, env)


def clean_env(folder: Path) -> dict[str, str]:
    """The environment of the tests: the machine's PATH, a home of its own, and nothing else of this process's."""
    import os

    home = folder / "home"
    home.mkdir(parents=True, exist_ok=True)
    return {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(home), "LANG": "C.UTF-8"}
