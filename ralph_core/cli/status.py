"""`ralph status`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ralph_core.prompt import checklist_of
from ralph_core.verdicts import ExitCode
from ralph_core.workspace import live

from .common import printable, say, say_json, session
from .display import clock, since, spend
from .runs import condition


def show(run: str | None, overrides: Mapping[str, Any], *, config: Path | None, as_json: bool) -> int:
    """Print the state of a run."""
    here = session(overrides, config=config)
    apart = here.worktrees()
    here, run, saved = here.find(run)
    state = saved.state
    holder = live(here.workspace, here.home)
    now = condition(state, [holder.run] if holder is not None else ())
    tasks = checklist_of(state.task)
    if as_json:
        listed = {**asdict(tasks), "left": tasks.left} if tasks is not None else None
        say_json({**asdict(state), "condition": now, "tasks": listed, "note": saved.note})
        return ExitCode.COMPLETED
    say(f"run         {run}, started {since(state.started)}")
    if run in apart:
        say(f"worktree    {state.workspace}, on branch ralph/{run}")
    say(f"condition   {now}{f': {printable(state.outcome.reason)}' if state.outcome else ''}")
    say(f"agent       {state.agent or 'none yet'}")
    say(f"iterations  {state.finished} of {state.limits.iterations}, {state.failures} failed")
    if tasks is not None:
        say(f"tasks       {tasks}")
    say(f"time        {clock(state.elapsed)} of {clock(state.limits.runtime)}")
    say(f"spent       {spend(state.spend)}")
    say(f"snapshot    {state.snapshot or 'none'}")
    if saved.note:
        say(f"note        {printable(saved.note)}")
    if now not in ("completed", "running"):
        say(f"go on with  ralph resume {run}")
    return ExitCode.COMPLETED
