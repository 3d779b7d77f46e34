"""A checkpoint store as the core uses it: what it does wrong is a fault of its plugin, by name."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import NoneType
from typing import Any, ParamSpec, TypeVar, cast

from ralph_core.contracts import CheckpointStore, Lease, Saved, Snapshot
from ralph_core.errors import RalphError

from .bounds import Hung, bounded, bounded_aside, unrun
from .registry import Plugins

P = ParamSpec("P")
T = TypeVar("T")

ANSWERS: dict[str, tuple[tuple[type, ...], bool]] = {
    "claim": ((Lease,), False),
    "save": ((), False),
    "load": ((Saved,), False),
    "runs": ((Sequence,), False),
    "latest": ((str, NoneType), False),
    "anchor": ((), False),
    "anchors": ((Sequence,), False),
    "history": ((Sequence,), False),
    "look": ((), True),
    "snapshot": ((Snapshot, NoneType), True),
    "fingerprint": ((str, NoneType), True),
    "changed_files": ((Sequence, NoneType), True),
    "diff": ((bytes,), True),
    "restore": ((Snapshot, NoneType), True),
    "prune": ((int,), True),
    "pack": ((), True),
    "unpack": ((), True),
}
"""Each method of `CheckpointStore`: what it may answer (empty: nobody looks at that), and whether it works with files."""


def guarded(store: CheckpointStore, plugin: str, name: str, plugins: Plugins) -> CheckpointStore:
    """The store, of which every method is bounded in time, and raises `RalphError` alone."""
    return cast("CheckpointStore", _Guarded(store, plugin, name, plugins))


async def in_thread(method: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """What a method answers that takes its time, so that signals are heard meanwhile. That of a guarded store is bounded, too."""
    if isinstance(method, _Method):
        return cast("T", await method.in_thread(*arguments, **named))
    return await asyncio.to_thread(method, *arguments, **named)


class _Guarded:
    def __init__(self, store: CheckpointStore, plugin: str, name: str, plugins: Plugins) -> None:
        self._store, self._plugin, self._name, self._plugins = store, plugin, name, plugins

    def __getattr__(self, method: str) -> _Method:
        return _Method(self._store, method, self._fault)

    def _fault(self, what: str) -> RalphError:
        return self._plugins.fault(self._plugin, f"store {self._name!r}: {what}")


class _Method:
    """A method of a store: called at once, or in a thread."""

    def __init__(self, store: CheckpointStore, name: str, fault: Callable[[str], RalphError]) -> None:
        self._store, self._name, self._fault = store, name, fault
        self._wanted, with_files = ANSWERS[name]
        self._deadline = store.files_deadline if with_files else store.deadline

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        with self._blamed():
            answer = bounded(lambda: getattr(self._store, self._name)(*arguments, **named), self._deadline)
        return self._checked(answer)

    async def in_thread(self, *arguments: Any, **named: Any) -> Any:
        with self._blamed():
            answer = await bounded_aside(lambda: getattr(self._store, self._name)(*arguments, **named), self._deadline)
        return self._checked(answer)

    @contextmanager
    def _blamed(self) -> Iterator[None]:
        try:
            yield
        except (RalphError, KeyboardInterrupt, asyncio.CancelledError):
            raise
        except Hung as hung:
            raise self._fault(f"{self._name} {hung}") from hung
        except BaseException as error:  # also SystemExit: a store does not end the process, it stops the run
            raise self._fault(f"{self._name} raised {type(error).__name__}: {error}") from error

    def _checked(self, answer: object) -> object:
        nothing = unrun(answer)
        if nothing or (self._wanted and not isinstance(answer, self._wanted)):
            names = " or ".join(kind.__name__.replace("NoneType", "None") for kind in self._wanted) or "None"
            raise self._fault(f"{self._name} answered {nothing or format(repr(answer), '.80')}, not {names}")
        return answer
