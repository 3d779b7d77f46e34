"""`ralph checkpoints`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ralph_core.errors import UnknownName
from ralph_core.verdicts import ExitCode
from ralph_core.workspace import Holder, WorkspaceLock

from .common import printable, say, say_json, session, table
from .display import since
from .output import stdout

if TYPE_CHECKING:
    from ralph_core.contracts import Snapshot
    from ralph_core.session import Session


def show_list(run: str | None, overrides: Mapping[str, Any], *, config: Path | None, as_json: bool) -> int:
    """Print a row for each snapshot of a run."""
    here = session(overrides, config=config)
    here, run, _ = here.find(run)
    snapshots = here.store().history(run)
    if as_json:
        say_json([asdict(snapshot) for snapshot in snapshots])
        return ExitCode.COMPLETED
    rows = [
        (snapshot.ref, str(snapshot.iteration), since(snapshot.time), _count(snapshot.changed))
        for snapshot in snapshots
    ]
    for line in table([("SNAPSHOT", "ITERATION", "TIME", "CHANGED FILES"), *rows]):
        say(line)
    return ExitCode.COMPLETED


def show(ref: str, overrides: Mapping[str, Any], *, config: Path | None) -> int:
    """Print one snapshot and the files that it changed."""
    here = session(overrides, config=config)
    here, ref = _full(here, ref)
    snapshot = _snapshot(here, ref)
    brought = here.store().diff(ref)
    say(f"snapshot   {snapshot.ref}")
    say(f"taken      {since(snapshot.time)}, in iteration {snapshot.iteration}")
    for note in snapshot.notes:
        say(f"note       {printable(note)}")
    names = [line[6:] for line in brought.splitlines() if line.startswith((b"+++ b/", b"--- a/"))]
    for name in dict.fromkeys(names):
        say(f"changed    {printable(name.decode(errors='backslashreplace'))}")
    return ExitCode.COMPLETED


def diff(ref: str, other: str | None, overrides: Mapping[str, Any], *, config: Path | None) -> int:
    """Print a unified diff."""
    here = session(overrides, config=config)
    there, ref = _full(here, ref)
    changes = there.store().diff(ref, _full(here, other)[1] if other is not None else None)
    stdout().buffer.write(changes)
    return ExitCode.COMPLETED


def restore(ref: str, into: Path | None, overrides: Mapping[str, Any], *, config: Path | None) -> int:
    """Put files back; not while a run works in this workspace."""
    here = session(overrides, config=config)
    here, ref = _full(here, ref)
    ref = _snapshot(here, ref).ref
    lock = WorkspaceLock(here.workspace, here.home)
    lock.acquire(Holder(os.getpid(), "restore", 0.0))
    try:
        before = here.store().restore(ref, into.absolute() if into is not None else here.workspace)
    finally:
        lock.release()
    say(f"restored   {ref}")
    if before is not None:
        say(f"undo with  ralph checkpoints restore {before.ref}")
        for note in before.notes:
            say(f"note       {printable(note)}")
    return ExitCode.COMPLETED


def prune(keep: int, overrides: Mapping[str, Any], *, config: Path | None) -> int:
    """Forget old runs."""
    count = session(overrides, config=config).store().prune(keep)
    say(f"{count} run(s) forgotten")
    return ExitCode.COMPLETED


def _full(here: Session, ref: str) -> tuple[Session, str]:
    """The full ref, and the session of its run: a bare number means the latest run."""
    if "/" not in ref:
        here, run, _ = here.find(None)
        return here, f"refs/ralph/{run}/{ref.zfill(4)}"
    ref = ref if ref.startswith("refs/") else f"refs/ralph/{ref}"
    return here.of(ref.removeprefix("refs/ralph/").partition("/")[0]), ref


def _snapshot(here: Session, ref: str) -> Snapshot:
    """The snapshot that a full ref names. Raises `UnknownName`."""
    run = ref.removeprefix("refs/ralph/").partition("/")[0]
    found = {snapshot.ref: snapshot for snapshot in here.store().history(run)}
    if ref not in found:
        raise UnknownName("snapshot", ref, found)
    return found[ref]


def _count(changed: int | None) -> str:
    return "-" if changed is None else str(changed)
