"""Watches one agent at work: hands on its events, and ends it when it is silent, too long, or asked to stop."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from .approvals import Asked
from .contracts import Agent, Command, Process, Request, SpawnError
from .errors import RalphError
from .events import Event, Failed, FailureKind, Finished, misfit
from .plugins.bounds import AtMost, Hung, unrun

if TYPE_CHECKING:
    from .interrupts import Interrupts
    from .processes.job import Job, ProcessLimits
    from .processes.process import Supervisor
    from .processes.recording import Recorder

TICK = 1.0
"""Seconds between two looks at the clock while nothing is reported."""
LINGER = 5.0
"""Seconds that a process may take to end after its final event."""
MAILBOX = 1000
"""Events that may wait for the loop; beyond that, the agent's output is not read on for the moment."""


class AgentHost:
    """The `ProcessHost` of one attempt: every command goes through `prepare`, and its output into the run's folder."""

    def __init__(
        self,
        supervisor: Supervisor,
        output: Path,
        *,
        prepare: Callable[[Command], Command],
        spawned: Callable[[Job], None],
        limits: ProcessLimits | None,
        recorder: Recorder | None = None,
        words: Callable[[str], str] = str,
    ) -> None:
        self._supervisor, self._output, self._limits = supervisor, output, limits
        self._prepare, self._spawned, self._words = prepare, spawned, words
        self.recorder = recorder
        self.job: Job | None = None

    async def start(self, command: Command) -> Process:
        if self.job is not None:
            raise SpawnError("an attempt is one process: this one has been started already")
        if not isinstance(command, Command):
            raise TypeError(
                f"{unrun(command) or format(repr(command), '.80')} is to be started, which is not a Command"
            )
        prepared = self._prepare(command)
        self.job = await self._supervisor.start(prepared, output=self._output, limits=self._limits, words=self._words)
        self._spawned(self.job)
        return self.job if self.recorder is None else self.recorder.watch(self.job)


class Watch:
    """An agent at work, as an asynchronous context: iterate over it for events (None: a tick). No process survives it."""

    def __init__(self, agent: Agent, request: Request, host: AgentHost, halt: Interrupts, *, deadline: float) -> None:
        self._agent, self._request, self._host, self._halt = agent, request, host, halt
        self._moving = AtMost(deadline)
        self._mail: deque[Event | Asked] = deque()
        self._arrived, self._read = asyncio.Event(), asyncio.Event()
        self._started = self._last_event = self._ticked = time.monotonic()
        self._final_at: float | None = None
        self._abrupt = self._over = False
        self._held, self._held_since = 0, 0.0

    async def __aenter__(self) -> Watch:
        self._halt.listeners.add(self._arrived)
        self._moving.__enter__()
        self._beat()
        self._pump_task = asyncio.create_task(self._pump())
        self._pump_task.add_done_callback(lambda _task: self._arrived.set())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._halt.listeners.discard(self._arrived)
        try:
            if self._host.job is not None:
                await self._host.job.stop(now=self._abrupt)
            self._over = True
            self._pump_task.cancel()
            # An adapter that does not heed that is left behind; what it raises now is not heeded either.
            await asyncio.wait([asyncio.gather(self._pump_task, return_exceptions=True)], timeout=LINGER)
        finally:
            self._heart.cancel()
            self._moving.__exit__(None, None, None)
        if self._host.recorder is not None:
            self._host.recorder.close()

    def _beat(self) -> None:
        """Show that the adapter gives way to others: what holds the loop for too long is interrupted."""
        self._moving.beat()
        self._heart = asyncio.get_running_loop().call_later(TICK, self._beat)

    def kill(self) -> None:
        """Let the end of the context be abrupt: the agent gets no time to end in its own way."""
        self._abrupt = True

    def put(self, asked: Asked) -> None:
        """Let a tool call that waits for its answer come among the events."""
        self._mail.append(asked)
        self._arrived.set()

    def hold(self) -> None:
        """The agent waits for an answer: its time stands still until `release`."""
        if not self._held:
            self._held_since = time.monotonic()
        self._held += 1

    def release(self) -> None:
        self._held -= 1
        if not self._held:
            self._last_event = time.monotonic()
            self._started += self._last_event - self._held_since

    async def __aiter__(self) -> AsyncIterator[Event | Asked | None]:
        while self._halt.now is None:
            try:
                await asyncio.wait_for(self._arrived.wait(), TICK)
            except asyncio.TimeoutError:
                pass
            self._arrived.clear()
            while self._mail:
                event = self._mail.popleft()
                self._read.set()
                yield event
            if self._pump_task.done() and not self._mail:
                self._pump_task.result()
                return
            if self._final_at is not None and time.monotonic() - self._final_at > LINGER:
                return
            if time.monotonic() - self._ticked >= TICK:
                self._ticked = time.monotonic()
                yield None

    @property
    def silent(self) -> float:
        """Seconds without an event, and without a byte of output; none while a person is being asked."""
        job = self._host.job
        heard = max(self._last_event, job.last_output if job is not None else 0.0)
        return 0.0 if self._held else time.monotonic() - heard

    @property
    def worked(self) -> float:
        """Seconds at work, less those in which a person was being asked."""
        return (self._held_since if self._held else time.monotonic()) - self._started

    async def _pump(self) -> None:
        """Move the agent's events into the mailbox; what its adapter raises becomes a failure of the agent."""
        try:
            events = self._agent.run(self._request)
            if not isinstance(events, AsyncIterable):
                return self._fail(f"the adapter's run answered {unrun(events) or repr(events)}, not an AsyncIterator")
            async for event in events:
                if wrong := misfit(event):
                    return self._fail(f"the adapter reported {wrong}")
                while len(self._mail) >= MAILBOX:
                    self._read.clear()
                    await self._read.wait()
                self._take(event)
        except RalphError:  # a hook or the store on the way to the process: no fault of this agent
            raise
        except BaseException as error:  # also SystemExit: an adapter does not end the process, its attempt has failed
            if self._over or isinstance(error, (KeyboardInterrupt, GeneratorExit)):
                raise
            did = str(error) if isinstance(error, Hung) else f"raised {type(error).__name__}: {error}"
            self._fail(f"the adapter {did}")

    def _fail(self, words: str) -> None:
        self._take(Failed(FailureKind.INVALID_OUTPUT, words))

    def _take(self, event: Event) -> None:
        if self._final_at is not None:  # the first final event is the end: nothing after it counts
            return
        self._last_event = time.monotonic()
        if self._host.recorder is not None:
            self._host.recorder.event(event)
        if isinstance(event, (Finished, Failed)):
            self._final_at = self._last_event
        self._mail.append(event)
        self._arrived.set()
