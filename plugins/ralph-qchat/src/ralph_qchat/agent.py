"""Amazon Q Developer CLI and its successor Kiro CLI as agents: one headless process a request, plain text both ways.

What they write, and from where that is known, is in `transcript`; where the settings come from, in `given`.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import replace
from typing import Any, ClassVar

from ralph_core.contracts import Command, CommandAgent, Context, Exit, Probe, Request, SpawnError
from ralph_core.events import Event, Failed, FailureKind, Finished
from ralph_core.programs import ask_program, find_program

from .given import given
from .monitoring import LOG, set_up_log, watched
from .settings import ChatSettings
from .slots import SLOTS
from .transcript import ANSI, Transcript

LOGIN_ADVICE = "not logged in: run `{name} login`"


class QChatAgent(CommandAgent):
    """Runs `q chat`, or what took its place. Settings: `ChatSettings`."""

    settings: ChatSettings
    name: ClassVar[str] = "qchat"
    programs: ClassVar[tuple[str, ...]] = ("q", "qchat", "kiro-cli", "kiro-cli-chat")
    """Names of the program, the first that is there is taken."""

    def __init__(self, settings: Any, context: Context) -> None:
        super().__init__(given(settings or ChatSettings(), context.env, context.workspace), context)
        self._transcript = Transcript()
        self._refused = 0  # requests in a row that the service would not or could not serve
        self._log_is_set_up = False

    def probe(self) -> Probe:
        executable = self._executable()
        if executable is None:
            names = self.settings.executable or ", ".join(self.programs)
            return Probe(missing=(f"none of these programs on PATH: {names} (Kiro CLI: https://kiro.dev)",))
        version, missing = self._ask(executable, "--version")
        if not missing and not _is_chat_version(version):
            missing = f"{executable} is another program: --version says {version!r}"
        if not missing and not self._env(self.context.env).get("KIRO_API_KEY"):
            # Without a login, Kiro CLI prints an address to log in at and waits for ever.
            who, missing = self._ask(executable, "whoami")
            if missing or "not logged in" in who.lower():
                missing = LOGIN_ADVICE.format(name=os.path.basename(executable))  # noqa: PTH119 - a string will do
        notes = ("tested against its sources and a stand-in only", "reports no tokens and no cost")
        return Probe(executable, _number(version), (missing,) if missing else (), notes)

    def begin(self, request: Request) -> None:
        self._transcript = Transcript(request.prompt)

    def command(self, request: Request) -> Command:
        self._check(request.prompt)
        argv = (self._executable() or self.settings.executable or self.programs[0], *self._options())
        if self.settings.max_memory_mb is not None:
            # Of the shell, and so of what takes its place.
            limit = str(self.settings.max_memory_mb * 1024)
            argv = ("/bin/sh", "-c", 'ulimit -v "$0" && exec "$@"', limit, *argv)
        return Command(
            argv=argv,
            env=self._env(request.env),
            cwd=str(request.workspace),
            stdin=request.prompt.encode(),  # which is read where there is no argument, and has no limit in length
            stop=((signal.SIGINT, 2.0), (signal.SIGTERM, 2.0)),
            chunk=self.settings.buffer_size,
            poll=self.settings.poll_interval,
        )

    def parse(self, line: bytes) -> Iterator[Event]:
        return self._transcript.events(line)

    def finish(self, end: Exit) -> Iterable[Event]:
        LOG.debug("%s, standard error ends in: %s", end.words, ANSI.sub("", end.stderr)[-500:])
        return self._transcript.end(end)

    async def run(self, request: Request) -> AsyncIterator[Event]:
        self.begin(request)
        try:
            if not self._log_is_set_up:
                set_up_log(self.settings, self.context.workspace)
                self._log_is_set_up = True
            async with SLOTS.one(self.settings.max_concurrent, self.settings.poll_interval):
                name = self.settings.name or self.name
                with watched(self.settings, name, request.prompt, self.context.home) as told:
                    async for event in self._request(request):
                        if not isinstance(event, (Finished, Failed)):
                            yield event
                            continue
                        told.final = self._counted(event)
                        yield told.final
        except SpawnError as error:
            yield Failed(FailureKind.SPAWN, str(error))

    async def _request(self, request: Request) -> AsyncIterator[Event]:
        """One process, from its start to the final event, within its time and its size."""
        command = self.command(request)
        LOG.debug("runs %s", command.argv)
        process = await request.host.start(command)
        stopping: list[asyncio.Task[None]] = []
        clock = asyncio.get_running_loop().call_later(
            self.settings.timeout, lambda: stopping.append(asyncio.ensure_future(process.stop()))
        )
        try:
            size = 0
            async for line in process.lines():
                size += len(line) + 1
                for event in self.parse(line):
                    yield event
                if (ended := self._unbearable(size)) is not None:
                    await process.stop(now=True)
                    yield ended
                    return
            end = await process.wait()
        finally:
            clock.cancel()
        if stopping:
            await stopping[0]
            yield Failed(FailureKind.TIMEOUT, f"it took more than {self.settings.timeout:g} s (QCHAT_TIMEOUT)")
            return
        for event in self.finish(end):
            yield event

    def _unbearable(self, size: int) -> Failed | None:
        """Why it must not go on, if that is so."""
        if size > self.settings.max_output_size:
            most = self.settings.max_output_size
            return Failed(FailureKind.INVALID_OUTPUT, f"it wrote more than {most} bytes (QCHAT_MAX_OUTPUT_SIZE)")
        if self._transcript.asks_for_login:
            return next((event for event in self._transcript.end(Exit(0)) if isinstance(event, Failed)), None)
        return None

    def _counted(self, final: Finished | Failed) -> Finished | Failed:
        """The final event, with the time to wait if the request is to be repeated, or as the agent's fault if not."""
        if not isinstance(final, Failed) or final.kind not in (FailureKind.OVERLOADED, FailureKind.NETWORK):
            self._refused = 0
            return final
        self._refused += 1
        if self._refused > self.settings.max_retries:
            tries, self._refused = self._refused, 0
            return replace(final, kind=FailureKind.AGENT, message=f"{final.message} (tried {tries} times)")
        return replace(final, retry_after=self.settings.retry_delay * 2.0 ** (self._refused - 1))

    def _check(self, prompt: str) -> None:
        """Raises `SpawnError` for a prompt that must not, or can't, be handed on."""
        settings = self.settings
        if len(prompt) > settings.max_prompt_length:
            most = settings.max_prompt_length
            raise SpawnError(f"the prompt has {len(prompt)} characters, and max_prompt_length is {most}")
        if "\0" in prompt:
            raise SpawnError(f"the prompt has a NUL byte, at character {prompt.index(chr(0))}")
        blocked = next((pattern for pattern in settings.blocked_patterns if pattern in prompt), None)
        if blocked is not None:
            raise SpawnError(f"the prompt holds {blocked!r}, which is one of blocked_patterns")

    def _options(self) -> Iterator[str]:
        settings = self.settings
        yield from ("chat", "--no-interactive", "--wrap", "never")
        if settings.trust_tools:
            yield f"--trust-tools={','.join(settings.trust_tools)}"
        elif settings.trust_all_tools:
            yield "--trust-all-tools"
        if settings.model:
            yield from ("--model", settings.model)
        yield from settings.extra_args

    def _env(self, base: Any) -> dict[str, str]:
        """The environment of the process. The key has the name that Kiro CLI reads; Q itself knows no keys, only logins."""
        env = {**base, **self.settings.env}
        if env.get("Q_API_KEY") and not env.get("KIRO_API_KEY"):
            env["KIRO_API_KEY"] = env["Q_API_KEY"]
        return env

    def _executable(self) -> str | None:
        """The path of the program that is there."""
        names = (self.settings.executable,) if self.settings.executable else self.programs
        found = (find_program(name, self.context.env) for name in names)
        return next((each for each in found if each), None)

    def _ask(self, executable: str, question: str) -> tuple[str, str]:
        """The first line of the program's answer, and what is wrong if it has none."""
        words, complaint = ask_program([executable, question], self._env(self.context.env), timeout=4)
        return (ANSI.sub("", words).strip().splitlines() or [""])[0], complaint


class QAgent(QChatAgent):
    """The same under its other name."""

    name = "q"


class KiroAgent(QChatAgent):
    """Runs `kiro-cli chat`. Settings: `ChatSettings`."""

    name = "kiro"
    programs = ("kiro-cli", "kiro-cli-chat")


def _is_chat_version(line: str) -> bool:
    """Whether this is what one of the programs says of itself: "q 1.19.7". Other programs are called q, too."""
    return re.match(r"^(q|qchat|kiro-cli|kiro-cli-chat) \d+\.\d+", line) is not None


def _number(line: str) -> str | None:
    return line.split()[1] if _is_chat_version(line) else None
