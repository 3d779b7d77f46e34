"""The built-in audit sinks: a file of JSON lines, and memory."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from io import FileIO
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from ralph_core.contracts import AuditSink, Context
from ralph_core.records import AuditFilter, AuditRecord, Severity


class FileSinkSettings(BaseModel):
    """Settings of the file sink."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    directory: str | None = None
    """Where the files are, relative to the workspace; `audit` in the state directory without it."""
    max_file_size: int = Field(104_857_600, ge=1024)
    """Bytes after which a new file is begun."""
    max_files: int = Field(10, ge=1)
    """How many files are kept, the current one included."""


class FileSink(AuditSink):
    """Appends records to `audit.jsonl`; full files become `audit.1.jsonl` (the newest), `audit.2.jsonl` and so on."""

    settings: FileSinkSettings

    def __init__(self, settings: FileSinkSettings, context: Context) -> None:
        super().__init__(settings, context)
        named = settings.directory
        self.folder = context.home / "audit" if named is None else Path(context.workspace, named)
        self.path = self.folder / "audit.jsonl"
        self._stream: FileIO | None = None

    def write(self, batch: Sequence[AuditRecord]) -> None:
        stream = self._opened()
        lines = [line_of(record) for record in batch]
        before = stream.tell()
        try:
            # One write, unbuffered: either all of the batch is in the file, or none of it after the cut below.
            data = b"".join(lines)
            if stream.write(data) != len(data):
                raise OSError(f"only a part of the batch could be written to {self.path}")
        except OSError:
            os.truncate(self.path, before)
            raise

    def flush(self) -> None:
        if self._stream is not None:
            os.fsync(self._stream.fileno())

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def query(self, wanted: AuditFilter) -> Iterable[AuditRecord]:
        return matching(self._read((wanted.run or "").encode()), wanted)

    def _opened(self) -> FileIO:
        if self._stream is not None and self._stream.tell() >= self.settings.max_file_size:
            self.flush()
            self.close()
            self._rotate()
        if self._stream is not None and not self._is_there(self._stream):
            self.close()  # an agent's `git clean -fdx` took the file away: what comes next must not go after it
        if self._stream is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._stream = self.path.open("ab", buffering=0)
            self._end_torn_line()
        assert self._stream is not None
        return self._stream

    def _is_there(self, stream: FileIO) -> bool:
        """Whether the open file is still the one that goes by its name."""
        try:
            return os.path.samestat(os.fstat(stream.fileno()), self.path.stat())
        except FileNotFoundError:
            return False

    def _end_torn_line(self) -> None:
        """A kill may have torn the last line: end it, so that it spoils no other one."""
        with self.path.open("rb") as reader:
            size = reader.seek(0, os.SEEK_END)
            if size:
                reader.seek(size - 1)
                if reader.read(1) != b"\n" and self._stream is not None:
                    self._stream.write(b"\n")

    def _rotate(self) -> None:
        oldest = self.settings.max_files - 1
        (self.folder / f"audit.{oldest}.jsonl").unlink(missing_ok=True)
        for number in range(oldest - 1, -1, -1):
            older = self.folder / (f"audit.{number}.jsonl" if number else "audit.jsonl")
            if older.exists():
                if oldest == 0:
                    older.unlink()
                else:
                    older.rename(self.folder / f"audit.{number + 1}.jsonl")

    def _read(self, words: bytes) -> Iterator[AuditRecord]:
        """The records in whose line `words` occur: to parse all lines of many runs would take minutes."""
        numbers = range(self.settings.max_files - 1, -1, -1)
        for path in (self.folder / (f"audit.{number}.jsonl" if number else "audit.jsonl") for number in numbers):
            if not path.exists():
                continue
            with path.open("rb") as stream:
                for line in stream:
                    record = record_of(line) if words in line else None
                    if record is not None:
                        yield record


class MemorySink(AuditSink):
    """Keeps the records in `records`."""

    def __init__(self, settings: None, context: Context) -> None:
        super().__init__(settings, context)
        self.records: list[AuditRecord] = []

    def write(self, batch: Sequence[AuditRecord]) -> None:
        self.records.extend(batch)

    def query(self, wanted: AuditFilter) -> Iterable[AuditRecord]:
        return matching(self.records, wanted)


def matching(records: Iterable[AuditRecord], wanted: AuditFilter) -> Iterator[AuditRecord]:
    """The records that the filter lets through, at most `limit` of them."""
    count = 0
    for record in records:
        if wanted.limit is not None and count >= wanted.limit:
            return
        if (
            (wanted.run is None or record.run == wanted.run)
            and (wanted.type is None or record.type == wanted.type)
            and record.severity >= wanted.severity
        ):
            count += 1
            yield record


def line_of(record: AuditRecord) -> bytes:
    """A record as one line of JSON."""
    fields = asdict(record) | {"severity": record.severity.name.lower()}
    return json.dumps(fields, ensure_ascii=False, default=str, separators=(",", ":")).encode() + b"\n"


def record_of(line: bytes) -> AuditRecord | None:
    """The record that a line holds; None for a torn one."""
    try:
        fields = json.loads(line)
        return AuditRecord(**fields | {"severity": Severity[fields["severity"].upper()]})
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
