r"""The event protocol of the command agent: one JSON object a line, so that an agent can be written in any language.

Each object has a `type` and the fields of the event of that name in `ralph_core.events`, for example

    {"type": "usage", "message_id": "m1", "tokens": {"input": 120, "output": 30}, "cost": 0.002}
    {"type": "finished", "text": "All tests pass.\nLOOP_COMPLETE"}

A line that is no JSON object is something said on the way; one that is, but not as the protocol has it, fails the attempt.
"""

from __future__ import annotations

import json

from ralph_core.events import Event, Failed, FailureKind, Text
from ralph_core.wire import event_from


def event_of(line: bytes) -> Event | None:
    """The event in a line; None for an empty one."""
    text = line.decode(errors="replace").strip()
    if not text:
        return None
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        return Text(text[:1000])
    try:
        return event_from(fields)
    except ValueError as error:
        return Failed(FailureKind.INVALID_OUTPUT, str(error))
