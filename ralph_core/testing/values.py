"""States and records that hold what is hard to keep: every field set, all of Unicode, a megabyte, the unknown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ralph_core.events import FailureKind, Tokens
from ralph_core.records import FIRST, AuditRecord, Severity, chained
from ralph_core.state import Attempt, GateResult, Limits, Progress, Quota, RunState, Spend, Task
from ralph_core.verdicts import Outcome, OutcomeKind

NOON = 1_763_726_400.0
"""Seconds since the epoch: 2025-11-21, 12:00 UTC."""
HARD = "漢字 🎉 \x00\x01\x1b[31m\x7f \r\n\t\u2028 \"quoted\" 'too' \\ </script> é"
"""Characters that files, databases and protocols stumble over."""


def run_id(number: int) -> str:
    """The id of a run; a larger number is a later one."""
    return f"20251121-{12 + number // 60:02d}{number % 60:02d}00-{number:06x}"


def fresh_state(number: int = 0, workspace: str = "/work") -> RunState:
    """A run that has not begun."""
    return RunState(
        run=run_id(number),
        workspace=workspace,
        agent="acme",
        task=Task("0" * 64, text="Do it."),
        started=NOON,
        now=NOON,
    )


def rich_state(number: int = 0, step: int = 7) -> RunState:
    """A run in the middle of its work, with every field set; `step` tells one such state from another."""
    spend = Spend(Tokens(1000 + step, 20, 3000, 40), 1.25 + step / 1000, unmetered=1, estimated=0.1)
    past = Attempt(
        iteration=1,
        number=1,
        agent="acme",
        started=NOON,
        ended=NOON + 60.5,
        result="failed",
        failure=FailureKind.OVERLOADED,
        message=HARD,
        spend=Spend(),
        session="s-1",
        model="acme-large",
        pid=12345,
        pid_started="boot:99",
        output="output/0001.out",
        silent=0.25,
        worked=59.75,
        retry_after=30.0,
    )
    return replace(
        fresh_state(number),
        now=NOON + 100.125 + step,
        limits=Limits(iterations=7, cost=2.5, iterations_per_hour=12, no_progress=None, unmetered=False, actions=4),
        promise="ALL_DONE",
        given={"agent": "acme", "nested": {"list": [1, 2.5, None, True, HARD]}, "no_plugin": []},
        iteration=step,
        finished=max(0, step - 1),
        attempts=step + 1,
        elapsed=100.125 + step,
        failures=2,
        consecutive_failures=1,
        retries=1,
        sittings=3,
        spend=spend,
        booked=Spend(Tokens(1), None),
        agents=("acme", "other"),
        quotas=(Quota("acme", "day", "rejected", 0.99, None, NOON), Quota("acme", "", "allowed", None, NOON + 5, NOON)),
        progress=Progress(2, None, HARD),
        starts=(NOON, NOON + 1.5),
        current=replace(
            past, iteration=step, number=2, ended=None, result=None, failure=None, retry_after=None, actions=1
        ),
        recent=(past, replace(past, number=2, result="finished", failure=None, claimed=True)),
        judged=1,
        gates=(GateResult("pytest -q", passed=False, code=1, why="exit code 1", tail=HARD, checked_by="must_match"),),
        confirmations=1,
        snapshot=None,
        snapshots=2,
        audit_seq=17,
        audit_hash="ab" * 32,
    )


def ended_state(number: int = 0) -> RunState:
    """A run that is over."""
    return replace(rich_state(number), current=None, outcome=Outcome(OutcomeKind.COMPLETED, HARD, "the agent's claim"))


def unknown_state(number: int = 0) -> RunState:
    """A run whose agent reports no usage: what it has spent is unknown, which is not zero."""
    return replace(rich_state(number), spend=Spend(unmetered=5), booked=None, quotas=(), recent=(), gates=())


def long_state(number: int = 0) -> RunState:
    """A run that has gone on for long: all figures are large."""
    spend = Spend(Tokens(10**9, 10**8, 10**10, 10**9), 12_345.678, unmetered=3, estimated=1.0)
    rich = rich_state(number, step=100_000)
    assert rich.current is not None
    many = tuple(replace(rich_state().recent[0], number=each, iteration=each) for each in range(1, 21))
    return replace(
        rich,
        spend=spend,
        current=replace(rich.current, actions=9),
        recent=many,
        elapsed=1e7,
        failures=10_000,
        consecutive_failures=500,
    )


def records(count: int, *, run: int = 0, after: int = 0, day: int = 21, before: str = FIRST) -> list[AuditRecord]:
    """Records of one run, in their chain, that go on after the one of that number."""
    made: list[AuditRecord] = []
    for number in range(after + 1, after + count + 1):
        record = AuditRecord(
            seq=number,
            id=f"{run_id(run)}-{number}",
            time=f"2025-11-{day:02d}T12:00:{number % 60:02d}.{number:06d}Z",
            run=run_id(run),
            iteration=number // 3,
            type=("iteration.started", "tool.finished", "tool.failed")[number % 3],
            severity=(Severity.INFO, Severity.DEBUG, Severity.WARNING)[number % 3],
            actor="acme",
            plugin="acme",
            capability="" if number % 3 == 0 else "tool:Bash",
            result=("", "success", "failure")[number % 3],
            message=f"record {number}",
            data={"number": number, "nested": {"none": None, "list": [1.5, True]}},
        )
        made.append(chained(record, made[-1].hash if made else before))
    return made


def hard_records(run: int = 0) -> Sequence[AuditRecord]:
    """Records with content that is hard to keep: control characters, other scripts, half a surrogate pair, a megabyte."""
    texts = (HARD, "", "x" * 1_000_000, "line\nbreak\r\nand \ttab", "half a pair: \udcff", '{"json": ["inside"]}')
    made: list[AuditRecord] = []
    for record, text in zip(records(len(texts), run=run), texts, strict=True):
        hard = replace(record, message=text, data={"text": text, text[:50]: [text[:100]]}, usage={"cost_usd": None})
        made.append(chained(hard, made[-1].hash if made else FIRST))
    return made
