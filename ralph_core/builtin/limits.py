"""The standard limits: each answers for one figure of `RunState.limits`, and for nothing else."""

from __future__ import annotations

import random
from collections.abc import Iterator

from ralph_core.contracts import LimitPolicy
from ralph_core.events import FailureKind
from ralph_core.state import Attempt, RunState
from ralph_core.values import dataclass
from ralph_core.verdicts import Allow, Deny, Moment, MomentKind, Pause, Stop, Verdict

BEFORE = (MomentKind.RUN, MomentKind.ITERATION)
CLOSE = 1e-6
"""US dollars that don't matter: what is left is handed to agents with six decimals, and they count in fractions of their own."""
HOUR = 3600.0
RETRY_CEILING = 300.0
"""Seconds that the doubling pause between two tries never exceeds."""
PASSING = (FailureKind.NETWORK, FailureKind.OVERLOADED)
"""Kinds of failures after which an agent is asked again soon."""
UNKNOWN_RESET = 300.0
"""Seconds for which an agent is left alone whose quota is used up, when it does not say until when."""
AFTER_RESET = 1.0
"""Seconds that are waited beyond a reset: clocks differ."""


class IterationLimit(LimitPolicy):
    """Stops before an iteration that would be one too many."""

    def judge(self, moment: Moment, state: RunState) -> Verdict:
        if moment.kind in BEFORE and state.finished >= state.limits.iterations:
            return Stop(f"{state.finished} of {state.limits.iterations} iterations are used up")
        return Allow()


class RuntimeLimit(LimitPolicy):
    """Stops when the run has been worked on for too long, in the middle of an iteration too."""

    def judge(self, moment: Moment, state: RunState) -> Verdict:
        if state.elapsed >= state.limits.runtime:
            return Stop(f"{state.elapsed:.0f} s of {state.limits.runtime:g} s are used up")
        return Allow()


class FailureLimit(LimitPolicy):
    """Fails a run whose agent fails again and again by its own fault."""

    def judge(self, moment: Moment, state: RunState) -> Verdict:
        if moment.kind is MomentKind.FINISHED and state.consecutive_failures >= state.limits.failures:
            return Stop(f"the agent failed {state.consecutive_failures} times in a row", failed=True)
        return Allow()


class SilenceLimit(LimitPolicy):
    """Takes an agent for dead that gives no sign of life: no event, and not a byte of output."""

    def judge(self, moment: Moment, state: RunState) -> Verdict:
        silent = state.current.silent if moment.kind is MomentKind.TICK and state.current is not None else 0.0
        if silent > state.limits.silence:
            return Deny(f"silent for {state.limits.silence:g} s (timeout_per_iteration)")
        return Allow()


class AttemptTimeLimit(LimitPolicy):
    """Ends an agent process that has been at work for too long, however busy it is."""

    def judge(self, moment: Moment, state: RunState) -> Verdict:
        worked = state.current.worked if moment.kind is MomentKind.TICK and state.current is not None else 0.0
        if worked > state.limits.attempt:
            return Deny(f"still working after {state.limits.attempt:g} s (timeout_hard)")
        return Allow()


class RetryLimit(LimitPolicy):
    """Waits before an iteration is tried again after a fault that passes, longer each time; fails the run after too many."""

    def judge(self, moment: Moment, state: RunState) -> Verdict:
        last = state.recent[-1] if state.recent else None
        if moment.kind is not MomentKind.ITERATION or not state.retries or last is None or last.ended is None:
            return Allow()
        if state.retries > state.limits.retries:
            return Stop(f"{last.message} (tried {state.retries} times)", failed=True)
        delay = min(state.limits.retry_delay * 2.0 ** (state.retries - 1), RETRY_CEILING)
        # Drawn from the run's name, so that it is the same when asked again, and many runs don't come back at one instant.
        jitter = random.Random(f"{state.run} {last.number}").uniform(0.75, 1.25)  # noqa: S311
        until = max(last.ended + delay * jitter, min(_come_back(state)))
        return Pause(until, f"{last.message}; trying again") if until > state.now else Allow()


def _come_back(state: RunState) -> Iterator[float]:
    """When each of the agents may be asked again that had a passing fault in the iteration that is tried again."""
    known = set()
    for attempt in reversed(state.recent):
        if attempt.iteration != state.recent[-1].iteration:
            return
        other = attempt.failure in PASSING and attempt.agent in state.agents
        if attempt.agent not in known and (other or attempt is state.recent[-1]):
            yield (attempt.ended or 0.0) + (attempt.retry_after or 0.0)
        known.add(attempt.agent)


