"""What the stand-ins of model APIs share: a scripted HTTP server on an ephemeral port of 127.0.0.1.

The script is a list of answers, given in order, the last one to all further requests; or a function, called with each
request (and never for two at once). A request that the script can't answer is a 500, and its error is raised at the end of
the `with` block.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

if TYPE_CHECKING:
    from typing_extensions import Self


class Fault(Enum):
    """What can go wrong after a request was taken."""

    HANG = "hang"  # nothing is answered, the connection stays open
    DROP = "drop"  # the connection breaks in the middle of the answer, streamed or not
    ENDLESS = "endless"  # text (and, where the API streams them, figures) grow until the client leaves


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


RequestT = TypeVar("RequestT", bound=Received)
AnswerT = TypeVar("AnswerT")


class Loopback(Generic[RequestT, AnswerT]):
    """The server, as a context. `received`: all requests so far, whatever they asked for."""

    handler: ClassVar[type[Handler]]
    request: type[RequestT]

    def __init__(self, script: Sequence[AnswerT] | Callable[[RequestT], AnswerT]) -> None:
        self._script = script
        self._lock = threading.Lock()
        self.received: list[RequestT] = []
        self.errors: list[Exception] = []
        self._count = 0
        self.closing = threading.Event()

    def __enter__(self) -> Self:
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name=type(self).__name__)
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

    def answer(self, request: RequestT) -> tuple[int, AnswerT | Exception]:
        """The number of this request, from 1, and what the script answers to it, or how the script failed."""
        with self._lock:
            number = self._count
            self._count += 1
            try:
                if callable(self._script):
                    return self._count, self._script(request)
                return self._count, self._script[min(number, len(self._script) - 1)]
            except Exception as error:
                self.errors.append(error)
                return self._count, error


class _Server(ThreadingHTTPServer):
    """Handler threads are joined at the end: a test leaves neither threads nor sockets behind."""

    daemon_threads = False
    request_queue_size = 128

    def __init__(self, api: Loopback[Any, Any]) -> None:
        super().__init__(("127.0.0.1", 0), api.handler)
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
        """A client that was killed is what many tests are about; any other error is this package's own."""
        error = sys.exc_info()[1]
        if isinstance(error, Exception) and not isinstance(error, OSError):
            self.api.errors.append(error)


class Handler(BaseHTTPRequestHandler):
    """One connection. An API's own handler says in `respond` what it answers, with what is here."""

    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Nothing on the test's standard error."""

    def do_HEAD(self) -> None:
        self.respond(self._take())

    def do_GET(self) -> None:
        self.respond(self._take())

    def do_POST(self) -> None:
        self.respond(self._take())

    def respond(self, request: Any) -> None:
        raise NotImplementedError

    def _take(self) -> Any:
        """Read the request, and record it."""
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {key.lower(): value for key, value in self.headers.items()}
        request = self.server.api.request(self.command, self.path, headers, json.loads(raw) if raw else {})
        self.server.api.received.append(request)
        return request

    def hang(self) -> None:
        """Answer nothing as long as the server is there."""
        self.server.api.closing.wait()
        self.close_connection = True

    def json(self, status: int, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> None:
        self.whole(status, json.dumps(body).encode(), {"Content-Type": "application/json", **(headers or {})})

    def whole(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.head(status, {"Content-Length": str(len(body)), **headers})
        self.wfile.write(body)

    def half(self, body: bytes) -> None:
        """Break off in the middle of an answer of JSON."""
        self.head(200, {"Content-Type": "application/json", "Content-Length": str(len(body))})
        self.wfile.write(body[: len(body) // 2])
        self.close_connection = True

    def stream(self, pieces: Iterable[bytes], headers: Mapping[str, str], *, whole: bool = True) -> None:
        """Server-sent events, each in a chunk of its own; without `whole` the connection breaks after the last one."""
        self.head(200, {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked", **headers})
        for data in pieces:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        if whole:
            self.wfile.write(b"0\r\n\r\n")
        else:
            self.close_connection = True

    def head(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for key, value in {"request-id": "req_standin", **headers}.items():
            self.send_header(key, value)
        self.end_headers()


def pieces_of(whole: str, most: int = 64 * 1024) -> Iterable[str]:
    """A text in two pieces or more, of at most `most` characters, so that what reads it has to put it together."""
    size = max(1, min(most, (len(whole) + 1) // 2))
    return (whole[at : at + size] for at in range(0, len(whole), size))
