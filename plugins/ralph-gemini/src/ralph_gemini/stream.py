"""The lines of `gemini -o stream-json`, its exit code, and what they mean.

Seen with Gemini CLI 0.61.0 (npm, November 2026) against a stand-in of its API on loopback; captures are in this package's
tests. Lines are JSON objects, told apart by `type`:

- `init` opens the stream; `message` echoes the prompt (role `user`), and then brings the answer in pieces (role `assistant`).
- `tool_use` and `tool_result`: a tool, before and after.
- `error`: something that is not the end by itself. If nothing follows it but the result, it is why that came.
- `result`: the end, with the figures of each model. Of errors it has the API's words; the exit code has the HTTP status.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ralph_core.contracts import Exit, tail_of
from ralph_core.events import Event, Failed, FailureKind, Finished, Started, Text, Tokens, ToolCall, ToolResult, Usage

STATUS_OF_EXIT = {code % 256: code for code in (400, 401, 403, 404, 429, 500, 502, 503, 504)}
"""Its exit code after an API error is the HTTP status, of which a process can only give the lower 8 bits."""

REFUSED_TO_START = {
    41: FailureKind.AUTH,  # FatalAuthenticationError: nothing to log in with
    42: FailureKind.SPAWN,  # FatalInputError
    44: FailureKind.SPAWN,  # FatalSandboxError
    52: FailureKind.SPAWN,  # FatalConfigError: a settings file
    55: FailureKind.SPAWN,  # FatalUntrustedWorkspaceError
}
"""Exit codes without a result line."""

DELAY = re.compile(r"(?:Suggested retry after|[Pp]lease retry in) ([0-9.]+)(ms|s)\b")
"""How its error message gives the API's `RetryInfo`."""

REPORT = re.compile(r"report (?:\(excluding context\) )?available at: (/.*?/gemini-client-error-[^/\n]*?\.json)")
"""Where it says that it has put a report of an error, with the whole conversation in it."""


class Stream:
    """The reader of one attempt's lines, and of its end."""

    def __init__(self) -> None:
        self._said: list[str] = []
        self._error = ""
        self._result: dict[str, Any] | None = None

    def events(self, line: bytes) -> Iterator[Event]:
        """What one line means; a line that is not a JSON object is noise and means nothing."""
        try:
            data = _object(json.loads(line))
        except (ValueError, RecursionError):
            return
        kind = data.get("type")
        if kind == "init":
            yield Started(_word(data.get("session_id")), _word(data.get("model")), "gcp.gemini")
        elif kind == "message" and data.get("role") == "assistant":
            self._error = ""
            self._said.append(str(data.get("content", "")))
            yield Text(self._said[-1])
        elif kind == "tool_use":
            self._error = ""
            self._said.clear()  # the final message is what is said after the last tool
            name, tool = str(data.get("tool_id", "")), str(data.get("tool_name", ""))
            yield ToolCall(name, tool, _object(data.get("parameters")))
        elif kind == "tool_result":
            good = data.get("status") == "success"
            text = data.get("output") if good else _object(data.get("error")).get("message") or data.get("output")
            yield ToolResult(str(data.get("tool_id", "")), ok=good, text=str(text or ""))
        elif kind == "error":
            self._error = str(data.get("message", ""))
        elif kind == "result" and self._result is None:
            self._result = data
            if not data.get("error"):  # else it exits at once, and its exit code says more
                yield from self._final(Exit(0))

    def end(self, end: Exit) -> Iterator[Event]:
        """The final event, if it has not been given: the result line says whether it failed, and the exit code of what."""
        if self._result is None:
            yield from _never_ended(end)
        elif self._result.get("error"):
            yield from self._final(end)

    def _final(self, end: Exit) -> Iterator[Event]:
        assert self._result is not None
        stats = _object(self._result.get("stats"))
        models = {name: _tokens(_object(figures)) for name, figures in _object(stats.get("models")).items()}
        # By model, since that is what tokens are priced by, and "auto" uses several.
        yield from (Usage(name, tokens, name) for name, tokens in models.items() if tokens is not None and tokens.total)
        usage = _tokens(stats)
        if models and usage == Tokens() and self._said:
            usage = None  # the API gave no figures: it broke off before, or never does
        if self._result.get("status") != "success":
            message = str(_object(self._result.get("error")).get("message") or self._error or end.words)
            kind = _kind(message, end.code)
            yield Failed(kind, message, _delay(message) if kind is FailureKind.USAGE_LIMIT else None, usage)
        elif self._error:
            # Its loop detector ends a run with the status "success".
            yield Failed(FailureKind.AGENT, self._error, usage=usage)
        elif not models:
            # A prompt that is over the model's context is not sent: no request, no words, status "success".
            yield Failed(FailureKind.AGENT, "it ended without a model call: the prompt may be too long", usage=usage)
        else:
            yield Finished("".join(self._said), usage)


def remove_report(stderr: str) -> None:
    """Delete the reports of errors that it says it has left in the temporary directory: the prompt is in them."""
    for found in REPORT.finditer(stderr):
        try:
            Path(found[1]).unlink(missing_ok=True)
        except OSError:
            pass  # it stays, then: the attempt is over, whatever became of this file


def _never_ended(end: Exit) -> Iterator[Event]:
    """What there is to say of an end without a result line that says more than the core's own words for it."""
    if end.code in REFUSED_TO_START:
        yield Failed(REFUSED_TO_START[end.code], " ".join(end.stderr.split())[-300:])
        return
    usage = next(
        (line for line in end.stderr.splitlines() if line.startswith(("Unknown argument", "Invalid values"))), ""
    )
    if usage:  # the tail of standard error is the list of all options then
        yield Failed(FailureKind.CRASH, f"no final event, {end.words}{tail_of(usage)}")


def _kind(message: str, code: int) -> FailureKind:
    status = STATUS_OF_EXIT.get(code, 0)
    # Google's reason for a bad key comes with status 400.
    if status in (401, 403) or "API_KEY_INVALID" in message:
        return FailureKind.AUTH
    if status == 429:
        return FailureKind.USAGE_LIMIT
    if status >= 500:
        return FailureKind.OVERLOADED
    # Node's words for an API that could not be reached, and for one that hung up in the middle; the exit code is 1.
    if "fetch failed" in message or message == "[API Error: terminated]":
        return FailureKind.NETWORK
    return FailureKind.AGENT


def _delay(message: str) -> float | None:
    """Seconds after which the API will serve again, if it said so."""
    found = DELAY.search(message)
    try:
        return float(found[1]) / (1000 if found[2] == "ms" else 1) if found else None
    except ValueError:
        return None


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
