"""The account of a run: makes the records, and carries them to each sink apart from the others."""

from __future__ import annotations

import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from .contracts import AuditSink
from .records import AuditRecord, Severity
from .redaction import Redactor

QUEUE = 10_000
"""Records that wait for one slow sink; beyond that the newest are lost, and counted."""
ATTEMPTS = 4
"""How often a batch is offered to a sink that raises; the pauses between double from `PAUSE` seconds."""
PAUSE = 0.05
CLOSING = 5.0
"""Seconds that a sink is given at the end to take what still waits for it."""


@dataclass
class SinkAccount:
    """What became of the records that were meant for one sink; `error` is the last one it raised."""

    sink: str
    plugin: str
    written: int = 0
    lost: int = 0
    error: str = ""

    @property
    def clean(self) -> bool:
        return not self.lost and not self.error


class _Pipeline:
    """A bounded queue and a writer thread in front of one sink."""

    def __init__(self, sink: AuditSink, account: SinkAccount, *, batch_size: int, flush_interval: float) -> None:
        self.account = account
        self._sink = sink
        self._batch_size, self._flush_interval = batch_size, flush_interval
        self._queue: deque[AuditRecord] = deque()
        self._changed = threading.Condition()
        self._closing = False
        # A daemon: a sink that hangs for ever must not keep Ralph from ending.
        self._thread = threading.Thread(target=self._work, name=f"ralph-audit-{account.sink}", daemon=True)
        self._thread.start()

    def put(self, record: AuditRecord) -> None:
        with self._changed:
            if self._closing or len(self._queue) >= QUEUE:
                self.account.lost += 1
                return
            self._queue.append(record)
            self._changed.notify()

    def close(self) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(CLOSING)
        if self._thread.is_alive():
            with self._changed:
                self.account.lost += len(self._queue)
                self._queue.clear()
            self.account.error = self.account.error or f"did not end within {CLOSING:g} s"

    def _work(self) -> None:
        flushed = time.monotonic()
        while True:
            with self._changed:
                if not self._queue and not self._closing:
                    self._changed.wait(self._flush_interval)
                batch = [self._queue.popleft() for _ in range(min(len(self._queue), self._batch_size))]
                done = self._closing and not self._queue
            if batch:
                self._deliver(batch)
            if done or time.monotonic() - flushed >= self._flush_interval:
                self._guard(self._sink.flush)
                flushed = time.monotonic()
            if done:
                self._guard(self._sink.close)
                return

    def _deliver(self, batch: Sequence[AuditRecord]) -> None:
        """Offer the same batch, in the same order, until it is taken or given up."""
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(PAUSE * 2**attempt)
            if self._guard(lambda: self._sink.write(batch)):
                self.account.written += len(batch)
                return
        self.account.lost += len(batch)

    def _guard(self, call: Callable[[], None]) -> bool:
        try:
            call()
        except BaseException as error:  # whatever a sink raises ends in its own account, and nowhere else
            self.account.error = f"{type(error).__name__}: {error}"
            return False
        return True


ENDINGS = ("finished", "failed", "abandoned")


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
    data: dict[str, Any] = field(default_factory=dict)


class AuditTrail:
    """Makes the records of one run, in order, and hands them to every sink and observer."""

    def __init__(
        self,
        run: str,
        sinks: Sequence[tuple[str, str, AuditSink]],
        *,
        redactor: Redactor,
        ids: Callable[[], tuple[str, str]],
        seq: int = 0,
        batch_size: int = 1000,
        flush_interval: float = 10.0,
        observer: Callable[[AuditRecord], None] | None = None,
    ) -> None:
        self._run, self._ids, self._redactor, self._observer = run, ids, redactor, observer
        self.seq = seq
        self.iteration = 0
        self._pipelines = [
            _Pipeline(sink, SinkAccount(name, plugin), batch_size=batch_size, flush_interval=flush_interval)
            for name, plugin, sink in sinks
        ]

    def record(
        self,
        type_: str,
        *,
        actor: str = "ralph",
        plugin: str = "",
        severity: Severity = Severity.INFO,
        message: str = "",
        data: Mapping[str, Any] | None = None,
        duration: float | None = None,
    ) -> None:
        """Add a record; `duration` in seconds."""
        self.seq += 1
        trace_id, span_id = self._ids()
        record = AuditRecord(
            seq=self.seq,
            id=str(uuid.uuid4()),
            time=datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            run=self._run,
            iteration=self.iteration,
            type=type_,
            severity=severity,
            actor=actor,
            plugin=plugin,
            message=self._redactor.text(message),
            data=self._redactor.value(dict(data or {})),
            trace_id=trace_id,
            span_id=span_id,
            duration_ms=None if duration is None else round(duration * 1000, 3),
        )
        for pipeline in self._pipelines:
            pipeline.put(record)
        if self._observer is not None:
            observer, self._observer = self._observer, None
            try:
                observer(record)
            except Exception as error:  # who looks on must not end what he looks at: he sees no more of it
                message = f"the observer raised {type(error).__name__}: {error}"
                self.record("note", severity=Severity.WARNING, message=message)
            else:
                self._observer = observer

    @contextmanager
    def pair(
        self, stem: str, *, actor: str = "ralph", plugin: str = "", message: str = "", **data: Any
    ) -> Iterator[Pair]:
        """`<stem>.started` now, and on every way out of the block exactly one `<stem>.<ending>`."""
        self.record(f"{stem}.started", actor=actor, plugin=plugin, message=message, data=data)
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
                actor=actor,
                plugin=plugin,
                severity=pair.severity,
                message=pair.message,
                data=pair.data,
                duration=time.monotonic() - pair.started,
            )

    def close(self) -> list[SinkAccount]:
        """Let every sink take what waits for it, close it, and give the accounts."""
        for pipeline in self._pipelines:
            pipeline.close()
        return [pipeline.account for pipeline in self._pipelines]
