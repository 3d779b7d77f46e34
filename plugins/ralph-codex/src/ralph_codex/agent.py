"""OpenAI Codex as an agent: one headless process an attempt, prompt on standard input, events by JSON lines.

`codex exec --json` rather than its adapter to the Agent Client Protocol: measured with codex 0.169.0 and codex-acp 0.16.0
(npm, November 2026), that one reports no tokens, asks about no tool inside the sandbox, and stays when its input ends.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ralph_core.contracts import Command, CommandAgent, Context, Exit, Probe, Request
from ralph_core.events import Event
from ralph_core.programs import ask_program, find_program

from .settings import CodexSettings
from .stream import Stream

TESTED = "0.169.0"
"""Version of Codex (npm, November 2026) that all of this was tried with."""

VARIABLES = ("CODEX_API_KEY", "OPENAI_API_KEY")


class CodexAgent(CommandAgent):
    """Runs `codex exec --json`. Settings: `CodexSettings`."""

    settings: CodexSettings

    def __init__(self, settings: Any, context: Context) -> None:
        super().__init__(settings or CodexSettings(), context)
        self._stream = Stream()

    def probe(self) -> Probe:
        name = self.settings.executable
        executable = find_program(name, self.context.env)
        if executable is None:
            advice = "install Codex (npm install -g @openai/codex), or set agents.codex.executable"
            return Probe(missing=(f"no program {name!r} on PATH: {advice}",))
        words, complaint = ask_program([executable, "--version"], {**self.context.env, **self.settings.env})
        version = words.rpartition(" ")[2]
        missing, notes = [complaint] if complaint else [], []
        if version and version.split(".")[:2] != TESTED.split(".")[:2]:
            notes.append(f"version {version} is untested; this adapter was tried with {TESTED}")
        login = self._login()
        if login:
            notes.append(f"credentials: {login} (found, not tried)")
        else:
            missing.append("no credentials: set CODEX_API_KEY, or log in once (run codex login)")
        return Probe(executable, version, tuple(missing), tuple(notes))

    def skills(self) -> Sequence[Path]:
        # Where Codex looks, besides what it brings itself: https://developers.openai.com/codex/skills
        home = Path({**self.context.env, **self.settings.env}.get("HOME") or Path.home())
        places = (self.context.workspace, home)
        return [path for place in places for path in sorted(place.glob(".agents/skills/*/SKILL.md"))]

    def begin(self, request: Request) -> None:
        self._stream = Stream()

    def command(self, request: Request) -> Command:
        settings = self.settings
        allowed = (
            ("--dangerously-bypass-approvals-and-sandbox",)
            if settings.sandbox == "danger-full-access"
            else ("--sandbox", settings.sandbox)
        )
        model = ("--model", settings.model) if settings.model else ()
        return Command(
            argv=(
                os.path.expanduser(settings.executable),  # noqa: PTH111 - as in probe
                *("exec", "--json", "--skip-git-repo-check", *allowed, *model, *settings.extra_args, "-"),
            ),
            env={**request.env, **settings.env},
            cwd=str(request.workspace),
            stdin=request.prompt.encode(),
            stop=((signal.SIGTERM, 2.0),),
        )

    def parse(self, line: bytes) -> Iterator[Event]:
        return self._stream.events(line)

    def finish(self, end: Exit) -> Iterable[Event]:
        return self._stream.finish(end)

    def _login(self) -> str | None:
        """What it could log in with, in words."""
        env = {**self.context.env, **self.settings.env}
        for name in VARIABLES:
            if env.get(name):
                return name
        home = Path(env["CODEX_HOME"]) if env.get("CODEX_HOME") else Path(env.get("HOME", "~")).expanduser() / ".codex"
        if (home / "auth.json").is_file():
            return str(home / "auth.json")
        try:  # a provider of the user's own has credentials of its own, which are not looked for
            own = "model_provider" in (home / "config.toml").read_text(encoding="utf-8")
        except (OSError, ValueError):
            own = False
        return f"model_provider in {home / 'config.toml'}" if own else None
