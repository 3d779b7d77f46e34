"""Keeps every moment at which policies were asked, so that other policies can be asked about the same run afterwards."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, is_dataclass
from operator import is_
from pathlib import Path
from typing import Any

from .errors import StoreError
from .redaction import Redactor
from .state import RECENT, Attempt, RunState
from .statefile import state_of
from .verdicts import Moment, MomentKind
from .wire import event_from, fields_of

FILE = "moments.jsonl"
LAST = "recent+"
"""Under this name: an attempt that has come to those of `RunState.recent`."""
TICK_EVERY = 5.0
"""Seconds of the run between two ticks that are kept: enough to see when a time limit would have struck."""


class MomentLog:
    """Appends a line for each moment: its kind, its event, and what has changed in the state since the line before."""

    def __init__(self, folder: Path, redactor: Redactor) -> None:
        self._path, self._redactor = folder / FILE, redactor
        self._before: RunState | None = None
        self._elapsed = 0.0
        self._file = -1

    def write(self, moment: Moment, state: RunState) -> None:
        """Keep a moment. A disk that can't take it is met by the next save of the state, which must not be lost."""
        if moment.kind is MomentKind.TICK and state.elapsed - self._elapsed < TICK_EVERY:
            return
        self._elapsed = state.elapsed
        before, self._before = self._before, state
        known = vars(before) if before is not None else {}
        # Most are the same object: a state is never changed.
        changed = {name: value for name, value in vars(state).items() if name not in known or value is not known[name]}
        if before is not None and "recent" in changed and _grown(before.recent, state.recent):
            changed[LAST] = changed.pop("recent")[-1]
        changed = {name: _plain(value) for name, value in changed.items()}
        event = fields_of(moment.event) if moment.event is not None else None
        line = {"moment": moment.kind.value, "event": event, "state": changed}
        text = json.dumps(self._redactor.value(line), default=str) + "\n"
        try:
            if self._file < 0:
                self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
            os.write(self._file, text.encode())
        except OSError:  # as the docstring says
            pass

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _grown(before: tuple[Attempt, ...], now: tuple[Attempt, ...]) -> bool:
    """Whether `now` is `before` and one more, as far as that many are kept."""
    return (
        len(now) > 0
        and all(map(is_, reversed(now[:-1]), reversed(before)))
        and len(now) >= min(len(before) + 1, RECENT)
    )


def _plain(value: Any) -> Any:
    """`value` with dataclasses as objects."""
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


def read_moments(folder: Path) -> Iterator[tuple[Moment, RunState]]:
    """The moments of a run, in order; a torn line ends a sitting, and the next one begins anew. Raises `StoreError`."""
    path = folder / FILE
    fields: dict[str, Any] = {}
    try:
        lines = path.open("rb")
    except OSError as error:
        raise StoreError(f"there are no recorded moments: {path}: {error.strerror}") from None
    with lines:
        for line in lines:
            try:
                entry = json.loads(line)
                changed = entry["state"]
                if LAST in changed:
                    changed["recent"] = [*fields["recent"], changed.pop(LAST)][-RECENT:]
                fields = {**fields, **changed}
                event = event_from(entry["event"]) if entry["event"] is not None else None
                moment = Moment(MomentKind(entry["moment"]), event)
            except (ValueError, KeyError, TypeError):
                continue
            yield moment, state_of({"state": fields})
