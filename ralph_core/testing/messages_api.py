r"""A stand-in of the Anthropic Messages API on loopback, so that a genuine Claude Code runs in tests unpaid.

    with MessagesAPI([Reply([text("Done.\nLOOP_COMPLETE")])]) as api:
        run_the_agent(env={**clean_env, **api.env()})
    assert prompt in api.requests[0].texts()

The script is that of `loopback`; an answer is a `Reply`, or a `Refusal`. It streams server-sent events when the request
asks for a stream, and answers whole when it does not; it also answers `HEAD /` and `count_tokens`.

The wire is that of https://docs.anthropic.com/en/api/messages-streaming (version header 2023-06-01), as Claude Code 2.1.197
asked for it in November 2026.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ralph_core.events import Tokens

from . import loopback
from .loopback import Fault, Handler, Loopback, pieces_of

USAGE = Tokens(input=100, output=25, cache_read=20, cache_write=10)
"""What a reply reports unless told otherwise: four figures that can't be mistaken for one another."""

Block = Mapping[str, Any]


def text(words: str) -> Block:
    """A content block in which the model says something."""
    return {"type": "text", "text": words}


def tool_use(name: str, arguments: Mapping[str, Any]) -> Block:
    """A content block in which the model uses a tool; it is given an id when it is sent."""
    return {"type": "tool_use", "name": name, "input": dict(arguments)}


@dataclass(frozen=True)
class Reply:
    """A message of the model. It ends with `tool_use` if a block is one, else with `end_turn`."""

    content: Sequence[Block]
    usage: Tokens = USAGE
    fault: Fault | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Refusal:
    """An error answer: HTTP status, the API's error type (None: the usual one of that status), message and headers."""

    status: int
    message: str = "refused by the stand-in"
    kind: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


Answer = Reply | Refusal

KINDS = {
    400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
    413: "request_too_large", 429: "rate_limit_error", 529: "overloaded_error",
}  # fmt: skip
"""Error types by status (https://docs.anthropic.com/en/api/errors, read November 2026); all others are `api_error`."""


@dataclass(frozen=True)
class Received(loopback.Received):
    """A request of this API."""

    def texts(self, role: str = "user") -> list[str]:
        """The text blocks of all messages of `role`, in order."""
        found: list[str] = []
        for message in self.body.get("messages", ()):
            if message.get("role") == role:
                content = message.get("content")
                blocks = [text(content)] if isinstance(content, str) else content
                found += [block["text"] for block in blocks if block.get("type") == "text"]
        return found


Script = Sequence[Answer] | Callable[[Received], Answer]


class _Handler(Handler):
    def respond(self, request: Received) -> None:
        if request.method == "HEAD":
            self.whole(200, b"", {})
        elif request.endpoint == "/v1/messages/count_tokens":
            self.json(200, {"input_tokens": USAGE.input})
        elif request.endpoint == "/v1/messages":
            self._answer(request, *self.server.api.answer(request))
        else:
            self._refuse(Refusal(404, f"no such endpoint: {request.endpoint}"))

    def _answer(self, request: Received, number: int, answer: Answer | Exception) -> None:
        if isinstance(answer, Exception):
            self._refuse(Refusal(500, f"the script failed: {answer!r}"))
        elif isinstance(answer, Refusal):
            self._refuse(answer)
        elif answer.fault is Fault.HANG:
            self.hang()
        else:
            message = _Message(f"msg_{number:04}", str(request.body.get("model")), answer)
            if request.body.get("stream"):
                self.stream(message.pieces(self.server.api.closing), answer.headers, whole=answer.fault is None)
            elif answer.fault is Fault.DROP:
                self.half(json.dumps(message.whole()).encode())
            else:
                self.json(200, message.whole(), answer.headers)

    def _refuse(self, refusal: Refusal) -> None:
        kind = refusal.kind or KINDS.get(refusal.status, "api_error")
        body = {"type": "error", "error": {"type": kind, "message": refusal.message}}
        self.json(refusal.status, body, refusal.headers)


class MessagesAPI(Loopback[Received, Answer]):
    """The server."""

    handler = _Handler
    request = Received

    def env(self, key: str = "sk-ant-test") -> dict[str, str]:
        """The variables that lead Claude Code, or an SDK, to this server."""
        return {"ANTHROPIC_BASE_URL": self.url, "ANTHROPIC_API_KEY": key}

    @property
    def requests(self) -> list[Received]:
        """The requests for a message so far."""
        return [each for each in self.received if each.endpoint == "/v1/messages"]


@dataclass(frozen=True)
class _Message:
    """One message on its way: as a whole, or as the events of a stream."""

    name: str
    model: str
    reply: Reply

    def whole(self) -> dict[str, Any]:
        ending = {"content": list(self._blocks()), "stop_reason": self._stop_reason()}
        return {**self._start(self.reply.usage.output), **ending}

    def pieces(self, closing: threading.Event) -> Iterator[bytes]:
        """The events of the stream, as they are sent."""
        for event in self._events(closing):
            yield f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()

    def _events(self, closing: threading.Event) -> Iterator[dict[str, Any]]:
        yield {"type": "message_start", "message": self._start(1)}
        for index, block in enumerate(self._blocks()):
            empty = {**block, "text": ""} if block["type"] == "text" else {**block, "input": {}}
            yield {"type": "content_block_start", "index": index, "content_block": empty}
            for delta in _deltas(block):
                yield {"type": "content_block_delta", "index": index, "delta": delta}
                if self.reply.fault is Fault.DROP:
                    return
            if self.reply.fault is Fault.ENDLESS:
                yield from self._endless(index, closing)
            yield {"type": "content_block_stop", "index": index}
        yield self._delta(self.reply.usage.output, self._stop_reason())
        yield {"type": "message_stop"}

    def _endless(self, index: int, closing: threading.Event) -> Iterator[dict[str, Any]]:
        output = self.reply.usage.output
        while not closing.wait(0.02):
            output += 100
            yield {"type": "content_block_delta", "index": index, "delta": {"type": "text_delta", "text": " more"}}
            yield self._delta(output, None)

    def _start(self, output: int) -> dict[str, Any]:
        told = self.reply.usage
        cache = {"cache_read_input_tokens": told.cache_read, "cache_creation_input_tokens": told.cache_write}
        usage = {"input_tokens": told.input, **cache, "output_tokens": output}
        message = {"id": self.name, "type": "message", "role": "assistant", "model": self.model, "content": []}
        return {**message, "stop_reason": None, "stop_sequence": None, "usage": usage}

    def _delta(self, output: int, stop_reason: str | None) -> dict[str, Any]:
        delta = {"stop_reason": stop_reason, "stop_sequence": None}
        return {"type": "message_delta", "delta": delta, "usage": {"output_tokens": output}}

    def _blocks(self) -> Iterator[dict[str, Any]]:
        for index, block in enumerate(self.reply.content):
            yield {"id": f"toolu_{self.name}_{index}", **block} if block["type"] == "tool_use" else dict(block)

    def _stop_reason(self) -> str:
        return "tool_use" if any(block["type"] == "tool_use" for block in self.reply.content) else "end_turn"


def _deltas(block: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The content of a block in two pieces or more, so that what reads it has to put it together."""
    if block["type"] == "tool_use":
        kind, key, whole = "input_json_delta", "partial_json", json.dumps(block["input"])
    else:
        kind, key, whole = "text_delta", "text", block["text"]
    for piece in pieces_of(whole):
        yield {"type": kind, key: piece}
