"""What the runs of a workspace stand on, what takes part in one, and what one came to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from functools import cached_property
from pathlib import Path
from typing import Any

from .account.audit import Selected
from .account.pipeline import SinkAccount
from .contracts import Agent, CheckpointStore, LimitPolicy
from .plugins.registry import HookCall, Plugins
from .processes.environment import fetch_keys
from .records import AuditRecord
from .settings.model import Settings
from .settings.sources import Sources
from .state import RunState
from .values import dataclass
from .verdicts import Outcome

Observer = Callable[[AuditRecord, RunState], None]
Watcher = Callable[[Sequence[HookCall]], None]


@dataclass(frozen=True)
class Account:
    """What a run came to: its last state, and the folder of its records (`trace.jsonl`, `output/`)."""

    state: RunState
    folder: Path
    changed_files: Sequence[str] | None
    sinks: Sequence[SinkAccount]
    notes: Sequence[str] = ()

    @property
    def outcome(self) -> Outcome:
        assert self.state.outcome is not None
        return self.state.outcome


@dataclass(frozen=True)
class Cast:
    """What the settings select, built. Nothing of it has had an effect yet."""

    agents: Mapping[str, Agent]
    store: CheckpointStore
    sinks: Sequence[Selected]
    policies: Sequence[tuple[str, str, LimitPolicy]]
    bounds: Sequence[str] = ()
    """How far the limits can be exceeded, in words."""
    abilities: Mapping[str, Any] = field(default_factory=dict)
    """By agent: its program and version, its capabilities, and the skills that it finds."""


@dataclass
class Ground:
    """What all runs of one workspace stand on.

    An observer with a true attribute `interactive` asks a person itself when it sees a record `approval.started`; one with a
    method `follow` is handed what gives the state at any time, which is ahead of the last record.
    `given` is what the command line said, for a later resume; `calls` are hook calls made before there was a trace;
    `sources` says of each setting where it was made; `ready` is called when all is put together and the loop begins;
    `named` is the id that a new run gets, if it is given one.
    """

    settings: Settings
    plugins: Plugins
    env: Mapping[str, str]
    cwd: Path
    given: Mapping[str, Any]
    calls: Sequence[HookCall] = ()
    observer: Observer = lambda _record, _state: None
    reload: Callable[[], Settings] | None = None
    ready: Callable[[], None] = lambda: None
    sources: Sources = field(default_factory=Sources)
    named: str | None = None

    def __post_init__(self) -> None:
        self.workspace = self.settings.workspace_path(self.cwd)
        self.home = self.settings.home_path(self.cwd)

    @cached_property
    def keys(self) -> Mapping[str, str]:
        """The keys that are kept elsewhere, by variable; fetched when they are needed first. Raises `SettingsError`."""
        return fetch_keys(self.settings.keys, self.workspace)
