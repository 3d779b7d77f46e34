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

from .common import printable, say, say_json, session
from .display import since


def create(overrides: Mapping[str, Any], *, config: Path | None, output: Path | None, as_json: bool = False) -> int:
    """Write a backup and say what is in it; also while a run works."""
    here = session(overrides, config=config)
    path = output or Path(time.strftime("ralph-%Y%m%d-%H%M%S.tar.gz", time.gmtime()))
    made = backup.create(path.absolute(), here.workspace, here.home, here.store())
    _describe("backup", path, made, as_json=as_json)
    return ExitCode.COMPLETED


def verify(path: Path, *, as_json: bool = False) -> int:
    """Check every file of a backup. A damaged one is a `StoreError`: exit code 1."""
    found = backup.verify(path)
    _describe("whole", path, found, as_json=as_json)
    return ExitCode.COMPLETED


def restore(path: Path, overrides: Mapping[str, Any], *, config: Path | None, as_json: bool = False) -> int:
    """Put a backup back into the state directory and the repository of this workspace; not while a run works there."""
    here = session(overrides, config=config)
    lock = WorkspaceLock(here.workspace, here.home)
    lock.acquire(Holder(os.getpid(), "restore", 0.0))
    try:
        found = backup.restore(path, here.home, here.store())
    finally:
        lock.release()
    _, run, saved = here.find(None)
    snapshot, open_ = saved.state.snapshot, saved.state.outcome is None or saved.state.outcome.resumable
    _describe("restored", path, found, as_json=as_json, snapshot=snapshot, resume=run if open_ else None)
    if snapshot is not None and not as_json:
        say(f"its files  ralph checkpoints restore {snapshot}")
    if open_ and not as_json:
        say(f"go on with ralph resume {run}")
    return ExitCode.COMPLETED


def _describe(word: str, path: Path, found: backup.Backup, *, as_json: bool, **more: Any) -> None:
    if as_json:
        figures = {"created": found.created, "version": found.version, "workspace": found.workspace, "runs": found.runs}
        say_json({"file": path, **figures, "files": len(found.files), "bytes": found.size, **more})
        return
    say(f"{word:<10} {path}")
    say(f"made       {since(found.created)} by ralph {found.version}, of {printable(found.workspace)}")
    say(f"runs       {len(found.runs)}, the latest is {found.runs[0]}")
    say(f"files      {len(found.files)}, {found.size:,} bytes")