class TokenLimit(LimitPolicy):
    """Stops when the tokens are used up, in the middle of an iteration too. What nobody reported can't be counted."""

    def judge(self, moment: Moment, state: RunState) -> Verdict:
        tokens, limit = state.spend.tokens, state.limits.tokens
        if tokens is not None and tokens.total >= limit:
            return Stop(f"{tokens.total:,} of {limit:,} tokens are used up")
        if not state.limits.unmetered and (last := _finished(moment, state)) and last.spend.tokens is None:
            return Stop(f"{last.agent} did not say how many tokens it used (budget.unmetered: refuse)")
        return Allow()


class CostLimit(LimitPolicy):
    """Stops when the money is used up, in the middle of an iteration too. A cost that is not known can't be counted."""

    def judge(self, moment: Moment, state: RunState) -> Verdict:
        cost, limit = state.spend.cost, state.limits.cost
        if cost is not None and cost >= limit - CLOSE:
            about = "about " if state.spend.estimated else ""
            return Stop(f"{about}${cost:.4f} of ${limit:g} are used up")
        if not state.limits.unmetered and (last := _finished(moment, state)) and last.spend.unmetered:
            return Stop(f"what {last.agent} has cost is not known (budget.unmetered: refuse)")
        return Allow()


class RateLimit(LimitPolicy):
    """Waits before an iteration that would be one too many within an hour."""

    def judge(self, moment: Moment, state: RunState) -> Verdict:
        most, begun = state.limits.iterations_per_hour, state.iteration > state.finished
        if most is None or moment.kind is not MomentKind.ITERATION or begun or len(state.starts) < most:
            return Allow()
        until = state.starts[-most] + HOUR
        return Pause(until, f"{most} iterations an hour are used up") if until > state.now else Allow()


@dataclass(frozen=True)
class Warned(Allow):
    """Go on, but with a word about it in the account."""

    reason: str = ""


class NoProgressLimit(LimitPolicy):
    """Stops a run that gets nowhere: iteration after iteration changes no file and ends with nearly the same words."""

    def judge(self, moment: Moment, state: RunState) -> Verdict:
        idle, limit = state.progress.idle, state.limits.no_progress
        if limit is None or moment.kind is not MomentKind.FINISHED or idle < max(1, limit - 1):
            return Allow()
        seen = "changed no file and " if state.progress.tree is not None else ""
        why = f"no progress: the last {idle} iterations {seen}ended with the same words as the one before"
        return Stop(why) if idle >= limit else Warned(f"{why}; after {limit} the run stops")


class UsageWindowLimit(LimitPolicy):
    """Leaves an agent alone whose quota is used up, as the agent itself has reported it: waits, or stops.

    With `fallback`, another agent is used meanwhile (`ralph_choose_agent`), and there is only a wait when there is none.
    """

    def judge(self, moment: Moment, state: RunState) -> Verdict:
        stops = state.limits.window_action == "stop"
        if moment.kind not in BEFORE and not (stops and moment.kind is MomentKind.WINDOW):
            return Allow()  # the iteration in hand is brought to its end
        names = state.agents if state.limits.window_action == "fallback" else (state.agent,)
        until = [spent_until(state, name) for name in names or (state.agent,)]
        times = [time for time in until if time is not None]
        if not times or len(times) < len(until):
            return Allow()
        why = f"the quota of {' and of '.join(names) or state.agent} is used up ({_windows(state)})"
        return Stop(why) if stops else Pause(min(times), why)


def spent_until(state: RunState, agent: str) -> float | None:
    """When the quota of the agent, which is used up, will be there again; None if it is there now."""
    times = []
    for quota in state.quotas:
        share = quota.utilization if quota.utilization is not None else 0.0
        if quota.agent == agent and (quota.status == "rejected" or share >= state.limits.window):
            back = quota.seen + UNKNOWN_RESET if quota.resets_at is None else quota.resets_at + AFTER_RESET
            if back > state.now:
                times.append(back)
    return max(times, default=None)


def _windows(state: RunState) -> str:
    """The windows in question, in words."""
    limit = f"; left alone at {state.limits.window:.0%}" if state.limits.window < 1 else ""
    told = [
        f"{quota.window or 'quota'} {quota.status}" + (f" at {quota.utilization:.0%}" if quota.utilization else "")
        for quota in state.quotas
    ]
    return ", ".join(told) + limit


def _finished(moment: Moment, state: RunState) -> Attempt | None:
    """The attempt that has just ended well; of those that failed it can't be expected that they say what they used."""
    last = state.recent[-1] if moment.kind is MomentKind.FINISHED and state.recent else None
    return last if last is not None and last.result == "finished" else None
