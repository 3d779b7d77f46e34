"""`ralph runs`: every run of a workspace, in a line each."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ralph_core.errors import StoreError, UserError
from ralph_core.verdicts import ExitCode
from ralph_core.workspace import live

from .common import printable, say, say_json, session, table
from .display import clock, since, spend

if TYPE_CHECKING:
    from ralph_core.session import Session
    from ralph_core.state import RunState

WORDS = 50
"""Characters of a task that are shown."""


def show(overrides: Mapping[str, Any], *, config: Path | None, as_json: bool) -> int:
    """Print the runs of the workspace, the newest first."""
    here = session(overrides, config=config)
    at_work = runs_at_work(here)
    states = states_in(here)
    if as_json:
        say_json([_object(state, at_work) for state in states])
        return ExitCode.COMPLETED
    if not states:
        say(f"there is no run in {here.workspace} yet")
        return ExitCode.COMPLETED
    heading = ("RUN", "STARTED", "CONDITION", "ITERATIONS", "TIME", "SPENT", "TASK")
    for line in table([heading, *(_cells(state, at_work) for state in states)]):
        say(line)
    return ExitCode.COMPLETED


def runs_at_work(here: Session) -> set[str]:
    """The runs that are at work in the workspace and in its worktrees."""
    return {holder.run for each in (here, *here.worktrees().values()) if (holder := live(each.workspace, each.home))}


def condition(state: RunState, at_work: Collection[str]) -> str:
    """In a word what has become of a run: its outcome, or that it is at work, or was cut short."""
    if state.run in at_work:
        return "running"
    return state.outcome.kind.value if state.outcome is not None else "cut short"


def states_in(here: Session) -> list[RunState]:
    """The states of the runs here and in worktrees, the newest first."""
    store, apart, found = here.store(), here.worktrees(), []
    for run in sorted({*store.runs(), *apart}, reverse=True):
        try:
            found.append((apart[run].store() if run in apart else store).load(run).state)
        except (StoreError, UserError):  # pruned meanwhile, or not begun yet
            continue
    return found


def _cells(state: RunState, at_work: Collection[str]) -> tuple[str, ...]:
    return (
        state.run,
        since(state.started),
        condition(state, at_work),
        f"{state.finished} of {state.limits.iterations}",
        clock(state.elapsed),
        spend(state.spend),
        _task(state),
    )


def _task(state: RunState) -> str:
    words = " ".join((state.task.text or state.task.path or "").split())
    return printable(words[:WORDS] + ("…" if len(words) > WORDS else ""))


def _object(state: RunState, at_work: Collection[str]) -> dict[str, Any]:
    tokens = state.spend.tokens
    return {
        "run": state.run,
        "started": state.started,
        "condition": condition(state, at_work),
        "reason": state.outcome.reason if state.outcome is not None else "",
        "agent": state.agent,
        "iterations": state.finished,
        "failures": state.failures,
        "elapsed": state.elapsed,
        "tokens": tokens.total if tokens is not None else None,
        "cost_usd": state.spend.cost,
        "task": state.task.text or state.task.path,
    }
