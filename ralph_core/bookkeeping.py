"""The account of a run at both ends of a sitting: how it is found and taken up, and how it is closed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from . import conventions as names
from .account.audit import AuditTrail, unfinished
from .account.pipeline import PipelineSettings, SinkAccount
from .account.spill import path_of, waiting_in
from .contracts import AuditSink, Lease
from .ground import Cast, Ground, Watcher
from .plugins.bounds import bounded
from .records import AuditFilter, AuditRecord, Severity
from .redaction import Redactor
from .state import RunState
from .tracing.telemetry import Telemetry
from .verdicts import Outcome, OutcomeKind


class Books:
    """Keeps the account of one run for a sitting; what is worth saying of it is added to `notes`."""

    def __init__(self, ground: Ground, cast: Cast, notes: list[str]) -> None:
        self._ground, self._cast, self._notes = ground, cast, notes
        self._past: list[AuditRecord] = []
        self._written: dict[str, int] = {}

    def recover(self) -> None:
        """Have each sink mend what a kill has left behind; one that can't will fail again when it is written to."""
        for each in self._cast.sinks:
            try:
                found = bounded(each.sink.recover, self._ground.plugins.deadline)
                self._notes += [f"audit sink {each.name}: {note}" for note in found]
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # also SystemExit, and a hang
                self._notes.append(f"audit sink {each.name} could not be looked after: {type(error).__name__}: {error}")

    def look_back(self, run: str) -> None:
        """Find what the account already says of a run: all of it, from the sink that can be asked, and what waits for that one."""
        for each in self._cast.sinks:
            if each.anchors:
                try:
                    past = bounded(partial(_all_of, each.sink, run), self._ground.plugins.deadline)
                except KeyboardInterrupt:
                    raise
                except BaseException:  # a sink that fails, or hangs, must not keep a run from going on
                    past = []
                self._written[each.name] = past[-1].seq if past else 0
                waiting = waiting_in(path_of(self._ground.home / "runs" / run, each.name))
                self._past = [*past, *(record for record in waiting if record.seq > self._written[each.name])]
                return

    def open(
        self,
        state: RunState,
        folder: Path,
        redactor: Redactor,
        ids: Callable[[], tuple[str, str]],
        observer: Callable[[AuditRecord], None],
    ) -> AuditTrail:
        """The account, which goes on where it ended. `folder` is the run's; `ids` gives the current trace and span."""
        settings = self._ground.settings
        seq, before = self._end(state)
        return AuditTrail(
            state.run,
            [replace(each, written=self._written.get(each.name, 0)) for each in self._cast.sinks],
            redactor=redactor,
            ids=ids,
            how=PipelineSettings(
                batch_size=settings.audit_batch_size,
                flush_interval=settings.audit_flush_interval,
                overflow=settings.audit_overflow,
                queue=settings.audit_queue,
                deadline=settings.audit_deadline,
            ),
            folder=folder,
            seq=seq,
            before=before,
            observer=observer,
        )

    def _end(self, state: RunState) -> tuple[int, str]:
        """Number and hash of the record that the chain goes on from: the last one that there is.

        If what the state vouches for is not there, it goes on from that: the gap must show for ever.
        """
        past, vouched = self._past, (state.audit_seq, state.audit_hash)
        if not past or not state.audit_hash or vouched in ((record.seq, record.hash) for record in past):
            return (past[-1].seq, past[-1].hash) if past else vouched
        last = past[-1].seq
        self._notes.append(f"the account ends with record {last}, without the record {vouched[0]} that was written")
        return max(last, vouched[0]), vouched[1]

    def begin(self, trail: AuditTrail, called: Watcher) -> None:
        """The first entries of a sitting: what was there, what is worth saying, and what a kill has left open."""
        called(self._ground.calls)
        self._ground.plugins.watch = called
        rows = [
            {key: value for key, value in asdict(row).items() if key != "load_ms"} for row in self._ground.plugins.rows
        ]
        servers = sorted(self._ground.settings.mcp.servers)
        trail.record("plugins", data={"plugins": rows, "agents": self._cast.abilities, "mcp_servers": servers})
        for note in self._notes:
            trail.record("note", severity=Severity.WARNING, message=note)
        for record in unfinished(self._past):  # the other half of a pair that was cut in two by a kill
            _abandon(trail, record)
        for bound in self._cast.bounds:
            trail.record("note", message=bound)

    def anchored(self, final: RunState, lease: Lease, trail: AuditTrail) -> RunState:
        """The last state, saved with the head of the account that is now complete; failed if that could not be kept."""
        seq, digest = trail.head
        final = replace(final, audit_seq=seq, audit_hash=digest)
        if trail.fault and final.outcome is not None and final.outcome.kind is not OutcomeKind.FAILED:
            final = replace(final, outcome=Outcome(OutcomeKind.FAILED, trail.fault, by="audit"))
        try:
            self._cast.store.anchor(final, lease)
        except Exception as error:  # whatever a store raises: the run is over, and its outcome stands
            self._notes.append(f"the end of the account is not anchored: {error or type(error).__name__}")
        return final

    def trace(self, sinks: Sequence[SinkAccount], closing: int, telemetry: Telemetry) -> None:
        """A span for each sink: not of every batch, of which there is nearly one a record, but of what came of them all."""
        for account in sinks:
            attributes = {
                names.SINK: account.sink,
                names.PLUGIN: account.plugin,
                names.VERSION: self._ground.plugins.version(account.plugin),
                names.WRITTEN: account.written,
                names.LOST: account.lost,
            }
            telemetry.record(f"sink {account.sink}", closing, time.time_ns(), attributes, account.error or None)


def _all_of(sink: AuditSink, run: str) -> list[AuditRecord]:
    return list(sink.query(AuditFilter(run=run)))


def _abandon(trail: AuditTrail, record: AuditRecord) -> None:
    """End a pair that was begun in an earlier sitting."""
    trail.iteration = record.iteration
    stem, actor, plugin = record.type.removesuffix(".started"), record.actor, record.plugin
    data = {"id": record.data["id"]} if "id" in record.data else {}
    message = "Ralph was killed"
    trail.record(
        f"{stem}.abandoned",
        actor=actor,
        plugin=plugin,
        capability=record.capability,
        result="abandoned",
        severity=Severity.WARNING,
        message=message,
        data=data,
        approval=record.approval,
    )
    trail.iteration = 0
