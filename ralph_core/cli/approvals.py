"""`ralph approvals`: what waits for a person, and the person's answer."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ralph_core.approvals import DENIED, GRANTED, Approval, Book, NotPending, approval_path, brief, decide
from ralph_core.errors import UserError
from ralph_core.processes.survivors import MARKER
from ralph_core.verdicts import ExitCode
from ralph_core.workspace import is_held

from .common import printable, say, say_json, session, table
from .display import since

if TYPE_CHECKING:
    from ralph_core.session import Session


def show_list(run: str | None, overrides: Mapping[str, Any], *, config: Path | None, as_json: bool) -> int:
    """Print the approvals of a run, those that wait first."""
    here = session(overrides, config=config)
    here, run, _ = here.find(run)
    live = is_held(here.workspace, here.home, run)
    found = sorted(Book(here.home / "runs" / run).all(), key=lambda each: not (live and each.open))
    if as_json:
        say_json([{**asdict(each), "state": _state(each, live=live)} for each in found])
        return ExitCode.COMPLETED
    rows = [(each.id, _state(each, live=live), since(each.opened), each.tool, _about(each)) for each in found]
    for line in table([("APPROVAL", "STATE", "TIME", "TOOL", "ARGUMENTS: REASON"), *rows]):
        say(line)
    return ExitCode.COMPLETED


def answer(name: str, overrides: Mapping[str, Any], *, config: Path | None, grant: bool, always: bool = False) -> int:
    """Grant or deny an approval. Raises `NotPending`, exit code 2, if it does not wait for that."""
    if os.environ.get(MARKER):
        raise UserError("an agent can't answer for a person", mend="use a terminal that a run has not started")
    here = session(overrides, config=config)
    here = next((each for each in here.worktrees().values() if _has(each, name)), here)
    path = approval_path(here.home, name)
    if not is_held(here.workspace, here.home, path.parent.parent.name):
        raise NotPending(f"approval {name} is not pending: nothing works on its run", mend="see `ralph approvals list`")
    approval = decide(path, GRANTED if grant else DENIED, always=always, by="ralph approvals")
    say(f"{approval.state}    {approval.tool}({printable(brief(approval.arguments))})")
    return ExitCode.COMPLETED


def _has(here: Session, name: str) -> bool:
    try:
        return approval_path(here.home, name).is_file()
    except UserError:
        return False


def _state(approval: Approval, *, live: bool) -> str:
    return "lapsed" if approval.state == "pending" and not (live and approval.open) else approval.state


def _about(approval: Approval) -> str:
    return printable(f"{brief(approval.arguments, limit=80)}: {approval.reason}")
