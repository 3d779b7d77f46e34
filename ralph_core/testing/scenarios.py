"""Scenarios of an agent: what its program prints, or how to run it, and what has to come of it; and a host that plays them."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ralph_core.contracts import Agent, AskChannel, Command, Context, Exit, McpServers, Request
from ralph_core.events import Event, Failed, FailureKind, Finished
from ralph_core.testing.attempts import attempt

PROMPT = "Say \"hello\" to 'us' — 漢字 🎉 $HOME `id` %s \\n\n\ttabs, a blank at the end \n\n"
"""What a shell, a template or a trimming adapter would change."""
PATIENCE = 60.0
"""Seconds after which an attempt that does not end is given up."""
TURN = 5.0
"""Seconds for which a line that answers a request waits for it; a capture that was mutilated goes on all the same."""
_ANSWER = re.compile(rb'"(result|error)"')
PID = 1 << 30
"""Of played processes: larger than any that Linux gives out, so that a signal to it reaches nobody."""


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One attempt of an agent, and what has to come of it."""

    name: str
    """In a few words; no two have the same."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The agent's section of the settings file."""
    env: Mapping[str, str] = field(default_factory=dict)
    """What is added to a clean environment."""
    capture: Path | bytes | None = None
    """What the program printed, as bytes or in a file, or a recording that `ralph run --record` made; then nothing is started.
    None: the program is run."""
    exit: int = 0
    """With a capture, the program's exit code; negative: by that signal. A recording has its own."""
    stderr: str = ""
    """With a capture, what the program wrote to standard error. A recording has its own."""
    expect: FailureKind | None = None
    """The kind of failure that has to come; None: the attempt has to finish."""
    shows: AbstractSet[str] = frozenset()
    """Capabilities that the scenario shows and events do not: those that a test of the author's proves, such as `trace`."""
    prompt: str = PROMPT
    """What the agent is told; unless set, what a shell, a template or a trimming adapter would change."""

    @property
    def online(self) -> bool:
        """Whether its program is run."""
        return self.capture is None

    def printed(self) -> tuple[list[bytes], Exit]:
        """The lines that the program printed, and how it ended; none when it is run."""
        data = b"" if self.capture is None else self.capture
        if isinstance(data, Path):
            data = data.read_bytes()
        lines = data.split(b"\n")
        recorded = _recording(lines)
        return recorded if recorded is not None else (_whole(lines), Exit(self.exit, self.stderr))


@dataclass
class Played:
    """What came of an attempt: events, the commands that were started, and what the agent raised, if it did."""

    events: list[Event] = field(default_factory=list)
    commands: list[Command] = field(default_factory=list)
    handed: list[bytes] = field(default_factory=list)
    """All that the processes were handed: arguments, variables, input, and files that these name or that were made."""
    error: BaseException | None = None
    left: int = 0

    @property
    def finals(self) -> list[Finished | Failed]:
        return [event for event in self.events if isinstance(event, (Finished, Failed))]

    def was_handed(self, words: str) -> bool:
        """Whether some process was handed these words, byte for byte, or as a string in JSON."""
        forms = (words.encode(), *(json.dumps(words, ensure_ascii=ascii_)[1:-1].encode() for ascii_ in (True, False)))
        return any(form in data for data in self.handed for form in forms)


class PlayedHost:
    """A process host that starts nothing: each process prints the lines, and ends so; or hangs after them until it is stopped."""

    def __init__(self, lines: Sequence[bytes], end: Exit, folder: Path, *, hangs: bool = False) -> None:
        self._lines, self._end, self._folder, self._hangs = lines, end, folder, hangs
        self.played = Played()
        self.processes: list[PlayedProcess] = []
        self.started = asyncio.Event()

    async def start(self, command: Command) -> PlayedProcess:
        self.played.commands.append(command)
        self.played.handed += _handed(command, self._folder)
        process = PlayedProcess(self._lines, self._end, self.played.handed, hangs=self._hangs)
        self.processes.append(process)
        self.started.set()
        return process


