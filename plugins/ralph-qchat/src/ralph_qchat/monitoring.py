"""What is told of the requests: a log, and figures for Prometheus on request. One of each for the whole process.

The figures are in the default registry of prometheus-client, so that whatever else serves that has them, too.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from ralph_core.contracts import SpawnError
from ralph_core.events import Failed, Finished

from .settings import ChatSettings, LoggingSettings, MonitoringSettings

LOG = logging.getLogger("ralph.qchat")
LOG_SIZE, LOG_FILES = 10 * 1024 * 1024, 5
"""Bytes of a log file, and how many older ones are kept."""

_lock = threading.Lock()


def set_up_log(settings: ChatSettings, workspace: Path) -> None:
    """Write the log where the settings say, and nowhere twice. Raises `SpawnError` if its file can't be written."""
    told: LoggingSettings = settings.logging
    with _lock:
        for handler in [handler for handler in LOG.handlers if getattr(handler, "ours", False)]:
            LOG.removeHandler(handler)
            handler.close()
        handlers: list[logging.Handler] = []
        if told.file is not None:
            handlers.append(_file_handler(workspace / Path(told.file).expanduser()))
        if settings.verbose or settings.debug:
            handlers.append(logging.StreamHandler(sys.stderr))
        for each in handlers:
            each.ours = True  # type: ignore[attr-defined]
            each.setFormatter(logging.Formatter(told.format))
            LOG.addHandler(each)
        LOG.setLevel("DEBUG" if settings.debug else told.level)
        LOG.propagate = not handlers


def _file_handler(path: Path) -> logging.Handler:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return logging.handlers.RotatingFileHandler(path, maxBytes=LOG_SIZE, backupCount=LOG_FILES, encoding="utf-8")
    except OSError as error:
        raise SpawnError(f"logging.file: {path} can't be written: {error.strerror}") from error


class Figures:
    """Counts and times requests, writes that into a file now and then, and serves it."""

    def __init__(self) -> None:
        from prometheus_client import Counter, Gauge, Histogram  # a run without figures does without it

        self.requests = Counter("qchat_requests_total", "Requests that were begun")
        self.errors = Counter("qchat_errors_total", "Requests that failed", ["error_type"])
        self.active = Gauge("qchat_active_requests", "Requests that are under way")
        buckets = (0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
        self.duration = Histogram("qchat_request_duration_seconds", "Duration of a request", buckets=buckets)
        self.port: int | None = None
        self._server: ThreadingHTTPServer | None = None
        self._written = 0.0

    def keep(self, settings: MonitoringSettings, path: Path) -> None:
        """Write the figures into `path` if it is time to."""
        from prometheus_client import generate_latest

        with _lock:
            if time.monotonic() - self._written < settings.metrics_interval and path.exists():
                return
            self._written = time.monotonic()
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f"{path.name}.{os.getpid()}")
            temporary.write_bytes(generate_latest())
            temporary.replace(path)

    def serve(self, port: int, name: str) -> None:
        """Answer on this port of 127.0.0.1 until the process ends. Raises `SpawnError` if it is taken."""
        with _lock:
            if self._server is not None:
                return
            try:
                self._server = ThreadingHTTPServer(("127.0.0.1", port), _Handler)
            except OSError as error:
                raise SpawnError(f"monitoring.health_check_port: {port} can't be used: {error.strerror}") from error
            self._server.daemon_threads = True
            self._server.adapter = name  # type: ignore[attr-defined]
            self.port = self._server.server_address[1]
            threading.Thread(target=self._server.serve_forever, name="qchat-health", daemon=True).start()


class _Handler(BaseHTTPRequestHandler):
    server: Any

    def do_GET(self) -> None:
        from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

        from ralph_core import __version__

        if self.path == "/health":
            state = {"status": "healthy", "adapter": self.server.adapter, "version": __version__}
            self._answer(200, "application/json", json.dumps(state).encode())
        elif self.path == "/metrics":
            self._answer(200, CONTENT_TYPE_LATEST, generate_latest())
        else:
            self._answer(404, "text/plain", b"there are /health and /metrics\n")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        LOG.debug(format, *args)

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


_figures: Figures | None = None


def figures() -> Figures:
    """Those of this process."""
    global _figures  # noqa: PLW0603 - the registry of prometheus-client is the process's, and takes a name once
    with _lock:
        if _figures is None:
            _figures = Figures()
        return _figures


class Watched:
    """One request, as it is told of. `final` is set to how it ended."""

    final: Finished | Failed | None = None


@contextmanager
def watched(settings: ChatSettings, name: str, prompt: str, home: Path) -> Iterator[Watched]:
    """Log and count a request. Raises `SpawnError` if the figures can't be served where the settings say."""
    request, began, told = Watched(), time.monotonic(), settings.monitoring
    counted = figures() if told.metrics_enabled else None
    if counted is not None:
        if told.health_check_port is not None:
            counted.serve(told.health_check_port, name)
        counted.requests.inc()
        counted.active.inc()
    LOG.info("request begins, %d characters (%s)", len(prompt), name)
    try:
        yield request
    finally:
        took = time.monotonic() - began
        failed = request.final.kind.value if isinstance(request.final, Failed) else None
        ended = "finished" if failed is None and request.final is not None else failed or "abandoned"
        LOG.info("request %s after %.3f s (%s)", ended, took, name)
        if counted is not None:
            counted.active.dec()
            counted.duration.observe(took)
            if ended != "finished":
                counted.errors.labels(error_type=ended).inc()
            counted.keep(told, home / "metrics/qchat.prom")
