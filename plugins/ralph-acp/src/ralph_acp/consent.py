"""Asks Ralph before the agent does something: over the private socket of the attempt. Whatever goes wrong there denies."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

from acp import schema

from ralph_core.ask import LONGEST, SILENCE
from ralph_core.contracts import AskChannel
from ralph_core.events import ToolCall


async def ask(channel: AskChannel, call: ToolCall) -> tuple[bool, str]:
    """Whether Ralph allows the call, and what it says to it."""
    try:
        reader, writer = await asyncio.open_unix_connection(channel.socket, limit=LONGEST)
        try:
            question = {"id": call.id, "name": call.name, "input": dict(call.input)}
            writer.write(json.dumps(question).encode() + b"\n")
            await writer.drain()
            return _verdict(await _answer(reader))
        finally:
            writer.close()
    except Exception as error:
        return False, f"Ralph could not be asked, so this is denied ({type(error).__name__}: {error})"


async def _answer(reader: asyncio.StreamReader) -> bytes:
    """The first line that is not empty; an empty one is a sign of life."""
    while True:
        line = await asyncio.wait_for(reader.readuntil(b"\n"), SILENCE)
        if line.strip():
            return line


def _verdict(line: bytes) -> tuple[bool, str]:
    answer = json.loads(line)
    if answer["verdict"] not in ("allow", "deny"):
        raise ValueError("an answer that is none")
    return answer["verdict"] == "allow", str(answer["reason"])


def chosen(options: Sequence[schema.PermissionOption], *, allowed: bool, for_once: bool) -> str | None:
    """The id of the option that says so; None if there is none. `for_once`: nothing may be allowed for good."""
    verb = "allow" if allowed else "reject"
    for kind in (f"{verb}_once", f"{verb}_always"):
        if kind == "allow_always" and for_once:
            break
        for option in options:
            if option.kind == kind:
                return option.option_id
    return None
