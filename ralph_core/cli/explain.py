"""`ralph explain` and `ralph replay`: why a run went as it did, and how it would have gone under other limits."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ralph_core.errors import UserError
from ralph_core.moments import read_moments
from ralph_core.policies import Policies, Ruling
from ralph_core.records import AuditFilter, AuditRecord, fields_of
from ralph_core.state import RunState
from ralph_core.verdicts import Ask, Deny, ExitCode, Moment, Stop

from .common import printable, say, say_json, session
from .display import clock, spend

if TYPE_CHECKING:
    from ralph_core.session import Session

TOLD = (
    "verdict",
    "gate.finished",
    "gate.failed",
    "wait.started",
    "agent.failed",
    "agent.abandoned",
    "note",
    "run.finished",
)
"""Types of records that explain how a run went."""


def explain(run: str | None, overrides: Mapping[str, Any], *, config: Path | None, as_json: bool) -> int:
    """Print every verdict of a run with its time, policy, figures and reason, and what else decided how it went."""
    here = session(overrides, config=config)
    here, run, _ = here.find(run)
    records = [record for record in here.account_of(AuditFilter(run=run)) if record.type in TOLD]
    if as_json:
        say_json([fields_of(record) for record in records])
        return ExitCode.COMPLETED
    for record in records:
        say(f"{record.time}  {_iteration(record)}  {record.actor:<12}  {_words(record)}")
    if not records:
        say("nothing was decided in this run, or its account is not kept in a sink that can be asked")
    return ExitCode.COMPLETED


def replay(run: str | None, settings: Sequence[str], overrides: Mapping[str, Any], *, config: Path | None) -> int:
    """Ask the policies as they would be with other settings about the moments of a run; exit 3 if they would stop it."""
    changed = dict(_assignment(item) for item in settings)
    here = session({**overrides, **changed}, config=config)
    here, run, _ = here.find(run)
    moments = read_moments(here.home / "runs" / run)
    count, state, ruling, denied = asyncio.run(_first_stop(here, moments))
    if state is None:
        raise UserError(f"run {run} has no recorded moments", mend="only runs of this version of Ralph have")
    if ruling is None:
        say(f"{count} moments: nothing would have stopped it. It came to {_figures(state)}.")
        for reason, times in denied.items():
            say(f"Denied {times} times on the way by {printable(reason)}.")
        return ExitCode.COMPLETED
    reason = getattr(ruling.verdict, "reason", "")
    say(f"Policy {ruling.policy} would have stopped it in iteration {state.iteration}: {printable(reason)}.")
    say(f"By then it had come to {_figures(state)}.")
    return ExitCode.STOPPED


async def _first_stop(
    here: Session, moments: Iterable[tuple[Moment, RunState]]
) -> tuple[int, RunState | None, Ruling | None, Counter[str]]:
    """How many moments were judged, the state of the last one, the ruling that would have ended the run there, and what
    would have been denied or asked about on the way: that alone ends no run.
    """
    policies = Policies(here.policies(), here.plugins, watch=lambda _calls: None)
    count, state, denied = 0, None, Counter[str]()
    try:
        for moment, recorded in moments:
            count, state = count + 1, replace(recorded, limits=here.settings.limits)
            for ruling in await policies.ask(moment, state):
                if isinstance(ruling.verdict, Stop):
                    return count, state, ruling, denied
                if isinstance(ruling.verdict, (Ask, Deny)):
                    denied[f"{ruling.policy}: {ruling.verdict.reason}"] += 1
    finally:
        policies.close()
    return count, state, None, denied


def _assignment(item: str) -> tuple[str, str]:
    name, equals, value = item.partition("=")
    if not equals:
        raise UserError(f"--set {item}: no value", mend="write --set NAME=VALUE, for example --set max_iterations=5")
    return name.strip(), value.strip()


def _iteration(record: AuditRecord) -> str:
    return f"iteration {record.iteration}" if record.iteration else "run"


def _words(record: AuditRecord) -> str:
    data = record.data
    verdict = f"{data['verdict']} at {data['moment']}: " if record.type == "verdict" else ""
    figures = data.get("figures")
    after = f"  [{', '.join(f'{name} {value}' for name, value in figures.items())}]" if figures else ""
    return f"{verdict}{printable(record.message)}{after}"


def _figures(state: RunState) -> str:
    return f"{state.finished} finished iterations, {clock(state.elapsed)}, {spend(state.spend)}"
