"""The genuine Gemini CLI, if there is one here, and a way to run the adapter as the loop would."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ralph_core.contracts import Context, McpServers
from ralph_core.events import Event
from ralph_core.testing.attempts import Tried, tried
from ralph_core.testing.gemini_api import GeminiAPI
from ralph_gemini.agent import GeminiAgent
from ralph_gemini.settings import GeminiSettings

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def gemini() -> str:
    """The program: RALPH_TEST_GEMINI, the repository's own tools, or PATH."""
    local = ROOT / ".tools/node_modules/.bin/gemini"
    found = os.environ.get("RALPH_TEST_GEMINI") or (str(local) if local.exists() else shutil.which("gemini"))
    if not found or not shutil.which(found):
        pytest.skip(
            f"no genuine Gemini CLI: RALPH_TEST_GEMINI is {os.environ.get('RALPH_TEST_GEMINI')!r}, "
            f"no {local.relative_to(ROOT)}, none on PATH (npm install @google/gemini-cli)"
        )
    return found


@dataclass
class Driver:
    """Runs the adapter on a program against an API, once a call, in a workspace and a home of its own."""

    program: str
    tmp: Path

    def __post_init__(self) -> None:
        for folder in (self.workspace, self.home, self.scratch):
            folder.mkdir(exist_ok=True)

    @property
    def workspace(self) -> Path:
        return self.tmp / "workspace"

    @property
    def home(self) -> Path:
        """The user's."""
        return self.tmp / "home"

    @property
    def scratch(self) -> Path:
        """Its directory for temporary files."""
        return self.tmp / "scratch"

    @property
    def output(self) -> Path:
        return self.tmp / "output"

    def agent(self, base: Mapping[str, str], **settings: Any) -> GeminiAgent:
        context = Context(self.workspace, self.tmp / "state", base)
        return GeminiAgent(GeminiSettings(**{"executable": self.program, **settings}), context)

    def try_(
        self,
        api: GeminiAPI | Mapping[str, str],
        prompt: str = "Do the work.",
        stop_when: Callable[[Event], bool] = lambda _event: False,
        mcp: McpServers | None = None,
        **settings: Any,
    ) -> Tried:
        """One attempt; `api` gives the environment, or is the environment. The model is named: one request less."""
        more = api.env() if isinstance(api, GeminiAPI) else api
        base = {"PATH": os.environ["PATH"], "HOME": str(self.home), "LANG": "C.UTF-8", "TMPDIR": str(self.scratch)}
        settings = {"model": "gemini-2.5-flash", **settings}
        agent = self.agent({**base, **more}, **settings)
        done = tried(agent, prompt, self.workspace, agent.context.env, self.output, stop_when=stop_when, mcp=mcp)
        assert done.left == 0, "an attempt left processes behind"
        return done

    def run(self, api: GeminiAPI | Mapping[str, str], *arguments: Any, **more: Any) -> list[Event]:
        """All events of one attempt."""
        return self.try_(api, *arguments, **more).events


@pytest.fixture
def drive(tmp_path: Path) -> Callable[[str], Driver]:
    """Makes a driver of any program."""
    return lambda program: Driver(program, tmp_path)


@pytest.fixture
def driver(gemini: str, tmp_path: Path) -> Driver:
    return Driver(gemini, tmp_path)
