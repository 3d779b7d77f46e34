"""The directory that a run works in: checks it, and holds it for one run at a time."""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import asdict
from pathlib import Path

from .errors import UserError, WorkspaceBusy
from .statefile import ensure_home, unwritable
from .values import dataclass

NOTE = "holder.json"
"""File of the state directory that says who holds the workspace; the lock itself is on the workspace."""


@dataclass(frozen=True)
class Holder:
    """Who holds a workspace."""

    pid: int
    run: str
    since: float


def check_workspace(workspace: Path, home: Path) -> None:
    """Raise `UserError` unless the workspace is a directory in which files can be made."""
    if not workspace.exists():
        raise UserError(f"workspace {workspace} does not exist", mend="see --workspace")
    if not workspace.is_dir():
        raise UserError(f"workspace {workspace} is not a directory", mend="see --workspace")
    if home.exists() and not home.is_dir():
        raise UserError(f"the state directory {home} is not a directory", mend="see RALPH_HOME")
    for place in (workspace, home):
        if place.exists() and _read_only(place):
            raise UserError(f"{place} is read-only", mend="make it writable, or choose another with --workspace")


def moved(path: str | Path, old: Path, now: Path) -> Path:
    """Where a file of the workspace is, when that has been moved from `old` to `now`; any other file stays where it was."""
    path = Path(path)
    return now / path.relative_to(old) if path.is_relative_to(old) else path


def _read_only(place: Path) -> bool:
    """Whether files can't be made there. Also root meets file systems that are mounted so."""
    return not os.access(place, os.W_OK | os.X_OK)


class WorkspaceLock:
    """Holds a workspace for one run. The kernel lets go of it when the process ends, however it ends."""

    def __init__(self, workspace: Path, home: Path) -> None:
        self._workspace, self._note = workspace, home / NOTE
        self._fd = -1

    def acquire(self, holder: Holder) -> None:
        """Raises `WorkspaceBusy`, which names the process that has it."""
        ensure_home(self._note.parent)
        fd = os.open(self._workspace, os.O_RDONLY | os.O_DIRECTORY)
        try:
            # On the directory itself: the same workspace is found busy under another state directory, too.
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            raise WorkspaceBusy(self._who(), mend="wait for it, or end it, or use another workspace") from None
        try:
            self._note.write_text(json.dumps(asdict(holder)))  # for people only: the lock is what holds
        except OSError as error:
            os.close(fd)
            raise unwritable(self._note, error) from error
        self._fd = fd

    def release(self) -> None:
        if self._fd >= 0:
            try:
                self._note.unlink(missing_ok=True)
            except OSError:  # an agent has locked the folder: whoever finds the note finds nobody alive
                pass
            os.close(self._fd)
            self._fd = -1

    def _who(self) -> str:
        holder = _holder(self._note)
        who = f"run {holder.run} (pid {holder.pid})" if holder is not None else "another run"
        return f"{who} holds the workspace {self._workspace}"


def is_held(workspace: Path, home: Path, run: str) -> bool:
    """Whether that run is being worked on right now."""
    holder = live(workspace, home)
    return holder is not None and holder.run == run


def live(workspace: Path, home: Path) -> Holder | None:
    """Who works on a run in the workspace right now; None if nobody does."""
    holder = _holder(home / NOTE)
    fd = os.open(workspace, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return holder
    finally:
        os.close(fd)
    return None


def _holder(note: Path) -> Holder | None:
    try:
        return Holder(**json.loads(note.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None
