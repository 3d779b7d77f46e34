"""The built-in audit sinks: a file of JSON lines, and memory."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from io import FileIO
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ralph_core.builtin.auditfiles import AuditFiles, mend_torn_line
from ralph_core.builtin.encryption import Cipher, EncryptionSettings
from ralph_core.contracts import Anchor, AuditSink, Context
from ralph_core.records import AuditFilter, AuditRecord, record_of


class FileSinkSettings(BaseModel):
    """Settings of the file sink."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    directory: str | None = None
    """Where the files are, relative to the workspace; `audit` in the state directory without it."""
    max_file_size: int = Field(104_857_600, ge=1024)
    """Bytes after which a new file is begun."""
    max_files: int = Field(10, ge=1)
    """How many files are kept, the current one included."""
    fsync: Literal["interval", "batch", "never"] = "interval"
    """When what was written is made to outlive a power cut: every `audit_flush_interval`, after each batch, or never."""
    encryption: EncryptionSettings = EncryptionSettings()
    """Whether records are encrypted, and where the keys are."""


class FileSink(AuditSink):
    """Appends records to `audit.jsonl`; full files become `audit.1.jsonl` (the newest), `audit.2.jsonl` and so on."""

    settings: FileSinkSettings

    def __init__(self, settings: FileSinkSettings, context: Context) -> None:
        super().__init__(settings, context)
        named = settings.directory
        self.folder = context.home / "audit" if named is None else Path(context.workspace, named)
        self._cipher = Cipher(settings.encryption, context)
        self._files = AuditFiles(self.folder, settings.max_files, self._cipher.opened)
        self.path = self._files.current
        self._stream: FileIO | None = None

    def recover(self) -> Sequence[str]:
        return mend_torn_line(self.path)

    def write(self, batch: Sequence[AuditRecord]) -> None:
        stream = self._opened()
        seal = self._cipher.sealed if self.settings.encryption.enabled else None
        data = b"".join([seal(record) if seal else record.line for record in batch])
        before = os.fstat(stream.fileno()).st_size  # not `tell`: that stays where a failed write has got to
        try:
            # One write, unbuffered: either all of the batch is in the file, or none of it after the cut below.
            if stream.write(data) != len(data):
                raise OSError(f"only a part of the batch could be written to {self.path}")
            if self.settings.fsync == "batch":
                os.fsync(stream.fileno())
        except OSError:
            os.truncate(self.path, before)
            raise

    def flush(self) -> None:
        if self._stream is not None and self.settings.fsync == "interval":
            os.fsync(self._stream.fileno())

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def query(self, wanted: AuditFilter) -> Iterable[AuditRecord]:
        return wanted.of(self._records((wanted.run or "").encode()))

    def lines(self) -> Iterable[tuple[str, bytes]]:
        return self._files.lines()

    def dropped(self, run: str) -> Anchor | None:
        return self._files.dropped(run)

    def prune(self, before: str) -> int:
        return self._files.prune(before)

    def _opened(self) -> FileIO:
        if self._stream is not None and os.fstat(self._stream.fileno()).st_size >= self.settings.max_file_size:
            self.flush()
            self.close()
            self._files.rotate()
        if self._stream is not None and not self._is_there(self._stream):
            self.close()  # an agent's `git clean -fdx` took the file away: what comes next must not go after it
        if self._stream is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            mend_torn_line(self.path)
            self._stream = open(self.path, "ab", buffering=0, opener=_private)  # noqa: SIM115 - it stays open
        return self._stream

    def _is_there(self, stream: FileIO) -> bool:
        """Whether the open file is still the one that goes by its name."""
        try:
            return os.path.samestat(os.fstat(stream.fileno()), self.path.stat())
        except FileNotFoundError:
            return False

    def _records(self, words: bytes) -> Iterator[AuditRecord]:
        """The records in whose line `words` occur: to parse all lines of many runs would take minutes."""
        for _, line in self._files.lines(words):
            record = record_of(line)
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
        return wanted.of(self.records)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)
