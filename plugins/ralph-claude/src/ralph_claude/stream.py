"""The lines of `claude -p --output-format stream-json --verbose --include-partial-messages`, and what they mean.

Seen with Claude Code 2.1.197 (npm, November 2026) against a Messages API on loopback; captures are in this package's tests.
Lines are JSON objects, told apart by `type` (and `subtype`) alone: the order of keys changes between versions.

- `system`: `init` opens the stream; `api_retry` says that a request was refused and will be repeated.
- `stream_event`: an event of the API's own stream; `message_start` and `message_delta` carry the token figures.
- `assistant`: one line per content block; its usage is that of `message_start`. API errors come as one of these too, with
  the model `<synthetic>` and a word in `error`.
- `user`: results of tools (and the prompts of sub-agents). Sub-agents have no `stream_event`: of their messages with tools
  there are `assistant` lines with the figures of the start, of the last one only what the result of their tool says of it.
- `rate_limit_event`: the account's quota window, for subscription logins.
- `result`: the end. It, and not the exit code, says how it went; `modelUsage` includes sub-agents, `usage` doesn't, and after
  a request that was repeated without streaming `usage` is all zeros.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Iterator
from typing import Any

from ralph_core.events import (
    Event,
    Failed,
    FailureKind,
    Finished,
    Started,
    Text,
    Tokens,
    ToolCall,
    ToolResult,
    Usage,
    UsageWindow,
)

SYNTHETIC = "<synthetic>"
"""The model of messages that Claude Code wrote itself: they cost nothing and the model didn't say them."""

NO_LOGIN = frozenset({"authentication_failed", "oauth_org_not_allowed", "billing_error"})
"""Words of `error` that only a person can put right. An empty credit balance is one: unlike a quota, it never resets."""


