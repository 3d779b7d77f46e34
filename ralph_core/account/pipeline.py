"""Carries records to one sink: a bounded queue, a writer thread, batches, retries, and an account of what became of them."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from ralph_core.contracts import AuditSink
from ralph_core.plugins.bounds import unrun
from ralph_core.records import AuditRecord
from ralph_core.values import dataclass

from .spill import Spill

QUEUE = 10_000
"""Records that wait for one slow sink in memory; what is done with more is the overflow policy's to say."""
ATTEMPTS = 4
"""How often a batch is offered to a sink that raises, before the sink counts as broken."""
PAUSE, LONGEST_PAUSE = 0.05, 1.0
"""Seconds between two of these attempts: at first, and at most; they double."""
CLOSING = 5.0
"""Seconds that a sink is given at the end to take what still waits for it."""
PATIENCE = 10.0
"""Seconds for which `block` holds up the run; then the sink counts as broken, and the records are lost and counted."""


@dataclass(frozen=True)
class PipelineSettings:
    """How records are carried. `overflow` is `spill`, `block` or `drop`; times in seconds.

    `deadline` is how long a required sink may take for a batch.
    """

    batch_size: int = 1000
    flush_interval: float = 10.0
    overflow: str = "spill"
    queue: int = QUEUE
    deadline: float = 30.0


@dataclass
class SinkAccount:
    """What became of the records that were meant for one sink.

    `spilled` counts those that had to wait on disk, and `waiting` those of them that still do at the end, for the run's next
    sitting. `error` is the last thing that the sink raised. What is not written, and does not wait, is lost.
    """

    sink: str
    plugin: str
    required: bool = False
    written: int = 0
    spilled: int = 0
    lost: int = 0
    waiting: int = 0
    error: str = ""

    @property
    def clean(self) -> bool:
        return not self.lost and not self.waiting and not self.error


