"""The heart: drives a run, iteration by iteration, until something ends it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from . import conventions as names
from .account.audit import RESULTS, Pair
from .attempt import AttemptRunner
from .errors import PluginFault, RalphError, StoreError
from .events import FailureKind
from .gates import Gates
from .intake import spend_data
from .records import Severity
from .run import Ended, Parts, Run
from .state import Attempt, GateResult, RunState
from .verdicts import Moment, MomentKind, Outcome, OutcomeKind

USAGE_LIMIT_PAUSE = 300.0
"""Seconds for which an agent is left alone whose quota is used up, when it does not say until when."""
FOR_EVER = float("inf")
COOL_DOWN = {
    FailureKind.SPAWN: FOR_EVER,
    FailureKind.AUTH: FOR_EVER,
    FailureKind.USAGE_LIMIT: USAGE_LIMIT_PAUSE,
    FailureKind.OVERLOADED: 60.0,
    FailureKind.NETWORK: 60.0,
    FailureKind.TIMEOUT: 300.0,
    FailureKind.CRASH: 300.0,
    FailureKind.INVALID_OUTPUT: 300.0,
}
"""Seconds for which an agent is left alone after a failure of that kind, unless it says itself when to come back. What an
agent calls a failure of its own says nothing against trying it again."""
LASTING = (FailureKind.SPAWN, FailureKind.AUTH, FailureKind.USAGE_LIMIT)
"""Kinds after which it is left alone although there is no other one: to try it again soon is of no use."""


class Loop:
    """One sitting of a run, from its first look at the limits to its outcome."""

    def __init__(self, parts: Parts, state: RunState) -> None:
        self.run = Run(parts, state)
        self._barred: dict[str, float] = {}
        self._resting: dict[str, float] = {}

    async def drive(self) -> RunState:
        """Iterate until something ends the run. The state that comes back has an outcome, and is saved if it can be."""
        run = self.run
        with run.parts.trail.pair("run", message=run.state.workspace, sitting=run.state.sittings) as pair:
            outcome = await self._close(await self._until_ended())
            pair.message = outcome.reason
            pair.severity = Severity.INFO if outcome.kind is OutcomeKind.COMPLETED else Severity.WARNING
            pair.data = {"outcome": outcome.kind.value, "by": outcome.by, **spend_data(run.state.spend)}
            pair.result = "success" if outcome.kind is OutcomeKind.COMPLETED else "failure"
            pair.usage = spend_data(run.state.spend)
        return run.state

    async def _until_ended(self) -> Outcome:
        run = self.run
        try:
            if run.state.snapshot is None:
                run.save()  # the first look at a large tree takes long: a kill meanwhile must leave a run to go on with
                await run.looked()
                run.heed()  # whoever has asked for the end meanwhile need not wait for another look
                await run.snapshot()
            await self._conclude()  # a kill may have come between the claim and the outcome
            await run.rule(Moment(MomentKind.RUN))
            while True:
                await run.pause()
                await run.rule(Moment(MomentKind.ITERATION))
                await run.recorded()
                await self._iterate()
                await self._conclude()
                await run.rule(Moment(MomentKind.FINISHED))
        except Ended as end:
            return end.outcome
        except PluginFault as fault:
            return Outcome(OutcomeKind.FAILED, str(fault), by=fault.plugin)
        except StoreError as error:
            return self._unkept(error)

    async def _iterate(self) -> None:
        """One iteration: attempts, until one ends otherwise than by a passing fault."""
        run, number = self.run, self.run.state.finished + 1
        run.parts.trail.iteration = number
        with (
            run.parts.telemetry.span("ralph.iteration", {names.ITERATION: number}) as span,
            run.parts.trail.pair("iteration") as pair,
        ):
            attempt, answer = await self._settled(number, pair)
            failed = attempt.result == "failed"
            pair.message = attempt.message
            pair.data = {"result": attempt.result, "claimed": attempt.claimed, **spend_data(attempt.spend)}
            pair.result, pair.usage = RESULTS[attempt.result or "abandoned"], spend_data(attempt.spend)
            span.set_attributes({names.RESULT: attempt.result or "", names.CLAIMED: attempt.claimed})
            run.save(
                finished=number,
                retries=0,
                failures=run.state.failures + failed,
                consecutive_failures=run.state.consecutive_failures + 1 if failed else 0,
                progress=run.state.progress.after(answer) if answer is not None else run.state.progress,
            )
            if run.is_due(number):
                await run.begin_snapshot()
                if attempt.claimed:  # gates are next, which may take long, and change files
                    await run.recorded()
                    run.save(durable=False)
            await run.look_for_progress()

    async def _conclude(self) -> None:
        """Check the claim of the last iteration, if it made one and nobody has yet; it is judged before any limit."""
        run, state = self.run, self.run.state
        last = state.recent[-1] if state.recent else None
        if last is None or last.iteration != state.finished:
            return
        if state.judged != state.finished:
            gates = await Gates(run).check() if last.claimed else ()
            stands = last.claimed and all(gate.passed for gate in gates)
            keep = run.save if last.claimed else run.note  # without a claim, a resume would find the same again
            keep(judged=state.finished, gates=gates, confirmations=state.confirmations + 1 if stands else 0)
        if run.state.confirmations >= run.parts.settings.completion.confirmations:
            raise Ended(Outcome(OutcomeKind.COMPLETED, _verified(run.state.gates), by=last.agent))

    async def _settled(self, iteration: int, pair: Pair) -> tuple[Attempt, str | None]:
        """The attempt that settles the iteration, and its agent's answer; before it, as many as are allowed."""
        run = self.run
        pair.ending = "abandoned"  # until one has settled it
        while True:
            runner = AttemptRunner(run, await self._choose(), iteration)
            attempt = await runner.make()
            left_alone = self._leave_alone(attempt)
            if attempt.failure is None or attempt.failure.agent_fault:
                pair.ending = "finished"
                return attempt, runner.answer
            if not left_alone:
                run.note(retries=run.state.retries + 1)
            await run.rule(Moment(MomentKind.ITERATION))

    async def _choose(self) -> str:
        """The agent of the next attempt, as soon as one of them may be used."""
        run = self.run
        while True:
            run.heed()
            now = time.time()
            candidates = self._fresh(now, self._barred)
            if candidates:
                rested = self._fresh(now, self._resting, candidates)
                # When all of them rest, the one that has rested nearly long enough.
                return run.parts.plugins.choose_agent(
                    run.state, rested or [min(candidates, key=self._resting.__getitem__)]
                )
            until = min(self._barred.values())
            if until == FOR_EVER:
                last = run.state.recent[-1]
                raise Ended(Outcome(OutcomeKind.FAILED, last.message, by=last.agent))
            await run.wait(until - now, "the agents' quota is used up")

    def _fresh(self, now: float, until: Mapping[str, float], among: Sequence[str] | None = None) -> list[str]:
        return [name for name in (self.run.parts.agents if among is None else among) if until.get(name, 0.0) <= now]

    def _leave_alone(self, attempt: Attempt) -> bool:
        """Leave an agent alone that failed, for as long as its fault says; true if another attempt is of use without a wait.

        One whose fault will not pass soon is barred. Any other rests while there is another agent to go on with; and for as
        long as it says itself, if they rest, too: the one whose time is over first goes on.
        """
        failure, now = attempt.failure, time.time()
        if failure not in COOL_DOWN:
            return False
        pause = COOL_DOWN[failure] if attempt.retry_after is None else attempt.retry_after
        others = [name for name in self._fresh(now, self._barred) if name != attempt.agent]
        if failure in LASTING:
            self._barred[attempt.agent] = now + pause
        elif self._fresh(now, self._resting, others):
            self._resting[attempt.agent] = now + pause
        else:
            if others and attempt.retry_after is not None:
                self._resting[attempt.agent] = now + pause
            return False
        how_long = "not used again" if pause == FOR_EVER else f"not used for {pause:.0f} s"
        self.run.parts.trail.record(
            "agent.rested",
            actor=attempt.agent,
            severity=Severity.WARNING,
            message=f"{attempt.message[:200]}: {how_long}; {'then ' + ', '.join(others) if others else 'there is no other'}",
            data={"failure": failure.value, "seconds": None if pause == FOR_EVER else pause, "others": others},
        )
        return True

    async def _close(self, outcome: Outcome) -> Outcome:
        """Snapshot what there is, and save the outcome. A store that fails here turns the outcome into a failure."""
        run = self.run
        outcome = replace(outcome, reason=run.parts.redactor.text(outcome.reason))
        try:
            await run.recorded()
            if run.unrecorded:
                await run.snapshot()
            run.save(outcome=outcome)
        except (StoreError, PluginFault) as error:
            outcome = outcome if outcome.kind is OutcomeKind.FAILED else self._unkept(error)
            run.state = replace(run.state, outcome=outcome)
        return outcome

    def _unkept(self, error: RalphError) -> Outcome:
        return Outcome(OutcomeKind.FAILED, f"state can't be kept: {error}", by=self.run.parts.settings.store)


def _verified(gates: Sequence[GateResult]) -> str:
    """What a completed run says of its proof."""
    if not gates:
        return "claimed by the agent, not verified: no gates are set"
    unchecked = [gate.command for gate in gates if gate.checked_by == "unchecked"]
    flag = f"; nothing shows that {', '.join(map(repr, unchecked))} tests anything" if unchecked else ""
    return f"verified by {len(gates)} gate(s){flag}"
