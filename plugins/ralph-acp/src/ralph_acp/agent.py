"""An agent behind the Agent Client Protocol: one process and one session an attempt, JSON-RPC over its input and output.

What it writes goes to a file that Ralph reads as it grows, as with every agent; its input stays open as long as they talk.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from collections.abc import Set as AbstractSet
from functools import partial
from importlib import import_module
from typing import Any

from ralph_core.contracts import Agent, Command, Context, Probe, Process, Request, SpawnError
from ralph_core.events import Event, Failed, FailureKind
from ralph_core.programs import find_program

from .known import ANY, KNOWN, Known
from .settings import AcpSettings

STOP = ((0, 1.0), (signal.SIGTERM, 2.0))
"""First it only has the time to end its turn, which `session/cancel` told it to."""


class AcpAgent(Agent):
    """Runs one agent. Settings: `AcpSettings`."""

    settings: AcpSettings

    def __init__(self, name: str, known: Known, settings: Any, context: Context) -> None:
        super().__init__(settings or AcpSettings(), context)
        self.name, self.known = name, known
        self._words = self.settings.command or known.command

    def probe(self) -> Probe:
        if not self._words:
            return Probe(missing=(f"no command: set agents.{self.name}.command",))
        program = os.path.expanduser(self._words[0])  # noqa: PTH111 - a bare name stays one
        executable = find_program(program, self.context.env)
        if executable is None:
            advice = f"install it ({self.known.install}), or " if self.known.install else ""
            return Probe(missing=(f"no program {program!r} on PATH: {advice}set agents.{self.name}.command",))
        notes = ["whether it is logged in is only known when it runs"]
        if self.known is not ANY:
            tried = f"tried with {self.known.tried}" if self.known.tried else "not tried by Ralph's authors"
            notes.append(f"this agent's protocol was {tried}")
        return Probe(executable, notes=tuple(notes))

    def capabilities(self, declared: AbstractSet[str]) -> AbstractSet[str]:
        asks = self.settings.asks
        return declared if asks is None else (declared | {"asks"} if asks else declared - {"asks"})

    async def run(self, request: Request) -> AsyncIterator[Event]:
        try:
            process = await request.host.start(self._command(request))
        except SpawnError as error:
            yield Failed(FailureKind.SPAWN, str(error))
            return
        # The protocol's models take 0.6 s to import; the agent's own start takes longer.
        conversation = (await asyncio.to_thread(import_module, "ralph_acp.conversation")).Conversation(
            process, request, self.settings, self.known, self.context
        )
        try:
            async for event in conversation:
                yield event
        finally:
            await conversation.close()
            await _leave(process, self.known.leave)

    def _command(self, request: Request) -> Command:
        asking = self.known.asking_env if request.ask is not None else {}
        env = {**request.env, **self.known.env, **self.settings.env, **asking}
        return Command(
            argv=(os.path.expanduser(self._words[0]), *self._words[1:]) if self._words else (),  # noqa: PTH111 - as in probe
            env={name: value for name, value in env.items() if name not in self.known.drop},
            cwd=str(request.workspace),
            stop=STOP,
            poll=0.02,  # each answer of Ralph's is waited for
            converses=True,
        )


async def _leave(process: Process, seconds: float) -> None:
    """Let it end, now that all has been said."""
    process.farewell = b""
    process.close_input()
    end = asyncio.ensure_future(process.wait())
    try:
        await asyncio.wait((end,), timeout=seconds)
        if not end.done():
            await process.stop()
    finally:
        end.cancel()


acp = partial(AcpAgent, "acp", ANY)


def __getattr__(name: str) -> Any:
    """The factory of each known agent, by its name."""
    if name in KNOWN:
        return partial(AcpAgent, f"acp-{name}", KNOWN[name])
    raise AttributeError(name)
