"""The figures of the latest run for Prometheus, from `.agent/metrics/state_*.json`: `metrics_exporter.py [PORT]`.

For runs that serve no `/metrics` themselves. As in the deployment guide, but correct: there, each look adds the totals up
once more (`inc` of a total), `time` is not imported, and an error once seen is counted for ever. Needs prometheus-client.
"""

import json
import sys
import threading
from pathlib import Path

from prometheus_client import start_http_server
from prometheus_client.core import REGISTRY, CounterMetricFamily, GaugeMetricFamily


class Runs:
    """Reads the state file anew at each scrape: totals are set, not added."""

    def __init__(self, home):
        self.home = Path(home)

    def collect(self):
        files = sorted((self.home / "metrics").glob("state_*.json"))
        state = json.loads(files[-1].read_text()) if files else {}
        yield CounterMetricFamily(
            "ralph_iterations", "Iterations of the latest run", value=state.get("iteration_count", 0)
        )
        yield CounterMetricFamily("ralph_errors", "Failed attempts of it", value=len(state.get("errors", ())))
        yield GaugeMetricFamily(
            "ralph_runtime_seconds", "How long it has been worked on", value=state.get("runtime", 0)
        )


if __name__ == "__main__":
    REGISTRY.register(Runs(".agent"))
    start_http_server(int(sys.argv[1]) if len(sys.argv) > 1 else 8000, addr="127.0.0.1")
    threading.Event().wait()
