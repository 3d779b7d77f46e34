"""One sitting of a run: from the lock on the workspace to the account."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import conventions as names
from .approvals import Book
from .audit import AuditTrail, Selected, unfinished
from .bounds import bounded
from .consent import askers
from .contracts import Agent, AuditSink, CheckpointStore, Lease, LimitPolicy
from .diagnosis import diagnose
from .environment import fetch_keys
from .errors import PluginFault, StoreError, UserError, WorkspaceBusy
from .interrupts import Interrupts
from .loop import Loop
from .moments import MomentLog
from .monitor import Monitor
from .pipeline import PipelineSettings, SinkAccount
from .plugins import HookCall, Plugins
from .policies import Policies
from .process import Supervisor
from .records import AuditFilter, AuditRecord, Severity
from .redaction import Redactor
from .run import Parts
from .settings import Settings
from .sources import Sources
from .spill import path_of, waiting_in
from .state import RunState, Task
from .statefile import ensure_home, write_atomically
from .steering import Desk
from .survivors import kill_survivors
from .telemetry import Telemetry
from .transcripts import Transcripts
from .verdicts import Outcome, OutcomeKind
from .workspace import Holder, WorkspaceLock, is_held

if TYPE_CHECKING:
    from .logs import Log

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


class Sitting:
    """Works on one run of a workspace; `notes` are said at its beginning and at its end."""

    def __init__(self, ground: Ground, cast: Cast, task: Task, words: str, notes: Sequence[str]) -> None:
        self.ground, self.cast, self.task, self.words = ground, cast, task, words
        self.notes = list(notes)
        self._halt = Interrupts()
        self._loop: Loop | None = None
        self._written: dict[str, int] = {}
        self._log: Log | None = None

    async def sit(self, run: RunState | None = None, *, rollback: bool = False) -> Account:
        """Begin a run, or go on with `run`, until it ends. What is opened here is closed here, on every way out."""
        monitor = Monitor(self.ground.settings, self.ground.env)
        try:
            self._log = _log(self.ground.settings, self.ground.workspace)
            return await self._locked(run, monitor, rollback=rollback)
        finally:
            monitor.close()
            if self._log is not None:
                self._log.close()

    async def _locked(self, run: RunState | None, monitor: Monitor, *, rollback: bool) -> Account:
        ground, notes = self.ground, self.notes
        ensure_home(ground.home)
        run_id = run.run if run is not None else ground.named or new_run_id()
        lock = WorkspaceLock(ground.workspace, ground.home)
        lock.acquire(Holder(os.getpid(), run_id, time.time()))
        try:
            store = self.cast.store
            # Looked up again, now that nobody else can write it.
            run = store.load(run_id).state if run is not None else _cut_short(store, self.task, ground.home)
            if run is not None:
                run_id = run.run
                self._not_elsewhere(run)
                notes.append(f"going on with run {run_id}, iteration {run.finished + 1}")
                if killed := kill_survivors(run_id, _recorded(run)):
                    notes.append(f"{killed} processes that the run had left behind were killed")
                if rollback:
                    notes.append(self._roll_back(store, run))
            return await self._drive(self._state(run_id, run), monitor, fresh=run is None)
        finally:
            lock.release()

    def _not_elsewhere(self, run: RunState) -> None:
        """Raise `WorkspaceBusy` if the run, of which this one is a copy then, is at work in the workspace that it began in.

        What belongs to it is known by the run's id: it would be taken for left over.
        """
        before = Path(run.workspace)
        if before == self.ground.workspace or not before.is_dir():
            return
        if is_held(before, Path(before, self.ground.settings.home), run.run):
            raise WorkspaceBusy(
                f"run {run.run} is at work in {before}", mend="end that one first: ralph stop -w " + str(before)
            )

    def _roll_back(self, store: CheckpointStore, run: RunState) -> str:
        if run.snapshot is None:
            raise UserError(f"run {run.run} has no snapshot to roll back to", mend="resume it without --rollback")
        before = store.restore(run.snapshot, self.ground.workspace)
        undo = f"; what was there is in {before.ref}" if before is not None else ""
        return f"the files are those of {run.snapshot}{undo}"

    def _state(self, run_id: str, run: RunState | None) -> RunState:
        """The state to begin with: a new one, or the saved one, with what may have changed since."""
        ground, settings = self.ground, self.ground.settings
        if run is None:
            return RunState(
                run=run_id,
                workspace=str(ground.workspace),
                agent="",
                task=self.task,
                started=time.time(),
                limits=settings.limits,
                promise=settings.completion_promise,
                given=dict(ground.given),
                agents=tuple(self.cast.agents),
            )
        recent, booked = run.recent, run.booked
        if run.current is not None:
            booked = booked and booked + run.current.spend
            recent = (*recent, replace(run.current, result="abandoned", ended=time.time(), message="Ralph was killed"))
        return replace(
            run,
            workspace=str(ground.workspace),  # it may have been moved, or restored elsewhere
            task=self.task,
            limits=settings.limits,
            promise=settings.completion_promise,
            given=dict(ground.given) or run.given,
            sittings=run.sittings + 1,
            recent=recent,
            booked=booked,
            agents=tuple(self.cast.agents),
            current=None,
            outcome=None,
        )

    async def _drive(self, state: RunState, monitor: Monitor, *, fresh: bool) -> Account:
        """Open all that a run works with, drive the loop, and close it again."""
        ground, cast = self.ground, self.cast
        folder = ground.home / "runs" / state.run
        lease = cast.store.claim(state.run)
        redactor = Redactor({**ground.env, **ground.keys})
        for server in ground.settings.mcp.servers.values():
            redactor.learn({**server.env, **server.headers})
        transcripts = Transcripts(folder, redactor, lambda: self._halt.now is not None)
        self._lay_out(folder, transcripts, redactor)
        self._recover_sinks()
        async with _supervised(state.run) as starting, _looked_at(cast.store, state, lease) as first_look:
            telemetry = Telemetry(folder / "trace.jsonl", ground.env, redactor, run=state.run)
            if self._log is not None:
                self._log.begin(state.run, redactor, telemetry.ids)
            past = [] if fresh else self._past(state.run)
            trail = self._trail(state, past, redactor, telemetry, folder, monitor)

            def called(calls: Sequence[HookCall]) -> None:
                telemetry.calls(calls)
                monitor.calls(calls)

            policies = Policies(cast.policies, ground.plugins, called)
            monitor.begin(
                ground.home,
                telemetry.resource,
                state=lambda: self._loop.run.state if self._loop is not None else state,
                sinks=lambda: trail.accounts,
            )
            watching = asyncio.ensure_future(monitor.watch())
            try:
                parts = Parts(
                    settings=ground.settings,
                    plugins=ground.plugins,
                    agents=cast.agents,
                    store=cast.store,
                    lease=lease,
                    policies=policies,
                    trail=trail,
                    telemetry=telemetry,
                    supervisor=await starting,
                    first_look=first_look,
                    halt=self._halt,
                    moments=MomentLog(folder, redactor),
                    askers=askers(cast.agents, [name for name, _, _ in cast.policies], ground.plugins),
                    someone=ground.settings.approvals == "wait" or getattr(ground.observer, "interactive", False),
                    redactor=redactor,
                    transcripts=transcripts,
                    words=self.words,
                    workspace=ground.workspace,
                    folder=folder,
                    scratchpad=ground.home / "scratchpad.md",
                    desk=Desk(folder),
                    env=ground.env,
                )
                self.notes += monitor.notes
                final = await self._loop_through(Loop(parts, state), past, called)
                changed = await asyncio.to_thread(changed_files, cast.store, state.run)
            finally:
                watching.cancel()
                ground.plugins.watch = lambda _calls: None
                policies.close()
                closing = time.time_ns()
                sinks = await asyncio.to_thread(trail.close)
                self._trace_sinks(sinks, closing, telemetry)
                telemetry.close()
            if transcripts.left:
                self.notes.append(
                    f"{len(transcripts.left)} large transcripts are not yet gone through for secrets, and private, in "
                    f"{transcripts.raw('')}; that is done when the run goes on"
                )
            final = self._anchored(final, lease, trail)
            if self._loop is not None:
                self._loop.run.state = final  # what the monitor tells last
        notes = (*self.notes, *telemetry.notes, *(self._log.notes if self._log is not None else ()))
        return Account(final, folder, changed, sinks, [redactor.text(note) for note in notes])

    def _anchored(self, final: RunState, lease: Lease, trail: AuditTrail) -> RunState:
        """The last state, saved with the head of the account that is now complete; failed if that could not be kept."""
        seq, digest = trail.head
        final = replace(final, audit_seq=seq, audit_hash=digest)
        if trail.fault and final.outcome is not None and final.outcome.kind is not OutcomeKind.FAILED:
            final = replace(final, outcome=Outcome(OutcomeKind.FAILED, trail.fault, by="audit"))
        try:
            self.cast.store.anchor(final, lease)
        except Exception as error:  # whatever a store raises: the run is over, and its outcome stands
            self.notes.append(f"the end of the account is not anchored: {error or type(error).__name__}")
        return final

    def _recover_sinks(self) -> None:
        """Have each sink mend what a kill has left behind; one that can't will fail again when it is written to."""
        for each in self.cast.sinks:
            try:
                found = bounded(each.sink.recover, self.ground.plugins.deadline)
                self.notes += [f"audit sink {each.name}: {note}" for note in found]
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # also SystemExit, and a hang
                self.notes.append(f"audit sink {each.name} could not be looked after: {type(error).__name__}: {error}")

    def _trace_sinks(self, sinks: Sequence[SinkAccount], closing: int, telemetry: Telemetry) -> None:
        """A span for each sink: not of every batch, of which there is nearly one a record, but of what came of them all."""
        for account in sinks:
            attributes = {
                names.SINK: account.sink,
                names.PLUGIN: account.plugin,
                names.VERSION: self.ground.plugins.version(account.plugin),
                names.WRITTEN: account.written,
                names.LOST: account.lost,
            }
            telemetry.record(f"sink {account.sink}", closing, time.time_ns(), attributes, account.error or None)

    def _lay_out(self, folder: Path, transcripts: Transcripts, redactor: Redactor) -> None:
        """Make the folder of the run, and clear away what a Ralph that was killed has left open in it."""
        try:
            transcripts.folder.mkdir(parents=True, exist_ok=True)
            transcripts.recover()
            for left in Book(folder).all():
                Book(folder).lapse(left, "Ralph was killed")
            if self.ground.settings.archive_enabled:
                _archive(self.ground.home / "prompts", redactor.text(self.words), self.task)
        except OSError as error:
            raise UserError(f"{folder} can't be written: {error.strerror}") from None

    def _trail(
        self,
        state: RunState,
        past: Sequence[AuditRecord],
        redactor: Redactor,
        telemetry: Telemetry,
        folder: Path,
        monitor: Monitor,
    ) -> AuditTrail:
        def observe(record: AuditRecord) -> None:
            monitor.heed(record)
            if self._log is not None:
                self._log.heed(record)
            self.ground.observer(record, self._loop.run.state if self._loop is not None else state)

        settings = self.ground.settings
        seq, before = self._end_of_account(state, past)
        return AuditTrail(
            state.run,
            [replace(each, written=self._written.get(each.name, 0)) for each in self.cast.sinks],
            redactor=redactor,
            ids=telemetry.ids,
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
            observer=observe,
        )

    def _end_of_account(self, state: RunState, past: Sequence[AuditRecord]) -> tuple[int, str]:
        """Number and hash of the record that the chain goes on from: the last one that there is.

        If what the state vouches for is not there, it goes on from that: the gap must show for ever.
        """
        vouched = (state.audit_seq, state.audit_hash)
        if not past or not state.audit_hash or vouched in ((record.seq, record.hash) for record in past):
            return (past[-1].seq, past[-1].hash) if past else vouched
        last = past[-1].seq
        self.notes.append(f"the account ends with record {last}, without the record {vouched[0]} that was written")
        return max(last, vouched[0]), vouched[1]

    async def _loop_through(self, loop: Loop, past: Sequence[AuditRecord], called: Watcher) -> RunState:
        self._loop, parts = loop, loop.run.parts
        if (follow := getattr(self.ground.observer, "follow", None)) is not None:
            follow(lambda: loop.run.state)
        attributes = {names.RUN: loop.run.state.run, names.SITTING: loop.run.state.sittings}
        with (
            self._halt.on_signals(reload=self._reload, diagnose=lambda: diagnose(loop.run)),
            parts.telemetry.span("ralph.run", attributes) as span,
        ):
            self._begin(parts.trail, called)
            for record in unfinished(past):  # the other half of a pair that was cut in two by a kill
                _abandon(parts.trail, record)
            for bound in self.cast.bounds:
                parts.trail.record("note", message=bound)
            self.ground.ready()
            final = await loop.drive()
            assert final.outcome is not None
            span.set_attributes({names.OUTCOME: final.outcome.kind.value, names.REASON: final.outcome.reason})
        return final

    def _past(self, run: str) -> list[AuditRecord]:
        """What the account already says of a run: all of it, from the sink that can be asked, and what waits for that one."""
        for each in self.cast.sinks:
            if each.anchors:
                try:
                    past = bounded(partial(_all_of, each.sink, run), self.ground.plugins.deadline)
                except KeyboardInterrupt:
                    raise
                except BaseException:  # a sink that fails, or hangs, must not keep a run from going on
                    past = []
                self._written[each.name] = past[-1].seq if past else 0
                waiting = waiting_in(path_of(self.ground.home / "runs" / run, each.name))
                return [*past, *(record for record in waiting if record.seq > self._written[each.name])]
        return []

    def _begin(self, trail: AuditTrail, called: Watcher) -> None:
        """The first entries of a sitting: what was there, and what is worth saying."""
        called(self.ground.calls)
        self.ground.plugins.watch = called
        rows = [
            {key: value for key, value in asdict(row).items() if key != "load_ms"} for row in self.ground.plugins.rows
        ]
        servers = sorted(self.ground.settings.mcp.servers)
        trail.record("plugins", data={"plugins": rows, "agents": self.cast.abilities, "mcp_servers": servers})
        for note in self.notes:
            trail.record("note", severity=Severity.WARNING, message=note)

    def _reload(self) -> None:
        """SIGHUP: the limits of the settings as they are now. A mistake in them is said, and changes nothing."""
        if self._loop is None or self.ground.reload is None:
            return
        run = self._loop.run
        try:
            limits = self.ground.reload().limits
        except UserError as error:
            run.parts.trail.record("note", severity=Severity.WARNING, message=f"settings not reloaded: {error}")
            return
        run.note(limits=limits)
        run.parts.trail.record("note", message="settings reloaded", data=asdict(limits))


