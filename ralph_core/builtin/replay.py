"""The replay agent: plays the recorded attempts of an earlier run again, without a model and without a bill."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from ralph_core.contracts import Agent, Probe, Request
from ralph_core.errors import StoreError
from ralph_core.events import Event, Failed, FailureKind
from ralph_core.processes.recording import FOLDER, events_in, path_of


class ReplaySettings(BaseModel):
    """Settings of the replay agent."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str = ""
    """The run to play again, made with `--record`: its id, or the folder of it."""
    pace: Literal["at-once", "recorded"] = "at-once"
    """Whether events come as fast as they can, or with the pauses that were recorded."""


class ReplayAgent(Agent):
    """The n-th attempt of the run is the n-th recording. The files that the agent changed then are not changed again."""

    settings: ReplaySettings

    @property
    def _folder(self) -> Path:
        run = self.settings.run
        return Path(self.context.workspace, run) if "/" in run else self.context.home / "runs" / run

    def probe(self) -> Probe:
        if not self.settings.run:
            return Probe(missing=("a run to play again: --from RUN, or agents.replay.run",))
        if not (self._folder / FOLDER).is_dir():
            return Probe(missing=(f"there is no recording in {self._folder}: only runs with --record have one",))
        return Probe()

    async def run(self, request: Request) -> AsyncIterator[Event]:
        path = path_of(self._folder, request.attempt)
        if not path.exists():
            yield Failed(FailureKind.SPAWN, f"the recording ends here: there is no {path.name} in {path.parent}")
            return
        before = 0.0
        try:
            for at, event in events_in(path):
                await asyncio.sleep(at - before if self.settings.pace == "recorded" else 0)
                before = at
                yield event
        except StoreError as error:
            yield Failed(FailureKind.INVALID_OUTPUT, str(error))
