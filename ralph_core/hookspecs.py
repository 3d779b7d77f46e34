"""The whole contract between Ralph and its plugins, on one page.

A plugin is an object (a module, or an instance of a class; a class is instantiated) that an entry point of the group
`ralph.plugins` names, with functions of these names marked `@hookimpl`. Subclass `RalphSpec` to have them type-checked.
Hooks are synchronous and small; long-lived things are providers. Each implementation is called apart, in its own span.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from .contracts import (
        Agent,
        AuditSink,
        CheckpointStore,
        Command,
        Failure,
        LimitPolicy,
        Provider,
        Section,
    )
    from .events import FailureKind
    from .state import RunState, Task

PROJECT = "ralph"
CONTRACT_VERSION = "0.1"
"""The number of the contract, that of the minor version of ralph-core that brought it: 0.N holds for all of 0.N.x."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
"""Marks a function of a plugin as the implementation of the hook of its name. `tryfirst` and `trylast` move it in the order."""


class RalphSpec:
    """Every hook that Ralph calls. Implement those you need."""

    # Declared: called once, when plugins are gathered; pure, no I/O, nothing heavy imported. An exception, or a value of
    # the wrong type, turns the plugin into an error row of `ralph plugins`; none of what it brings is then used.

    @hookspec
    def ralph_agents(self) -> Sequence[Provider[Agent]]:  # type: ignore[empty-body]
        """The agents that this plugin brings. Names are unique over all plugins; a taken name is refused."""

    @hookspec
    def ralph_checkpoint_stores(self) -> Sequence[Provider[CheckpointStore]]:  # type: ignore[empty-body]
        """The checkpoint stores that this plugin brings; a run uses the one that `checkpoint_store` names."""

    @hookspec
    def ralph_audit_sinks(self) -> Sequence[Provider[AuditSink]]:  # type: ignore[empty-body]
        """The audit sinks that this plugin brings; a run uses those that `audit_sinks` names."""

    @hookspec
    def ralph_limit_policies(self) -> Sequence[Provider[LimitPolicy]]:  # type: ignore[empty-body]
        """The limit policies that this plugin brings; a run uses all of them, save those that are switched off."""

    # In the loop. An exception, or a value of the wrong type, stops the run (exit 1) and names the plugin.

    @hookspec(firstresult=True)
    def ralph_choose_agent(self, state: RunState, candidates: Sequence[str]) -> str | None:
        """Which agent makes the next attempt: one of `candidates` (usable, in the user's order), None to leave it to others.

        Called by the loop before each attempt, plugins first, Ralph's own choice (the first candidate) last.
        """

    @hookspec
    def ralph_prompt_sections(self, state: RunState, task: Task) -> Sequence[Section]:  # type: ignore[empty-body]
        """What this plugin adds to the prompt. Called by the loop before each attempt; all answers are used."""

    @hookspec
    def ralph_prepare_command(self, command: Command, state: RunState) -> Command | None:
        """Change how an agent's process is started (a sandbox, a container); None leaves it as it is.

        Called by the process host before each start; a chain, in which each implementation gets what the one before made.
        """

    @hookspec(firstresult=True)
    def ralph_classify_failure(self, failure: Failure, state: RunState) -> FailureKind | None:
        """Correct the kind of a failed attempt; None leaves it to others, at last to the adapter. Called after each failure."""
