"""What an agent says during its turn, as events: pieces of text put together, and tool calls once enough is known of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from acp import schema

from ralph_core.events import Event, Text, Tokens, ToolCall, ToolResult

from .known import Known

LONGEST = 16 << 20
"""Characters that are kept of one message; its beginning is dropped for more. All of it is in the output file."""
PIECES = 1000
"""Pieces of a message after which they are put together."""
OPEN = 1000
"""Tool calls that may be under way; of more, the oldest are forgotten."""
RESULT_KEPT = 4000
"""Characters of a tool's result."""
COMMANDS = ("command", "cmd", "script")


@dataclass
class Tool:
    """What is known of a tool call. Each update may add to it."""

    id: str
    title: str = ""
    kind: str = "other"
    status: str = "pending"
    raw: dict[str, Any] = field(default_factory=dict)
    paths: list[str] = field(default_factory=list)
    changes: list[dict[str, str]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    meta: dict[str, Any] = field(default_factory=dict)
    reported: bool = False
    first_title: str = ""
    announced: bool = False

    def learn(self, update: schema.ToolCall | schema.ToolCallUpdate) -> None:
        """Take over what an update says."""
        if isinstance(update, schema.ToolCallStart):
            self.first_title = update.title
        self.title, self.kind = update.title or self.title, update.kind or self.kind
        self.status = update.status or self.status
        self.raw = {**self.raw, **(update.raw_input if isinstance(update.raw_input, dict) else {})}
        self.meta = {**self.meta, **(update.field_meta or {})}
        if update.locations is not None:
            self.paths = [each.path for each in update.locations]
        if update.content is not None:
            diffs = [each for each in update.content if isinstance(each, schema.FileEditToolCallContent)]
            self.changes = [{"path": each.path, "content": each.new_text} for each in diffs]
            blocks = [each.content for each in update.content if isinstance(each, schema.ContentToolCallContent)]
            self.texts = [block.text for block in blocks if isinstance(block, schema.TextContentBlock)]

    def name(self, known: Known) -> str:
        """What the agent calls the tool, where it says so; else the protocol's word for the kind of tool."""
        claude = self.meta.get("claudeCode")
        if isinstance(claude, dict) and isinstance(claude.get("toolName"), str):
            return str(claude["toolName"])
        if known.titled:
            return self.first_title
        found = known.tool_in_id.match(self.id) if known.tool_in_id else None
        return found[1] if found else self.kind

    def call(self, known: Known) -> ToolCall:
        """The call as policies judge it: what it is given, or, where the agent does not say, what is seen of that."""
        arguments: dict[str, Any] = {"title": self.title, **self.raw}
        if not self.raw and self.changes:
            arguments["changes"] = self.changes
        if self.kind == "execute" and not any(name in self.raw for name in COMMANDS):
            arguments["command"] = self.title
        if self.paths:
            arguments["paths"] = self.paths
        return ToolCall(self.id, self.name(known), arguments)


class Said:
    """The listener of one turn."""

    def __init__(self, known: Known) -> None:
        self._known = known
        self._pieces: list[str] = []
        self._before = ""
        self._message: str | None = None
        self._tools: dict[str, Tool] = {}
        self._over: set[str] = set()
        self.cost: float | None = None

    def begin(self) -> None:
        """Forget what was said before the turn, such as that a mode was changed."""
        self._pieces, self._before = [], ""

    @property
    def text(self) -> str:
        """The last message, unless a tool was begun since."""
        return "".join(self._pieces) or self._before

    def hear(self, update: Any) -> Iterator[Event]:
        """The events of a session update."""
        if isinstance(update, schema.AgentMessageChunk):
            if isinstance(update.content, schema.TextContentBlock):
                yield from self._piece(update.content.text, getattr(update, "message_id", None))
        elif isinstance(update, schema.ToolCallStart):
            yield from self.flush()
            self._before = ""
            yield from self._progress(update)
        elif isinstance(update, schema.ToolCallProgress):
            yield from self._progress(update)
        elif isinstance(update, schema.AgentPlanUpdate):
            yield Text(_plan(update.entries))
        elif isinstance(update, schema.UsageUpdate):
            if self._message is None:  # its messages have no ids, and these come between them
                yield from self.flush()
            if update.cost is not None and update.cost.currency == "USD":
                self.cost = max(self.cost or 0.0, update.cost.amount)

    def flush(self) -> Iterator[Event]:
        """What was said up to here, as one text."""
        if self._pieces:
            self._before = self.text
            yield Text(self._before)
        self._pieces = []

    def tool(self, update: schema.ToolCall | schema.ToolCallUpdate) -> Tool:
        """The tool call that an update is about, with what it says of it."""
        tool = self._tools.setdefault(update.tool_call_id, Tool(update.tool_call_id))
        if len(self._tools) > OPEN:
            del self._tools[next(iter(self._tools))]
        tool.learn(update)
        return tool

    def report(self, tool: Tool) -> Iterator[Event]:
        """The call, if it was not reported yet."""
        if not tool.reported:
            tool.reported = True
            yield tool.call(self._known)

    def end(self, tool: Tool, *, ok: bool, text: str) -> Iterator[Event]:
        """The result of a call; it has one."""
        yield from self.report(tool)
        if tool.id not in self._over:
            self._over.add(tool.id)
            self._tools.pop(tool.id, None)
            yield ToolResult(tool.id, ok=ok, text=text[:RESULT_KEPT])

    def _piece(self, text: str, message: str | None) -> Iterator[Event]:
        if message != self._message:
            yield from self.flush()
            self._message = message
        if text:
            self._pieces.append(text)
        if len(self._pieces) > PIECES:
            self._pieces = [self.text[-LONGEST:]]

    def _progress(self, update: schema.ToolCallStart | schema.ToolCallProgress) -> Iterator[Event]:
        if update.tool_call_id in self._over:
            return
        tool = self.tool(update)
        tool.announced = True
        if tool.status != "pending" or (tool.raw and isinstance(update, schema.ToolCallProgress)):
            yield from self.report(tool)
        if tool.status in ("completed", "failed"):
            yield from self.flush()
            yield from self.end(tool, ok=tool.status == "completed", text="\n".join(tool.texts))


def _plan(entries: list[schema.PlanEntry]) -> str:
    marks = {"pending": " ", "in_progress": ">", "completed": "x"}
    return "\n".join(["plan:", *(f"[{marks[entry.status]}] {entry.content}" for entry in entries)])


def tokens_of(usage: schema.Usage) -> Tokens:
    """The figures of a turn. Agents differ in whether `input` has the cached ones in it: the total tells.

    Seen: claude-agent-acp 0.49.0 counts them apart.
    """
    read, write, thought = usage.cached_read_tokens or 0, usage.cached_write_tokens or 0, usage.thought_tokens or 0
    apart = usage.input_tokens + usage.output_tokens + read + write
    inside = usage.total_tokens < apart and usage.input_tokens >= read + write
    fresh = usage.input_tokens - read - write if inside else usage.input_tokens
    rest = usage.total_tokens - (fresh + usage.output_tokens + read + write)
    return Tokens(fresh, usage.output_tokens + (thought if rest >= thought else 0), read, write)


def tokens_in_meta(meta: dict[str, Any] | None) -> Tokens | None:
    """The figures of Gemini CLI 0.61.0, which does not say what was cached."""
    quota = (meta or {}).get("quota")
    counts = quota.get("token_count") if isinstance(quota, dict) else None
    if not isinstance(counts, dict):
        return None
    given, taken = counts.get("input_tokens"), counts.get("output_tokens")
    return Tokens(given, taken) if isinstance(given, int) and isinstance(taken, int) else None
