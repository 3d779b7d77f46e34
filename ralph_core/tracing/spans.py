"""What is done with spans: all are kept in a file, and those that are sampled go to a collector; nothing leaves unredacted.

Imported when a run starts, and not before: the SDK takes longer to import than all of the rest.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from queue import SimpleQueue
from random import getrandbits
from typing import Any, NamedTuple

from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, Status, StatusCode

from ralph_core.redaction import Redactor

# Else Python prints what a dead collector makes the SDK say, warning by warning; the account of the run says it once.
logging.getLogger("opentelemetry").addHandler(logging.NullHandler())

GATHERING = 0.02
"""Seconds for which spans come together before they are written: to wake for each one takes longer than to write it."""
ENCODER = json.JSONEncoder(ensure_ascii=False, default=str)


def provider_of(resource: Resource, spans: SpanProcessor) -> TracerProvider:
    """A provider that hands every span to `spans`, whatever the OTEL_* variables say of sampling and of the SDK."""
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.sampler = KeepAll(provider.sampler)
    provider._disabled = False  # noqa: SLF001 - OTEL_SDK_DISABLED is about export; there is no other way to keep the file
    provider.add_span_processor(spans)
    return provider


class KeepAll(Sampler):
    """The user's sampler (OTEL_TRACES_SAMPLER), except that what it drops is still recorded: it is not exported."""

    def __init__(self, wanted: Sampler) -> None:
        self._wanted = wanted

    def should_sample(self, *arguments: Any, **named: Any) -> SamplingResult:
        found = self._wanted.should_sample(*arguments, **named)
        if found.decision is Decision.DROP:
            return SamplingResult(Decision.RECORD_ONLY, found.attributes, found.trace_state)
        return found

    def get_description(self) -> str:
        return f"KeepAll({self._wanted.get_description()})"


class _Entry(NamedTuple):
    """A line that is to be written: a span when it began, with its attributes at that time, or when it had ended."""

    phase: str
    span: ReadableSpan
    attributes: Mapping[str, Any]


class Spans(SpanProcessor):
    """Redacts every span, and hands it to the file and to the exporters."""

    def __init__(self, path: Path, redactor: Redactor, resource: Resource, version: str) -> None:
        self._resource, self._scope = resource, InstrumentationScope("ralph_core", version)
        torn = _torn(path)
        self._stream = path.open("a", encoding="utf-8")
        if torn:  # by a kill: what comes now begins on a line of its own
            self._stream.write("\n")
        self._redactor = redactor
        self._exports: list[Export] = []
        self._unwritten = 0
        self._ended: SimpleQueue[_Entry | None] = SimpleQueue()
        # To put spans in JSON takes longer than to make them, and can be done while the run waits for something else.
        self._writer = threading.Thread(target=self._serve, name="ralph-spans", daemon=True)
        self._writer.start()

    def export(self, name: str, exporter: SpanExporter) -> None:
        """Send spans to a collector, too."""
        self._exports.append(Export(name, exporter))

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        self._ended.put(_Entry("start", span, dict(span.attributes or {})))  # as they are now: others will come

    def on_end(self, span: ReadableSpan) -> None:
        self.over([span])

    def past(
        self, name: str, parent: SpanContext, times: tuple[int, int], attributes: Mapping[str, Any], status: Status
    ) -> ReadableSpan:
        """A span of work that is over, below `parent`, from and to nanoseconds since the epoch.

        The SDK's own way to one takes five times as long, for what a span that nobody can change any more does not need.
        """
        context = SpanContext(parent.trace_id, getrandbits(64) or 1, False, parent.trace_flags, parent.trace_state)
        return ReadableSpan(
            name=name,
            context=context,
            parent=parent,
            resource=self._resource,
            attributes=attributes,
            status=status,
            start_time=times[0],
            end_time=times[1],
            instrumentation_scope=self._scope,
        )

    def over(self, spans: Sequence[ReadableSpan]) -> None:
        """Take spans that have ended."""
        for span in spans:
            self._ended.put(_Entry("end", span, span.attributes or {}))

    def _serve(self) -> None:
        """Write spans, and hand them to the exporters, until there is no more to come."""
        more = True
        while more:
            entries = [self._ended.get()]
            if entries[0] is not None:
                time.sleep(GATHERING)
            entries += [self._ended.get() for _ in range(self._ended.qsize())]
            more = None not in entries
            there = [entry for entry in entries if entry is not None]
            self._write(there)
            for entry in there if self._exports else ():
                self._hand_on(entry)

    def _hand_on(self, entry: _Entry) -> None:
        context = entry.span.get_span_context()
        if entry.phase == "end" and context is not None and context.trace_flags.sampled:
            safe = redacted(entry.span, self._redactor)
            for export in self._exports:
                export.on_end(safe)

    def shutdown(self) -> None:
        self._ended.put(None)
        self._writer.join()
        for export in self._exports:
            export.processor.shutdown()  # type: ignore[no-untyped-call]

    def force_flush(self, timeout_millis: int | None = 30000) -> bool:
        return all(export.processor.force_flush(timeout_millis) for export in self._exports)

    def close(self) -> list[str]:
        """Close the file, after `shutdown`; what has to be said of the exports."""
        try:
            self._stream.close()
        except OSError:  # what a full disk did not take is lost, as before
            pass
        unwritten = [f"{self._unwritten} lines of the trace could not be written"] if self._unwritten else []
        return [*unwritten, *(export.lost for export in self._exports if export.lost)]

    def _write(self, entries: Sequence[_Entry]) -> None:
        for entry in entries:
            try:
                self._stream.write(ENCODER.encode(_line(entry, self._redactor)) + "\n")
            except Exception:  # a full disk, or what can't be put in JSON: a run does not end for its trace's sake
                self._unwritten += 1
        try:
            self._stream.flush()
        except (OSError, ValueError):
            self._unwritten += 1


