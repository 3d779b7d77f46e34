"""`ralph clean`: what runs have left behind, and nothing that is at work or that holds somebody's work."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ralph_core.errors import StoreError, UserError, WorkspaceBusy
from ralph_core.verdicts import ExitCode
from ralph_core.workspace import Holder, WorkspaceLock, is_held
from ralph_core.worktrees import all_of, remove, work_in

from .common import printable, say, say_json, session

if TYPE_CHECKING:
    from ralph_core.session import Session
    from ralph_core.worktrees import Worktree

BEGUN = 3600.0
"""Seconds after which a run whose worktree was made must have begun."""


def tidy(keep: int, overrides: Mapping[str, Any], *, config: Path | None, dry_run: bool, as_json: bool = False) -> int:
    """Forget the ended runs but the last `keep`, in worktrees or not, and remove leftovers."""
    here = session(overrides, config=config)
    trees, apart = all_of(here.workspace, here.home, here.env), here.worktrees()
    ended = sorted(_ended(here, apart, trees), reverse=True)
    gone = ended[keep:]
    runs: list[dict[str, Any]] = []
    for run in gone:
        why = ""
        if run in apart:
            why = work_in(trees[run], here.env) if dry_run else _removed(apart[run], trees[run])
        runs.append({"run": run, "worktree": trees[run].path if run in apart else None, "kept": why or None})
    if not dry_run:
        here.store().prune(sum(run not in apart for run in ended[:keep]))
    left = list(_leftovers(here, {run for run in gone if run not in apart} if dry_run else set()))
    for path in [] if dry_run else left:
        _discard(path)
    if as_json:
        say_json({"dry_run": dry_run, "runs": runs, "files": left})
    else:
        _tell(runs, left, keep, "would go" if dry_run else "gone")
    return ExitCode.COMPLETED


def _tell(runs: Sequence[Mapping[str, Any]], left: Sequence[Path], keep: int, done: str) -> None:
    for each in runs:
        if each["kept"]:
            say(f"kept      run {each['run']}: {printable(each['kept'])} ({each['worktree']})")
        else:
            say(f"{done:<9} run {each['run']}{', with its worktree' if each['worktree'] else ''}")
    for path in left:
        say(f"{done:<9} {path}")
    if not runs:
        say(f"no more than {keep} runs have ended")


def _ended(here: Session, apart: Mapping[str, Session], trees: Mapping[str, Worktree]) -> Iterator[str]:
    """The runs that have an outcome, and at which nobody is at work."""
    store = here.store()
    for run in {*store.runs(), *apart}:
        there = apart.get(run, here)
        try:
            state = (there.store() if run in apart else store).load(run).state
        except UserError:  # a worktree of a run that did not come to begin
            if run in trees and time.time() - trees[run].path.stat().st_mtime > BEGUN:
                yield run
            continue
        except StoreError:  # no state that loads; `ralph status` says why
            continue
        if state.outcome is not None and not is_held(there.workspace, there.home, run):
            yield run


def _removed(there: Session, tree: Worktree) -> str:
    """Remove the worktree of a run and forget its snapshots; why not, or ""."""
    lock = WorkspaceLock(there.workspace, there.home)
    try:
        lock.acquire(Holder(os.getpid(), "clean", time.time()))
    except WorkspaceBusy as busy:  # it was resumed this moment
        return str(busy)
    try:
        why = work_in(tree, there.env)
        if not why:
            there.store().prune(0)
            why = remove(tree, there.env)
        return why
    finally:
        lock.release()


def _leftovers(here: Session, forgotten: set[str]) -> Iterator[Path]:
    """What stays when a run is forgotten: its figures for exporters; and halves of folders of which the removal was cut short."""
    runs = here.home / "runs"
    yield from sorted(runs.glob(".forgotten-*"))
    for path in sorted((here.home / "metrics").glob("state_*.json")):
        run = path.stem.removeprefix("state_")
        if run in forgotten or not (runs / run).is_dir():
            yield path


def _discard(path: Path) -> None:
    try:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"{path} can't be removed: {error.strerror}") from error
