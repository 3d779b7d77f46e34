"""Spans of a run: to a file in the run's folder, and to a collector when the standard OTEL_* variables name one."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from .plugins import HookCall
from .redaction import Redactor

if TYPE_CHECKING:
    from opentelemetry.context import Context as SpanContext
    from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
    from opentelemetry.trace import Tracer

# Names of the OpenTelemetry semantic conventions for generative AI, in development; as of the registry of 2026-11
# (docs/gen-ai in the semantic-conventions repository). There is no attribute for cost: that one is Ralph's own.
OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
AGENT = "gen_ai.agent.name"
MODEL = "gen_ai.request.model"
CONVERSATION = "gen_ai.conversation.id"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
CACHE_READ_TOKENS = "gen_ai.usage.cache_read.input_tokens"
CACHE_WRITE_TOKENS = "gen_ai.usage.cache_creation.input_tokens"
TOOL = "gen_ai.tool.name"
TOOL_CALL = "gen_ai.tool.call.id"
COST = "ralph.usage.cost_usd"
ERROR = "error.type"

CLOSING = 2.0
"""Seconds that a collector is given at the end of a run; a dead one costs no more."""


class Telemetry:
    """The spans of one run. Never raises and never blocks: what can't be written or exported is dropped."""

    def __init__(self, trace_file: Path, env: Mapping[str, str], redactor: Redactor, *, run: str) -> None:
        # Imported here: the SDK takes longer to import than all of the rest, and only a run needs it.
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider

        from . import __version__

        resource = Resource.create(
            {"service.name": env.get("OTEL_SERVICE_NAME") or "ralph", "service.version": __version__, "ralph.run": run}
        )
        self.notes: list[str] = []
        self._provider: TracerProvider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._file = _SpanFile(
            trace_file, redactor
        )  # has a processor's methods; its class would have to import the SDK
        self._provider.add_span_processor(cast("SpanProcessor", self._file))
        self._export(env)
        self._tracer: Tracer = self._provider.get_tracer("ralph_core", __version__)
        self._incoming = _incoming(env)

    @contextmanager
    def span(self, name: str, attributes: Mapping[str, Any] | None = None) -> Iterator[Span]:
        """A span around a piece of work, below the current one; an exception marks it as failed and goes on its way."""
        from opentelemetry import trace

        current = trace.get_current_span().get_span_context().is_valid
        context = None if current else self._incoming
        with self._tracer.start_as_current_span(name, context=context, attributes=_clean(attributes or {})) as span:
            yield span  # type: ignore[misc]

    def record(
        self,
        name: str,
        started: int,
        ended: int,
        attributes: Mapping[str, Any],
        error: BaseException | str | None = None,
    ) -> None:
        """A span of work that is over, below the current one. Times in nanoseconds since the epoch."""
        from opentelemetry.trace import Status, StatusCode

        span = self._tracer.start_span(name, start_time=started, attributes=_clean(attributes))
        if error is not None:
            span.set_attribute(ERROR, type(error).__name__ if isinstance(error, BaseException) else error)
            span.set_status(Status(StatusCode.ERROR, str(error)))
        span.end(end_time=ended)

    def hook_called(self, call: HookCall) -> None:
        """Record a hook implementation's call; given to `Plugins.watch`."""
        attributes = {"ralph.hook": call.hook, "ralph.plugin": call.plugin, "ralph.plugin.version": call.version}
        self.record(f"{call.hook} {call.plugin}", call.started, call.ended, attributes, call.error)

    def environment(self) -> dict[str, str]:
        """What makes a child process continue the current trace."""
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        carrier: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(carrier)
        return {name.upper(): value for name, value in carrier.items()}

    def ids(self) -> tuple[str, str]:
        """Trace and span id of the current span, in hexadecimal; empty outside of any."""
        from opentelemetry import trace

        context = trace.get_current_span().get_span_context()
        return (f"{context.trace_id:032x}", f"{context.span_id:016x}") if context.is_valid else ("", "")

    def close(self) -> None:
        """Export what is left, for at most `CLOSING` seconds."""
        worker = threading.Thread(target=self._provider.shutdown, name="ralph-telemetry-close", daemon=True)
        worker.start()
        worker.join(CLOSING)
        self._file.close()

    def _export(self, env: Mapping[str, str]) -> None:
        name = _exporter(env)
        if name is None:
            return
        from importlib_metadata import entry_points
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        try:
            (entry,) = entry_points(group="opentelemetry_traces_exporter", name=name)
            exporter = entry.load()()
        except Exception as error:
            self.notes.append(
                f"spans are not exported: exporter {name!r} is not usable ({type(error).__name__}: {error}); "
                "pip install 'ralph-core[otlp]'"
            )
            return
        self._provider.add_span_processor(BatchSpanProcessor(exporter))


class _SpanFile:
    """Writes each span as a JSON line when it ends, and the long ones also when they start: a kill loses neither."""

    def __init__(self, path: Path, redactor: Redactor) -> None:
        self._stream = path.open("a", encoding="utf-8")
        self._redactor = redactor
        self._lock = threading.Lock()

    def on_start(self, span: Span, parent_context: SpanContext | None = None) -> None:
        if span.name.startswith(("ralph.", "invoke_agent")):
            self._write(span, "start")

    def on_end(self, span: ReadableSpan) -> None:
        self._write(span, "end")

    def _on_ending(self, span: Span) -> None:
        """Called by the SDK just before the end; nothing to add."""

    def shutdown(self) -> None:
        """The file is closed by `close`, after the exporters have had their time."""

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return True

    def close(self) -> None:
        with self._lock:
            try:
                self._stream.close()
            except OSError:  # what a full disk did not take is lost, as before
                pass

    def _write(self, span: ReadableSpan, phase: str) -> None:
        context = span.get_span_context()
        line = {
            "phase": phase,
            "name": span.name,
            "trace_id": f"{context.trace_id:032x}" if context else "",
            "span_id": f"{context.span_id:016x}" if context else "",
            "parent_id": f"{span.parent.span_id:016x}" if span.parent else "",
            "start": span.start_time,
            "end": span.end_time,
            "status": span.status.status_code.name,
            "message": self._redactor.text(span.status.description or ""),
            "attributes": self._redactor.value(dict(span.attributes or {})),
        }
        with self._lock:
            try:
                self._stream.write(json.dumps(line, ensure_ascii=False) + "\n")
                self._stream.flush()
            except (OSError, ValueError):  # a full disk or a closed file must not end a run for its trace's sake
                pass


def _clean(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Without unknown values: an attribute that is absent is unknown, which is not zero."""
    return {name: value for name, value in attributes.items() if value is not None}


def _incoming(env: Mapping[str, str]) -> SpanContext | None:
    """The trace that Ralph itself was started under."""
    carrier = {name: env[name.upper()] for name in ("traceparent", "tracestate") if env.get(name.upper())}
    if not carrier:
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract(carrier)


def _exporter(env: Mapping[str, str]) -> str | None:
    """The entry point of the exporter that the standard variables ask for, or None.

    Source: the OpenTelemetry specification, "Environment Variable Specification" and "OpenTelemetry Protocol Exporter".
    """
    if env.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    chosen = env.get("OTEL_TRACES_EXPORTER", "")
    endpoint = env.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or env.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    if chosen == "none" or not (chosen or endpoint):
        return None
    if chosen and chosen != "otlp":
        return chosen
    protocol = (
        env.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or env.get("OTEL_EXPORTER_OTLP_PROTOCOL") or "http/protobuf"
    )
    return "otlp_proto_grpc" if protocol == "grpc" else "otlp_proto_http"
