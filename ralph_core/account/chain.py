"""Checks the account of a run: that each record is as it was made, and that none is missing, added or in another place.

Every record carries the hash of the one before it, so a change shows at the record that was changed. That the end was cut
off, or all of it made anew, shows against an anchor: a head of the chain that was noted elsewhere, as in a checkpoint.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from ralph_core.contracts import Anchor
from ralph_core.records import FIRST, record_of, taken_apart
from ralph_core.values import dataclass


@dataclass(frozen=True)
class Checked:
    """What a check came to: how many records are in order, the last of them, and what is wrong with the next one, if anything.

    `notes` are said beside it, as that the beginning was dropped by rotation; `anchored` is the last record that an anchor
    vouches for.
    """

    run: str
    records: int
    last: int
    problem: str = ""
    notes: tuple[str, ...] = ()
    anchored: int = 0


def check(
    run: str, lines: Iterable[tuple[str, bytes]], anchors: Sequence[Anchor], dropped: Anchor | None = None
) -> Checked:
    """Check the account of `run`: `lines` are all lines of its sink, each with its place, in order, those of other runs too.

    `dropped` says up to where the beginning is known to be gone. Stops at the first record that is not as it should be.
    """
    checker = _Checker(run, anchors, dropped)
    for place, line in lines:
        problem = checker.problem_of(place, line)
        if problem:
            return Checked(run, checker.count, checker.seq, problem, checker.notes, checker.anchored)
    return Checked(run, checker.count, checker.seq, checker.problem_at_the_end(), checker.notes, checker.anchored)


class _Checker:
    def __init__(self, run: str, anchors: Sequence[Anchor], dropped: Anchor | None) -> None:
        self.run, self.count, self.anchored = run, 0, 0
        self.seq, self._before = (dropped.seq, dropped.hash) if dropped else (0, FIRST)
        self.notes = (f"records 1 to {dropped.seq} are gone: {dropped.where}",) if dropped else ()
        self._anchors: dict[int, list[Anchor]] = {}
        for anchor in anchors:
            self._anchors.setdefault(anchor.seq, []).append(anchor)
        self._marker = run.encode()

    def problem_of(self, place: str, line: bytes) -> str:
        """What is wrong with the next line; empty: nothing."""
        parts = taken_apart(line)
        if parts is None:
            what = "is cut off" if not line.endswith(b"\n") else "is no record of an account"
            return f"{place}, after record {self.seq}: the line {what}"
        if self._marker not in line:
            return ""
        body, said = parts
        record = record_of(line)
        if hashlib.sha256(body).hexdigest() != said or record is None:
            who = f"record {record.seq}" if record is not None else f"the record after {self.seq}"
            return f"{who} ({place}) was changed: it does not match its hash"
        if record.run != self.run:  # one of another run that mentions this one
            return ""
        return self._misplaced(place, record.seq, record.prev_hash) or self._take(place, record.seq, record.hash)

    def _misplaced(self, place: str, seq: int, before: str) -> str:
        if seq > self.seq + 1:
            return f"{_records(self.seq + 1, seq - 1)} missing before record {seq} ({place})"
        if seq <= self.seq:
            return f"record {seq} ({place}) stands after record {self.seq}: it was added, or moved"
        if before != self._before:
            return f"record {seq} ({place}) does not follow the record {self.seq} that stands before it"
        return ""

    def _take(self, place: str, seq: int, digest: str) -> str:
        self.seq, self._before, self.count = seq, digest, self.count + 1
        for anchor in self._anchors.get(seq, ()):
            if anchor.hash != digest:
                return (
                    f"record {seq} ({place}) is not the one that {anchor.where} vouches for: the account was made anew"
                )
            self.anchored = seq
        return ""

    def problem_at_the_end(self) -> str:
        last = max(self._anchors, default=0)
        if last > self.seq:
            where = self._anchors[last][0].where
            return f"{_records(self.seq + 1, last)} missing at the end: {where} vouches for record {last}"
        return ""


def _records(first: int, last: int) -> str:
    return f"record {first} is" if first == last else f"records {first} to {last} are"
