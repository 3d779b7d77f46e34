"""A way to run the adapter as the loop would: on a scripted agent, and on the genuine ones, if there are any here."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ralph_acp.agent import AcpAgent
from ralph_acp.known import ANY, KNOWN, Known
from ralph_acp.settings import AcpSettings
from ralph_core.approvals import Asked, AskServer
from ralph_core.contracts import Command, Context, McpServers, Request
from ralph_core.events import Event
from ralph_core.processes.job import Job
from ralph_core.processes.process import Supervisor

ROOT = Path(__file__).parents[3]
FAKE = Path(__file__).with_name("fake.py")


def genuine(variable: str, program: str, package: str) -> str:
    """A genuine agent: what the variable says, the repository's own tools, or PATH; without one the test is skipped."""
    local = ROOT / ".tools/node_modules/.bin" / program
    found = os.environ.get(variable) or (str(local) if local.exists() else shutil.which(program))
    if not found or not shutil.which(found):
        pytest.skip(
            f"no genuine {program}: {variable} is {os.environ.get(variable)!r}, none in .tools or on PATH ({package})"
        )
    return found


class Host:
    """The core's own processes, as the loop uses them."""

    def __init__(self, supervisor: Supervisor, output: Path) -> None:
        self._supervisor, self._output = supervisor, output
        self.job: Job | None = None

    async def start(self, command: Command) -> Job:
        self.job = await self._supervisor.start(command, output=self._output)
        return self.job


@dataclass
class Driver:
    """Runs the adapter once a call, in a workspace and a home of its own."""

    tmp: Path
    answers: Callable[[Asked], None] | None = None
    """What answers for the policies; None: there are none."""
    host: Host | None = None
    mcp: McpServers | None = None

    @property
    def workspace(self) -> Path:
        return self.tmp / "workspace"

    def settings(self, play: str, **settings: Any) -> AcpSettings:
        """The settings that run the scripted agent."""
        script = self.tmp / "play.py"
        script.write_text(textwrap.dedent(play))
        return AcpSettings(command=(sys.executable, "-I", "-S", str(FAKE), str(script)), **settings)

    def play(self, play: str, prompt: str = "Do the work.", known: Known = ANY, **more: Any) -> list[Event]:
        """All events of one attempt with the scripted agent."""
        stop_when = more.pop("stop_when", None)
        return self.run("acp", known, self.settings(play, **more), prompt, {}, stop_when)

    def known(
        self, name: str, program: str, env: Mapping[str, str], prompt: str = "Do the work.", **more: Any
    ) -> list[Event]:
        """All events of one attempt with a genuine agent."""
        stop_when = more.pop("stop_when", None)
        settings = AcpSettings(command=(program, *KNOWN[name].command[1:]), **more)
        return self.run(f"acp-{name}", KNOWN[name], settings, prompt, env, stop_when)

    def run(self, name, known, settings, prompt, env, stop_when) -> list[Event]:  # type: ignore[no-untyped-def]
        for folder in (self.workspace, self.tmp / "home"):
            folder.mkdir(exist_ok=True)
        clean = {"PATH": os.environ["PATH"], "HOME": str(self.tmp / "home"), "LANG": "C.UTF-8", **env}
        agent = AcpAgent(name, known, settings, Context(self.workspace, self.workspace / ".agent", clean))

        async def attempt(server: AskServer | None) -> list[Event]:
            events: list[Event] = []
            async with await Supervisor.open("test") as supervisor:
                self.host = host = Host(supervisor, self.tmp / "output")
                channel = server.channel if server else None
                request = Request("run", 1, 1, prompt, self.workspace, clean, host, channel, mcp=self.mcp)
                async for event in agent.run(request):
                    events.append(event)
                    if stop_when is not None and stop_when(event) and host.job is not None:
                        await host.job.stop()
            return events

        async def judged() -> list[Event]:
            if self.answers is None:
                return await attempt(None)
            async with AskServer(self.tmp / "approvals") as server:
                server.deliver = self.answers
                return await attempt(server)

        return asyncio.run(asyncio.wait_for(judged(), 90))


@pytest.fixture(name="genuine")
def genuine_fixture() -> Callable[[str, str, str], str]:
    return genuine


@pytest.fixture
def driver(tmp_path: Path) -> Driver:
    return Driver(tmp_path)
