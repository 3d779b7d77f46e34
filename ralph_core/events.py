"""What an agent reports while it works. All values are frozen; fields may be added, never renamed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class FailureKind(str, Enum):
    """Why an attempt failed. Only faults of the agent itself count towards the failure limit (see `agent_fault`)."""

    SPAWN = "spawn"  # the program could not be started
    AUTH = "auth"  # the key or login is missing or was refused
    USAGE_LIMIT = "usage_limit"  # the account's quota is used up until a known or unknown time
    NETWORK = "network"  # the model API could not be reached
    OVERLOADED = "overloaded"  # the model API answered, but would not serve now
    TIMEOUT = "timeout"  # silent for too long, or over the hard time
    CRASH = "crash"  # the process ended without a final event
    INVALID_OUTPUT = "invalid_output"  # the final event could not be understood
    AGENT = "agent"  # the agent says itself that it failed

    @property
    def agent_fault(self) -> bool:
        """Whether this counts towards the limit of consecutive agent failures."""
        return self in (FailureKind.TIMEOUT, FailureKind.CRASH, FailureKind.INVALID_OUTPUT, FailureKind.AGENT)

    @property
    def passing(self) -> bool:
        """Whether the same attempt is worth repeating after a while, without the agent being at fault."""
        return self in (FailureKind.USAGE_LIMIT, FailureKind.NETWORK, FailureKind.OVERLOADED)


@dataclass(frozen=True)
class Tokens:
    """Token counts. `input` excludes what was read from or written to the provider's prompt cache."""

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
    """Something that the agent said on the way. Never decides anything."""

    text: str


@dataclass(frozen=True)
class ToolCall:
    """The agent is about to use, or asks to use, a tool."""

    id: str
    name: str
    input: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ToolResult:
    """A tool call ended; `ok` is false when it failed or was denied."""

    id: str
    ok: bool = True
    text: str = ""


@dataclass(frozen=True)
class Usage:
    """Tokens of one model message. Reported again for the same `message_id`, the larger figures replace the smaller.

    `cost` is in US dollars, None when the agent does not say: unknown, which is not zero.
    """

    message_id: str
    tokens: Tokens
    model: str | None = None
    cost: float | None = None


@dataclass(frozen=True)
class UsageWindow:
    """A quota window of the account. `utilization` is 0 to 1, `resets_at` in seconds since the epoch (UTC)."""

    status: str
    window: str = ""
    utilization: float | None = None
    resets_at: float | None = None


@dataclass(frozen=True)
class Failed:
    """The agent's final word: it failed. `retry_after` is in seconds. `usage` and `cost` as in `Finished`."""

    kind: FailureKind
    message: str = ""
    retry_after: float | None = None
    usage: Tokens | None = None
    cost: float | None = None


@dataclass(frozen=True)
class Finished:
    """The agent's final word: its last message. Without `Finished` or `Failed` an attempt has crashed.

    `usage` and `cost` (US dollars) are the agent's own totals of this attempt and win over the sum of its `Usage` events.
    """

    text: str
    usage: Tokens | None = None
    cost: float | None = None


Event = Started | Text | ToolCall | ToolResult | Usage | UsageWindow | Failed | Finished
