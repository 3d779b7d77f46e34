"""The command agent: any shell command as an agent."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from ralph_core.contracts import Command, CommandAgent, Exit, Probe, Request, SpawnError, tail_of
from ralph_core.events import Event, Failed, FailureKind, Finished, Text

from .eventlines import event_of

MESSAGE_LIMIT = 256 * 1024
"""Bytes of the end of the output that are taken for the final message; all of it is in the run's folder."""
SHOWN = 100.0
"""Lines a second that are reported as they come; a flood is not, and all of it is in the run's folder."""
LONGEST_ARGUMENT = 131_071
"""Bytes that Linux takes for one argument (MAX_ARG_STRLEN, less the NUL that ends it)."""
NOT_FOUND = (126, 127)
"""Exit codes of a POSIX shell for a command that can't be executed, or is not there (POSIX.1-2017, 2.8.2)."""


class ShellAgentSettings(BaseModel):
    """Settings of the command agent."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    command: str = ""
    """The shell command."""
    input: Literal["stdin", "argument", "file"] = "stdin"
    """How it gets the prompt: on standard input, as its last argument, or in a file that its last argument names."""
    output: Literal["text", "events"] = "text"
    """What it prints: its final message as `text`, or `events`, a JSON object a line (see `eventlines`)."""


class ShellAgent(CommandAgent):
    """Runs a shell command.

    With `text` output, exit code 0 and what was printed are the answer, and any other exit code is a failure. With
    `events`, the final event decides, and without one the attempt has crashed, whatever the exit code.
    """

    settings: ShellAgentSettings
    _message: bytearray
    _allowance: float
    _asked: float

    def probe(self) -> Probe:
        shell = shutil.which("sh", path=self.context.env.get("PATH"))
        missing = [] if shell else ["a POSIX shell (sh) on PATH"]
        if not self.settings.command.strip():
            missing.append("a command: --command 'CMD', or agents.command.command in the settings file")
        return Probe(shell, missing=tuple(missing))

    def capabilities(self, declared: AbstractSet[str]) -> AbstractSet[str]:
        """With `events`, the program can report all there is; one that does not is found out after its first attempt."""
        told = {"tools", "session", "usage", "usage-live", "cost", "quota"}
        return declared | told if self.settings.output == "events" else declared

    def begin(self, request: Request) -> None:
        self._message = bytearray()
        self._allowance, self._asked = SHOWN, time.monotonic()

    def command(self, request: Request) -> Command:
        shell, prompt = ("/bin/sh", "-c", self.settings.command), request.prompt.encode()
        if self.settings.input == "stdin":
            return Command(shell, request.env, str(request.workspace), stdin=prompt)
        last = request.prompt if self.settings.input == "argument" else str(self._written(request.run, prompt))
        if len(last.encode()) > LONGEST_ARGUMENT or "\0" in last:
            raise SpawnError(
                f"the prompt, of {len(prompt)} bytes, can't be an argument (up to {LONGEST_ARGUMENT} bytes, none of them NUL): "
                "set agents.command.input to stdin or file"
            )
        # "$@" is what follows the name of the shell.
        return Command((*shell[:2], f'{shell[2]} "$@"', "sh", last), request.env, str(request.workspace))

    def _written(self, run: str, prompt: bytes) -> Path:
        """The prompt in a file that nobody else may read. Raises `SpawnError`."""
        path = self.context.home / "runs" / run / "prompt.md"
        try:
            path.unlink(missing_ok=True)
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
                stream.write(prompt)
        except OSError as error:
            raise SpawnError(f"the prompt can't be written to {path}: {error.strerror or error}") from error
        return path

    def parse(self, line: bytes) -> Iterable[Event]:
        if self.settings.output == "events":
            event = event_of(line)
            if event is not None:
                yield event
            return
        self._message += line[-MESSAGE_LIMIT:] + b"\n"
        if len(self._message) > 2 * MESSAGE_LIMIT:
            del self._message[:-MESSAGE_LIMIT]
        now = time.monotonic()
        self._allowance = min(SHOWN, self._allowance + SHOWN * (now - self._asked))
        self._asked = now
        if self._allowance >= 1:
            self._allowance -= 1
            yield Text(line[:1000].decode(errors="replace"))

    def finish(self, end: Exit) -> Iterable[Event]:
        if end.code not in NOT_FOUND and self.settings.output == "events":
            return
        if end.code == 0:
            yield Finished(self._message[-MESSAGE_LIMIT:].decode(errors="replace"))
        else:
            kind = FailureKind.SPAWN if end.code in NOT_FOUND else FailureKind.AGENT
            yield Failed(kind, f"{end.words}{tail_of(end.stderr)}")
