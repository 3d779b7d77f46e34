"""A stand-in for OpenAI's Responses API, streamed, on 127.0.0.1, as far as Codex 0.169.0 reads it (November 2026).

An answer is a text, a shell command in a list (asked for as Codex's tool `exec_command`), or the status of a refusal.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from .loopback import Handler, Loopback, Received

Answer = str | list[str] | int
USAGE: Mapping[str, Any] = {
    "input_tokens": 120,
    "input_tokens_details": {"cached_tokens": 20},
    "output_tokens": 25,
    "output_tokens_details": {"reasoning_tokens": 5},
    "total_tokens": 145,
}
"""What each answer reports."""


class _Handler(Handler):
    def respond(self, request: Received) -> None:
        if request.method != "POST":
            self.json(404, {"error": {"message": "not here"}})
            return
        number, answer = self.server.api.answer(request)
        if isinstance(answer, int):
            self.json(answer, {"error": {"message": "no way"}})
        elif isinstance(answer, Exception):
            self.json(500, {"error": {"message": f"the script failed: {answer}"}})
        else:
            self.stream(_events(answer, number), {})


class ResponsesAPI(Loopback[Received, Answer]):
    """The server, as a context; `requests`: the bodies of what it was asked."""

    handler: ClassVar[type[Handler]] = _Handler
    request = Received

    def __init__(self, *answers: Answer) -> None:
        super().__init__(answers)

    @property
    def requests(self) -> Sequence[Mapping[str, Any]]:
        return [each.body for each in self.received if each.method == "POST"]


def _events(answer: str | list[str], number: int) -> Iterator[bytes]:
    item: dict[str, Any]
    if isinstance(answer, list):
        arguments = json.dumps({"cmd": answer[0]})
        call = {"type": "function_call", "id": f"f{number}", "call_id": f"c{number}", "name": "exec_command"}
        item = {**call, "arguments": arguments}
    else:
        content = [{"type": "output_text", "text": answer}]
        item = {"type": "message", "role": "assistant", "id": f"m{number}", "content": content}
    for event in (
        {"type": "response.created", "response": {"id": f"r{number}"}},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": {"id": f"r{number}", "usage": USAGE}},
    ):
        yield b"event: %b\ndata: %b\n\n" % (str(event["type"]).encode(), json.dumps(event).encode())
