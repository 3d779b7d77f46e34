"""One sitting of a run: from the lock on the workspace to the account."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from . import conventions as names
from .approvals import Book
from .bookkeeping import Books
from .consent import askers
from .contracts import CheckpointStore, Lease
from .diagnosis import diagnose
from .errors import PluginFault, StoreError, UserError, WorkspaceBusy
from .ground import Account, Cast, Ground, Watcher
from .interrupts import Interrupts
from .loop import Loop
from .moments import MomentLog
from .monitoring.monitor import Monitor
from .plugins.guarded import in_thread
from .plugins.registry import HookCall
from .policies import Policies
from .processes.process import Supervisor
from .processes.survivors import kill_survivors
from .processes.transcripts import Transcripts
from .records import AuditRecord, Severity
from .redaction import Redactor
from .run import Parts
from .settings.model import Settings
from .state import RunState, Task
from .statefile import ensure_home, write_atomically
from .steering import Desk
from .tracing.telemetry import Telemetry
from .workspace import Holder, WorkspaceLock, is_held

if TYPE_CHECKING:
    from .monitoring.logs import Log


class Sitting:
    """Works on one run of a workspace; `notes` are said at its beginning and at its end."""

    def __init__(self, ground: Ground, cast: Cast, task: Task, words: str, notes: Sequence[str]) -> None:
        self.ground, self.cast, self.task, self.words = ground, cast, task, words
        self.notes = list(notes)
        self._books = Books(ground, cast, self.notes)
        self._halt = Interrupts()
        self._loop: Loop | None = None
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
        self._books.recover()
        async with _supervised(state.run) as starting, _looked_at(cast.store, state, lease) as first_look:
            telemetry = Telemetry(folder / "trace.jsonl", ground.env, redactor, run=state.run)
            if self._log is not None:
                self._log.begin(state.run, redactor, telemetry.ids)
            if not fresh:
                self._books.look_back(state.run)

            def observe(record: AuditRecord) -> None:
                monitor.heed(record)
                if self._log is not None:
                    self._log.heed(record)
                ground.observer(record, self._loop.run.state if self._loop is not None else state)

            trail = self._books.open(state, folder, redactor, telemetry.ids, observe)

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
            moments = MomentLog(folder, redactor)
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
                    moments=moments,
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
                final = await self._loop_through(Loop(parts, state), called)
                changed = await asyncio.to_thread(changed_files, cast.store, state.run)
            finally:
                watching.cancel()
                ground.plugins.watch = lambda _calls: None
                policies.close()
                moments.close()
                closing = time.time_ns()
                sinks = await asyncio.to_thread(trail.close)
                self._books.trace(sinks, closing, telemetry)
                telemetry.close()
                transcripts.close()
            if transcripts.left:
                self.notes.append(
                    f"{len(transcripts.left)} transcripts are not yet gone through for secrets, and private, in "
                    f"{transcripts.raw('')}; that is done when the run goes on"
                )
            final = self._books.anchored(final, lease, trail)
            if self._loop is not None:
                self._loop.run.state = final  # what the monitor tells last
        notes = (*self.notes, *telemetry.notes, *(self._log.notes if self._log is not None else ()))
        return Account(final, folder, changed, sinks, [redactor.text(note) for note in notes])

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

    async def _loop_through(self, loop: Loop, called: Watcher) -> RunState:
        self._loop, parts = loop, loop.run.parts
        if (follow := getattr(self.ground.observer, "follow", None)) is not None:
            follow(lambda: loop.run.state)
        attributes = {names.RUN: loop.run.state.run, names.SITTING: loop.run.state.sittings}
        with (
            self._halt.on_signals(reload=self._reload, diagnose=lambda: diagnose(loop.run)),
            parts.telemetry.span("ralph.run", attributes) as span,
        ):
            self._books.begin(parts.trail, called)
            self.ground.ready()
            final = await loop.drive()
            assert final.outcome is not None
            span.set_attributes({names.OUTCOME: final.outcome.kind.value, names.REASON: final.outcome.reason})
        return final

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
    from .monitoring.logs import Log

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
async def _looked_at(
    store: CheckpointStore, state: RunState, lease: Lease
) -> AsyncIterator[Awaitable[Sequence[object]]]:
    """A first look at the files of a new run, while other things are made ready: what it finds, the first snapshot need not.

    What goes wrong, the snapshot will say.
    """
    looks = [in_thread(store.look, state, lease)] if state.snapshot is None else []
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