class Stream:
    """The reader of one attempt's lines."""

    def __init__(self) -> None:
        self._started = False
        self._spent: dict[str, Tokens] = {}  # by message id
        self._open: dict[str, tuple[str, str | None]] = {}  # id and model of the message under way, by parent tool use
        self._last_of: dict[str, str] = {}  # id of the last message, by parent tool use
        self._calls_failed: set[str] = set()
        self._retried: int | None = None  # status of the last refusal that was repeated; 0: no answer at all
        self._error = ""
        self._window: UsageWindow | None = None

    def events(self, line: bytes) -> Iterator[Event]:
        """What one line means; a line that is not a JSON object is noise and means nothing."""
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            return
        data = _object(value)
        kind = data.get("type")
        if kind == "system":
            yield from self._system(data)
        elif kind == "stream_event":
            yield from self._stream_event(data)
        elif kind == "assistant":
            yield from self._assistant(data)
        elif kind == "user":
            yield from self._tool_results(data)
        elif kind == "rate_limit_event":
            yield from self._quota(_object(data.get("rate_limit_info")))
        elif kind == "result":
            yield from self._denials(data)
            yield self._result(data)

    def _system(self, data: dict[str, Any]) -> Iterator[Event]:
        if data.get("subtype") == "init" and not self._started:
            self._started = True
            yield Started(_word(data.get("session_id")), _word(data.get("model")), "anthropic")
        elif data.get("subtype") == "api_retry":
            self._retried = _count(data.get("error_status"))

    def _stream_event(self, data: dict[str, Any]) -> Iterator[Event]:
        event = _object(data.get("event"))
        parent = _word(data.get("parent_tool_use_id")) or ""
        if event.get("type") == "message_start":
            self._retried = None
            message = _object(event.get("message"))
            name, model = _word(message.get("id")), _word(message.get("model"))
            if name:
                self._open[parent] = name, model
                yield from self._usage(name, model, _object(message.get("usage")))
        elif event.get("type") == "message_delta" and parent in self._open:
            name, model = self._open[parent]
            yield from self._usage(name, model, _object(event.get("usage")))

    def _assistant(self, data: dict[str, Any]) -> Iterator[Event]:
        message = _object(data.get("message"))
        name, model = _word(message.get("id")), _word(message.get("model"))
        if model == SYNTHETIC:
            self._error = _word(data.get("error")) or self._error
            return
        if name:
            self._last_of[_word(data.get("parent_tool_use_id")) or ""] = name
            yield from self._usage(name, model, _object(message.get("usage")))
        for block in _objects(message.get("content")):
            if block.get("type") == "text":
                yield Text(str(block.get("text", "")))
            elif block.get("type") == "tool_use":
                yield ToolCall(str(block.get("id", "")), str(block.get("name", "")), _object(block.get("input")))

    def _tool_results(self, data: dict[str, Any]) -> Iterator[Event]:
        for block in _objects(_object(data.get("message")).get("content")):
            if block.get("type") == "tool_result":
                name, failed = str(block.get("tool_use_id", "")), bool(block.get("is_error"))
                if failed:
                    self._calls_failed.add(name)
                yield from self._sub_agent(name, _object(data.get("tool_use_result")))
                yield ToolResult(name, ok=not failed, text=_plain(block.get("content")))

    def _sub_agent(self, call: str, result: dict[str, Any]) -> Iterator[Event]:
        """The usage of a sub-agent's last message, which has no line of its own unless it used a tool in it."""
        agent, figures = _word(result.get("agentId")), _object(result.get("usage"))
        if agent is None or not figures:
            return
        told, last = _tokens(figures), self._last_of.get(call, "")
        seen = self._spent.get(last, Tokens())
        its_own = (seen.input, seen.cache_read, seen.cache_write) == (told.input, told.cache_read, told.cache_write)
        yield from self._usage(last if its_own else f"{agent} {call}", _word(result.get("resolvedModel")), figures)

    def _quota(self, info: dict[str, Any]) -> Iterator[Event]:
        status = _word(info.get("status"))
        if status:
            window = _word(info.get("rateLimitType")) or ""
            share, resets_at = _number(info.get("utilization")), _number(info.get("resetsAt"))
            self._window = UsageWindow(status, window, share, resets_at)
            yield self._window

    def _usage(self, name: str, model: str | None, figures: dict[str, Any]) -> Iterator[Event]:
        """The usage of a message if it is more than was reported of it: several lines repeat the first figures."""
        before = self._spent.get(name, Tokens())
        now = before.at_least(_tokens(figures))
        if now != before:
            self._spent[name] = now
            yield Usage(name, now, model)

    def _denials(self, data: dict[str, Any]) -> Iterator[Event]:
        """Denied tools that had no failed result of their own."""
        for denial in _objects(data.get("permission_denials")):
            name = str(denial.get("tool_use_id", ""))
            if name not in self._calls_failed:
                yield ToolResult(name, ok=False, text=f"permission denied: {denial.get('tool_name', 'tool')}")

    def _result(self, data: dict[str, Any]) -> Event:
        usage, cost = self._totals(data)
        text = data.get("result")
        if data.get("is_error") or data.get("subtype") != "success":
            kind, retry_after = self._failure(data)
            return Failed(kind, _message(data), retry_after, usage, cost)
        if not isinstance(text, str):
            return Failed(FailureKind.INVALID_OUTPUT, "the result line has no text", None, usage, cost)
        return Finished(text, usage, cost)

    def _totals(self, data: dict[str, Any]) -> tuple[Tokens | None, float | None]:
        """The attempt's tokens and cost. Never less than was seen on the way, which a broken message is missing from."""
        usage = data.get("usage")
        told = _total(_object(data.get("modelUsage"))) or (_tokens(usage) if isinstance(usage, dict) else None)
        seen = sum(self._spent.values(), Tokens())
        if told is None:
            return (seen if self._spent else None), _number(data.get("total_cost_usd"))
        cost = None if seen.total and not told.total else _number(data.get("total_cost_usd"))
        return told.at_least(seen), cost

    def _failure(self, data: dict[str, Any]) -> tuple[FailureKind, float | None]:
        """Kind of failure, and seconds until it is worth trying again if the CLI said so."""
        status = _count(data.get("api_error_status"))
        if self._error in NO_LOGIN or status in (401, 403):
            return FailureKind.AUTH, None
        if self._error == "rate_limit" or status == 429:
            return self._rate_limit()
        if self._error == "overloaded" or status >= 500:
            return FailureKind.OVERLOADED, None
        if self._error == "server_error" and not status:
            # No answer at the last try, unless the API said before that it is overloaded: after several 529 no status is given.
            return (FailureKind.OVERLOADED if self._retried else FailureKind.NETWORK), None
        return FailureKind.AGENT, None

    def _rate_limit(self) -> tuple[FailureKind, float | None]:
        """Quota or rush? A rejected quota window says which; so does the CLI, which repeats only what is to pass soon."""
        if self._window and self._window.status == "rejected":
            resets_at = self._window.resets_at
            return FailureKind.USAGE_LIMIT, None if resets_at is None else max(0.0, resets_at - time.time())
        return (FailureKind.OVERLOADED if self._retried else FailureKind.USAGE_LIMIT), None


def _message(data: dict[str, Any]) -> str:
    errors = data.get("errors")
    said = "; ".join(map(str, errors)) if isinstance(errors, list) else str(data.get("result") or "")
    return said or str(data.get("terminal_reason") or data.get("subtype"))


def _tokens(figures: dict[str, Any]) -> Tokens:
    """The figures of the API's `usage`."""
    return Tokens(
        _count(figures.get("input_tokens")),
        _count(figures.get("output_tokens")),
        _count(figures.get("cache_read_input_tokens")),
        _count(figures.get("cache_creation_input_tokens")),
    )


def _total(models: dict[str, Any]) -> Tokens | None:
    """Sum over `modelUsage`; None if it is empty."""
    each = [
        Tokens(
            _count(figures.get("inputTokens")),
            _count(figures.get("outputTokens")),
            _count(figures.get("cacheReadInputTokens")),
            _count(figures.get("cacheCreationInputTokens")),
        )
        for figures in _objects(list(models.values()))
    ]
    return sum(each, Tokens()) if each else None


def _plain(content: object) -> str:
    """A tool's result as text: it is a string, or a list of blocks."""
    if isinstance(content, str):
        return content
    return "\n".join(
        str(block["text"]) for block in _objects(content) if block.get("type") == "text" and "text" in block
    )


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _objects(value: object) -> Iterable[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _word(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _number(value: object) -> float | None:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
        return None
    return float(value)


def _count(value: object) -> int:
    number = _number(value)
    return int(number) if number is not None and number > 0 else 0
