"""Events as JSON objects: a `type` and the fields of the event of that name in `events.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from .events import Event, Failed, Finished, Started, Text, ToolCall, ToolResult, Usage, UsageWindow

if TYPE_CHECKING:
    from pydantic import TypeAdapter

TYPES: dict[str, type[Any]] = {
    "started": Started,
    "text": Text,
    "tool_call": ToolCall,
    "tool_result": ToolResult,
    "usage": Usage,
    "usage_window": UsageWindow,
    "failed": Failed,
    "finished": Finished,
}
"""`type` of an object: the event that it stands for."""
NAMES = {event: name for name, event in TYPES.items()}


def fields_of(event: Event) -> dict[str, Any]:
    """An event as an object."""
    return {"type": NAMES[type(event)], **asdict(event)}


def event_from(fields: Mapping[str, Any]) -> Event:
    """The event that an object stands for. Raises ValueError that says what is wrong with it."""
    kind = fields.get("type")
    if kind not in TYPES:
        raise ValueError(f"unknown event type {kind!r:.80}; known: {', '.join(TYPES)}")
    from pydantic import ValidationError

    try:
        event: Event = _adapter(str(kind)).validate_python({name: fields[name] for name in fields if name != "type"})
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"event {kind}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    return event


@lru_cache
def _adapter(kind: str) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(TYPES[kind])
