"""Audit records a second through the pipeline to the file sink, beside Python's logging with a JSON formatter.

Both do the same job: the same fields, in files that are rotated at 100 MB, of which 10 are kept (`RotatingFileHandler`).

    python benchmarks/audit.py [--records 100000] [--runs 5]        (each in turns; medians are shown)

Both write the same records as JSON lines to files on the same disk, and count until all of them are there and flushed to the
disk (fsync). Ralph makes each record, redacts it, chains it by its hash and gives it to a queue; logging formats it and
writes it. Shown beside: what a record costs the thread that makes it, and how fast a transcript is gone through for secrets.
Exit code 1 if a bar is missed.
"""

import gc
import json
import logging
import os
import statistics
import tempfile
import time
import uuid
from collections.abc import Iterator
from datetime import datetime, timezone
from logging.handlers import RotatingFileHandler
from pathlib import Path

from tables import Row, command

from ralph_core.account.audit import AuditTrail, Selected
from ralph_core.account.pipeline import PipelineSettings
from ralph_core.builtin.sinks import FileSink, FileSinkSettings
from ralph_core.contracts import Context
from ralph_core.redaction import Redactor

RUN = "20260101-000000-aaaaaa"
REDACTOR = Redactor({"ANTHROPIC_API_KEY": "canary-0123456789", "OTHER_TOKEN": "canary-9876543210"})
DATA = {"id": "toolu_01", "input": {"file_path": "src/main.c", "command": "make -j2 check", "timeout": 120}}


def ralph(folder: Path, records: int) -> tuple[float, float, float]:
    """Records a second to the file, and microseconds of a processor for one: in all, and of the thread that makes it."""
    sink = FileSink(FileSinkSettings(max_file_size=1 << 30), Context(folder, folder, {}))
    how = PipelineSettings(overflow="block", flush_interval=3600)
    trail = AuditTrail(
        RUN,
        [Selected("file", "builtin", sink)],
        redactor=REDACTOR,
        ids=lambda: ("a" * 32, "b" * 16),
        how=how,
        folder=folder,
    )
    began, all_ = time.perf_counter(), time.process_time()
    own = time.thread_time()
    for _ in range(records):
        trail.record("tool.started", actor="claude", plugin="claude", capability="tool:Bash", message="Bash", data=DATA)
    own = time.thread_time() - own
    (account,) = trail.close()
    took, all_ = time.perf_counter() - began, time.process_time() - all_
    assert account.clean, account
    assert account.written == records, account
    assert sum(1 for _ in sink.lines()) == records
    return records / took, all_ / records * 1e6, own / records * 1e6


class Formatter(logging.Formatter):
    """A record as JSON, with the fields that Ralph's has, and those of logging's that the deployment documents name."""

    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(
            {
                "schema": 1,
                "id": str(uuid.uuid4()),
                "run": RUN,
                "iteration": 1,
                "actor": "claude",
                "plugin": "claude",
                "capability": "tool:Bash",
                "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
                "level": record.levelname,
                "logger": record.name,
                "module": record.module,
                "function": record.funcName,
                "line": record.lineno,
                "message": record.getMessage(),
                "data": getattr(record, "data", None),
                "trace_id": getattr(record, "trace_id", ""),
                "span_id": getattr(record, "span_id", ""),
            },
            sort_keys=True,
        )


def logs(folder: Path, records: int, rotated: bool = True) -> tuple[float, float]:
    """Records a second, and microseconds of a processor for one."""
    path = folder / f"log-{rotated}.jsonl"
    handler = RotatingFileHandler(path, maxBytes=100 << 20, backupCount=10) if rotated else logging.FileHandler(path)
    handler.setFormatter(Formatter())
    logger = logging.getLogger(f"benchmark.{folder.name}.{rotated}")
    logger.propagate = False
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    extra = {"data": DATA, "trace_id": "a" * 32, "span_id": "b" * 16}
    began, all_ = time.perf_counter(), time.process_time()
    for _ in range(records):
        logger.info("%s uses %s", "claude", "Bash", extra=extra)
    handler.flush()
    os.fsync(handler.stream.fileno())
    took, all_ = time.perf_counter() - began, time.process_time() - all_
    handler.close()
    assert sum(1 for _ in path.open()) == records
    return records / took, all_ / records * 1e6


def transcript(folder: Path) -> float:
    """Megabytes a second."""
    line = (
        json.dumps({"type": "assistant", "message": {"content": [{"type": "text", "text": "Let me look. " * 20}]}})
        + "\n"
    )
    path = folder / "transcript"
    path.write_text(line * ((64 << 20) // len(line)))
    began = time.perf_counter()
    assert REDACTOR.file(path) == 0
    return path.stat().st_size / (time.perf_counter() - began) / 1e6


def measure(records: int, runs: int) -> Iterator[Row]:
    ours: list[tuple[float, float, float]] = []
    others: list[tuple[float, float]] = []
    growing: list[float] = []
    gc.freeze()  # as `ralph run` does
    with tempfile.TemporaryDirectory(prefix="ralph-benchmark-", dir=Path.cwd()) as scratch:
        for number in range(runs):
            folder = Path(scratch, str(number))
            folder.mkdir()
            ours.append(ralph(folder, records))
            others.append(logs(folder, records))
            growing.append(logs(folder, records, rotated=False)[0])
        scanned = transcript(Path(scratch))
    rate, all_, own = (statistics.median(column) for column in zip(*ours, strict=True))
    other, theirs = (statistics.median(column) for column in zip(*others, strict=True))
    ratio = statistics.median(our[0] / their[0] for our, their in zip(ours, others, strict=True))
    bar = f"{ratio:.1f}, ≥ 3 × logging"
    yield Row(
        "audit records to the file sink (logging, JSON)", f"{rate:,.0f} /s", f"{other:,.0f} /s", "", bar, ratio >= 3
    )
    yield Row("    bar of its own (logging to one file that grows for ever)", f"{rate:,.0f} /s", f"{statistics.median(growing):,.0f} /s", "", "≥ 50,000 /s", rate >= 50_000)  # fmt: skip
    yield Row("    processor time of a record, all threads", f"{all_:.1f} µs", f"{theirs:.1f} µs")
    yield Row("    of it, in the thread that makes it", f"{own:.1f} µs", f"{theirs:.1f} µs")
    yield Row("    a transcript, gone through for secrets", f"{scanned:.0f} MB/s")


if __name__ == "__main__":
    command(measure, __doc__, records=100_000, runs=5)
