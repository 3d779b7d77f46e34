"""What an agent reports while it works. All values are frozen; fields may be added, never renamed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, fields
from enum import Enum
from functools import cache
from typing import Any, get_args, get_origin, get_type_hints

from .values import dataclass


class FailureKind(str, Enum):
    """Why an attempt failed. Only faults of the agent itself count towards the failure limit (see `agent_fault`)."""

    SPAWN = "spawn"
    """The program could not be started."""
    AUTH = "auth"
    """The key or login is missing or was refused."""
    USAGE_LIMIT = "usage_limit"
    """The account's quota is used up until a known or unknown time."""
    NETWORK = "network"
    """The model API could not be reached."""
    OVERLOADED = "overloaded"
    """The model API answered, but would not serve now."""
    TIMEOUT = "timeout"
    """The agent was silent for too long, or over the hard time."""
    CRASH = "crash"
    """The process ended without a final event."""
    INVALID_OUTPUT = "invalid_output"
    """What the program printed could not be understood: its adapter says so, or has raised."""
    AGENT = "agent"
    """The agent says itself that it failed."""

    @property
    def agent_fault(self) -> bool:
        """Whether this counts towards the limit of consecutive agent failures."""
        return self in (FailureKind.TIMEOUT, FailureKind.CRASH, FailureKind.INVALID_OUTPUT, FailureKind.AGENT)


@dataclass(frozen=True)
class Tokens:
    """Token counts. `input` excludes what was read from (`cache_read`) or written to (`cache_write`) the provider's prompt cache.

    `output` is all that the model wrote, its thinking included.
    """

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0

    @property
    def total(self) -> int:
        """All tokens, cache included: the figure that `max_tokens` limits."""
        return self.input + self.output + self.cache_read + self.cache_write

    def __add__(self, other: Tokens) -> Tokens:
        return Tokens(
            self.input + other.input,
            self.output + other.output,
            self.cache_read + other.cache_read,
            self.cache_write + other.cache_write,
        )

    def at_least(self, other: Tokens) -> Tokens:
        """The larger of each count: for figures of one message that are reported several times as they grow."""
        return Tokens(
            max(self.input, other.input),
            max(self.output, other.output),
            max(self.cache_read, other.cache_read),
            max(self.cache_write, other.cache_write),
        )


@dataclass(frozen=True)
class Started:
    """The agent is up. `session` is its own name for the conversation, `model` what it says it uses.

    `provider` is who its models come from, in the words of OpenTelemetry's conventions: `anthropic`, `gcp.gemini`.
    """

    session: str | None = None
    model: str | None = None
    provider: str | None = None


@dataclass(frozen=True)
class Text:
    """Something that the agent said on the way: `text` is shown, and never decides anything."""

    text: str


@dataclass(frozen=True)
class ToolCall:
    """The agent is about to use, or asks to use, a tool.

    `id` is unique within the attempt, `name` the agent's own name of the tool, `input` its arguments.
    """

    id: str
    name: str
    input: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ToolResult:
    """The tool call `id` ended; `ok` is false when it failed or was denied, `text` what it answered."""

    id: str
    ok: bool = True
    text: str = ""


@dataclass(frozen=True)
class Usage:
    """The `tokens` of one model message. Reported again for the same `message_id`, the larger figures replace the smaller.

    `cost` is in US dollars, None when the agent does not say: unknown, which is not zero; then `model` is what it is priced by.
    """

    message_id: str
    tokens: Tokens
    model: str | None = None
    cost: float | None = None


@dataclass(frozen=True)
class UsageWindow:
    """A quota window of the account. `utilization` is 0 to 1, `resets_at` in seconds since the epoch (UTC).

    `window` is its name (`five_hour`; empty: the only one), `status` what the provider says of it: `rejected` when it is used up.
    """

    status: str
    window: str = ""
    utilization: float | None = None
    resets_at: float | None = None


@dataclass(frozen=True)
class Failed:
    """The agent's final word: it failed. `kind` decides what is done, `message` is for a person.

    `retry_after` is in seconds, None when nobody said it. `usage` and `cost` as in `Finished`.
    """

    kind: FailureKind
    message: str = ""
    retry_after: float | None = None
    usage: Tokens | None = None
    cost: float | None = None


@dataclass(frozen=True)
class Finished:
    """The agent's final word: `text` is its last message. Without `Finished` or `Failed` an attempt has crashed.

    `usage` and `cost` (US dollars) are the agent's own totals of this attempt and win over the sum of its `Usage` events.
    """

    text: str
    usage: Tokens | None = None
    cost: float | None = None


Event = Started | Text | ToolCall | ToolResult | Usage | UsageWindow | Failed | Finished
"""What `Agent.run` yields."""


def misfit(event: object) -> str:
    """What is wrong with something that an adapter has reported as an event, in words; empty: nothing."""
    if not isinstance(event, Event):
        return f"{event!r:.80}, not an Event"
    return _wrong(event, type(event).__name__)


def _wrong(value: Any, name: str) -> str:
    for field_name, kinds in _fields(value.__class__):
        given = getattr(value, field_name)
        if not isinstance(given, kinds):
            return f"a {name} whose {field_name} is {given!r:.80}"
        if isinstance(given, Tokens) and (wrong := _wrong(given, f"{name} with Tokens")):
            return wrong
    return ""


@cache
def _fields(kind: Any) -> list[tuple[str, tuple[type, ...]]]:
    """The fields of an event's class, each with the types that it may have."""
    found = []
    hints = get_type_hints(kind)
    for each in fields(kind):
        kinds = tuple(get_origin(one) or one for one in get_args(hints[each.name]) or (hints[each.name],))
        if get_origin(hints[each.name]) is Mapping:
            kinds = (Mapping,)
        found.append((each.name, (*kinds, int) if float in kinds else kinds))
    return found
