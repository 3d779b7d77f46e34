"""What everything in a run shares: its parts, its state, and the ways to save it, to ask the policies, and to wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import conventions as names
from .account.audit import AuditTrail
from .contracts import Agent, CheckpointStore, Lease
from .errors import PluginFault, StoreError
from .events import ToolCall
from .interrupts import Interrupts
from .moments import MomentLog
from .plugins.guarded import in_thread
from .plugins.registry import Plugins
from .policies import Policies, Ruling
from .processes.transcripts import Transcripts
from .records import Severity
from .redaction import Redactor
from .settings.model import Settings
from .state import Progress, RunState
from .steering import Desk
from .tracing.telemetry import Telemetry
from .values import dataclass
from .verdicts import Allow, Ask, Deny, Moment, MomentKind, Outcome, OutcomeKind, Pause, Stop, Verdict, name_of

if TYPE_CHECKING:
    from .processes.process import Supervisor


SAVE_EVERY = 5.0
"""Seconds after which a state is saved although nothing but the time has changed."""
CONFIRMING = 0.002
"""Seconds between two looks whether a required sink has written everything."""
LOOK = 0.5
"""Seconds between two looks whether a run that pauses may go on."""


class Ended(Exception):
    """The run is over, and this is why. Raised from wherever that is decided; the blocks on the way out clean up."""

    ordinary = True
    """No fault: where it was raised is not for the log."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.reason)
        self.outcome = outcome


@dataclass(frozen=True)
class Parts:
    """All that a run works with. Whoever puts it together closes it.

    `first_look` is through when the store has looked at the files of a new run. `askers`: agents that are made to ask before they use a tool; `someone`: whether there is a person to ask.
    """

    settings: Settings
    plugins: Plugins
    agents: Mapping[str, Agent]
    store: CheckpointStore
    lease: Lease
    policies: Policies
    trail: AuditTrail
    telemetry: Telemetry
    supervisor: Supervisor
    first_look: Awaitable[Sequence[object]]
    halt: Interrupts
    moments: MomentLog
    askers: frozenset[str]
    someone: bool
    redactor: Redactor
    transcripts: Transcripts
    words: str
    workspace: Path
    folder: Path
    scratchpad: Path
    desk: Desk
    env: Mapping[str, str]


