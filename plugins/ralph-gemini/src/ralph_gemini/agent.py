"""Gemini CLI as an agent: one headless process an attempt, prompt on standard input, events by streamed JSON.

Seen with Gemini CLI 0.61.0 (npm, November 2026) against a stand-in of its API on loopback; captures are in this package's
tests. What it can't do from here: its own retries (10 by default, some 4 minutes for a quota error) are set by
`general.maxAttempts` in its settings files alone, and it accepts such a file from elsewhere only if root owns it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ralph_core.contracts import Command, CommandAgent, Context, Exit, Probe, Request
from ralph_core.events import Event, Failed, FailureKind, Finished, Started, Text, Tokens, ToolCall, ToolResult, Usage

from .settings import GeminiSettings

FIXED_ENV = {
    # Without it the program is a wrapper that ignores INT and TERM, around the one that does the work.
    "GEMINI_CLI_NO_RELAUNCH": "true",
    # Without it there is no run in a folder that was never trusted by hand.
    "GEMINI_CLI_TRUST_WORKSPACE": "true",
}

STATUS_OF_EXIT = {401 % 256: 401, 403 % 256: 403, 429 % 256: 429, **{code % 256: code for code in (500, 502, 503, 504)}}
"""Its exit code after an API error is the HTTP status, of which a process can only give the lower 8 bits."""

NO_LOGIN = 41
"""Exit code when it has nothing to log in with (FatalAuthenticationError); there is no result line then."""

VARIABLES = ("GEMINI_API_KEY", "GOOGLE_GENAI_USE_VERTEXAI", "GOOGLE_GENAI_USE_GCA", "GEMINI_CLI_USE_COMPUTE_ADC")
"""What selects a login (read in the bundle of 0.61.0)."""


class GeminiAgent(CommandAgent):
    """Runs `gemini -o stream-json`. Settings: `GeminiSettings`."""

    settings: GeminiSettings

    def __init__(self, settings: Any, context: Context) -> None:
        super().__init__(settings or GeminiSettings(), context)
        self._said, self._error = "", ""
        self._result: dict[str, Any] | None = None

    def probe(self) -> Probe:
        name = self.settings.executable
        executable = shutil.which(os.path.expanduser(name), path=self.context.env.get("PATH"))  # noqa: PTH111 - a bare name stays one
        if executable is None:
            advice = "install Gemini CLI (npm install -g @google/gemini-cli), or set agents.gemini.executable"
            return Probe(missing=(f"no program {name!r} on PATH: {advice}",))
        version, complaint = self._version(executable)
        missing, notes = [complaint] if complaint else [], []
        login = self._login()
        if login:
            notes.append(f"credentials: {login} (found, not tried)")
        else:
            missing.append("no credentials: set GEMINI_API_KEY, or log in once (run gemini)")
        return Probe(executable, version, tuple(missing), tuple(notes))

    def begin(self, request: Request) -> None:
        self._said, self._error, self._result = "", "", None

    def command(self, request: Request) -> Command:
        model = ("-m", self.settings.model) if self.settings.model else ()
        return Command(
            argv=(
                os.path.expanduser(self.settings.executable),  # noqa: PTH111 - as in probe
                *("-o", "stream-json", "--approval-mode", self.settings.approval_mode, *model),
            ),
            env={**request.env, **FIXED_ENV, **self.settings.env},
            cwd=str(request.workspace),
            stdin=request.prompt.encode(),
            stop=((signal.SIGTERM, 2.0),),
        )

    def parse(self, line: bytes) -> Iterator[Event]:
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            return
        data = _object(value)
        kind = data.get("type")
        if kind == "init":
            yield Started(_word(data.get("session_id")), _word(data.get("model")))
        elif kind == "message" and data.get("role") == "assistant":
            self._said += str(data.get("content", ""))
            yield Text(str(data.get("content", "")))
        elif kind == "tool_use":
            self._said = ""  # the final message is what is said after the last tool
            name, tool = str(data.get("tool_id", "")), str(data.get("tool_name", ""))
            yield ToolCall(name, tool, _object(data.get("parameters")))
        elif kind == "tool_result":
            ok = data.get("status") == "success"
            yield ToolResult(str(data.get("tool_id", "")), ok=ok, text=str(data.get("output", "")))
        elif kind == "error":
            self._error = str(data.get("message", ""))
        elif kind == "result":
            self._result = data

    def finish(self, end: Exit) -> Iterable[Event]:
        """The result line says whether it failed, and only the exit code says of what."""
        if self._result is None:
            return [Failed(FailureKind.AUTH, " ".join(end.stderr.split())[-300:])] if end.code == NO_LOGIN else []
        stats = _object(self._result.get("stats"))
        usage = _tokens(stats)
        models = ((name, _tokens(_object(figures))) for name, figures in _object(stats.get("models")).items())
        # By model, since that is what tokens are priced by, and "auto" uses several.
        told = [Usage(name, tokens, name) for name, tokens in models if tokens is not None]
        if self._result.get("status") != "success":
            message = str(_object(self._result.get("error")).get("message") or self._error or end.words)
            return [*told, Failed(_kind(message, end.code), message, usage=usage)]
        if self._error and not self._said:
            # Its loop detector ends a run in the midst of its tools, with the status "success".
            return [*told, Failed(FailureKind.AGENT, self._error, usage=usage)]
        return [*told, Finished(self._said, usage)]

    def _login(self) -> str | None:
        """Where something to log in with was found."""
        env = {**self.context.env, **self.settings.env}
        home = Path(env["HOME"]) if env.get("HOME") else Path.home()
        for name in VARIABLES:
            if env.get(name):
                return name
        login = home / ".gemini/oauth_creds.json"
        # It reads the nearest .env file, which may set what is looked for.
        folders = (self.context.workspace, *self.context.workspace.parents, home)
        dotenv = (folder / name for folder in folders for name in (".gemini/.env", ".env"))
        return next((str(path) for path in (login, *dotenv) if path.is_file()), None)

    def _version(self, executable: str) -> tuple[str | None, str]:
        """The version, or None and what is wrong."""
        env = {**self.context.env, **FIXED_ENV}
        try:
            done = subprocess.run(
                [executable, "--version"],
                env=env,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=10,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return None, f"{executable} --version did not answer within 10 s"
        except OSError as error:
            return None, f"{executable} can't be run: {error.strerror or error}"
        words = done.stdout.decode(errors="replace").split()
        if done.returncode != 0 or not words:
            return None, f"{executable} --version failed (exit code {done.returncode})"
        return words[-1], ""


def _kind(message: str, code: int) -> FailureKind:
    status = STATUS_OF_EXIT.get(code, 0)
    if (
        status in (401, 403) or "API_KEY_INVALID" in message
    ):  # Google's reason for a bad key, which comes with status 400
        return FailureKind.AUTH
    if status == 429:
        return FailureKind.USAGE_LIMIT  # it has waited for minutes itself, unless the quota is of a day
    if status >= 500:
        return FailureKind.OVERLOADED
    if "fetch failed" in message:  # Node's words for an API that could not be reached; the exit code is 1
        return FailureKind.NETWORK
    return FailureKind.AGENT


def _tokens(stats: dict[str, Any]) -> Tokens | None:
    """The figures of the result; None if there are none. What is in the total but not in the input is output: thoughts."""
    try:
        total, given = int(stats["total_tokens"]), int(stats["input_tokens"])
        cached, output = int(stats.get("cached", 0)), int(stats["output_tokens"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return Tokens(input=max(0, given - cached), output=max(output, total - given), cache_read=cached)


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _word(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
