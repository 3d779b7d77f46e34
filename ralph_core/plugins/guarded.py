"""A checkpoint store as the core uses it: what it does wrong is a fault of its plugin, by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import NoneType
from typing import Any, cast

from ralph_core.contracts import CheckpointStore, Lease, Saved, Snapshot
from ralph_core.errors import RalphError

from .bounds import Hung, bounded, unrun
from .registry import Plugins

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


class _Guarded:
    def __init__(self, store: CheckpointStore, plugin: str, name: str, plugins: Plugins) -> None:
        self._store, self._plugin, self._name, self._plugins = store, plugin, name, plugins

    def __getattr__(self, method: str) -> Callable[..., Any]:
        wanted, with_files = ANSWERS[method]
        deadline = self._store.files_deadline if with_files else self._store.deadline

        def call(*arguments: Any, **named: Any) -> Any:
            try:
                answer = bounded(lambda: getattr(self._store, method)(*arguments, **named), deadline)
            except (RalphError, KeyboardInterrupt):
                raise
            except Hung as hung:
                raise self._fault(f"{method} {hung}") from hung
            except BaseException as error:  # also SystemExit: a store does not end the process, it stops the run
                raise self._fault(f"{method} raised {type(error).__name__}: {error}") from error
            nothing = unrun(answer)
            if nothing or (wanted and not isinstance(answer, wanted)):
                names = " or ".join(kind.__name__.replace("NoneType", "None") for kind in wanted) or "None"
                raise self._fault(f"{method} answered {nothing or format(repr(answer), '.80')}, not {names}")
            return answer

        return call

    def _fault(self, what: str) -> RalphError:
        return self._plugins.fault(self._plugin, f"store {self._name!r}: {what}")
