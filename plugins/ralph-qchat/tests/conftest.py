"""The stand-in under the names of the programs, and a way to run the adapter as the loop would."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ralph_core.contracts import Context
from ralph_core.events import Event
from ralph_core.testing.attempts import Tried, tried
from ralph_qchat.agent import QChatAgent
from ralph_qchat.monitoring import LOG
from ralph_qchat.settings import ChatSettings

STANDIN = Path(__file__).parent / "standin/q"


class Desk:
    """A workspace, with the stand-in on PATH under the names that were asked for."""

    def __init__(self, tmp: Path) -> None:
        self.tmp, self.workspace, self.home = tmp, tmp / "workspace", tmp / "state"
        for folder in (self.workspace, tmp / "bin", tmp / "home"):
            folder.mkdir()
        python = Path(sys.executable).parent
        self.env = {"HOME": str(tmp / "home"), "PATH": f"{tmp / 'bin'}:{python}:/usr/bin:/bin", "LANG": "C.UTF-8"}

    def install(self, *names: str) -> None:
        for name in names:
            shutil.copy(STANDIN, self.tmp / "bin" / name)

    def program(self, name: str, body: str) -> None:
        path = self.tmp / "bin" / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)

    def agent(
        self, kind: type[QChatAgent] = QChatAgent, env: dict[str, str] | None = None, **settings: Any
    ) -> QChatAgent:
        return kind(ChatSettings(**settings), Context(self.workspace, self.home, {**self.env, **(env or {})}))

    def try_(self, agent: QChatAgent, prompt: str = "Do the work.", **more: Any) -> Tried:
        done = tried(agent, prompt, self.workspace, agent.context.env, self.tmp / "output", **more)
        assert done.left == 0, "a request left processes behind"
        return done

    def run(
        self,
        mode: str = "ok",
        *,
        kind: type[QChatAgent] = QChatAgent,
        prompt: str = "Do the work.",
        stop_when: Callable[[Event], bool] = lambda _event: False,
        env: dict[str, str] | None = None,
        **settings: Any,
    ) -> list[Event]:
        """All events of one request to the stand-in in this mode."""
        agent = self.agent(kind, {"Q_STANDIN": mode, **(env or {})}, **settings)
        return self.try_(agent, prompt, stop_when=stop_when).events


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    desk.install("q")
    yield desk
    for handler in list(LOG.handlers):
        LOG.removeHandler(handler)
        handler.close()
    LOG.propagate = True
