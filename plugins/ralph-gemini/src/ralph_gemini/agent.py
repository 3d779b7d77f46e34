"""Gemini CLI as an agent: one headless process an attempt, prompt on standard input, events by streamed JSON.

What its lines and exit codes mean is in `stream`, how it is kept apart from the user's own sessions in `home`.
"""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ralph_core.contracts import Command, CommandAgent, Context, Exit, Probe, Request, SpawnError
from ralph_core.events import Event
from ralph_core.programs import ask_program, find_program

from . import home
from .login import login
from .settings import GeminiSettings
from .stream import Stream, remove_report

TESTED = "0.61.0"
"""Version of Gemini CLI (npm, November 2026) that all of this was tried with."""

PROMPT_LIMIT = 8 * 1024 * 1024
"""Bytes that it reads of standard input; the rest it drops, with a warning."""

FIXED_ENV = {
    # Without it the program is a wrapper that ignores INT and TERM, around the one that does the work.
    "GEMINI_CLI_NO_RELAUNCH": "true",
    # Its telemetry sends prompts, and OTEL_EXPORTER_OTLP_ENDPOINT is enough to say where.
    "GEMINI_TELEMETRY_ENABLED": "false",
}


class GeminiAgent(CommandAgent):
    """Runs `gemini -o stream-json`. Settings: `GeminiSettings`."""

    settings: GeminiSettings

    def __init__(self, settings: Any, context: Context) -> None:
        super().__init__(settings or GeminiSettings(), context)
        self._home = context.home / "gemini"
        self._stream = Stream()

    def probe(self) -> Probe:
        name = self.settings.executable
        executable = find_program(name, self.context.env)
        if executable is None:
            advice = "install Gemini CLI (npm install -g @google/gemini-cli), or set agents.gemini.executable"
            return Probe(missing=(f"no program {name!r} on PATH: {advice}",))
        version, complaint = self._version(executable)
        missing, notes = [complaint] if complaint else [], []
        if version and version.split(".")[:2] != TESTED.split(".")[:2]:
            notes.append(f"version {version} is untested; this adapter was tried with {TESTED}")
        env = {**self.context.env, **self.settings.env}
        found = login(env, self.context.workspace, home.user_home(env, self._home))
        if found:
            notes.append(f"credentials: {found} (found, not tried)")
        else:
            missing.append("no credentials: set GEMINI_API_KEY, or log in once (run gemini)")
        return Probe(executable, version, tuple(missing), tuple(notes))

    def skills(self) -> Sequence[Path]:
        # Where Gemini CLI looks, besides its extensions: https://geminicli.com/docs/cli/using-agent-skills/; of one name, once.
        user = home.user_home({**self.context.env, **self.settings.env}, self._home)
        places = [place / folder for place in (user, self.context.workspace) for folder in (".gemini", ".agents")]
        found = {path.parent.name: path for place in places for path in sorted(place.glob("skills/*/SKILL.md"))}
        return list(found.values())

    def begin(self, request: Request) -> None:
        self._stream = Stream()

    def command(self, request: Request) -> Command:
        prompt = request.prompt.encode()
        if len(prompt) > PROMPT_LIMIT:
            raise SpawnError(f"the prompt has {len(prompt):,} bytes, and Gemini CLI reads {PROMPT_LIMIT:,} at most")
        home.prepare(self._home, self.settings, {**request.env, **self.settings.env}, request.mcp)
        trust = {"GEMINI_CLI_TRUST_WORKSPACE": "true"} if self.settings.trust_workspace else {}
        return Command(
            argv=(os.path.expanduser(self.settings.executable), *self._options(request)),  # noqa: PTH111 - as in probe
            env={
                **request.env,
                **FIXED_ENV,
                **trust,
                **self.settings.env,
                "GEMINI_CLI_HOME": str(self._home.absolute()),
            },
            cwd=str(request.workspace),
            # A first "/" may make the prompt a command of its own.
            stdin=b"\n" + prompt if prompt.startswith(b"/") else prompt,
            stop=((signal.SIGTERM, 2.0),),
        )

    def parse(self, line: bytes) -> Iterator[Event]:
        return self._stream.events(line)

    def finish(self, end: Exit) -> Iterable[Event]:
        remove_report(end.stderr)
        return self._stream.end(end)

    def _options(self, request: Request) -> Iterator[str]:
        yield from ("-o", "stream-json", "--approval-mode", self.settings.approval_mode)
        if self.settings.model:
            yield from ("-m", self.settings.model)
        for name in (
            request.mcp.servers if request.mcp is not None else ()
        ):  # and no others: not those of extensions either
            yield from ("--allowed-mcp-server-names", name)
        yield from self.settings.extra_args

    def _version(self, executable: str) -> tuple[str, str]:
        """The version, and what is wrong if there is none."""
        # Even for this it writes into its home, and leaves rubbish there.
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
            env = {**self.context.env, **FIXED_ENV, **self.settings.env, "GEMINI_CLI_HOME": scratch}
            words, complaint = ask_program([executable, "--version"], env)
        return words.rpartition(" ")[2], complaint
