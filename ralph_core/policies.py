"""Asks every limit policy, each within its deadline, and lets the most severe answer win. Fails closed, by name."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from .contracts import LimitPolicy
from .plugins import Plugins
from .state import RunState
from .verdicts import Allow, Ask, Deny, Moment, MomentKind, Pause, Stop, Verdict


@dataclass(frozen=True)
class Ruling:
    """One policy's answer."""

    policy: str
    plugin: str
    verdict: Verdict


@dataclass(frozen=True)
class _Question:
    policy: LimitPolicy
    moment: Moment
    state: RunState
    answer: asyncio.Future[object]


class Policies:
    """The policies of one run. They are asked in a thread of their own, so that one that hangs can't hold the loop.

    `record` is told of each answer, as `Telemetry.record` takes it.
    """

    def __init__(
        self,
        policies: Sequence[tuple[str, str, LimitPolicy]],
        plugins: Plugins,
        record: Callable[[str, int, int, Mapping[str, Any], str | None], None],
    ) -> None:
        self._policies, self._plugins, self._record = policies, plugins, record
        self._questions: SimpleQueue[_Question | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    async def ask(self, moment: Moment, state: RunState) -> list[Ruling]:
        """All rulings, the most severe one first. Raises `PluginFault` for a policy that gives no proper answer."""
        rulings = [
            Ruling(name, plugin, await self._judge(name, plugin, policy, moment, state))
            for name, plugin, policy in self._policies
        ]
        return sorted(rulings, key=lambda ruling: -ruling.verdict.severity)

    def close(self) -> None:
        self._questions.put(None)

    async def _judge(self, name: str, plugin: str, policy: LimitPolicy, moment: Moment, state: RunState) -> Verdict:
        started = time.time_ns()
        answer: object = None
        error: str | None = None
        try:
            answer = await asyncio.wait_for(self._answer(policy, moment, state), policy.deadline)
        except asyncio.TimeoutError:
            error = f"policy {name!r} gave no answer within {policy.deadline:g} s"
        except Exception as raised:
            error = f"policy {name!r} raised {type(raised).__name__}: {raised}"
        if error is None and not isinstance(answer, (Allow, Ask, Deny, Pause, Stop)):
            error = f"policy {name!r} answered {answer!r:.80}, which is no verdict"
        # A tick comes every second and nearly always means "go on": that is no news for a trace.
        if error is not None or moment.kind is not MomentKind.TICK or not isinstance(answer, Allow):
            attributes = {
                "ralph.policy": name,
                "ralph.plugin": plugin,
                "ralph.moment": moment.kind.value,
                "ralph.verdict": type(answer).__name__.lower() if error is None else None,
            }
            self._record(f"judge {name}", started, time.time_ns(), attributes, error)
        if error is not None:
            raise self._plugins.fault(plugin, error)
        return answer  # type: ignore[return-value]

    def _answer(self, policy: LimitPolicy, moment: Moment, state: RunState) -> asyncio.Future[object]:
        if self._thread is None:
            # A daemon, since a policy that hangs must not keep Ralph from ending.
            self._thread = threading.Thread(target=self._serve, name="ralph-policies", daemon=True)
            self._thread.start()
        answer: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._questions.put(_Question(policy, moment, state, answer))
        return answer

    def _serve(self) -> None:
        while (question := self._questions.get()) is not None:
            try:
                answer: object = question.policy.judge(question.moment, question.state)
                error = None
            except BaseException as raised:  # also SystemExit: a policy does not end the process, it stops the run
                answer, error = None, raised
            loop = question.answer.get_loop()
            try:
                loop.call_soon_threadsafe(_settle, question.answer, answer, error)
            except RuntimeError:  # the run was over before this policy came back
                return


def _settle(future: asyncio.Future[object], answer: object, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(answer)
    elif isinstance(error, Exception) and not isinstance(error, StopIteration):
        future.set_exception(error)
    else:  # a future can't carry these
        future.set_exception(RuntimeError(f"{type(error).__name__}: {error}"))
