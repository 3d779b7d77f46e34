"""`ralph stop`, `pause` and `steer`: what a person may want of a run while it works."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ralph_core.errors import UserError
from ralph_core.steering import Desk
from ralph_core.verdicts import ExitCode
from ralph_core.workspace import is_held, live

from .common import say, say_json, session

if TYPE_CHECKING:
    from ralph_core.session import Session
    from ralph_core.workspace import Holder

LOOK = 0.1
"""Seconds between two looks whether a run has ended."""


def stop(overrides: Mapping[str, Any], *, config: Path | None, now: bool, wait: bool, as_json: bool = False) -> int:
    """Ask the live run to end: after the iteration in hand, or now."""
    here = session(overrides, config=config)
    here, holder = _live(here)
    try:
        os.kill(holder.pid, signal.SIGTERM if now else signal.SIGINT)
    except PermissionError:
        raise UserError(f"run {holder.run} belongs to another user (pid {holder.pid})") from None
    except ProcessLookupError:  # it ended by itself just now
        pass
    when = "is asked to end now" if now else "ends after the iteration in hand"
    if not as_json:
        say(f"run {holder.run} {when}; `ralph resume {holder.run}` goes on with it")
    while wait and is_held(here.workspace, here.home, holder.run):
        time.sleep(LOOK)
    if as_json:
        ended = not is_held(here.workspace, here.home, holder.run)
        say_json({"run": holder.run, "workspace": here.workspace, "now": now, "ended": ended})
    return ExitCode.COMPLETED


def pause(overrides: Mapping[str, Any], *, config: Path | None, off: bool, as_json: bool = False) -> int:
    """Have the live run pause before its next iteration, or go on."""
    here = session(overrides, config=config)
    here, holder = _live(here)
    run = holder.run
    desk = Desk(here.home / "runs" / run)
    before = desk.paused
    if off:
        desk.go_on()
        words = "goes on" if before else "was not to pause"
    else:
        desk.pause()
        words = "pauses after the iteration in hand; `ralph pause --off` lets it go on"
    if as_json:
        say_json({"run": run, "workspace": here.workspace, "paused": not off, "before": before})
    else:
        say(f"run {run} {words}")
    return ExitCode.COMPLETED


def steer(
    text: str, run: str | None, overrides: Mapping[str, Any], *, config: Path | None, as_json: bool = False
) -> int:
    """Put words into the next prompt of a run: the live one, or else the latest."""
    here = session(overrides, config=config)
    holder = live(here.workspace, here.home)
    if run is None and holder is not None:
        run = holder.run
    here, run, saved = here.find(run)
    holder = live(here.workspace, here.home)
    if saved.state.outcome is not None and not saved.state.outcome.resumable:
        raise UserError(f"run {run} is complete", mend="start another one with `ralph run`")
    Desk(here.home / "runs" / run).say(sys.stdin.read() if text == "-" else text)
    working = holder is not None and holder.run == run
    when = "" if working else f", once it goes on (`ralph resume {run}`)"
    if as_json:
        say_json({"run": run, "workspace": here.workspace, "live": working})
    else:
        say(f"run {run} is told in its next iteration{when}")
    return ExitCode.COMPLETED


def _live(here: Session) -> tuple[Session, Holder]:
    """The run that is at work: the workspace's own, or else the only one in its worktrees. Raises `UserError`."""
    places = (here, *here.worktrees().values())
    found = [(each, holder) for each in places if (holder := live(each.workspace, each.home)) is not None]
    if not found:
        raise UserError(f"no run is at work in {here.workspace}", mend="`ralph runs` lists those that were")
    if len(found) > 1 and found[0][0] is not here:
        which = ", ".join(str(each.workspace) for each, _ in found)
        raise UserError(f"several runs are at work, in {which}", mend="say which with --workspace")
    return found[0]
