"""Spans of a run: to a file in the run's folder, and to a collector when the standard OTEL_* variables name one."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ralph_core.conventions import ERROR, HOOK, MOMENT, PLUGIN, POLICY, RUN, VERSION
from ralph_core.plugins.registry import HookCall
from ralph_core.redaction import Redactor

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import Span, SpanContext, Status

CLOSING = 2.0
"""Seconds that a collector is given at the end of a run; a dead one costs no more."""


class Telemetry:
    """The spans of one run. Never raises and never blocks: what can't be written or exported is dropped, and counted."""

    def __init__(self, trace_file: Path, env: Mapping[str, str], redactor: Redactor, *, run: str) -> None:
        from opentelemetry.sdk.resources import Resource

        from ralph_core import __version__

        from . import spans

        name = env.get("OTEL_SERVICE_NAME") or "ralph"
        described = Resource.create({"service.name": name, "service.version": __version__, RUN: run})
        self.resource = Resource(redactor.value(dict(described.attributes)))
        self.notes: list[str] = []
        self._spans = spans.Spans(trace_file, redactor, self.resource, __version__)
        self._provider = spans.provider_of(self.resource, self._spans)
        for exporter in spans.exporters(env, "traces"):
            try:
                self._spans.export(exporter, spans.loaded("traces", exporter))
            except LookupError as error:
                self.notes.append(f"spans are not exported: {error}")
        self._tracer = self._provider.get_tracer("ralph_core", __version__)
        self._incoming = _incoming(env)
        self._root: Context | None = None

    @contextmanager
    def span(self, name: str, attributes: Mapping[str, Any] | None = None, *, client: bool = False) -> Iterator[Span]:
        """A span around a piece of work, below the current one; an exception marks it as failed and goes on its way.

        `client`: the work is done by another process, whose own spans hang below.
        """
        from opentelemetry import trace

        kind = trace.SpanKind.CLIENT if client else trace.SpanKind.INTERNAL
        with self._tracer.start_as_current_span(
            name, context=self._context(), kind=kind, attributes=_clean(attributes or {})
        ) as span:
            if self._root is None:
                self._root = trace.set_span_in_context(span)
            yield span

    def begin(self, name: str, attributes: Mapping[str, Any]) -> Span:
        """A span of work that has begun, below the current one; whoever begins it ends it, with `end`."""
        return self._tracer.start_span(name, context=self._context(), attributes=_clean(attributes))

    def end(self, span: Span, error: str | None = None) -> None:
        """End a span, as failed if there is an `error`."""
        if error is not None:
            span.set_attribute(ERROR, error)
            span.set_status(_status(error))
        span.end()

    def record(
        self,
        name: str,
        started: int,
        ended: int,
        attributes: Mapping[str, Any],
        error: BaseException | str | None = None,
    ) -> None:
        """A span of work that is over, below the current one. Times in nanoseconds since the epoch."""
        parent = self._parent()
        if parent is not None:
            self._spans.over([self._past(name, parent, started, ended, attributes, error)])

    def calls(self, calls: Sequence[HookCall]) -> None:
        """Record calls of plugins that are over: a span for each hook, and below it one for each implementation.

        Given to `Plugins.watch` and to `Policies`.
        """
        parent = self._parent()
        if parent is None:
            return
        for hook, group in groupby(sorted(calls, key=lambda call: call.hook), key=lambda call: call.hook):
            each = list(group)
            # What a policy was asked about is the same for all that were asked.
            shared = {HOOK: hook, MOMENT: each[0].attributes.get(MOMENT)}
            started, ended = min(call.started for call in each), max(call.ended for call in each)
            error = next((call.error for call in each if call.error), None)
            whole = self._past(hook, parent, started, ended, shared, error)
            assert whole.context is not None
            below = []
            for call in each:
                attributes = {HOOK: hook, PLUGIN: call.plugin, VERSION: call.version, **call.attributes}
                name = f"{hook} {call.attributes.get(POLICY, call.plugin)}"
                below.append(self._past(name, whole.context, call.started, call.ended, attributes, call.error))
            self._spans.over([whole, *below])

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
        """Export what is left, for at most `CLOSING` seconds, and note what did not arrive."""
        worker = threading.Thread(target=self._provider.shutdown, name="ralph-telemetry-close", daemon=True)
        worker.start()
        worker.join(CLOSING)
        self.notes += self._spans.close()

    def _context(self) -> Context | None:
        """What a new span hangs below: the current span, else the first one of the run, else the trace Ralph was started in."""
        from opentelemetry import trace

        current = trace.get_current_span().get_span_context().is_valid
        return None if current else self._root or self._incoming

    def _parent(self) -> SpanContext | None:
        """The same, for a span that is over."""
        from opentelemetry import trace

        around = trace.get_current_span(self._context()).get_span_context()
        return around if around.is_valid else None

    def _past(
        self,
        name: str,
        parent: SpanContext,
        started: int,
        ended: int,
        attributes: Mapping[str, Any],
        error: BaseException | str | None,
    ) -> ReadableSpan:
        if error is not None:
            attributes = {**attributes, ERROR: type(error).__name__ if isinstance(error, BaseException) else error}
        return self._spans.past(name, parent, (started, ended), _clean(attributes), _status(error))


def _status(error: BaseException | str | None) -> Status:
    from opentelemetry.trace import Status, StatusCode

    return Status(StatusCode.UNSET) if error is None else Status(StatusCode.ERROR, str(error))


def _clean(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Without unknown values: an attribute that is absent is unknown, which is not zero."""
    return {name: value for name, value in attributes.items() if value is not None}


def _incoming(env: Mapping[str, str]) -> Context | None:
    """The trace that Ralph itself was started under."""
    carrier = {name: env[name.upper()] for name in ("traceparent", "tracestate") if env.get(name.upper())}
    if not carrier:
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract(carrier)
