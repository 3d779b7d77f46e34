"""The genuine Claude Code, if there is one here, and a way to run the adapter as the loop would."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ralph_claude.agent import ClaudeAgent
from ralph_claude.settings import ClaudeSettings
from ralph_core.contracts import Command, Context, McpServers, Request
from ralph_core.events import Event
from ralph_core.processes.job import Job
from ralph_core.processes.process import Supervisor
from ralph_core.testing.messages_api import MessagesAPI

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def claude() -> str:
    """The program: RALPH_TEST_CLAUDE, the repository's own tools, or PATH."""
    local = ROOT / ".tools/node_modules/.bin/claude"
    found = os.environ.get("RALPH_TEST_CLAUDE") or (str(local) if local.exists() else shutil.which("claude"))
    if not found or not shutil.which(found):
        pytest.skip(
            f"no genuine Claude Code: RALPH_TEST_CLAUDE is {os.environ.get('RALPH_TEST_CLAUDE')!r}, "
            f"no {local.relative_to(ROOT)}, none on PATH (npm install @anthropic-ai/claude-code)"
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
    """Runs the adapter on the genuine program against an API, once a call, in a workspace and a home of its own."""

    claude: str
    tmp: Path
    mcp: McpServers | None = None

    @property
    def workspace(self) -> Path:
        return self.tmp / "workspace"

    @property
    def output(self) -> Path:
        return self.tmp / "output"

    def request(self, prompt: str, env: Mapping[str, str], host: Host) -> Request:
        for folder in (self.workspace, self.tmp / "home"):
            folder.mkdir(exist_ok=True)
        clean = {"PATH": os.environ["PATH"], "HOME": str(self.tmp / "home"), "LANG": "C.UTF-8", **env}
        return Request("run", 1, 1, prompt, self.workspace, clean, host, mcp=self.mcp)

    def agent(self, base: Mapping[str, str], **settings: Any) -> ClaudeAgent:
        context = Context(self.workspace, self.tmp / "state", base)
        return ClaudeAgent(ClaudeSettings(executable=self.claude, **settings), context)

    def run(
        self,
        api: MessagesAPI | Mapping[str, str],
        prompt: str = "Do the work.",
        stop_when: Callable[[Event], bool] | None = None,
        **settings: Any,
    ) -> list[Event]:
        """All events of one attempt; `api` gives the environment, or is the environment."""
        env = api.env() if isinstance(api, MessagesAPI) else api

        async def attempt() -> list[Event]:
            events: list[Event] = []
            async with await Supervisor.open("test") as supervisor:
                host = Host(supervisor, self.output)
                request = self.request(prompt, env, host)
                async for event in self.agent(request.env, **settings).run(request):
                    events.append(event)
                    if stop_when is not None and stop_when(event) and host.job is not None:
                        await host.job.stop()
            return events

        return asyncio.run(asyncio.wait_for(attempt(), 90))


@pytest.fixture
def driver(claude: str, tmp_path: Path) -> Driver:
    return Driver(claude, tmp_path)
