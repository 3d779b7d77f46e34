"""The figures of a run as OpenTelemetry instruments: for a collector (OTLP), and as text for Prometheus.

Imported only when somebody wants them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader

from ralph_core.conventions import HOOK, PLUGIN, POLICY, RESULT, SINK, VERDICT
from ralph_core.errors import UserError
from ralph_core.tracing.spans import exporters, loaded

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource

    from ralph_core.account.pipeline import SinkAccount
    from ralph_core.plugins.registry import HookCall
    from ralph_core.records import AuditRecord
    from ralph_core.state import RunState

DURATIONS = (1, 2, 5, 10, 30, 60, 120, 300, 600, 1200, 1800, 3600)
"""Seconds of an iteration: an agent works for minutes, where the SDK's own buckets end at ten seconds."""
CALLS = (0.0001, 0.001, 0.01, 0.1, 1, 10)
"""Seconds of a plugin's call, which is meant to take none."""
CLOSING = 2.0
"""Seconds that a collector is given at the end of a run."""

Figures = Callable[["RunState"], Iterable[tuple[float, Mapping[str, str]]]]


class Metrics:
    """The instruments of one run. Totals are read from its state whenever somebody asks; what happens is counted as it does."""

    def __init__(
        self,
        resource: Resource,
        readers: Sequence[MetricReader],
        *,
        state: Callable[[], RunState],
        sinks: Callable[[], Sequence[SinkAccount]],
    ) -> None:
        self._state = state
        self._provider = MeterProvider(metric_readers=readers, resource=resource, shutdown_on_exit=False)
        self._provider._disabled = False  # noqa: SLF001 - OTEL_SDK_DISABLED is about export: it leaves no readers but the local one
        self._meter = self._provider.get_meter("ralph_core")
        self._total("ralph.iterations", "Iterations that have ended.", lambda state: [(state.finished, {})])
        self._total("ralph.errors", "Iterations in which the agent failed.", lambda state: [(state.failures, {})])
        self._total("ralph.tokens", "Tokens used; no figure while it is not known.", _tokens)
        self._total("ralph.cost.usd", "US dollars spent; no figure while it is not known.", _cost)
        self._meter.create_observable_gauge(
            "ralph.runtime",
            [self._asked(lambda state: [(state.elapsed, {})])],
            unit="s",
            description="Seconds that the run has been worked on, in all its sittings.",
        )
        self._meter.create_observable_counter(
            "ralph.audit.lost",
            [lambda _options: [Observation(sink.lost, {SINK: sink.sink}) for sink in sinks()]],
            description="Audit records that a sink did not take.",
        )
        self._iteration = self._meter.create_histogram(
            "ralph.iteration.duration",
            unit="s",
            description="Seconds of an iteration.",
            explicit_bucket_boundaries_advisory=DURATIONS,
        )
        self._hook = self._meter.create_histogram(
            "ralph.hook.duration",
            unit="s",
            description="Seconds of a plugin's call.",
            explicit_bucket_boundaries_advisory=CALLS,
        )
        self._verdicts = self._meter.create_counter(
            "ralph.verdicts", description="What limits have said, other than to go on: stop, pause, deny, ask."
        )

    def heed(self, record: AuditRecord) -> None:
        """Count what a record of the account says."""
        if record.type in ("iteration.finished", "iteration.failed") and record.duration_ms is not None:
            self._iteration.record(record.duration_ms / 1000, {RESULT: str(record.data.get("result", "ended"))})
        elif record.type == "verdict" and record.data["verdict"] != "allow":
            self._verdicts.add(1, {POLICY: record.actor, VERDICT: str(record.data["verdict"])})

    def calls(self, calls: Sequence[HookCall]) -> None:
        """Count calls of plugins."""
        for call in calls:
            self._hook.record((call.ended - call.started) / 1e9, {HOOK: call.hook, PLUGIN: call.plugin})

    def close(self) -> None:
        """Export the last figures, for at most `CLOSING` seconds."""
        worker = threading.Thread(target=self._provider.shutdown, name="ralph-metrics-close", daemon=True)
        worker.start()
        worker.join(CLOSING)

    def _total(self, name: str, description: str, figures: Figures) -> None:
        self._meter.create_observable_counter(name, [self._asked(figures)], description=description)

    def _asked(self, figures: Figures) -> Callable[[CallbackOptions], Iterable[Observation]]:
        return lambda _options: [Observation(value, dict(labels)) for value, labels in figures(self._state())]


def readers(env: Mapping[str, str], endpoint: str | None) -> tuple[list[MetricReader], list[str]]:
    """What exports the figures, by the standard variables and to `endpoint`, and what has to be said of it."""
    found: list[MetricReader] = []
    notes: list[str] = []
    wanted: list[tuple[str, dict[str, Any]]] = [(name, {}) for name in exporters(env, "metrics")]
    if endpoint is not None:
        wanted.append(("otlp_proto_http", {"endpoint": endpoint}))
    for name, options in wanted:
        try:
            found.append(PeriodicExportingMetricReader(loaded("metrics", name, **options)))
        except LookupError as error:
            notes.append(f"metrics are not exported: {error}")
    return found, notes


class Prometheus:
    """The figures as the text that Prometheus scrapes. Raises `UserError` when the extra `metrics` is not installed."""

    def __init__(self) -> None:
        try:
            from opentelemetry.exporter.prometheus import PrometheusMetricReader
            from prometheus_client import CollectorRegistry, ProcessCollector
        except ImportError as error:
            mend = "pip install 'ralph-core[metrics]', or switch them off: --no-metrics"
            raise UserError(f"metrics can't be served: {error}", mend=mend) from None
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self.reader: MetricReader = PrometheusMetricReader(registry=self._registry, scope_info_enabled=False)

    def text(self, accept: str) -> tuple[bytes, str]:
        """The figures now, in the format that `accept` (the HTTP header) asks for, and what to call it."""
        from prometheus_client.exposition import choose_encoder

        encode, kind = choose_encoder(accept)
        return encode(self._registry), kind


def _tokens(state: RunState) -> Iterable[tuple[float, Mapping[str, str]]]:
    tokens = state.spend.tokens
    if tokens is None:
        return []
    kinds = {"input": tokens.input, "output": tokens.output, "cache_read": tokens.cache_read}
    return [(count, {"type": kind}) for kind, count in {**kinds, "cache_write": tokens.cache_write}.items()]


def _cost(state: RunState) -> Iterable[tuple[float, Mapping[str, str]]]:
    return [] if state.spend.cost is None else [(state.spend.cost, {})]
