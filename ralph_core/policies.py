"""Asks every limit policy, each within its deadline, and lets the most severe answer win. Fails closed, by name."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import field
from queue import SimpleQueue

from .contracts import LimitPolicy
from .conventions import MOMENT, POLICY, VERDICT
from .plugins.bounds import unrun
from .plugins.registry import HookCall, Plugins
from .state import RunState
from .values import dataclass
from .verdicts import Allow, Ask, Deny, Moment, MomentKind, Pause, Stop, Verdict, name_of


@dataclass(frozen=True)
class Ruling:
    """One policy's answer."""

    policy: str
    plugin: str
    verdict: Verdict


@dataclass
class _Round:
    """One moment, as it goes from policy to policy; filled by the thread that asks, read by the loop."""

    moment: Moment
    state: RunState
    done: asyncio.Future[None]
    answers: list[_Answer] = field(default_factory=list)
    asked: tuple[int, float] = field(default_factory=lambda: (0, time.monotonic()))
    """Which policy is asked now, and since when (`time.monotonic`)."""


@dataclass(frozen=True)
class _Answer:
    """What a policy answered, or raised; times in nanoseconds since the epoch."""

    value: object
    raised: BaseException | None
    started: int
    ended: int


class Policies:
    """The policies of one run. They are asked in a thread of their own, so that one that hangs can't hold the loop.

    `watch` is told of the answers at each moment, as `Telemetry.calls` takes them.
    """

    def __init__(
        self,
        policies: Sequence[tuple[str, str, LimitPolicy]],
        plugins: Plugins,
        watch: Callable[[Sequence[HookCall]], None],
    ) -> None:
        self._policies, self._plugins, self._watch = policies, plugins, watch
        self._rounds: SimpleQueue[_Round | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    async def ask(self, moment: Moment, state: RunState) -> list[Ruling]:
        """All rulings, the most severe one first. Raises `PluginFault` for a policy that gives no proper answer."""
        if not self._policies:
            return []
        if self._thread is None:
            # A daemon, since a policy that hangs must not keep Ralph from ending.
            self._thread = threading.Thread(target=self._serve, name="ralph-policies", daemon=True)
            self._thread.start()
        asked = _Round(moment, state, asyncio.get_running_loop().create_future())
        self._rounds.put(asked)
        hung = await self._finish(asked)
        calls: list[HookCall] = []
        try:
            rulings = [
                Ruling(name, plugin, self._verdict(name, plugin, moment, answer, calls))
                for (name, plugin, _), answer in zip(self._policies, asked.answers, strict=False)
            ]
            if hung is not None:
                name, plugin, policy = self._policies[hung]
                error = f"policy {name!r} gave no answer within {policy.deadline:g} s"
                now = time.time_ns()
                answer = _Answer(None, None, now - int(policy.deadline * 1e9), now)
                calls.append(self._call(name, plugin, moment, answer, error))
                raise self._plugins.fault(plugin, error)
        finally:
            # A tick comes every second and nearly always means "go on": that is no news for a trace.
            if moment.kind is MomentKind.TICK:
                calls = [call for call in calls if call.error or call.attributes[VERDICT] != "allow"]
            if calls:
                self._watch(calls)
        return sorted(rulings, key=lambda ruling: -ruling.verdict.severity)

    def close(self) -> None:
        self._rounds.put(None)

    async def _finish(self, asked: _Round) -> int | None:
        """Wait until all have answered, or one is past its deadline: then, which."""
        while not asked.done.done():
            at, since = asked.asked
            left = since + self._policies[at][2].deadline - time.monotonic()
            if left <= 0 and len(asked.answers) <= at:
                return at
            await asyncio.wait([asked.done], timeout=max(left, 0.01))
        return None

    def _verdict(self, name: str, plugin: str, moment: Moment, answer: _Answer, calls: list[HookCall]) -> Verdict:
        """The answer, if it is a proper one. Raises `PluginFault`."""
        error = None
        if answer.raised is not None:
            error = f"policy {name!r} raised {type(answer.raised).__name__}: {answer.raised}"
        elif not isinstance(answer.value, (Allow, Ask, Deny, Pause, Stop)):
            error = f"policy {name!r} answered {unrun(answer.value) or format(repr(answer.value), '.80')}, which is no verdict"
        calls.append(self._call(name, plugin, moment, answer, error))
        if error is not None:
            raise self._plugins.fault(plugin, error)
        return answer.value  # type: ignore[return-value]

    def _call(self, name: str, plugin: str, moment: Moment, answer: _Answer, error: str | None) -> HookCall:
        verdict = name_of(answer.value) if isinstance(answer.value, (Allow, Ask, Deny, Pause, Stop)) else None
        said = {POLICY: name, MOMENT: moment.kind.value, VERDICT: verdict}
        return HookCall("judge", plugin, self._plugins.version(plugin), answer.started, answer.ended, error, said)

    def _serve(self) -> None:
        while (asked := self._rounds.get()) is not None:
            for at, (_, _, policy) in enumerate(self._policies):
                value, raised, started = None, None, time.time_ns()
                asked.asked = (at, time.monotonic())
                try:
                    value = policy.judge(asked.moment, asked.state)
                except BaseException as error:  # also SystemExit: a policy does not end the process, it stops the run
                    raised = error
                asked.answers.append(_Answer(value, raised, started, time.time_ns()))
            try:
                asked.done.get_loop().call_soon_threadsafe(_settle, asked.done)
            except RuntimeError:  # the run was over before these policies came back
                return


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
