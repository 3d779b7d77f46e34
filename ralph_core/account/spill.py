"""A file in which records wait that a sink has not taken yet: first in, first out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ralph_core.records import AuditRecord, record_of
from ralph_core.statefile import discard

TAKEN = b"#"
"""What the first byte of a line becomes when it, and all before it, have been taken: a kill must not bring them back."""
LARGEST = 1 << 30
"""Bytes that may wait for one sink; what comes then is lost, and counted."""


def path_of(folder: Path, sink: str) -> Path:
    """Where records wait for a sink."""
    return folder / f"waiting-{sink}.jsonl"


def waiting_in(path: Path) -> Iterator[AuditRecord]:
    """The records that an earlier sitting has left there."""
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return
    taken = max((number for number, line in enumerate(lines, 1) if line.startswith(TAKEN)), default=0)
    yield from filter(None, map(record_of, lines[taken:]))


class Spill:
    """Not made before the first record has to wait, and removed when none does any more.

    `after` is the last record that the sink is known to have: one up to there that is still in the file is passed over.
    """

    def __init__(self, path: Path, after: int = 0) -> None:
        self.path = path
        self.waiting = 0
        self._offset = self._size = 0
        self._peeked: tuple[int, int, int] = (0, 0, 0)
        if path.exists():
            self._adopt(after)

    def _adopt(self, after: int) -> None:
        """Go on with what an earlier sitting has left; a torn last line was never counted."""
        with self.path.open("r+b") as stream:
            for line in stream:
                if not line.endswith(b"\n"):
                    break
                self._size += len(line)
                self.waiting += 1
                record = record_of(line)
                if line.startswith(TAKEN) or (record is not None and record.seq <= after):
                    self._offset, self.waiting = self._size, 0
            stream.truncate(self._size)

    def forget(self) -> None:
        """Nothing waits any more."""
        self.waiting = self._offset = self._size = 0
        self.path.unlink(missing_ok=True)

    def append(self, records: Iterable[AuditRecord]) -> bool:
        """Let the records wait; false if the disk does not take them: then none of them does."""
        data, count = _joined(records)
        if self._size - self._offset + len(data) > LARGEST:
            return False
        try:
            # Opened each time: it takes a flood of records to come here, and they come in batches.
            with open(self.path, "ab", buffering=0, opener=_private) as stream:
                if stream.write(data) != len(data):
                    raise OSError("disk full")
        except OSError:
            try:
                os.truncate(self.path, self._size)
            except OSError:  # it is not there, or out of reach
                pass
            return False
        self._size += len(data)
        self.waiting += count
        return True

    def peek(self, most: int) -> Sequence[AuditRecord]:
        """The next ones, at most `most` of them; `taken` removes them."""
        found: list[AuditRecord] = []
        lines = length = last = 0
        with self.path.open("rb") as stream:
            stream.seek(self._offset)
            while lines < min(most, self.waiting):
                line = stream.readline()
                record = record_of(line)
                last, length, lines = self._offset + length, length + len(line), lines + 1
                if record is not None:
                    found.append(record)
        self._peeked = lines, length, last
        return found

    def taken(self) -> None:
        """What `peek` gave need not wait any longer."""
        lines, length, last = self._peeked
        self.waiting -= lines
        self._offset += length
        self._peeked = (0, 0, 0)
        if not self.waiting:
            self.forget()
            return
        try:
            with self.path.open("r+b") as stream:
                stream.seek(last)
                stream.write(TAKEN)
        except OSError:  # the file is gone: the next look at it says so
            pass

    def keep(self, first: Sequence[AuditRecord]) -> bool:
        """At the end: let `first` wait ahead of all others. False if the disk does not take them."""
        if not first and not self._offset:
            return True
        data, count = _joined(first)
        fresh = self.path.with_name(f".{self.path.name}.tmp")
        try:
            with open(fresh, "wb", opener=_private) as stream:
                stream.write(data)
                if self.waiting:
                    with self.path.open("rb") as rest:
                        rest.seek(self._offset)
                        while chunk := rest.read(1 << 20):
                            stream.write(chunk)
            fresh.replace(self.path)
        except OSError:
            discard(fresh)
            return False
        self.waiting += count
        self._size, self._offset = self.path.stat().st_size, 0
        return True


def _joined(records: Iterable[AuditRecord]) -> tuple[bytes, int]:
    lines = [record.line for record in records]
    return b"".join(lines), len(lines)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)
