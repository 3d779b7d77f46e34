"""What every limit policy has to hold, whatever it limits.

    class TestAcme(LimitPolicyContract):
        provider = "acme"

        @pytest.fixture
        def settings(self):
            return {"from": "09:00", "to": "17:00"}

States of runs, at each kind of moment, are put before the policy as a run does it.
"""

from __future__ import annotations

import copy
import datetime as dt
import os
import random
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from ralph_core.contracts import Capability, LimitPolicy, Provider
from ralph_core.events import Tokens, ToolCall, Usage, UsageWindow
from ralph_core.state import RunState
from ralph_core.testing.rules import Named, broken, built, clean_env, context_in, found, holds
from ralph_core.testing.values import NOON, ended_state, fresh_state, long_state, rich_state, unknown_state
from ralph_core.verdicts import Allow, Ask, Deny, Moment, MomentKind, Pause, Stop

LATER = 7 * 86_400.0 + 43_200.0
"""Seconds by which the clock is turned on: another day of the week, another time of the day."""
TOOLS = (
    ToolCall("t1", "Bash", {"command": "rm -rf / --no-preserve-root"}),
    ToolCall("t2", "Write", {"file_path": "/etc/passwd", "content": "x" * 50_000_000}),
    ToolCall("t3", "Read", {"file_path": "../../../etc/shadow"}),
    ToolCall("t4", "WebFetch", {"url": "https://example.org/?q=漢字"}),
    ToolCall("t5", "", {}),
)
VERDICTS = (Allow, Ask, Deny, Pause, Stop)


