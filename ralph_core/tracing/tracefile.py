"""Reads the trace in a run's folder: spans as a tree, those that were cut short by a kill among them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Any

from ralph_core.errors import UserError
from ralph_core.values import dataclass

FILE = "trace.jsonl"


@dataclass
class TraceSpan:
    """A span, and those below it in the order in which they began. Times in nanoseconds since the epoch.

    `ended` is False for one that has no end: it is at work, or was when Ralph was killed; then `end` is the last time that
    stands in the file.
    """

    name: str
    span_id: str
    parent_id: str
    trace_id: str
    start: int
    end: int
    ended: bool
    status: str
    message: str
    attributes: Mapping[str, Any]
    below: list[TraceSpan] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return (self.end - self.start) / 1e9

    @property
    def failed(self) -> bool:
        return self.status == "ERROR"

    def walk(self) -> Iterator[TraceSpan]:
        """The span itself, and all below it."""
        yield self
        for span in self.below:
            yield from span.walk()


def read_trace(folder: Path) -> list[TraceSpan]:
    """The outermost spans of a run: one for each sitting. Raises `UserError` when there is no trace."""
    path = folder / FILE
    try:
        with path.open(encoding="utf-8", errors="replace") as stream:
            found = _merged(stream)
    except OSError as error:
        raise UserError(f"there is no trace of this run: {path}: {error.strerror}") from None
    if not found:
        raise UserError(f"there is no trace of this run: {path} is empty")
    last = max(max(span.start, span.end) for span in found.values())
    for span in found.values():
        if not span.ended:
            span.end = last
    tops: list[TraceSpan] = []
    for span in sorted(found.values(), key=lambda span: span.start):
        around = found.get(span.parent_id)
        (tops if around is None else around.below).append(span)
    return tops


def _merged(lines: Iterator[str] | Any) -> dict[str, TraceSpan]:
    """The spans by id; the line of the end replaces that of the beginning. A torn line is passed over."""
    found: dict[str, TraceSpan] = {}
    for line in lines:
        try:
            entry = json.loads(line)
            span = TraceSpan(
                name=str(entry["name"]),
                span_id=str(entry["span_id"]),
                parent_id=str(entry["parent_id"]),
                trace_id=str(entry["trace_id"]),
                start=int(entry["start"]),
                end=int(entry["end"] or entry["start"]),
                ended=entry["phase"] == "end",
                status=str(entry["status"]),
                message=str(entry["message"]),
                attributes=dict(entry["attributes"]),
            )
        except (ValueError, KeyError, TypeError):
            continue
        if span.ended or span.span_id not in found:
            found[span.span_id] = span
    return found


def named(tops: Sequence[TraceSpan], name: str) -> list[TraceSpan]:
    """All spans of that name, or whose name begins with it and a space."""
    return [span for top in tops for span in top.walk() if span.name == name or span.name.startswith(f"{name} ")]
