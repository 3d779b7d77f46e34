"""`ralph status`."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ralph_core.prompt import checklist_of
from ralph_core.state import RunState, Spend
from ralph_core.steering import Desk
from ralph_core.verdicts import ExitCode

from .common import printable, say, say_json, session
from .display import clock, since, spend
from .runs import condition, runs_at_work, states_in


def show(run: str | None, overrides: Mapping[str, Any], *, config: Path | None, as_json: bool) -> int:
    """Print the state of a run; of the latest one without `run`, and then what has become of all runs."""
    top = session(overrides, config=config)
    at_work = runs_at_work(top)
    states = states_in(top) if run is None else []
    here, run, saved = top.find(run)
    state = saved.state
    now = condition(state, at_work)
    paused = now == "running" and Desk(here.home / "runs" / run).paused
    elapsed = _elapsed(state, moving=now == "running" and not (paused and state.current is None))
    tasks = checklist_of(state.task)
    if as_json:
        listed = {**asdict(tasks), "left": tasks.left} if tasks is not None else None
        known = {"condition": now, "paused": paused, "tasks": listed, "note": saved.note}
        say_json(
            {**asdict(state), "elapsed": elapsed, **known, **({"all": _figures(states, at_work)} if states else {})}
        )
        return ExitCode.COMPLETED
    say(f"run         {run}, started {since(state.started)}")
    if here is not top:
        say(f"worktree    {state.workspace}, on branch ralph/{run}")
    waits = ", paused" if paused and state.current is None else ", pauses after this iteration" if paused else ""
    say(f"condition   {now}{waits}{f': {printable(state.outcome.reason)}' if state.outcome else ''}")
    if now == "running" and (current := state.current) is not None:
        say(f"now         iteration {current.iteration}, {current.agent} at work since {since(current.started)}")
    say(f"agent       {state.agent or 'none yet'}")
    say(f"iterations  {state.finished} of {state.limits.iterations}, {state.failures} failed")
    if tasks is not None:
        say(f"tasks       {tasks}")
    say(f"time        {clock(elapsed)} of {clock(state.limits.runtime)}")
    say(f"spent       {spend(state.spend)}")
    say(f"snapshot    {state.snapshot or 'none'}")
    if saved.note:
        say(f"note        {printable(saved.note)}")
    if now not in ("completed", "running"):
        say(f"go on with  ralph resume {run}")
    if len(states) > 1:
        counted = ", ".join(f"{count} {name}" for name, count in _conditions(states, at_work).items())
        say(f"all runs    {len(states)} ({counted}), {spend(_spent(states))}; `ralph runs` lists them")
    return ExitCode.COMPLETED


def _elapsed(state: RunState, *, moving: bool) -> float:
    """Seconds that the run has been worked on; its state is not saved all the time."""
    return state.elapsed + max(0.0, time.time() - state.now) if moving and state.now else state.elapsed


def _figures(states: Sequence[RunState], at_work: Collection[str]) -> dict[str, Any]:
    """What has become of all runs, and what they have used, for programs."""
    spent = _spent(states)
    tokens = spent.tokens.total if spent.tokens is not None else None
    conditions = _conditions(states, at_work)
    return {"runs": len(states), "conditions": conditions, "tokens": tokens, "cost_usd": spent.cost}


def _conditions(states: Sequence[RunState], at_work: Collection[str]) -> dict[str, int]:
    return dict(Counter(condition(state, at_work) for state in states))


def _spent(states: Sequence[RunState]) -> Spend:
    return sum((state.spend for state in states), Spend())