def _log(settings: Settings, workspace: Path) -> Log | None:
    """The log that is asked for; what writes it is imported for it alone."""
    if not settings.monitoring.logs:
        return None
    from .logs import Log

    return Log(settings, workspace)


@asynccontextmanager
async def _supervised(run: str) -> AsyncIterator[Awaitable[Supervisor]]:
    """The supervisor of a run, which starts while other things are made ready; at the end, nothing of it is left."""
    starting = asyncio.ensure_future(Supervisor.open(run))
    await asyncio.sleep(0)  # far enough for its process to start
    try:
        yield starting
    finally:
        await (await starting).close()


@asynccontextmanager
async def _looked_at(store: CheckpointStore, state: RunState, lease: Lease) -> AsyncIterator[Awaitable[object]]:
    """A first look at the files of a new run, while other things are made ready: what it finds, the first snapshot need not.

    What goes wrong, the snapshot will say.
    """
    looks = [asyncio.to_thread(store.fingerprint, state, lease)] if state.snapshot is None else []
    looking = asyncio.gather(*looks, return_exceptions=True)
    await asyncio.sleep(0)  # far enough for the thread to start
    try:
        yield looking
    finally:
        await looking


def new_run_id() -> str:
    """An id that sorts by time: date, time (UTC), three hexadecimal digits of the second's fraction, and three at random."""
    now = time.time()
    fraction, chance = int(now % 1 * 4096), int.from_bytes(os.urandom(2), "big") % 4096
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime(now))}-{fraction:03x}{chance:03x}"


def _archive(folder: Path, words: str, task: Task) -> None:
    """Keep this version of the prompt, under a name that comes from its words."""
    path = folder / f"{task.digest[:16]}.md"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(path, words.encode())


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


def _recorded(run: RunState) -> tuple[int, str] | None:
    """The agent's process that was at work when the state was saved: its pid and its identity."""
    current = run.current
    return (current.pid, current.pid_started) if current and current.pid and current.pid_started else None


def changed_files(store: CheckpointStore, run: str) -> Sequence[str] | None:
    """What the run changed, or None if the store can't say: the account does not depend on it."""
    try:
        return store.changed_files(run)
    except (StoreError, PluginFault):
        return None


def _cut_short(store: CheckpointStore, task: Task, home: Path) -> RunState | None:
    """The latest run, if it was killed in the middle of the same task."""
    if not (home / "runs").is_dir():  # nothing was begun here yet: git need not be asked
        return None
    latest = store.latest()
    # A run whose folder is gone is known by its snapshots alone, which don't say how it ended: it goes on only if asked to.
    if latest is None or not (home / "runs" / latest).is_dir():
        return None
    try:
        state = store.load(latest).state
    except StoreError:
        return None
    return state if state.outcome is None and state.task.digest == task.digest else None
