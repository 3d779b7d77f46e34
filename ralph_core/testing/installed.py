"""The rules that an installed plugin can be held to without what its author knows; collected by `ralph plugins verify`.

What needs more than a plugin's own defaults is left out, and said: the author's tests, on the same kit, run all of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from ralph_core.contracts import Capability, Provider
from ralph_core.testing.agents import AgentContract
from ralph_core.testing.packages import PluginContract
from ralph_core.testing.policies import LimitPolicyContract
from ralph_core.testing.rules import built, clean_env, context_in, plugins_here
from ralph_core.testing.sinks import AuditSinkContract
from ralph_core.testing.stores import CheckpointStoreContract

VARIABLE = "RALPH_VERIFY"
"""The variable of the environment that names the plugin."""
CONTRACTS: dict[str, type[Any]] = {
    "agent": AgentContract,
    "store": CheckpointStoreContract,
    "sink": AuditSinkContract,
    "policy": LimitPolicyContract,
}


def classes(plugin: str) -> Iterator[tuple[str, type[Any]]]:
    """Name and class of each part that is tested."""
    yield "Test_plugin", type("Test_plugin", (PluginContract,), {"plugin": plugin})
    for kind, provider in _brought(plugin):
        if not _needs_settings(kind, provider):
            name, without = f"Test_{kind}_{provider.name}", dict.fromkeys(_left_out(kind, provider))
            yield name, type(name, (CONTRACTS[kind],), {"provider": provider.name, **without})


def left_out(plugin: str) -> list[str]:
    """What is not run, in words."""
    notes = []
    for kind, provider in _brought(plugin):
        if _needs_settings(kind, provider):
            notes.append(f"{kind} {provider.name}: without settings it does nothing")
        elif kind == "agent":
            notes.append(f"agent {provider.name}: attempts, for which its author has scenarios")
        elif without := _left_out(kind, provider):
            names = ", ".join(name.removeprefix("test_").replace("_", " ") for name in sorted(without))
            notes.append(f"{kind} {provider.name}: {names}")
    return notes


def _brought(plugin: str) -> list[tuple[str, Provider[Any]]]:
    return [
        (kind, provider)
        for kind, table in plugins_here().providers.items()
        for owner, provider in table.values()
        if owner == plugin
    ]


def _left_out(kind: str, provider: Provider[Any]) -> set[str]:
    """The tests of a contract that need its author."""
    if kind == "agent":
        return {name for name in vars(AgentContract) if name.startswith("test_") and "_probe_" not in name}
    if kind == "policy" and Capability.TOOLS in provider.capabilities:
        return {"test_tools_are_what_is_declared"}  # as it is, it may deny nothing
    if kind != "sink":
        return set()
    reading = {"test_keeps_records_in_order", "test_keeps_hard_content", "test_an_empty_batch_is_nothing"}
    reopening = {"test_goes_on_after_reopening", "test_what_was_flushed_outlives_kill_9"}
    pruning = {"test_prune_forgets_old_runs"}
    if Capability.QUERY not in provider.capabilities:
        return reading | reopening | pruning
    return set() if Capability.VERIFY in provider.capabilities else reopening  # it may keep them in memory


def _needs_settings(kind: str, provider: Provider[Any]) -> bool:
    """Whether it can't be built as it is, or has nothing to do then; a fault is said by the rules for the plugin."""
    try:
        with TemporaryDirectory() as folder:
            made = built(kind, provider, {}, context_in(Path(folder), clean_env(Path(folder))))
    except (Exception, pytest.fail.Exception):
        return True
    return not getattr(made, "concerned", True)


if os.environ.get(VARIABLE):
    globals().update(classes(os.environ[VARIABLE]))