class Export(SpanExporter):
    """One exporter behind its queue; counts what it was given and what arrived."""

    def __init__(self, name: str, exporter: SpanExporter) -> None:
        self._name, self._exporter = name, exporter
        self._given = self._arrived = 0
        self.processor = BatchSpanProcessor(self)

    def on_end(self, span: ReadableSpan) -> None:
        self._given += 1
        self.processor.on_end(span)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        if result is SpanExportResult.SUCCESS:
            self._arrived += len(spans)
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    @property
    def lost(self) -> str:
        """What did not arrive, in words; empty if all of it did."""
        missing = self._given - self._arrived
        return f"{missing} of {self._given} spans were not exported ({self._name})" if missing else ""


def redacted(span: ReadableSpan, redactor: Redactor) -> ReadableSpan:
    """A copy of a span in which no secret stands: not in its name, attributes, status or events."""
    status = span.status
    if status.description:
        status = Status(status.status_code, redactor.text(status.description))
    return ReadableSpan(
        name=redactor.text(span.name),
        context=span.get_span_context(),
        parent=span.parent,
        resource=span.resource,
        attributes=redactor.value(dict(span.attributes or {})),
        events=[
            Event(redactor.text(event.name), redactor.value(dict(event.attributes or {})), event.timestamp)
            for event in span.events
        ],
        links=span.links,
        kind=span.kind,
        status=status,
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _torn(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            stream.seek(-1, 2)
            return stream.read() != b"\n"
    except OSError:  # there is none yet, or it is empty
        return False


def _line(entry: _Entry, redactor: Redactor) -> dict[str, Any]:
    """A span as the file has it, without secrets."""
    span, over = entry.span, entry.phase == "end"  # what has just begun may have ended by now
    context = span.get_span_context()
    assert context is not None
    line: dict[str, Any] = {
        "phase": entry.phase,
        "name": redactor.text(span.name),
        "trace_id": f"{context.trace_id:032x}",
        "span_id": f"{context.span_id:016x}",
        "parent_id": f"{span.parent.span_id:016x}" if span.parent else "",
        "start": span.start_time,
        "end": span.end_time if over else None,
        "status": span.status.status_code.name if over else StatusCode.UNSET.name,
        "message": redactor.text(span.status.description or "") if over else "",
        "attributes": redactor.value(dict(entry.attributes)),
    }
    if over and span.events:
        line["events"] = [
            {
                "name": redactor.text(event.name),
                "time": event.timestamp,
                "attributes": redactor.value(dict(event.attributes or {})),
            }
            for event in span.events
        ]
    if span.links:
        line["links"] = [f"{link.context.trace_id:032x}-{link.context.span_id:016x}" for link in span.links]
    return line


def exporters(env: Mapping[str, str], signal: str) -> list[str]:
    """The entry points of the exporters that the standard variables ask for; `signal` is `traces` or `metrics`.

    Source: the OpenTelemetry specification, "Environment Variable Specification" and "OpenTelemetry Protocol Exporter".
    """
    if env.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return []
    upper = signal.upper()
    endpoint = env.get(f"OTEL_EXPORTER_OTLP_{upper}_ENDPOINT") or env.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    chosen = env.get(f"OTEL_{upper}_EXPORTER", "") or ("otlp" if endpoint else "none")
    protocol = env.get(f"OTEL_EXPORTER_OTLP_{upper}_PROTOCOL") or env.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    otlp = "otlp_proto_grpc" if protocol == "grpc" else "otlp_proto_http"
    names = [name.strip() for name in chosen.split(",")]
    return [otlp if name == "otlp" else name for name in names if name not in ("", "none")]


def loaded(signal: str, name: str, **options: Any) -> Any:
    """Build an exporter by the name of its entry point. Raises `LookupError` with what to install."""
    from importlib_metadata import entry_points

    groups = {"traces": "opentelemetry_traces_exporter", "metrics": "opentelemetry_metrics_exporter"}
    try:
        (entry,) = entry_points(group=groups[signal], name=name)
        return entry.load()(**options)
    except Exception as error:
        extra = "otlp-grpc" if name == "otlp_proto_grpc" else "otlp"
        raise LookupError(
            f"exporter {name!r} is not usable ({type(error).__name__}: {error}); pip install 'ralph-core[{extra}]'"
        ) from error