class LimitPolicyContract:
    """The rules for limit policies. Override `settings` if it needs any."""

    provider: ClassVar[Named] = ""
    """What is tested: the name of an installed provider, or a `Provider` that no plugin declares yet."""

    @pytest.fixture
    def settings(self) -> Mapping[str, Any]:
        """To be overridden: the policy's section of the settings, set up so that it has something to judge."""
        return {}

    @pytest.fixture
    def states(self) -> Mapping[str, RunState]:
        """Runs at different points; to be added to where a policy needs more."""
        return {
            "fresh": fresh_state(),
            "working": rich_state(),
            "long": long_state(),
            "of unknown spend": unknown_state(),
            "ended": ended_state(),
        }

    @pytest.fixture
    def declared(self) -> Provider[Any]:
        return found("policy", self.provider)

    @pytest.fixture
    def policy(self, declared: Provider[Any], settings: Mapping[str, Any], tmp_path: Path) -> LimitPolicy:
        context = context_in(tmp_path, clean_env(tmp_path))
        (context.workspace / "README").write_text("hello\n")
        policy: LimitPolicy = built("policy", declared, settings, context)
        holds(
            policy.concerned,
            "as it is set up, the policy takes no part in a run (`concerned` is False), so nothing can be seen of it",
            mend="override the fixture `settings`, so that it has something to judge",
        )
        return policy

    def test_answers_every_moment_in_time(self, policy: LimitPolicy, states: Mapping[str, RunState]) -> None:
        """`judge` answers a verdict at every kind of moment, in every state, within `deadline`."""
        for words, moment, state in _moments(states):
            answer, seconds = _judged(policy, moment, state)
            if isinstance(answer, BaseException):
                broken(
                    f"at {words}: judge raised {type(answer).__name__}: {answer}",
                    mend="answer every moment, with Allow() where there is nothing to say; what is unknown is None",
                )
            holds(
                isinstance(answer, VERDICTS),
                f"at {words}: judge answered {answer!r:.100}",
                mend="answer Allow(), Ask(reason), Deny(reason), Pause(until, reason) or Stop(reason)",
            )
            holds(
                seconds <= policy.deadline,
                f"at {words}: judge took {seconds:.1f} s, and has {policy.deadline:g} s",
                mend="look up what takes long when the policy is built, or raise `deadline` of the class",
            )

    def test_gives_its_reasons(self, policy: LimitPolicy, states: Mapping[str, RunState]) -> None:
        """Every verdict but `Allow` has a reason in words, and a `Pause` is until a time to come."""
        for words, moment, state in _moments(states):
            answer, _ = _judged(policy, moment, state)
            if isinstance(answer, (Ask, Deny, Pause, Stop)):
                holds(
                    isinstance(answer.reason, str) and answer.reason.strip(),
                    f"at {words}: {type(answer).__name__} without a reason",
                    mend="say in a sentence why: the user reads it at the end of the run",
                )
            if isinstance(answer, Pause):
                holds(
                    isinstance(answer.until, (int, float)) and answer.until > state.now,
                    f"at {words}: Pause until {answer.until}, which is not after state.now ({state.now})",
                    mend="`until` is in seconds since the epoch, and to come",
                )

    def test_says_the_same_when_asked_again(self, policy: LimitPolicy, states: Mapping[str, RunState]) -> None:
        """The answer depends on the moment and the state alone."""
        for words, moment, state in _moments(states):
            once, again = _judged(policy, moment, state)[0], _judged(policy, moment, state)[0]
            holds(
                isinstance(once, BaseException) or once == again,
                f"at {words}: first {once!r:.100}, then {again!r:.100}",
                mend="let the answer depend on the moment and the state alone: no counting of calls, no chance",
            )

    def test_goes_by_the_time_of_the_state(
        self,
        policy: LimitPolicy,
        declared: Provider[Any],
        states: Mapping[str, RunState],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """With the clock turned on by a week and a half day, the answers are the same: the time is `state.now`."""
        before = {words: _judged(policy, moment, state)[0] for words, moment, state in _moments(states)}
        with monkeypatch.context() as patch:
            _turn_the_clock_on(patch, declared.factory.partition(":")[0])
            after = {words: policy_answer(policy, moment, state) for words, moment, state in _moments(states)}
        for words, answer in before.items():
            holds(
                isinstance(answer, BaseException) or answer == after[words],
                f"at {words}: {answer!r:.100}, and with the clock turned on {after[words]!r:.100}",
                mend="take the time from state.now, never from the clock: a recorded run can then be judged again",
            )

    def test_changes_nothing(self, policy: LimitPolicy, states: Mapping[str, RunState]) -> None:
        """`judge` changes neither the state nor a file, the environment, the directory or the chance of others."""
        place = policy.context.workspace
        before = _all_there_is(place)
        for words, moment, state in _moments(states):
            same = copy.deepcopy(state), copy.deepcopy(moment)
            _judged(policy, moment, state)
            holds(
                (state, moment) == same,
                f"at {words}: judge has changed the state or the moment",
                mend="copy what you want to change",
            )
            holds(
                _all_there_is(place) == before,
                f"at {words}: judge has changed a file of the workspace, the environment or the directory",
                mend="judge, and do nothing: that is what hooks, sinks and stores are for",
            )

    def test_tools_are_what_is_declared(
        self, policy: LimitPolicy, declared: Provider[Any], states: Mapping[str, RunState]
    ) -> None:
        """Who judges tools has to say so, or agents are not made to ask; who says so has to judge some."""
        judges = any(
            isinstance(policy_answer(policy, Moment(MomentKind.TOOL, call), state), (Ask, Deny))
            for call in TOOLS
            for state in states.values()
        )
        holds(
            judges == (Capability.TOOLS in declared.capabilities),
            f"drift: the capability tools is {'not ' if judges else ''}declared, and of these calls "
            f"{'some are' if judges else 'none is'} denied or asked about: {', '.join(call.name for call in TOOLS)}",
            mend="declare it if, and only if, it judges tools; set it up in `settings` so that it denies one of them",
        )


def _moments(states: Mapping[str, RunState]) -> Iterator[tuple[str, Moment, RunState]]:
    """Every kind of moment in every state, with words for it."""
    events: dict[MomentKind, Sequence[Any]] = {
        MomentKind.TOOL: TOOLS,
        MomentKind.USAGE: (Usage("m1", Tokens(10, 5)), Usage("m1", Tokens(10**9, 5), "acme-large", 99.0)),
        MomentKind.WINDOW: (
            UsageWindow("allowed", "day", 0.5, NOON + 3600),
            UsageWindow("rejected"),
        ),
    }
    for name, state in states.items():
        for kind in MomentKind:
            for number, event in enumerate(events.get(kind, (None,))):
                told = f" ({type(event).__name__} {number + 1})" if event is not None else ""
                yield f"{kind.value}{told} of a run that is {name}", Moment(kind, event), _as_at(kind, state)


def _as_at(kind: MomentKind, state: RunState) -> RunState:
    """The state as it is at such a moment: at a tick, an attempt is at work."""
    if kind is MomentKind.TICK and state.current is not None and state.elapsed > 10**6:
        return replace(state, current=replace(state.current, silent=10**6, worked=10**6))
    return state


def policy_answer(policy: LimitPolicy, moment: Moment, state: RunState) -> object:
    """What it answers, or raises."""
    try:
        return policy.judge(moment, state)
    except BaseException as error:
        return error


def _judged(policy: LimitPolicy, moment: Moment, state: RunState) -> tuple[object, float]:
    """What it answers, or raises, and how long that took; as in a run, in a thread of its own, and given up in the end."""
    answer: list[object] = []
    thread = threading.Thread(target=lambda: answer.append(policy_answer(policy, moment, state)), daemon=True)
    began = time.monotonic()
    thread.start()
    thread.join(2 * policy.deadline + 1)
    seconds = time.monotonic() - began
    if not answer:
        broken(
            f"judge gave no answer within {seconds:.0f} s, and has {policy.deadline:g} s",
            mend="give what it waits for a time limit",
        )
    return answer[0], seconds


def _turn_the_clock_on(patch: pytest.MonkeyPatch, module: str) -> None:
    """Let the clocks be in another week, also under the names by which the policy's module has imported them."""
    clock, clock_ns, now, zone = time.time, time.time_ns, dt.datetime, dt.timezone.utc

    class Later(now):  # type: ignore[misc,valid-type]
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return now.now(tz) + dt.timedelta(seconds=LATER)

        @classmethod
        def utcnow(cls) -> Any:
            return now.now(zone).replace(tzinfo=None) + dt.timedelta(seconds=LATER)

    turned: list[tuple[Any, Any]] = [
        (clock, lambda: clock() + LATER),
        (clock_ns, lambda: clock_ns() + int(LATER * 1e9)),
        (
            time.localtime,
            lambda seconds=None, real=time.localtime: real(clock() + LATER if seconds is None else seconds),
        ),
        (time.gmtime, lambda seconds=None, real=time.gmtime: real(clock() + LATER if seconds is None else seconds)),
        (now, Later),
    ]
    places = [time, dt, sys.modules.get(module)]
    for place in places:
        for name, value in list(vars(place).items()) if place is not None else ():
            for real, other in turned:
                if value is real:
                    patch.setattr(place, name, other)


def _all_there_is(place: Path) -> tuple[object, ...]:
    files = {str(path): path.read_bytes() if path.is_file() else b"" for path in place.rglob("*")}
    return files, dict(os.environ), Path.cwd(), random.getstate()
