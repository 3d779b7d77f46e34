"""Whether a plugin fits this Ralph: the hooks that it implements, and the contract that it was made for."""

from __future__ import annotations

import re

import pluggy

from ralph_core.errors import UnknownName
from ralph_core.hookspecs import CONTRACT_VERSION, RalphSpec

PIN = re.compile(r"^Requires-Dist: ralph-core(?:\[[^]]*\])?([^;\[\]\n]*)$", re.MULTILINE | re.IGNORECASE)
"""What a distribution requires of ralph-core in any case; what an extra of it requires has a marker."""
BOUND = re.compile(r"(>=|<(?!=)) ?(\d+\.\d+)")


def hooks_of(manager: pluggy.PluginManager, plugin: object) -> tuple[str, ...]:
    """The hooks that a plugin implements. Raises ValueError for one that does not exist, or a wrapper."""
    hooks = []
    for name in dir(plugin):
        options = manager.parse_hookimpl_opts(plugin, name)
        if options is None:
            continue
        hook = options["specname"] or name
        if not hasattr(RalphSpec, hook):
            raise UnknownName("hook", hook, [name for name in vars(RalphSpec) if name.startswith("ralph_")])
        if options["wrapper"] or options["hookwrapper"]:
            raise ValueError(f"{hook}: wrappers are not part of the contract; implement the hook itself")
        hooks.append(hook)
    return tuple(hooks)


def contract_of(plugin: object) -> str:
    """The version of the contract that a plugin says it was made for, in its attribute `RALPH_CONTRACT`; empty: it does not."""
    return str(getattr(plugin, "RALPH_CONTRACT", ""))


def made_for_another(contract: str, distribution: str) -> str:
    """Why a plugin made for that contract can't be used, and what to install; empty: it can, or does not say.

    The contract has the number of the minor version of ralph-core that brought it: 0.N holds for all of 0.N.x.
    """
    if contract in ("", CONTRACT_VERSION):
        return ""
    wanted, here = _numbers(contract), _numbers(CONTRACT_VERSION)
    if not wanted:
        return f"RALPH_CONTRACT is {contract!r}, which is no version such as {CONTRACT_VERSION!r}"
    said = f"it was made for contract {contract} of Ralph, this is {CONTRACT_VERSION}"
    fitting = f"ralph-core>={contract},<{'.'.join(map(str, (*wanted[:-1], wanted[-1] + 1)))}"
    if wanted > here:
        return f"{said}: pip install '{fitting}', or an older {distribution}"
    return f"{said}: pip install --upgrade {distribution}, or '{fitting}'"


def pinned_to_another(metadata: str, distribution: str) -> str:
    """Why a distribution can't be used that requires another ralph-core, and what to install; empty: it can.

    By the head of its METADATA file, since `packaging` is no dependency.
    """
    pin = PIN.search(metadata)
    if pin is None:
        return ""
    bounds = {sign: _numbers(version) for sign, version in BOUND.findall(pin[1])}
    here = _numbers(CONTRACT_VERSION)
    if bounds.get(">=", here) <= here < bounds.get("<", (*here, 0)):
        return ""
    contract = ".".join(map(str, bounds.get(">=", ())))
    return made_for_another(contract, distribution) or f"it requires ralph-core{pin[1]}"


def _numbers(version: str) -> tuple[int, ...]:
    parts = version.split(".")
    return tuple(map(int, parts)) if len(parts) == 2 and all(part.isdigit() for part in parts) else ()
