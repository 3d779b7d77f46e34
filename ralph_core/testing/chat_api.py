"""A stand-in for the chat completions that many model servers speak, on 127.0.0.1: GET /v1/models, POST /v1/chat/completions.

Shapes as in OpenAI's reference of "Chat Completions", streamed and whole, as far as Copilot CLI 1.0.102 and OpenCode 1.18.33
read them (November 2026).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from .loopback import Handler, Loopback, Received

MODEL = "stand-in"


@dataclass(frozen=True)
class Call:
    """A tool that the model wants to be used."""

    name: str
    arguments: Mapping[str, Any]
    id: str = "call_1"


@dataclass(frozen=True)
class Completion:
    """An answer: a text, or calls of tools; `tokens` are those of the prompt and of the answer."""

    text: str = ""
    calls: Sequence[Call] = ()
    tokens: tuple[int, int] = (100, 20)


@dataclass(frozen=True)
class Refusal:
    """An HTTP error."""

    status: int
    message: str = "refused"


class _Handler(Handler):
    def respond(self, request: Received) -> None:
        if not request.endpoint.endswith("/chat/completions"):
            self.json(200, {"object": "list", "data": [{"id": MODEL, "object": "model"}]})
            return
        number, answer = self.server.api.answer(request)
        if isinstance(answer, Refusal):
            self.json(answer.status, {"error": {"message": answer.message, "type": "error", "code": answer.status}})
        elif not isinstance(answer, Completion):
            self.json(500, {"error": {"message": f"the script failed: {answer}", "type": "error"}})
        elif request.body.get("stream"):
            self.stream(_chunks(f"chatcmpl-{number}", answer), {})
        else:
            self.json(200, _whole(f"chatcmpl-{number}", answer))


class ChatAPI(Loopback[Received, "Completion | Refusal"]):
    """The server, as a context; `requests`: those for completions."""

    handler: ClassVar[type[Handler]] = _Handler
    request = Received

    def __init__(self, script: Sequence[Completion | Refusal] | Callable[[Received], Completion | Refusal]) -> None:
        super().__init__(script)

    @property
    def requests(self) -> list[Received]:
        return [each for each in self.received if each.endpoint.endswith("/chat/completions")]


def _calls(answer: Completion) -> list[dict[str, Any]]:
    return [
        {
            "index": at,
            "id": call.id,
            "type": "function",
            "function": {"name": call.name, "arguments": json.dumps(call.arguments)},
        }
        for at, call in enumerate(answer.calls)
    ]


def _message(answer: Completion) -> dict[str, Any]:
    tools = {"tool_calls": _calls(answer)} if answer.calls else {}
    return {"role": "assistant", "content": answer.text or None, **tools}


def _usage(answer: Completion) -> dict[str, int]:
    prompt, completion = answer.tokens
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _end(answer: Completion) -> str:
    return "tool_calls" if answer.calls else "stop"


def _whole(name: str, answer: Completion) -> dict[str, Any]:
    choice = {"index": 0, "message": _message(answer), "finish_reason": _end(answer)}
    return {"id": name, "object": "chat.completion", "model": MODEL, "choices": [choice], "usage": _usage(answer)}


def _chunks(name: str, answer: Completion) -> Iterator[bytes]:
    head = {"id": name, "object": "chat.completion.chunk", "created": 1, "model": MODEL}
    for delta, reason in ((_message(answer), None), ({}, _end(answer))):
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        yield b"data: %b\n\n" % json.dumps({**head, "choices": [choice]}).encode()
    yield b"data: %b\n\n" % json.dumps({**head, "choices": [], "usage": _usage(answer)}).encode()
    yield b"data: [DONE]\n\n"
