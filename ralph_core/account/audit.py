"""The account of a run: makes the records, chains them, and carries them to each sink apart from the others."""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from ralph_core.contracts import AuditSink
from ralph_core.records import ENDINGS, FIRST, SCHEMA, AuditRecord, Severity, chained, made
from ralph_core.redaction import Redactor
from ralph_core.values import dataclass

from .pipeline import CLOSING, Pipeline, PipelineSettings, SinkAccount
from .spill import Spill, path_of

RESULTS = {"finished": "success", "failed": "failure", "abandoned": "abandoned"}
"""What the end of a pair says of its result."""
AT_ONCE = 500
"""Records that are chained and handed on together."""
GATHERING = 0.002
"""Seconds in which further records come together before the next are chained: to wake a thread for each costs more than it."""
AHEAD = 20_000
"""Records that may be made faster than they are chained; then the run waits, for what takes no longer than it takes."""


def unfinished(records: Iterable[AuditRecord]) -> list[AuditRecord]:
    """Of the records of one run, each `*.started` that nothing has ended, the innermost first."""
    left: list[AuditRecord] = []
    for record in records:
        stem, _, phase = record.type.rpartition(".")
        if phase == "started":
            left.append(record)
        elif phase in ENDINGS:
            opened = (f"{stem}.started", record.data.get("id"))
            at = next(
                (at for at in reversed(range(len(left))) if (left[at].type, left[at].data.get("id")) == opened), None
            )
            if at is not None:
                del left[at]
    return left[::-1]


@dataclass
class Pair:
    """The open half of a pair of records; the block that holds it may add to what the closing one says."""

    type: str
    started: float
    ending: str = "finished"
    severity: Severity = Severity.INFO
    message: str = ""
    result: str = ""
    data: dict[str, Any] = field(default_factory=dict)
    usage: dict[str, Any] | None = None


@dataclass(frozen=True)
class Selected:
    """A sink that takes part in a run. `required`: the run stops when it fails; `anchors`: what it has written is anchored.

    `written` is the last record of the run that it has from an earlier sitting, as far as that is known.
    """

    name: str
    plugin: str
    sink: AuditSink
    required: bool = False
    anchors: bool = False
    written: int = 0


