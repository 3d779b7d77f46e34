"""The files of the file sink: which there are, what is in them, and what of it is given up."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ralph_core.contracts import Anchor
from ralph_core.records import record_of, taken_apart
from ralph_core.statefile import write_atomically

PLACE = re.compile(rb'"run":"([^"\\]+)","(?:schema|sealed)":')
"""Where the run stands in a line, plain or sealed: after all that may hold any text, save what was sealed."""
TAIL = 1000
"""Bytes of the end of a long line in which it is looked for."""
BLOCK = 64 * 1024


class AuditFiles:
    """`audit.jsonl` and the full ones before it. `opened` makes of a line that may be encrypted the line that it was."""

    def __init__(self, folder: Path, most: int, opened: Callable[[bytes], bytes]) -> None:
        self._folder, self._most, self._opened = folder, most, opened
        self.current = folder / "audit.jsonl"
        self._dropped = folder / "dropped.json"

    def lines(self, words: bytes = b"") -> Iterator[tuple[str, bytes]]:
        """Every line in which `words` occur, the oldest first, with its place."""
        for path in self._oldest_first():
            with path.open("rb") as stream:
                for number, line in enumerate(stream, 1):
                    if words in line:
                        yield f"{path.name}, line {number}", self._opened(line)

    def rotate(self) -> None:
        """Let a new file be begun; the oldest one is given up if there are too many."""
        oldest = self._numbered(self._most - 1)
        if oldest.exists():
            self._note_dropped(self._last_lines(oldest), "dropped when the files were rotated (max_files)")
            oldest.unlink()
        for number in range(self._most - 2, -1, -1):
            path = self._numbered(number)
            if path.exists():
                path.rename(self._numbered(number + 1))

    def prune(self, before: str) -> int:
        """Take out the runs whose last record is older than `before`. Nobody may write meanwhile."""
        ended: dict[bytes, bytes] = {}
        for path in self._oldest_first():
            ended |= self._last_lines(path)
        times = {run: record.time for run, line in ended.items() if (record := record_of(self._opened(line)))}
        old = {run: ended[run] for run, last in times.items() if last < before}
        if old:
            self._note_dropped(old, f"pruned on {time.strftime('%Y-%m-%d', time.gmtime())}")
            for path in self._oldest_first():
                self._rewrite(path, old)
        return len(old)

    def dropped(self, run: str) -> Anchor | None:
        """The last record of a run that was given up, with all before it."""
        found = self._all_dropped().get(run)
        return Anchor(int(found["seq"]), str(found["hash"]), str(found["why"])) if found else None

    def _numbered(self, number: int) -> Path:
        return self._folder / (f"audit.{number}.jsonl" if number else "audit.jsonl")

    def _oldest_first(self) -> list[Path]:
        found = {path: re.fullmatch(r"audit\.([0-9]+)\.jsonl", path.name) for path in self._folder.glob("audit.*jsonl")}
        older = sorted(((int(match[1]), path) for path, match in found.items() if match), reverse=True)
        return [*(path for _, path in older), *([self.current] if self.current.exists() else [])]

    def _last_lines(self, path: Path) -> dict[bytes, bytes]:
        """The last line of each run in a file."""
        found = {}
        with path.open("rb") as stream:
            for line in stream:
                if line.endswith(b"\n") and (run := run_of(line)):
                    found[run] = line
        return found

    def _rewrite(self, path: Path, without: dict[bytes, bytes]) -> None:
        fresh = path.with_name(f".{path.name}.tmp")
        with path.open("rb") as old, fresh.open("wb") as new:
            new.writelines(line for line in old if run_of(line) not in without)
            new.flush()
            os.fsync(new.fileno())
            left = new.tell()
        fresh.chmod(0o600)
        fresh.replace(path)
        if not left and path != self.current:
            path.unlink()

    def _note_dropped(self, last: dict[bytes, bytes], why: str) -> None:
        known = self._all_dropped()
        for line in last.values():
            record = record_of(self._opened(line))
            if record is not None:
                known[record.run] = {"seq": record.seq, "hash": record.hash, "why": why}
        write_atomically(self._dropped, json.dumps(known, indent=1).encode())

    def _all_dropped(self) -> dict[str, dict[str, str | int]]:
        try:
            found = json.loads(self._dropped.read_bytes())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


def run_of(line: bytes) -> bytes | None:
    """The run that a line belongs to."""
    places = (
        PLACE.findall(line, max(0, len(line) - TAIL))
        if not line.startswith(b'{"key"')
        else PLACE.findall(line, 0, TAIL)
    )
    return places[-1] if places else None


def mend_torn_line(path: Path) -> Sequence[str]:
    """A kill may have torn the last line: complete it if only its end is missing, else cut it off; says what was done."""
    try:
        with path.open("r+b") as stream:
            whole, line = _split(stream.fileno())
            if not line:
                return ()
            if taken_apart(line + b"\n") is not None or line.endswith(b'"}'):
                stream.seek(0, os.SEEK_END)
                stream.write(b"\n")
                return (f"the last line of {path.name} had no end: it was given one",)
            stream.truncate(whole)
    except FileNotFoundError:
        return ()
    return (f"the last line of {path.name} was torn: {len(line)} bytes of a record were cut off",)


def _split(handle: int) -> tuple[int, bytes]:
    """Bytes of the whole lines of a file, and what comes after them."""
    size = end = os.fstat(handle).st_size
    rest: list[bytes] = []
    while end:
        start = max(0, end - BLOCK)
        block = os.pread(handle, end - start, start)
        at = block.rfind(b"\n")
        if at >= 0:
            rest.append(block[at + 1 :])
            return start + at + 1, b"".join(reversed(rest))
        rest.append(block)
        end = start
    return 0, b"".join(reversed(rest)) if size else b""