class Pipeline:
    """Stands before one sink. `room` is called by the run, `offer` by whoever chains the records, the sink by a thread of its own."""

    def __init__(
        self,
        sink: AuditSink,
        account: SinkAccount,
        how: PipelineSettings,
        *,
        spill: Spill | None,
        words: Callable[[str], str],
    ) -> None:
        self.account = account
        self.head = (0, "")
        self.handled = -spill.waiting if spill is not None else 0  # what an earlier sitting has left comes first
        self._sink, self._how, self._spill, self._words = sink, how, spill, words
        self._queue: deque[AuditRecord] = deque()
        self._held: Sequence[AuditRecord] = ()  # the batch from the queue that the sink has been given
        self._changed = threading.Condition()
        self._closing = self._closed = self._stuck = False
        self._failures = 0
        self._began: float | None = None
        # A daemon: a sink that hangs for ever must not keep Ralph from ending.
        self._thread = threading.Thread(target=self._work, name=f"ralph-audit-{account.sink}", daemon=True)
        self._thread.start()

    # --- the side of the run ---

    def room(self, made: int) -> None:
        """Wait, for the policy `block`, until there is room for one more than the `made` records so far."""
        if made - self.handled >= self._how.queue and not self._stuck:
            with self._changed:
                self._stuck = not self._changed.wait_for(lambda: made - self.handled < self._how.queue, PATIENCE)

    def offer(self, records: Sequence[AuditRecord]) -> None:
        """Take the records, in order; what there is no room for goes the way that the settings say."""
        with self._changed:
            over = len(self._queue) + len(records) - self._how.queue
            if self._spill is not None and (over > 0 or self._spill.waiting):
                self._wait_on_disk(records)
            elif self._how.overflow == "block" and over > 0 and self._stuck:
                self._lose(len(records))
            else:
                self._queue.extend(records)
                if self._how.overflow == "drop" and over > 0:
                    for _ in range(over):
                        self._queue.popleft()
                    self._lose(over)
            self._changed.notify()

    @property
    def fault(self) -> str:
        """Why a required sink does not do what it has to; empty: it does, or is not required."""
        began = self._began
        if not self.account.required:
            return ""
        if self.account.lost or self.account.waiting or self._failures >= ATTEMPTS:
            return f"required audit sink {self.account.sink!r} failed: {self.account.error or 'records were lost'}"
        if began is not None and time.monotonic() - began > self._how.deadline:
            return f"required audit sink {self.account.sink!r} hangs: it took no batch in {self._how.deadline:g} s"
        return ""

    def end(self) -> None:
        """Let the thread end when nothing waits any more."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    def close(self, until: float) -> None:
        """Wait for that, but not past `until` on the monotonic clock; what is left then waits on disk, or is lost."""
        self._thread.join(max(0.0, until - time.monotonic()))
        with self._changed:
            if self._thread.is_alive():
                self.account.error = self.account.error or f"did not end within {CLOSING:g} s"
            self._closed = True  # what the sink does from now on is not heeded
            left = [*self._held, *self._queue]
            if left and (self._spill is None or not self._spill.keep(left)):
                self._lose(len(left))
            elif left:
                self.account.spilled += len(left)
            self.account.waiting = self._spill.waiting if self._spill is not None else 0

    def _wait_on_disk(self, records: Sequence[AuditRecord]) -> None:
        assert self._spill is not None
        if self._spill.append(records):
            self.account.spilled += len(records)
        else:
            self.account.error = f"{self._spill.path} can't be written"
            self._lose(len(records))

    def _lose(self, count: int) -> None:
        self.account.lost += count
        self.handled += count

    # --- the side of the sink ---

    def _work(self) -> None:
        flushed = time.monotonic()
        while True:
            batch, source = self._next()
            if batch and not self._deliver(batch, source):
                break
            if time.monotonic() - flushed >= self._how.flush_interval:
                self._guard(self._sink.flush)
                flushed = time.monotonic()
            if self._closing and not batch:
                break
        self._guard(self._sink.flush)
        self._guard(self._sink.close)

    def _next(self) -> tuple[Sequence[AuditRecord], Spill | None]:
        """The next batch, once there is one, and where it waits if that is on disk; an empty one now and then."""
        with self._changed:
            if not (self._queue or self._closing or (self._spill and self._spill.waiting)):
                self._changed.wait(self._how.flush_interval)
            if self._queue:
                self._held = [self._queue.popleft() for _ in range(min(len(self._queue), self._how.batch_size))]
                return self._held, None
            if self._spill and self._spill.waiting:
                try:
                    return self._spill.peek(self._how.batch_size), self._spill
                except OSError as error:  # somebody has removed it
                    self.account.error = self._words(f"{type(error).__name__}: {error}")
                    self._lose(self._spill.waiting)
                    self._spill.forget()
            return (), None

    def _deliver(self, batch: Sequence[AuditRecord], source: Spill | None) -> bool:
        """Offer the same batch, in the same order, until it is taken; with a spill it can wait for that. False: it is the end."""
        while True:
            self._began = time.monotonic()
            good = self._guard(lambda: self._sink.write(batch))
            with self._changed:
                self._began = None
                if self._closed:
                    return False
                if good:
                    self._settle(batch, source)
                    return True
                self._failures += 1
                if self._failures >= ATTEMPTS and self._spill is None:
                    self._lose(len(batch))
                    self._held, self._failures = (), 0
                    self._changed.notify_all()
                    return True
                if self._failures >= ATTEMPTS and self._closing:
                    return False
                pause = min(PAUSE * 2**self._failures, LONGEST_PAUSE)
                self._changed.wait_for(lambda: self._closed, pause)

    def _settle(self, batch: Sequence[AuditRecord], source: Spill | None) -> None:
        self.account.written += len(batch)
        self.handled += len(batch)
        self._failures, self._stuck, self._held = 0, False, ()
        self.head = (batch[-1].seq, batch[-1].hash)
        if source is not None:
            source.taken()
        self._changed.notify_all()

    def _guard(self, call: Callable[[], object]) -> bool:
        try:
            nothing = unrun(call())
            if nothing:
                raise TypeError(f"it answered {nothing}, so nothing was done")
        except BaseException as error:  # whatever a sink raises ends in its own account, and nowhere else
            self.account.error = self._words(f"{type(error).__name__}: {error}")
            return False
        return True
