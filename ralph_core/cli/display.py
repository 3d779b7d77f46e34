"""What a person sees: a line for each thing that happens, and the account at the end."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from ralph_core.prompt import checklist_of

from .common import printable, say

if TYPE_CHECKING:
    from ralph_core.ground import Account
    from ralph_core.records import AuditRecord
    from ralph_core.state import RunState, Spend

    from .terminal import Terminal

MARKS = {"completed": "✓", "failed": "✗", "stopped": "■", "waiting": "…", "interrupted": "■", "terminated": "■"}
SHOWN_FILES = 10


class Display:
    """An observer of a run: prints progress to standard error, so that standard output is the account alone."""

    def __init__(self, *, verbose: bool, stream: TextIO | None = None) -> None:
        self._verbose = verbose
        self._stream = stream or sys.stderr
        self._terminal: Terminal | None = None

    def __call__(self, record: AuditRecord, state: RunState) -> None:
        line = self._line(record, state)
        if line is not None:
            self._print(line)
        if record.type == "approval.started" and self.interactive:
            from .terminal import Terminal  # only where somebody is asked

            self._terminal = self._terminal or Terminal()
            self._terminal.ask(Path(str(record.data["file"])))

    def _print(self, line: str) -> None:
        say(line, self._stream)

    def close(self) -> None:
        """Nothing more is shown."""

    @property
    def interactive(self) -> bool:
        """Whether there is a person who can be asked, at the terminal that this is shown on."""
        return self._stream.isatty() and sys.stdin is not None and sys.stdin.isatty()

    def _line(self, record: AuditRecord, state: RunState) -> str | None:
        message = printable(record.message)
        kind = record.type
        if kind == "iteration.started":
            tasks = checklist_of(state.task)
            return (
                f"─── iteration {record.iteration} of {state.limits.iterations} · {clock(state.elapsed)} of "
                f"{clock(state.limits.runtime)} · {spend(state.spend)}"
                + (f" · {tasks.left} of {tasks.total} tasks left" if tasks is not None else "")
            )
        if kind == "agent.started":
            return f"  {record.actor} at work"
        if kind == "agent.text" and self._verbose:
            return f"  │ {message}"
        if kind == "tool.started":
            return f"  ⚙ {message} {brief(record.data.get('input'))}".rstrip()
        if kind in ("tool.failed", "tool.abandoned"):
            return f"  ⚙ {kind.removeprefix('tool.')}: {message}"
        if kind in ("agent.finished", "agent.failed", "agent.abandoned"):
            mark = "✓" if kind == "agent.finished" else "✗"
            took = clock((record.duration_ms or 0) / 1000)
            return f"  {mark} {message or kind.removeprefix('agent.')} ({took}, {spend(state.spend)} so far)"
        if kind == "approval.started":
            return f"  ? {message}\n    (or: ralph approvals grant|deny {record.data.get('approval')})"
        if kind in ("approval.finished", "approval.abandoned"):
            return f"  ? {message or 'not answered'}"
        if kind == "wait.started":
            seconds = record.data.get("seconds")
            return f"  … waiting{f' {seconds} s' if seconds is not None else ''}: {message}"
        if kind == "steered":
            return f"  » {message}"
        if kind == "verdict":
            return f"  ! {record.actor}: {message}"
        if kind in ("gate.finished", "gate.failed"):
            return f"  {'✓' if kind == 'gate.finished' else '✗'} gate {message}"
        if kind == "note":
            return f"  note: {message}"
        return None


def account_lines(account: Account) -> Iterator[str]:
    """The account of a run in plain lines."""
    state, outcome = account.state, account.outcome
    yield ""
    yield f"{MARKS[outcome.kind.value]} {outcome.kind.value}: {printable(outcome.reason)}" + (
        f" (by {outcome.by})" if outcome.by else ""
    )
    failed = f", {state.failures} of them failed" if state.failures else ""
    yield f"  run         {state.run}"
    yield f"  iterations  {state.finished} of {state.limits.iterations}{failed}"
    if (tasks := checklist_of(state.task)) is not None:
        yield f"  tasks       {tasks}"
    yield f"  time        {clock(state.elapsed)}"
    yield f"  spent       {spend(state.spend)}"
    yield from _files(account)
    yield f"  records     {account.folder}"
    for sink in account.sinks:
        if not sink.clean:
            waiting = f", {sink.waiting} wait on disk" if sink.waiting else ""
            error = f": {printable(sink.error)}" if sink.error else ""
            yield f"  audit       sink {sink.sink}: {sink.written} written{waiting}, {sink.lost} lost{error}"
    for note in account.notes:
        yield f"  note        {printable(note)}"
    if outcome.resumable:
        yield f"  go on with  ralph resume {state.run}"


def _files(account: Account) -> Iterator[str]:
    if account.changed_files is None:
        return
    yield f"  files       {len(account.changed_files)} changed"
    for path in account.changed_files[:SHOWN_FILES]:
        yield f"                {printable(path)}"
    if len(account.changed_files) > SHOWN_FILES:
        yield f"                … and {len(account.changed_files) - SHOWN_FILES} more"


def spend(spent: Spend) -> str:
    """Tokens and cost in words; what nobody reported is unknown, which is not zero, and ≈ marks Ralph's own estimate."""
    tokens = f"{spent.tokens.total:,} tokens" if spent.tokens is not None else "tokens unknown"
    if spent.cost is None:
        return f"{tokens}, cost unknown"
    more = f" and an unknown cost of {spent.unmetered} attempt(s)" if spent.unmetered else ""
    return f"{tokens}, {dollars(spent)}{more}"


def dollars(spent: Spend) -> str:
    """The known cost; ≈ marks an estimate."""
    if spent.cost is None:
        return "unknown"
    return f"{'≈ ' if spent.estimated else ''}${spent.cost:.4f}"


def clock(seconds: float) -> str:
    """A duration as a person says it: 4.2 s, 3:05, 1:02:03."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02}"
    return f"{whole // 3600}:{whole % 3600 // 60:02}:{whole % 60:02}"


def since(timestamp: float) -> str:
    """A moment in local time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(timestamp))


def brief(value: Any) -> str:
    """The most telling argument of a tool call, in few characters."""
    if not isinstance(value, Mapping):
        return ""
    for name in ("file_path", "path", "command", "pattern", "url", "description"):
        if isinstance(value.get(name), str):
            return printable(value[name])[:100]
    return ""