class AuditTrail:
    """Makes the records of one run, in order, and hands them to every observer and sink.

    `seq` and `before` are number and hash of the last record that there is of the run. The records are put in JSON and
    chained by a thread of its own: what the run pays for is making and redacting them.
    """

    def __init__(
        self,
        run: str,
        sinks: Sequence[Selected],
        *,
        redactor: Redactor,
        ids: Callable[[], tuple[str, str]],
        how: PipelineSettings,
        folder: Path,
        seq: int = 0,
        before: str = "",
        observer: Callable[[AuditRecord], None] | None = None,
    ) -> None:
        self._run, self._ids, self._redactor, self._observer = run, ids, redactor, observer
        self.seq = seq
        self.iteration = 0
        self._start = (seq, before)
        self._before = before or FIRST
        self._pipelines = [
            Pipeline(
                each.sink,
                SinkAccount(each.name, each.plugin, each.required),
                how,
                spill=Spill(path_of(folder, each.name), each.written) if how.overflow == "spill" else None,
                words=redactor.text,
            )
            for each in sinks
        ]
        self._anchoring = next((line for line, each in zip(self._pipelines, sinks, strict=True) if each.anchors), None)
        self._made: deque[AuditRecord] = deque()
        self._changed = threading.Condition()
        self._closing = self._asleep = False
        self._count = 0
        self._blocking = self._pipelines if how.overflow == "block" else []
        self._chainer = threading.Thread(target=self._chain, name="ralph-audit-chain", daemon=True)
        self._chainer.start()

    def record(
        self,
        type_: str,
        *,
        actor: str = "ralph",
        plugin: str = "",
        capability: str = "",
        result: str = "",
        severity: Severity = Severity.INFO,
        message: str = "",
        data: Mapping[str, Any] | None = None,
        approval: str = "",
        usage: Mapping[str, Any] | None = None,
        duration: float | None = None,
    ) -> None:
        """Add a record; `duration` in seconds."""
        self.seq += 1
        trace_id, span_id = self._ids()
        record = made(
            {
                "schema": SCHEMA,
                "seq": self.seq,
                "id": _unique(),
                "time": _now(),
                "run": self._run,
                "iteration": self.iteration,
                "type": type_,
                "severity": severity,
                "actor": actor,
                "plugin": plugin,
                "capability": capability,
                "result": result,
                "message": self._redactor.text(message),
                "data": self._redactor.value(data) if data else {},
                "approval": approval,
                "usage": usage,
                "trace_id": trace_id,
                "span_id": span_id,
                "duration_ms": None if duration is None else round(duration * 1000, 3),
                "prev_hash": "",
                "hash": "",
            }
        )
        for pipeline in self._blocking:
            pipeline.room(self._count)
        self._count += 1
        self._made.append(record)
        if self._asleep or len(self._made) > AHEAD:
            self._wake()
        if self._observer is not None:
            self._show(self._observer, record)

    def _wake(self) -> None:
        """Wake the thread that chains the records; wait for it if it is far behind."""
        with self._changed:
            self._changed.notify_all()
            while len(self._made) > AHEAD:
                self._changed.wait()

    def _show(self, observer: Callable[[AuditRecord], None], record: AuditRecord) -> None:
        self._observer = None
        try:
            observer(record)
        except Exception as error:  # who looks on must not end what he looks at: he sees no more of it
            message = f"the observer raised {type(error).__name__}: {error}"
            self.record("note", severity=Severity.WARNING, message=message)
        else:
            self._observer = observer

    def _chain(self) -> None:
        """Put the records in JSON, each with the hash of the one before, and hand them to the pipelines."""
        while True:
            with self._changed:
                # Said before it is looked for records: who makes one looks at this after.
                self._asleep = True
                while not self._made:
                    if self._closing:
                        return
                    self._changed.wait()
                self._asleep = False
                batch = [self._made.popleft() for _ in range(min(len(self._made), AT_ONCE))]
                self._changed.notify_all()
            linked = []
            for record in batch:
                try:
                    linked.append(chained(record, self._before))
                except (ValueError, TypeError, RecursionError) as error:  # what a plugin handed over is no JSON
                    unfit = replace(record, data={"unfit": f"{type(error).__name__}: {error}"}, usage=None)
                    linked.append(chained(unfit, self._before))
                self._before = linked[-1].hash
            for pipeline in self._pipelines:
                pipeline.offer(linked)
            if len(batch) < AT_ONCE and not self._closing:
                time.sleep(GATHERING)

    @property
    def head(self) -> tuple[int, str]:
        """Number and hash of the last record that has been written: what a checkpoint anchors."""
        head = self._anchoring.head if self._anchoring is not None else (0, "")
        return head if head[0] else self._start

    @property
    def fault(self) -> str:
        """Why the run must not go on for its account's sake; empty: it may."""
        return next((pipeline.fault for pipeline in self._pipelines if pipeline.fault), "")

    @property
    def confirmed(self) -> bool:
        """Whether every required sink has written all records so far."""
        return all(pipeline.handled >= self._count for pipeline in self._pipelines if pipeline.account.required)

    @contextmanager
    def pair(
        self,
        stem: str,
        *,
        actor: str = "ralph",
        plugin: str = "",
        capability: str = "",
        message: str = "",
        approval_id: str = "",
        **data: Any,
    ) -> Iterator[Pair]:
        """`<stem>.started` now, and on every way out of the block exactly one `<stem>.<ending>`."""
        who = {"actor": actor, "plugin": plugin, "capability": capability or stem, "approval": approval_id}
        self.record(f"{stem}.started", message=message, data=data, **who)  # type: ignore[arg-type]
        pair = Pair(stem, time.monotonic())
        try:
            yield pair
        except BaseException as error:
            if pair.ending == "finished":
                pair.ending = "failed"
            pair.severity = Severity.WARNING
            pair.message = pair.message or str(error) or type(error).__name__
            raise
        finally:
            self.record(
                f"{stem}.{pair.ending}",
                result=pair.result or RESULTS[pair.ending],
                severity=pair.severity,
                message=pair.message,
                data=pair.data,
                usage=pair.usage,
                duration=time.monotonic() - pair.started,
                **who,
            )

    @property
    def accounts(self) -> list[SinkAccount]:
        """What has become of the records so far."""
        return [pipeline.account for pipeline in self._pipelines]

    def close(self) -> list[SinkAccount]:
        """Let every sink take what waits for it, close it, and give the accounts; all of them have the same time for it."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._chainer.join()
        for pipeline in self._pipelines:
            pipeline.end()
        until = time.monotonic() + CLOSING
        for pipeline in self._pipelines:
            pipeline.close(until)
        return [pipeline.account for pipeline in self._pipelines]


def _unique() -> str:
    """A random UUID (version 4), in a third of the time that the module of this name takes."""
    text = f"{random.getrandbits(128):032x}"
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-{'89ab'[int(text[16], 16) & 3]}{text[17:20]}-{text[20:]}"


def _now() -> str:
    """The time in UTC, to the millisecond."""
    seconds, fraction = divmod(time.time_ns() // 1_000_000, 1000)
    return f"{_second(seconds)}.{fraction:03d}Z"


@lru_cache(maxsize=2)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
