"""What the processes of a run have written: as it is while they work, without secrets once it is kept.

The files grow in `output/raw`, which nobody else may read; when a process has ended, the secrets in its files are
overwritten, and the files move to `output`. So whatever is in `output/raw` has still to be gone through, after a kill too.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from .redaction import Redactor


class Transcripts:
    """The transcripts in the folder of one run."""

    def __init__(self, folder: Path, redactor: Redactor) -> None:
        self.folder, self._redactor = folder / "output", redactor
        self._raw = self.folder / "raw"

    def raw(self, name: str) -> Path:
        """Where a process may write what is to be kept under this name."""
        return self._raw / name

    async def keep(self, name: str) -> None:
        """Keep what a process that has ended has written under this name, and what it wrote to standard error."""
        await asyncio.to_thread(self._keep, [self._raw / name, self._raw / f"{name}.err"])

    def recover(self) -> int:
        """Keep what a Ralph that was killed has left behind; returns how many files there were."""
        left = [path for path in self._raw.glob("*") if path.is_file()]
        self._keep(left)
        return len(left)

    def _keep(self, paths: list[Path]) -> None:
        for path in paths:
            try:
                self._redactor.file(path)
                path.replace(self.folder / path.name)
            except FileNotFoundError:  # an agent's `git clean -fdx` took it away
                pass
            except OSError:  # what can't be gone through is not kept
                path.unlink(missing_ok=True)
        try:
            self._raw.rmdir()
        except OSError:  # there is more in it, or it is not there
            pass