class PlayedProcess:
    """A process that is not there. What is written to it is kept; a line that answers a request waits for that request."""

    pid = PID
    farewell = b""

    def __init__(self, lines: Sequence[bytes], end: Exit, handed: list[bytes], *, hangs: bool) -> None:
        self._lines, self._end, self._handed = lines, end, handed
        self._stopped = asyncio.Event()
        self.silent = asyncio.Event()
        self._hangs = hangs

    async def lines(self) -> AsyncIterator[bytes]:
        for line in self._lines:
            await self._asked(line)
            if self._stopped.is_set():
                return
            yield line
            await asyncio.sleep(0)
        self.silent.set()
        if self._hangs:
            await self._stopped.wait()

    async def _asked(self, line: bytes) -> None:
        """If the line is an answer of JSON-RPC, wait for what it answers: a conversation is played turn by turn."""
        asked = _id(line) if _ANSWER.search(line) else None
        for _ in range(int(TURN / 0.01) if asked is not None else 0):
            if self._stopped.is_set() or asked in [_id(each) for data in self._handed for each in data.splitlines()]:
                return
            await asyncio.sleep(0.01)

    async def write(self, data: bytes) -> None:
        self._handed.append(data)

    def close_input(self) -> None:
        pass

    async def wait(self) -> Exit:
        if self._hangs:
            await self._stopped.wait()
        return Exit(-15, self._end.stderr) if self._stopped.is_set() else self._end

    async def stop(self, *, now: bool = False) -> None:
        self._stopped.set()


def play(
    agent: Agent,
    scenario: Scenario,
    env: Mapping[str, str],
    *,
    lines: Sequence[bytes] | None = None,
    prompt: str | None = None,
    hangs: bool = False,
    ask: AskChannel | None = None,
    budget: float | None = None,
    mcp: McpServers | None = None,
) -> Played:
    """One attempt with nothing started: the scenario's lines, or these instead, are what the program prints."""
    printed, end = scenario.printed()
    host = PlayedHost(printed if lines is None else lines, end, agent.context.workspace.parent, hangs=hangs)
    words = scenario.prompt if prompt is None else prompt
    request = Request("run", 1, 1, words, agent.context.workspace, env, host, ask, budget, mcp)

    async def follow() -> None:
        async for event in agent.run(request):
            host.played.events.append(event)

    async def until_silent() -> None:
        await host.started.wait()
        await host.processes[-1].silent.wait()
        await host.processes[-1].stop()

    async def all_of_it() -> None:
        stopper = asyncio.ensure_future(until_silent()) if hangs else None
        try:
            await asyncio.wait_for(follow(), PATIENCE)
        finally:
            if stopper is not None:
                stopper.cancel()

    _guarded(host.played, all_of_it)
    return host.played


def run(agent: Agent, scenario: Scenario, env: Mapping[str, str], folder: Path, *, stop: bool = False) -> Played:
    """One attempt with the program itself, below the real supervisor; with `stop` it is told to end after the first event."""
    played = Played()

    async def all_of_it() -> None:
        going = attempt(
            agent, scenario.prompt, agent.context.workspace, env, folder / "output", stop_when=lambda _event: stop
        )
        done = await asyncio.wait_for(going, 2 * PATIENCE)
        played.events, played.left = done.events, done.left

    _guarded(played, all_of_it)
    return played


def _guarded(played: Played, going: Any) -> None:
    try:
        asyncio.run(going())
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        played.error = error


def made(kind: Any, provider: Any, scenario: Scenario, context: Context) -> Agent:
    """The agent as the scenario sets it up."""
    from ralph_core.testing.rules import built

    agent: Agent = built(kind, provider, scenario.settings, context)
    (context.home / "runs" / "run").mkdir(parents=True, exist_ok=True)
    return agent


def _recording(lines: Sequence[bytes]) -> tuple[list[bytes], Exit] | None:
    """What a recording holds; None if it is none."""
    try:
        head = json.loads(lines[0])
        if not isinstance(head, dict) or set(head) != {"agent"}:
            return None
        entries = [json.loads(line) for line in lines[1:] if line]
        printed = [entry["line"].encode(errors="surrogateescape") for entry in entries if "line" in entry]
        ends = [Exit(int(entry["exit"]), str(entry.get("stderr", ""))) for entry in entries if "exit" in entry]
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return printed, (ends[-1] if ends else Exit(0))


def _id(line: bytes) -> object:
    """The id of a message of JSON-RPC; None if it is none."""
    try:
        value = json.loads(line) if line.startswith(b"{") else None
    except (ValueError, RecursionError):
        return None
    return value.get("id") if isinstance(value, dict) and "jsonrpc" in value else None


def _whole(lines: Sequence[bytes]) -> list[bytes]:
    return list(lines[:-1] if lines and not lines[-1] else lines)


def _handed(command: Command, folder: Path) -> list[bytes]:
    words = [*command.argv, *command.env.values()]
    handed = [command.stdin or b"", *map(os.fsencode, words)]
    named = {
        Path(word)
        for word in words
        if word.startswith("/") and "\0" not in word and len(word) < os.pathconf("/", "PC_PATH_MAX")
    }
    for path in sorted(named | set(folder.rglob("*"))):
        try:
            if path.is_relative_to(folder) and path.is_file():
                handed.append(path.read_bytes())
        except OSError:  # no file, or none that can be read: then nothing is handed over in it
            pass
    return handed
