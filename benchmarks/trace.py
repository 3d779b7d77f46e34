"""What tracing costs an iteration: the same run with the trace in its folder, exported besides, and with none at all.

    python benchmarks/trace.py [--runs 5]        (of each, taken in turns; medians are shown)

The agent is `echo`. What an iteration costs is the slope between a short run and a long one, in processor time of Ralph's own
process with all of its threads: that is what a busy machine does not distort. There is no setting that
switches tracing off: the run without it has its recorder replaced. The collector takes everything and keeps nothing; what
exporting costs is for the most part spent in a thread beside the run, while an agent works: it has no bar.
Exit code 1 if the bar is missed.
"""

import http.server
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tables import ENV, Row, command

SHORT, LONG = 10, 110
BAR = 2.0
"""Milliseconds an iteration."""


class NoTelemetry:
    """What `Telemetry` does, without doing it."""

    notes = ()
    resource = None

    def __init__(self, *_arguments, **_named):
        pass

    @contextmanager
    def span(self, *_arguments, **_named):
        yield self

    def begin(self, *_arguments):
        return self

    def ids(self):
        return "", ""

    def environment(self):
        return {}

    def nothing(self, *_arguments, **_named):
        pass

    end = calls = record = close = set_attribute = set_attributes = nothing


def child(how: str, iterations: int) -> int:
    """One run, in a process of its own; gives the exit code of `ralph`."""
    from ralph_core import sitting
    from ralph_core.cli.app import run_app

    if how == "none":
        sitting.Telemetry = NoTelemetry
    code = run_app(["run", "-a", "command", "--command", "echo", "-p", "x", "--no-git", "-i", str(iterations)])
    print("CPU", time.process_time(), file=sys.stderr)  # standard output is Ralph's alone by then
    return code


class Collector(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        pass


def timed(how: str, iterations: int, endpoint: str) -> float:
    with tempfile.TemporaryDirectory(prefix="ralph-benchmark-") as folder:
        env = dict(ENV)
        if how == "exported":
            env |= {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_METRICS_EXPORTER": "none"}
        (Path(folder) / "ralph.yml").write_text("max_no_progress: null\n")
        command = [sys.executable, str(Path(__file__).absolute()), "--child", how, str(iterations)]
        done = subprocess.run(command, cwd=folder, env=env, stdin=subprocess.DEVNULL, capture_output=True)
        assert done.returncode == 3, done.stderr.decode()  # stopped by the limit
        spans = [path.read_text().count('"phase": "end"') for path in Path(folder).glob(".agent/runs/*/trace.jsonl")]
        assert (sum(spans) > 10 * iterations) == (how != "none")
        return float(done.stderr.decode().rpartition("CPU ")[2])


def measure(runs: int) -> Iterator[Row]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    slopes: dict[str, list[float]] = {"none": [], "in the folder": [], "exported": []}
    timed("in the folder", SHORT, endpoint)
    for _ in range(runs):
        for how, found in slopes.items():
            short, long = timed(how, SHORT, endpoint), timed(how, LONG, endpoint)
            found.append((long - short) / (LONG - SHORT) * 1000)
    server.shutdown()
    plain = statistics.median(slopes["none"])
    folder, exported = (statistics.median(found) - plain for how, found in slopes.items() if how != "none")
    yield Row("processor time that the trace of an iteration takes (all the rest of it)", f"{folder:.1f} ms", f"{plain:.1f} ms", "", f"< {BAR:g} ms", folder < BAR)  # fmt: skip
    yield Row("    the same, sent to a collector besides", f"{exported:.1f} ms", f"{plain:.1f} ms")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        sys.exit(child(sys.argv[2], int(sys.argv[3])))
    command(measure, __doc__, runs=5)
