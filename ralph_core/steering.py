"""What a person puts before a run while it works: words for its next prompt, and the wish that it pauses."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from .errors import UserError
from .statefile import write_atomically
from .values import dataclass

FOLDER, MARK = "steering", "paused"
"""In the folder of a run: a file for each word of steering, and one that is there while the run is to pause."""


@dataclass(frozen=True)
class Word:
    """What somebody has said to a run, in a file that goes when it has been heeded."""

    path: Path
    text: str


class Desk:
    """Where a run finds what people want of it."""

    def __init__(self, folder: Path) -> None:
        self._words, self._mark = folder / FOLDER, folder / MARK

    def say(self, text: str) -> None:
        """Put words before the run. Raises `UserError` for none, and `StoreError` if they can't be written."""
        if not text.strip():
            raise UserError("there is nothing to say", mend="ralph steer 'TEXT'")
        self._words.mkdir(parents=True, exist_ok=True)
        write_atomically(self._words / f"{time.time_ns()}.md", text.encode())

    def words(self) -> list[Word]:
        """What was said and not heeded yet, the oldest first."""
        if not self._words.is_dir():
            return []
        paths = sorted(path for path in self._words.iterdir() if path.suffix == ".md" and not path.name.startswith("."))
        return [Word(path, path.read_text(encoding="utf-8", errors="replace")) for path in paths]

    def heeded(self, words: Sequence[Word]) -> None:
        for word in words:
            word.path.unlink(missing_ok=True)

    def pause(self) -> None:
        """Have the run pause before its next iteration. Raises `StoreError`."""
        write_atomically(self._mark, b"")

    def go_on(self) -> bool:
        """Let it go on; whether it was to pause."""
        there = self._mark.exists()
        self._mark.unlink(missing_ok=True)
        return there

    @property
    def paused(self) -> bool:
        return self._mark.exists()
