"""The server of what an operator asks a run for over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

Page = Callable[[str, str], tuple[int, bytes, str]]
"""Path and accepted types: status, body, type."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone away is no news."""


def server(host: str, port: int, page: Page) -> ThreadingHTTPServer:
    """A server of the pages, not running yet. Raises `OSError` or `OverflowError` if the port can't be had."""

    class Handler(BaseHTTPRequestHandler):
        timeout = 10.0

        def do_GET(self) -> None:
            status, body, kind = page(urlsplit(self.path).path, self.headers.get("Accept", ""))
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name that the base class gives it
            """Whoever asks every few seconds is no news on the terminal."""

    return _Server((host, port), Handler)
