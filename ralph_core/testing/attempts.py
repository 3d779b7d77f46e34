"""One attempt with an agent, as the loop would make it: through the supervisor, with its output in a file."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ralph_core.contracts import Agent, Command, McpServers, Request
from ralph_core.events import Event, Failed, Finished
from ralph_core.processes.job import Job
from ralph_core.processes.process import Supervisor
from ralph_core.processes.survivors import MARKER, kill_survivors


class Host:
    """The core's own processes, for one attempt."""

    def __init__(self, supervisor: Supervisor, output: Path) -> None:
        self._supervisor, self._output = supervisor, output
        self.job: Job | None = None

    async def start(self, command: Command) -> Job:
        self.job = await self._supervisor.start(command, output=self._output)
        return self.job


@dataclass(frozen=True)
class Tried:
    """What came of an attempt. `left`: how many processes of it there were still when all was over."""

    events: list[Event] = field(default_factory=list)
    left: int = 0

    @property
    def final(self) -> Event:
        return self.events[-1]


async def attempt(
    agent: Agent,
    prompt: str,
    workspace: Path,
    env: Mapping[str, str],
    output: Path,
    *,
    number: int = 1,
    mcp: McpServers | None = None,
    stop_when: Callable[[Event], bool] = lambda _event: False,
) -> Tried:
    """Let `agent` make an attempt; what it and its children leave running is killed, as after every attempt.

    `env` is the agent's whole environment. After an event for which `stop_when` is true, it is told to end.
    """
    events: list[Event] = []
    run = f"test-{secrets.token_hex(8)}"
    marks = {MARKER: run, "RALPH_ITERATION": str(number)}  # as the loop has them
    async with await Supervisor.open(run) as supervisor:
        host = Host(supervisor, output)
        async for event in agent.run(Request(run, number, number, prompt, workspace, {**env, **marks}, host, mcp=mcp)):
            events.append(event)
            if host.job is not None and (stop_when(event) or isinstance(event, (Finished, Failed))):
                await host.job.stop()
    return Tried(events, kill_survivors(run))


def tried(agent: Agent, prompt: str, workspace: Path, env: Mapping[str, str], output: Path, **more: object) -> Tried:
    """`attempt`, to its end, within 90 s."""
    return asyncio.run(asyncio.wait_for(attempt(agent, prompt, workspace, env, output, **more), 90))  # type: ignore[arg-type]
