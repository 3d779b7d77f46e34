"""The protocol's messages over a process of Ralph's: one JSON object a line, and nothing that comes in can do harm.

What is no message is passed over, as programs write other things, too. Nothing is read on while what came before has not been
taken or answered, so that memory stays bounded however much an agent says; all of it is in the output file of the attempt.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from ralph_core.contracts import LINE_LIMIT, Process

PAUSE = 0.01
"""Seconds between two looks at whether there is room for more."""


class MessageTooLong(Exception):
    """A line was longer than what Ralph keeps of one."""


class Wire:
    """The transport under `acp.Connection`. `full` says whether what came before has to be taken first."""

    def __init__(self, process: Process, full: Callable[[], bool]) -> None:
        self._process, self._full = process, full
        self._lines = process.lines()
        self.cut = False

    async def send(self, message: dict[str, Any]) -> None:
        await self._process.write(encoded(message))

    async def receive(self) -> dict[str, Any] | None:
        """The next message; None when the process has ended, or one was cut (`cut`)."""
        async for line in self._lines:
            while self._full():  # noqa: ASYNC110 - what empties it knows nothing of this
                await asyncio.sleep(PAUSE)
            if len(line) >= LINE_LIMIT:
                self.cut = True
                return None
            message = _message(line)
            if message is not None:
                await asyncio.sleep(0)  # what the one before set off comes first
                return message
        return None

    async def close(self) -> None:
        """Nothing: the process is ended by whoever started it."""


def encoded(message: dict[str, Any]) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def _message(line: bytes) -> dict[str, Any] | None:
    """The message in a line; None if it is no message of JSON-RPC that can be taken as one."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or not isinstance(value.get("id"), (int, str, type(None))):
        return None
    if "method" in value:
        return value if isinstance(value["method"], str) else None
    if "error" in value and not isinstance(value["error"], dict):
        value["error"] = {"message": str(value["error"])}
    return value if "result" in value or "error" in value else None
