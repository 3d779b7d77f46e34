"""`ralph backup`."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ralph_core import backup
from ralph_core.verdicts import ExitCode
from ralph_core.workspace import Holder, WorkspaceLock

from .common import printable, say, session
from .display import since


def create(overrides: Mapping[str, Any], *, config: Path | None, output: Path | None) -> int:
    """Write a backup and say what is in it; also while a run works."""
    here = session(overrides, config=config)
    path = output or Path(time.strftime("ralph-%Y%m%d-%H%M%S.tar.gz", time.gmtime()))
    made = backup.create(path.absolute(), here.workspace, here.home, here.store())
    say(f"backup     {path}")
    _describe(made)
    return ExitCode.COMPLETED


def verify(path: Path) -> int:
    """Check every file of a backup. A damaged one is a `StoreError`: exit code 1."""
    found = backup.verify(path)
    say(f"whole      {path}")
    _describe(found)
    return ExitCode.COMPLETED


def restore(path: Path, overrides: Mapping[str, Any], *, config: Path | None) -> int:
    """Put a backup back into the state directory and the repository of this workspace; not while a run works there."""
    here = session(overrides, config=config)
    lock = WorkspaceLock(here.workspace, here.home)
    lock.acquire(Holder(os.getpid(), "restore", 0.0))
    try:
        found = backup.restore(path, here.home, here.store())
    finally:
        lock.release()
    say(f"restored   {path}")
    _describe(found)
    _, run, saved = here.find(None)
    if saved.state.snapshot is not None:
        say(f"its files  ralph checkpoints restore {saved.state.snapshot}")
    if saved.state.outcome is None or saved.state.outcome.resumable:
        say(f"go on with ralph resume {run}")
    return ExitCode.COMPLETED


def _describe(found: backup.Backup) -> None:
    say(f"made       {since(found.created)} by ralph {found.version}, of {printable(found.workspace)}")
    say(f"runs       {len(found.runs)}, the latest is {found.runs[0]}")
    say(f"files      {len(found.files)}, {found.size:,} bytes")
