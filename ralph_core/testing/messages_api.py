r"""A stand-in of the Anthropic Messages API on loopback, so that a genuine Claude Code runs in tests unpaid.

    with MessagesAPI([Reply([text("Done.\nLOOP_COMPLETE")])]) as api:
        run_the_agent(env={**clean_env, **api.env()})
    assert prompt in api.requests[0].texts()

The script is a list of answers, given in order, the last one to all further requests; or a function, called with each
request (and never for two at once). An answer is a `Reply`, or a `Refusal`. It streams server-sent events when the
request asks for a stream, and answers whole when it does not; it also answers `HEAD /` and `count_tokens`.

The wire is that of https://docs.anthropic.com/en/api/messages-streaming (version header 2023-06-01), as Claude Code 2.1.197
asked for it in November 2026. A request that the script can't answer is a 500, and its error is raised at the end of
the `with` block.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from ralph_core.events import Tokens

USAGE = Tokens(input=100, output=25, cache_read=20, cache_write=10)
"""What a reply reports unless told otherwise: four figures that can't be mistaken for one another."""

DELTA = 64 * 1024
"""Characters of one streamed piece of text, at most."""

Block = Mapping[str, Any]


def text(words: str) -> Block:
    """A content block in which the model says something."""
    return {"type": "text", "text": words}


def tool_use(name: str, arguments: Mapping[str, Any]) -> Block:
    """A content block in which the model uses a tool; it is given an id when it is sent."""
    return {"type": "tool_use", "name": name, "input": dict(arguments)}


class Fault(Enum):
    """What can go wrong after a request was taken."""

    HANG = "hang"  # nothing is answered, the connection stays open
    DROP = "drop"  # the connection breaks in the middle of the answer, streamed or not
    ENDLESS = (
        "endless"  # text and tokens grow until the client leaves; Claude Code adds the growing figures up in its cost
    )


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
class Received:
    """One request as it arrived. Header names are lower-case; `body` is the parsed JSON, empty when there was none."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]

    @property
    def endpoint(self) -> str:
        """The path without its query."""
        return self.path.split("?")[0]

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


class MessagesAPI:
    """The server, on an ephemeral port of 127.0.0.1. `received`: all requests so far, whatever they asked for."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._lock = threading.Lock()
        self.received: list[Received] = []
        self.errors: list[Exception] = []
        self._count = 0
        self.closing = threading.Event()

    def __enter__(self) -> MessagesAPI:
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="messages-api")
        self._thread.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.cut()
        self._server.server_close()
        self._thread.join()
        if self.errors and error is None:
            raise self.errors[0]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def env(self, key: str = "sk-ant-test") -> dict[str, str]:
        """The variables that lead Claude Code, or an SDK, to this server."""
        return {"ANTHROPIC_BASE_URL": self.url, "ANTHROPIC_API_KEY": key}

    @property
    def requests(self) -> list[Received]:
        """The requests for a message so far."""
        return [each for each in self.received if each.endpoint == "/v1/messages"]

    def answer(self, request: Received) -> tuple[str, Answer]:
        """The next message id, and what the script answers to this request."""
        with self._lock:
            number = self._count
            self._count += 1
            name = f"msg_{self._count:04}"
            try:
                if callable(self._script):
                    return name, self._script(request)
                return name, self._script[min(number, len(self._script) - 1)]
            except Exception as error:
                self.errors.append(error)
                return name, Refusal(500, f"the script failed: {error!r}")


class _Server(ThreadingHTTPServer):
    """Handler threads are joined at the end: a test leaves neither threads nor sockets behind."""

    daemon_threads = False
    request_queue_size = 128

    def __init__(self, api: MessagesAPI) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.api = api
        self._open: set[socket.socket] = set()

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        self._open.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def cut(self) -> None:
        """End all connections, so that no handler waits for a client any more."""
        for connection in tuple(self._open):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # its client was quicker

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed is what many tests are about; any other error is this module's own."""
        error = sys.exc_info()[1]
        if isinstance(error, Exception) and not isinstance(error, OSError):
            self.api.errors.append(error)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Nothing on the test's standard error."""

    def do_HEAD(self) -> None:
        self._take()
        self._whole(200, b"", {})

    def do_POST(self) -> None:
        request = self._take()
        if request.endpoint == "/v1/messages/count_tokens":
            self._json(200, {"input_tokens": USAGE.input})
        elif request.endpoint == "/v1/messages":
            self._answer(request, *self.server.api.answer(request))
        else:
            self._refuse(Refusal(404, f"no such endpoint: {request.endpoint}"))

    def _answer(self, request: Received, name: str, answer: Answer) -> None:
        if isinstance(answer, Refusal):
            self._refuse(answer)
        elif answer.fault is Fault.HANG:
            self.server.api.closing.wait()
            self.close_connection = True
        elif request.body.get("stream"):
            self._stream(_Message(name, str(request.body.get("model")), answer))
        else:
            self._message(_Message(name, str(request.body.get("model")), answer))

    def _take(self) -> Received:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {key.lower(): value for key, value in self.headers.items()}
        request = Received(self.command, self.path, headers, json.loads(raw) if raw else {})
        self.server.api.received.append(request)
        return request

    def _refuse(self, refusal: Refusal) -> None:
        kind = refusal.kind or KINDS.get(refusal.status, "api_error")
        body = {"type": "error", "error": {"type": kind, "message": refusal.message}}
        self._json(refusal.status, body, refusal.headers)

    def _message(self, message: _Message) -> None:
        headers = message.reply.headers
        body = json.dumps(message.whole()).encode()
        if message.reply.fault is Fault.DROP:
            self._head(200, {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers})
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
        else:
            self._whole(200, body, {"Content-Type": "application/json", **headers})

    def _stream(self, message: _Message) -> None:
        self._head(200, {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked", **message.reply.headers})
        for event in message.events(self.server.api.closing):
            data = f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()
            self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        if message.reply.fault is None:
            self.wfile.write(b"0\r\n\r\n")
        else:
            self.close_connection = True

    def _json(self, status: int, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> None:
        self._whole(status, json.dumps(body).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _whole(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self._head(status, {"Content-Length": str(len(body)), **headers})
        self.wfile.write(body)

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for key, value in {"request-id": "req_standin", **headers}.items():
            self.send_header(key, value)
        self.end_headers()


@dataclass(frozen=True)
class _Message:
    """One message on its way: as a whole, or as the events of a stream."""

    name: str
    model: str
    reply: Reply

    def whole(self) -> dict[str, Any]:
        ending = {"content": list(self._blocks()), "stop_reason": self._stop_reason()}
        return {**self._start(self.reply.usage.output), **ending}

    def events(self, closing: threading.Event) -> Iterator[dict[str, Any]]:
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
    size = max(1, min(DELTA, (len(whole) + 1) // 2))
    for at in range(0, len(whole), size):
        yield {"type": kind, key: whole[at : at + size]}
