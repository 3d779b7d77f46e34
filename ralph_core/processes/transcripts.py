"""What the processes of a run have written: as it is while they work, without secrets once it is kept.

The files grow in `output/raw`, which nobody else may read; when a process has ended, the secrets in its files are
overwritten, and the files move to `output`. So whatever is in `output/raw` has still to be gone through, after a kill too.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from ralph_core.redaction import Redactor

PATIENCE = 2.0
"""Seconds for which transcripts are gone through when Ralph is to end at once; the rest is left for when the run goes on."""


class Transcripts:
    """The transcripts in the folder of one run. `hurry`: whether Ralph is to end at once.

    `left` are those that have not been gone through for that reason.
    """

    def __init__(self, folder: Path, redactor: Redactor, hurry: Callable[[], bool] = lambda: False) -> None:
        self.folder, self._redactor, self._hurry = folder / "output", redactor, hurry
        self._raw = self.folder / "raw"
        self._until: float | None = None
        self.left: list[Path] = []

    def raw(self, name: str) -> Path:
        """Where a process may write what is to be kept under this name."""
        return self._raw / name

    def keep(self, name: str) -> None:
        """Keep what a process that has ended has written under this name, and what it wrote to standard error.

        A GB takes a quarter of a minute, so it is called in a thread.
        """
        self._keep(self._files(name))

    def _files(self, name: str) -> list[Path]:
        return [self._raw / name, self._raw / f"{name}.err"]

    def size(self, name: str, *more: Path) -> int:
        """Bytes that `keep` has to go through, with those of other files."""
        found = 0
        for path in (*self._files(name), *more):
            try:
                found += path.stat().st_size
            except OSError:  # it is not there, or out of reach
                pass
        return found

    def recover(self) -> int:
        """Keep what a Ralph that was killed has left behind; returns how many files there were."""
        left = [path for path in self._raw.glob("*") if path.is_file()]
        self._keep(left)
        return len(left)

    def _late(self) -> bool:
        if not self._hurry():
            return False
        if self._until is None:
            self._until = time.monotonic() + PATIENCE
        return time.monotonic() > self._until

    def _keep(self, paths: list[Path]) -> None:
        for path in paths:
            try:
                self._redactor.file(path, self._late)
                path.replace(self.folder / path.name)
            except FileNotFoundError:  # an agent's `git clean -fdx` took it away
                pass
            except TimeoutError:
                self.left.append(path)
            except OSError:  # what can't be gone through is not kept
                self._remove(path)

    def _remove(self, path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
        except OSError:  # the agent has locked the folder: another try when the run goes on
            self.left.append(path)

    def close(self) -> None:
        """Remove the folder of what is not kept yet, unless something is left in it."""
        try:
            self._raw.rmdir()
        except OSError:  # there is, or it is not there
            pass
