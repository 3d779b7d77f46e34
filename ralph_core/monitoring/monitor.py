"""What an operator watches a run by: a state file, and over HTTP `/health` and `/metrics`."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ralph_core.errors import StoreError, UserError
from ralph_core.records import AuditRecord
from ralph_core.state import RunState
from ralph_core.statefile import write_atomically

if TYPE_CHECKING:
    from http.server import ThreadingHTTPServer

    from opentelemetry.sdk.resources import Resource

    from ralph_core.account.pipeline import SinkAccount
    from ralph_core.plugins.registry import HookCall
    from ralph_core.settings.model import Settings

    from .metrics import Metrics, Prometheus

BEAT = 1.0
"""Seconds between two signs of life of the loop; fewer where they are asked for more often."""
ERRORS_KEPT = 1000
"""Errors that the state file lists, the latest."""


class Monitor:
    """Watches one run. Raises `UserError` when its port can't be had, or what serves the metrics is not installed."""

    def __init__(self, settings: Settings, env: Mapping[str, str]) -> None:
        self._settings, self._env = settings, env
        self._server: ThreadingHTTPServer | None = None
        self._prometheus: Prometheus | None = None
        self._metrics: Metrics | None = None
        self._state: Callable[[], RunState] | None = None
        self._sinks: Callable[[], Sequence[SinkAccount]] = lambda: ()
        self._path: Path | None = None
        self._errors: list[dict[str, Any]] = []
        self._beat = time.monotonic()
        self.notes: list[str] = []
        if settings.monitoring.enabled:
            from .metrics import Prometheus

            self._prometheus = Prometheus()
        if settings.monitoring.enabled or settings.monitoring.health_check_enabled:
            self._serve()

    def _serve(self) -> None:
        from .pages import server  # few runs are asked over HTTP

        host, port = self._settings.monitoring.metrics_host, self._settings.monitoring.metrics_port
        try:
            self._server = server(host, port, self.page)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            mend = "choose another with --metrics-port (0: any that is free), or --no-metrics"
            raise UserError(f"monitoring.metrics_port: {host}:{port} can't be had: {reason}", mend=mend) from None
        threading.Thread(target=self._server.serve_forever, name="ralph-monitor", daemon=True).start()
        pages = "/metrics and /health" if self._prometheus else "/health"
        address, port = self._server.server_address[:2]
        shown = f"[{address!s}]" if ":" in str(address) else str(address)
        self.notes.append(f"{pages} on http://{shown}:{port}")

    def begin(
        self,
        home: Path,
        resource: Resource,
        *,
        state: Callable[[], RunState],
        sinks: Callable[[], Sequence[SinkAccount]],
    ) -> None:
        """The run begins: from now on there is something to tell."""
        from ralph_core.tracing.spans import exporters

        self._state, self._sinks = state, sinks
        self._path = home / "metrics" / f"state_{state().run}.json"
        self._errors = _errors_in(self._path)
        endpoint = self._settings.monitoring.metrics_endpoint
        if self._prometheus is None and endpoint is None and not exporters(self._env, "metrics"):
            return
        from .metrics import Metrics, readers

        found, notes = readers(self._env, _with_path(endpoint))
        self.notes += notes
        if self._prometheus is not None:
            found.append(self._prometheus.reader)
        self._metrics = Metrics(resource, found, state=state, sinks=sinks)

    def heed(self, record: AuditRecord) -> None:
        """Take note of a record of the account."""
        if self._metrics is not None:
            self._metrics.heed(record)
        if record.type == "agent.failed":
            error = {"time": record.time, "iteration": record.iteration, "agent": record.actor}
            self._errors = [*self._errors, {**error, "message": record.message}][-ERRORS_KEPT:]

    def calls(self, calls: Sequence[HookCall]) -> None:
        """Take note of calls of plugins."""
        if self._metrics is not None:
            self._metrics.calls(calls)

    async def watch(self) -> None:
        """Give signs of life, and write the state file: after each iteration, and every `metrics_interval` seconds."""
        written, finished = 0.0, -1
        while self._state is not None:
            self._beat = time.monotonic()
            state = self._state()
            if state.finished != finished or self._beat - written >= self._settings.monitoring.metrics_interval:
                written, finished = self._beat, state.finished
                await asyncio.to_thread(self.write)
            await asyncio.sleep(min(BEAT, self._settings.monitoring.health_check_interval / 3))

    def write(self) -> None:
        """Write the state file. A disk that can't take it is met by the next save of the state, which must not be lost."""
        if self._path is None:
            return
        try:
            self._path.parent.mkdir(mode=0o700, exist_ok=True)
            # For exporters, which look at a live run: it need not survive a power cut.
            write_atomically(self._path, (json.dumps(self.figures(), indent=1) + "\n").encode(), durable=False)
        except (OSError, StoreError):
            pass

    def figures(self) -> dict[str, Any]:
        """The run in figures, by the names that existing exporters read; what is not known is null."""
        assert self._state is not None
        state = self._state()
        return {
            "run": state.run,
            "status": state.outcome.kind.value if state.outcome is not None else "running",
            "agent": state.agent,
            "iteration_count": state.finished,
            "max_iterations": state.limits.iterations,
            "runtime": round(state.elapsed, 3),
            "start_time": state.started,
            "updated": time.time(),
            "cost": state.spend.cost,
            "tokens": state.spend.tokens.total if state.spend.tokens is not None else None,
            "consecutive_failures": state.consecutive_failures,
            "errors": self._errors,
        }

    def health(self) -> tuple[int, dict[str, Any]]:
        """The answer of `/health`: 200, or 503 when something is wrong, and what."""
        from ralph_core import __version__

        figures = self.figures() if self._state is not None else {}
        reasons = []
        silent = time.monotonic() - self._beat
        if silent > self._settings.monitoring.health_check_interval:
            reasons.append(f"Ralph has not moved for {silent:.0f} s")
        if failures := figures.get("consecutive_failures"):
            reasons.append(f"the agent has failed {failures} times in a row")
        reasons += [f"audit sink {sink.sink}: {sink.lost} records lost" for sink in self._sinks() if sink.lost]
        shown = {name: figures.get(name) for name in ("run", "agent", "runtime", "cost", "tokens")}
        return 503 if reasons else 200, {
            "status": "unhealthy" if reasons else "healthy",
            "reasons": reasons,
            "version": __version__,
            "iteration": figures.get("iteration_count", 0),
            "errors": len(figures.get("errors", ())),
            **shown,
            "timestamp": time.time(),
        }

    def page(self, path: str, accept: str) -> tuple[int, bytes, str]:
        """What is served under a path: the status, the body and its type."""
        if path == "/health":
            status, found = self.health()
            return status, json.dumps(found).encode(), "application/json"
        if path == "/metrics" and self._prometheus is not None:
            return 200, *self._prometheus.text(accept)
        return 404, b"there are /health and /metrics, if they are switched on\n", "text/plain"

    def close(self) -> None:
        """The run is over: the last figures are written and sent."""
        self.write()
        if self._metrics is not None:
            self._metrics.close()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()


def _with_path(endpoint: str | None) -> str | None:
    """The address to send metrics to; the path that the OTLP specification names, where there is none."""
    if endpoint is None or urlsplit(endpoint).path.strip("/"):
        return endpoint
    return f"{endpoint.rstrip('/')}/v1/metrics"


def _errors_in(path: Path) -> list[dict[str, Any]]:
    """Those of the sittings before."""
    try:
        errors = json.loads(path.read_bytes())["errors"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return errors if isinstance(errors, list) else []