class Run:
    """One sitting of a run. `state` is what is known at this instant."""

    def __init__(self, parts: Parts, state: RunState) -> None:
        self.parts = parts
        self.state = state
        self._elapsed_before = state.elapsed
        self._recorded = state.attempts
        self._looking: Awaitable[Sequence[object]] | None = parts.first_look
        self._recording: asyncio.Future[None] | None = None
        self._sat_down = self._saved = time.monotonic()

    def note(self, **changes: Any) -> None:
        """Replace the state, with the clock brought up to date."""
        elapsed = self._elapsed_before + time.monotonic() - self._sat_down
        seq, digest = self.parts.trail.head
        changes = {"audit_seq": seq, "audit_hash": digest, **changes}
        self.state = replace(self.state, now=time.time(), elapsed=elapsed, **changes)

    def save(self, *, durable: bool = True, **changes: Any) -> None:
        """Replace the state and save it. Raises `StoreError`: what can't be kept must not go on."""
        self.note(**changes)
        started, error = time.time_ns(), None
        try:
            self.parts.store.save(self.state, self.parts.lease, durable=durable)
        except Exception as raised:
            error = raised
            raise
        finally:
            self.parts.telemetry.record("save", started, time.time_ns(), self._store_attributes(), error)
        self._saved = time.monotonic()

    def _store_attributes(self) -> dict[str, str]:
        plugin = self._plugin_of_store
        version = self.parts.plugins.version(plugin)
        return {names.STORE: self.parts.settings.store, names.PLUGIN: plugin, names.VERSION: version}

    def save_now_and_then(self) -> None:
        """Save if that was long ago: the time of a run that is killed in a long iteration counts against its budget."""
        if time.monotonic() - self._saved >= SAVE_EVERY:
            self.save()

    def is_due(self, iteration: int) -> bool:
        """Whether the files are recorded after that iteration."""
        return iteration % self.parts.settings.checkpoint_interval == 0

    async def begin_look(self) -> None:
        """Let the store look at the files, which are at rest: a snapshot comes next."""
        looking = in_thread(self.parts.store.look, self.state, self.parts.lease)
        self._looking = asyncio.gather(looking, return_exceptions=True)
        await asyncio.sleep(0)  # far enough for the thread to start

    async def looked(self) -> None:
        """Wait until the store has looked at the files, if it is at it. Raises `PluginFault`; what else went wrong, the snapshot will say."""
        looking, self._looking = self._looking, None
        for found in await looking if looking is not None else ():
            if isinstance(found, PluginFault):
                raise found

    async def snapshot(self) -> None:
        """Record the files."""
        await self.begin_snapshot()
        await self.recorded()

    async def begin_snapshot(self) -> None:
        """Record the files while the run does what changes none of them, nor needs the store; `recorded` ends that."""
        await self.recorded()
        self._recording = asyncio.ensure_future(self._record_files())
        await asyncio.sleep(0)  # far enough for the entries of its beginning, in the account and the trace

    async def recorded(self) -> None:
        """Wait until the files are recorded, if they are being. Raises `StoreError` if they can't be."""
        recording, self._recording = self._recording, None
        if recording is not None:
            await recording

    async def _record_files(self) -> None:
        number = self.state.snapshots
        self.note(snapshots=number + 1)
        attributes = {**self._store_attributes(), names.SNAPSHOT: number}
        with (
            self.parts.telemetry.span("checkpoint", attributes) as span,
            self.parts.trail.pair(
                "checkpoint", plugin=self._plugin_of_store, capability="store", number=number
            ) as pair,
        ):
            await self.looked()
            self._recorded = self.state.attempts
            snapshot = await in_thread(self.parts.store.snapshot, self.state, self.parts.lease)
            if snapshot is not None:
                pair.message = snapshot.ref
                span.set_attribute(names.REF, snapshot.ref)
                pair.data = {"ref": snapshot.ref, "changed": snapshot.changed, "notes": list(snapshot.notes)}
                self.note(snapshot=snapshot.ref)  # the store itself knows what it has recorded; a save will follow soon
                if snapshot.fingerprint is not None:
                    self.note(progress=self.state.progress.seen(snapshot.fingerprint))

    async def look_for_progress(self) -> None:
        """Look at the files if the next verdict depends on whether the last iterations changed any."""
        limit = self.state.limits.no_progress
        if limit is None or not self.state.progress.is_due(limit):
            return
        await self.recorded()  # a snapshot has just looked at them
        progress = self.state.progress
        if progress.is_due(limit):
            try:
                tree = await in_thread(self.parts.store.fingerprint, self.state, self.parts.lease)
            except StoreError:  # what is wrong with the store, the next save says; what is not known is not the same
                self.note(progress=Progress(answer=progress.answer))
            else:
                self.note(progress=progress.seen(tree))

    @property
    def _plugin_of_store(self) -> str:
        return self.parts.plugins.provider("store", self.parts.settings.store)[0]

    @property
    def unrecorded(self) -> bool:
        """Whether an agent has worked on the files since they were last recorded."""
        return self.state.attempts != self._recorded

    async def rule(self, moment: Moment) -> None:
        """Ask the policies: return when all is allowed, raise `Ended` when it is not, wait when they say so."""
        if moment.kind is MomentKind.ITERATION:
            await self._account_confirmed()
        ruling = await self.judged(moment)
        if ruling is not None:
            raise Ended(_outcome(ruling.policy, ruling.verdict))

    async def _account_confirmed(self) -> None:
        """Before anything is spent: wait until the required sinks have written all of the account. Raises `Ended`."""
        while not self.parts.trail.confirmed:
            self.heed()
            await asyncio.sleep(CONFIRMING)
        self._check_account()

    def _check_account(self) -> None:
        if self.parts.trail.fault:
            raise Ended(Outcome(OutcomeKind.FAILED, self.parts.trail.fault, by="audit"))

    async def judged(self, moment: Moment) -> Ruling | None:
        """The same, for a moment with something to deny: the ruling if that is to be denied, or asked about."""
        while True:
            self._check_account()
            self.note()
            self.parts.moments.write(moment, self.state)
            rulings = await self.parts.policies.ask(moment, self.state)
            for ruling in rulings:
                if not isinstance(ruling.verdict, Allow) or bool(getattr(ruling.verdict, "reason", "")):
                    self._record(moment, ruling)
            worst = rulings[0] if rulings else None
            if worst is None or isinstance(worst.verdict, Allow):
                return None
            if isinstance(worst.verdict, (Ask, Deny)):
                return worst
            if not isinstance(worst.verdict, Pause):
                raise Ended(_outcome(worst.policy, worst.verdict))
            await self.wait(worst.verdict.until - time.time(), worst.verdict.reason)

    async def pause(self) -> None:
        """Between iterations: wait for as long as somebody wants that; such time counts against no limit."""
        began = time.monotonic()
        if self.parts.desk.paused:
            await self.recorded()
            with self.parts.trail.pair("wait", message="paused; `ralph pause --off` lets it go on", seconds=None):
                self.save()
                while self.parts.desk.paused and self.parts.halt.asked is None:
                    await self.parts.halt.sleep(LOOK)
            self._sat_down += time.monotonic() - began
        self.heed()

    async def wait(self, seconds: float, why: str) -> None:
        """Wait, with the state saved, but no longer than the run may last; raise `Ended` when somebody asks for the end."""
        await self.recorded()
        seconds = min(seconds, self.state.limits.runtime - self.state.elapsed)
        if seconds > 0:
            with (
                self.parts.telemetry.span("wait", {names.REASON: why}),
                self.parts.trail.pair("wait", message=why, seconds=round(seconds, 1)),
            ):
                self.save()
                await self.parts.halt.sleep(seconds)
        self.heed()

    def heed(self) -> None:
        """Between attempts: raise `Ended` if somebody has asked for the end, or the account can't be kept."""
        self._check_account()
        if self.parts.halt.asked is not None:
            raise Ended(self.parts.halt.asked)

    def _record(self, moment: Moment, ruling: Ruling) -> None:
        self.parts.trail.record(
            "verdict",
            actor=ruling.policy,
            plugin=ruling.plugin,
            capability=f"tool:{moment.event.name}" if isinstance(moment.event, ToolCall) else "policy",
            result=name_of(ruling.verdict),
            severity=Severity.INFO if isinstance(ruling.verdict, Allow) else Severity.WARNING,
            message=getattr(ruling.verdict, "reason", ""),
            data={
                "moment": moment.kind.value,
                "verdict": name_of(ruling.verdict),
                "figures": figures_of(self.state),
                **({"tool": moment.event.name, "id": moment.event.id} if isinstance(moment.event, ToolCall) else {}),
            },
        )


def figures_of(state: RunState) -> dict[str, Any]:
    """What a verdict was based on; the unknown is null."""
    tokens = state.spend.tokens
    return {
        "finished": state.finished,
        "elapsed": round(state.elapsed, 1),
        "tokens": tokens.total if tokens is not None else None,
        "cost": state.spend.cost,
        "failures": state.consecutive_failures,
    }


def _outcome(policy: str, verdict: Verdict) -> Outcome:
    """What a verdict that does not let go on means for the run. Nobody is there to be asked, so Ask stops like Deny."""
    failed = isinstance(verdict, Stop) and verdict.failed
    return Outcome(OutcomeKind.FAILED if failed else OutcomeKind.STOPPED, getattr(verdict, "reason", ""), by=policy)
