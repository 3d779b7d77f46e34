"""The lines of `codex exec --json`, and what they mean.

Seen with Codex 0.169.0 (npm, November 2026) against a Responses API on loopback:

- `thread.started` opens the stream; `turn.completed`, with the figures of the thread, or `turn.failed` is the end.
- `item.started` and `item.completed` carry an `item` of a `type`: `agent_message`, `command_execution`, `file_change`,
  `mcp_tool_call`, `web_search`, `error` (a warning, not a failure).
- `error` at the top is progress ("Reconnecting... 1/5"), unless nothing comes after it.

The input figure includes what was read from and written to the cache; the output figure includes the reasoning.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from ralph_core.contracts import Exit
from ralph_core.events import Event, Failed, FailureKind, Finished, Started, Text, Tokens, ToolCall, ToolResult

STATUS = re.compile(r"\bstatus:? (\d{3})\b")
WORDS = (
    (re.compile(r"quota exceeded|usage limit", re.IGNORECASE), FailureKind.USAGE_LIMIT),
    (re.compile(r"high demand|at capacity|overloaded", re.IGNORECASE), FailureKind.OVERLOADED),
    (re.compile(r"missing environment variable|not logged in|log in|api key", re.IGNORECASE), FailureKind.AUTH),
    (re.compile(r"stream disconnected|error sending request|connection", re.IGNORECASE), FailureKind.NETWORK),
)
"""What its errors, which have no field for it, say of their kind when they name no status."""


class Stream:
    """The reader of one attempt's lines."""

    def __init__(self) -> None:
        self._answer, self._error = "", ""
        self._final = False
        self._begun: set[str] = set()

    def events(self, line: bytes) -> Iterator[Event]:
        """What one line means; a line that is not a JSON object is noise and means nothing."""
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            return
        data = _object(value)
        kind = data.get("type")
        if kind == "thread.started":
            yield Started(_word(data.get("thread_id")))
        elif kind in ("item.started", "item.completed"):
            yield from self._item(_object(data.get("item")), done=kind == "item.completed")
        elif kind == "error":
            self._error = str(data.get("message", ""))
        elif kind == "turn.completed":
            self._final = True
            yield Finished(self._answer, _tokens(data.get("usage")))
        elif kind == "turn.failed":
            self._final = True
            said = str(_object(data.get("error")).get("message", "")) or self._error
            yield Failed(kind_of(said), said)

    def finish(self, end: Exit) -> Iterable[Event]:
        """The last error, if the process ended without a final line."""
        if self._final or not self._error:
            return ()
        return (Failed(kind_of(self._error), f"{self._error} ({end.words})"),)

    def _item(self, item: dict[str, Any], *, done: bool) -> Iterator[Event]:
        kind, name = item.get("type"), str(item.get("id", ""))
        if kind == "agent_message" and done:
            self._answer = str(item.get("text", ""))
            yield Text(self._answer)
        call = _call(name, item)
        if call is not None and name not in self._begun:
            self._begun.add(name)
            yield call
        if call is not None and done:
            ok = item.get("status", "completed") == "completed"
            yield ToolResult(name, ok=ok, text=str(item.get("aggregated_output") or "")[:4000])


def kind_of(said: str) -> FailureKind:
    """The kind of failure of an error message of Codex's own."""
    found = STATUS.search(said)
    status = int(found[1]) if found else 0
    if status in (401, 403):
        return FailureKind.AUTH
    if status == 429:
        return FailureKind.USAGE_LIMIT
    if status >= 500:
        return FailureKind.OVERLOADED
    return next((kind for words, kind in WORDS if words.search(said)), FailureKind.AGENT)


def _call(name: str, item: dict[str, Any]) -> ToolCall | None:
    """The use of a tool that an item stands for."""
    kind = item.get("type")
    if kind == "command_execution":
        return ToolCall(name, "command_execution", {"command": str(item.get("command", ""))})
    if kind == "file_change":
        changes = item.get("changes")
        paths = [str(_object(each).get("path", "")) for each in changes] if isinstance(changes, list) else []
        return ToolCall(name, "file_change", {"paths": paths})
    if kind == "mcp_tool_call":
        return ToolCall(name, f"mcp__{item.get('server')}__{item.get('tool')}", _object(item.get("arguments")))
    if kind == "web_search":
        return ToolCall(name, "web_search", {"query": str(item.get("query", ""))})
    return None


def _tokens(usage: object) -> Tokens | None:
    figures = _object(usage)
    if not figures:
        return None
    read, write = _count(figures.get("cached_input_tokens")), _count(figures.get("cache_write_input_tokens"))
    return Tokens(
        max(0, _count(figures.get("input_tokens")) - read - write), _count(figures.get("output_tokens")), read, write
    )


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _word(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _count(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0
