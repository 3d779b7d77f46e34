"""Recordings of attempts: every line that the agent's process printed, every event that came of it, and when.

A recording is a file of JSON lines. The first names the agent; the others have `at` (seconds since the start) and one of
`line` (what the process printed), `event` (as `wire` writes it) and `exit` (the code, with the end of standard error).
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from ralph_core.contracts import Exit, Process
from ralph_core.errors import StoreError
from ralph_core.events import Event
from ralph_core.redaction import Redactor
from ralph_core.wire import event_from, fields_of

FOLDER = "recording"
"""Where they are in the folder of a run: `recording/0001.jsonl`, numbered by attempt."""


def path_of(run: Path, attempt: int) -> Path:
    """The recording of an attempt of the run in that folder."""
    return run / FOLDER / f"{attempt:04d}.jsonl"


class Recorder:
    """Writes one recording, redacted. Raises `StoreError` when the disk can't take it: whoever records wants all of it."""

    def __init__(self, path: Path, redactor: Redactor, agent: str) -> None:
        self._path, self._redactor, self._began = path, redactor, time.monotonic()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._stream = path.open("w", encoding="ascii")
        except OSError as error:
            raise self._unwritable(error) from error
        self._write({"agent": agent})

    def event(self, event: Event) -> None:
        self._note(event=fields_of(event))

    def watch(self, process: Process) -> Process:
        """The process, with its lines written down as they are read, and its end."""
        return _Recorded(process, self)

    def line(self, line: bytes) -> None:
        self._note(line=line.decode(errors="surrogateescape"))

    def exit(self, end: Exit) -> None:
        self._note(exit=end.code, stderr=end.stderr)

    def close(self) -> None:
        try:
            self._stream.close()
        except OSError as error:
            raise self._unwritable(error) from error

    def _note(self, **what: Any) -> None:
        self._write({"at": round(time.monotonic() - self._began, 6), **what})

    def _write(self, entry: dict[str, Any]) -> None:
        try:
            if not self._stream.closed:  # what comes when all is over is no part of the attempt
                self._stream.write(json.dumps(self._redactor.value(entry)) + "\n")
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> StoreError:
        return StoreError(f"the recording {self._path} can't be written: {error.strerror or error}")


class _Recorded:
    """A process whose output is written down on the way."""

    def __init__(self, process: Process, recorder: Recorder) -> None:
        self._process, self._recorder = process, recorder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._process, name)

    async def lines(self) -> AsyncIterator[bytes]:
        async for line in self._process.lines():
            self._recorder.line(line)
            yield line

    async def wait(self) -> Exit:
        end = await self._process.wait()
        self._recorder.exit(end)
        return end


def events_in(path: Path) -> Iterator[tuple[float, Event]]:
    """The events of a recording, and when each came. Raises `StoreError` for one that is missing or is none."""
    try:
        with path.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                try:
                    entry = json.loads(line)
                    if "event" in entry:
                        yield float(entry["at"]), event_from(entry["event"])
                except (ValueError, KeyError, TypeError) as error:
                    raise StoreError(f"{path}: line {number} is no part of a recording: {error}") from None
    except OSError as error:
        raise StoreError(f"{path} can't be read: {error.strerror or error}") from None
