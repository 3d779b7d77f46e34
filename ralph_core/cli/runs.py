"""`ralph runs`: every run of a workspace, in a line each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ralph_core.errors import StoreError
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
    holder = live(here.workspace, here.home)
    at_work = holder.run if holder is not None else None
    states = list(_states(here))
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


def condition(state: RunState, at_work: str | None) -> str:
    """In a word what has become of a run: its outcome, or that it is at work, or was cut short."""
    if state.run == at_work:
        return "running"
    return state.outcome.kind.value if state.outcome is not None else "cut short"


def _states(here: Session) -> list[RunState]:
    store, found = here.store(), []
    for run in store.runs():
        try:
            found.append(store.load(run).state)
        except StoreError:  # pruned meanwhile
            continue
    return found


def _cells(state: RunState, at_work: str | None) -> tuple[str, ...]:
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


def _object(state: RunState, at_work: str | None) -> dict[str, Any]:
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
