"""`--events`: what happens in a run, for programs: one JSON object a line on standard output."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ralph_core.records import fields_of

from .common import say

if TYPE_CHECKING:
    from ralph_core.ground import Account
    from ralph_core.records import AuditRecord
    from ralph_core.state import RunState

CHAIN = ("prev_hash", "hash")
"""What a record gets only when it is written to the account."""


def tell(record: AuditRecord, _state: RunState) -> None:
    """An observer of a run: prints each record, as the account has it but for its place in the chain."""
    _say({name: value for name, value in fields_of(record).items() if name not in CHAIN})


def tell_account(account: Account) -> None:
    """The last line: an object of type `account`, with what the run came to. What is not known is null."""
    state, outcome = account.state, account.outcome
    _say(
        {
            "type": "account",
            "run": state.run,
            "outcome": outcome.kind.value,
            "reason": outcome.reason,
            "by": outcome.by,
            "exit_code": int(outcome.exit_code),
            "resumable": outcome.resumable,
            "iterations": state.finished,
            "failures": state.failures,
            "seconds": round(state.elapsed, 3),
            "cost": state.spend.cost,
            "cost_estimated": state.spend.estimated,
            "tokens": state.spend.tokens.total if state.spend.tokens is not None else None,
            "changed_files": account.changed_files,
            "folder": str(account.folder),
            "sinks": [asdict(sink) for sink in account.sinks],
            "notes": list(account.notes),
        }
    )


def _say(value: dict[str, Any]) -> None:
    say(json.dumps(value, default=str))
