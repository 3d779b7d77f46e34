"""What a person sees on a terminal: the lines of the display, and below them what goes on at this moment."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from ralph_core.prompt import checklist_of

from .common import printable
from .display import Display, brief, clock, dollars

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import RenderableType

    from ralph_core.prompt import Checklist
    from ralph_core.records import AuditRecord
    from ralph_core.state import RunState

EVERY = 0.5
"""Seconds between two pictures: few enough bytes for a slow line."""
BAR = 20
"""Columns of a bar."""


class LiveDisplay(Display):
    """The display with a picture of the run below its lines, brought up to date while nothing is printed, too.

    All text goes through `printable` and is shown as it is: no markup, no escape codes. What can't be shown any more, since
    the terminal is gone, changes nothing for the run.
    """

    def __init__(self, *, verbose: bool) -> None:
        super().__init__(verbose=verbose)
        self._state: Callable[[], RunState] | None = None
        self._tasks: Checklist | None = None
        self._doing, self._since = "begins", time.monotonic()
        self._snapshot_at: float | None = None
        self._over = threading.Event()
        self._console = Console(file=self._stream, highlight=False, markup=False, emoji=False)
        self._live = Live(
            console=self._console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            get_renderable=self._picture,
        )
        threading.Thread(target=self._refresh, name="ralph-live", daemon=True).start()

    def __call__(self, record: AuditRecord, state: RunState) -> None:
        if record.type in ("iteration.started", "tool.finished", "iteration.finished", "agent.finished"):
            self._tasks = checklist_of(state.task)
        if record.type == "checkpoint.finished":
            self._snapshot_at = time.monotonic()
        if (doing := _doing(record)) is not None:
            self._doing, self._since = doing, time.monotonic()
        if record.type == "approval.started":  # the question and its answer have the terminal to themselves
            self._stop()
        super().__call__(record, state)
        if record.type in ("approval.finished", "approval.abandoned", "run.started"):
            self._start()

    def follow(self, state: Callable[[], RunState]) -> None:
        """Where the state is to be had: what is spent, and how long it takes, is shown without waiting for a record."""
        self._state = state

    def close(self) -> None:
        self._over.set()
        self._stop()

    def _print(self, line: str) -> None:
        try:
            # One row for what is done, as many as it takes for what is said.
            self._console.print(Text(line), overflow="ellipsis", no_wrap=line.startswith("  ⚙"))
        except OSError:  # the terminal is gone
            super()._print(line)

    def _start(self) -> None:
        try:
            self._live.start(refresh=True)
        except OSError:
            self._over.set()

    def _stop(self) -> None:
        try:
            self._live.stop()
        except OSError:
            self._over.set()

    def _refresh(self) -> None:
        while not self._over.wait(EVERY):
            try:
                if self._live.is_started:
                    self._live.refresh()
            except OSError:
                return

    def _line(self, record: AuditRecord, state: RunState) -> str | None:
        if record.type == "iteration.started":  # all else that the plain line says is in the picture
            return f"─── iteration {record.iteration} of {state.limits.iterations} · {clock(state.elapsed)}"
        return super()._line(record, state)

    # --- the picture ---

    def _picture(self) -> RenderableType:
        if self._state is None:
            return ""
        state = self._state()
        grid = Table.grid(padding=(0, 1))
        grid.add_column(no_wrap=True, style="dim")
        grid.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        grid.expand = True
        for label, what in self._rows(state):
            grid.add_row(label, what)
        return Group(Rule(style="dim"), grid)

    def _rows(self, state: RunState) -> Iterator[tuple[str, RenderableType]]:
        limits, spent = state.limits, state.spend
        elapsed = min(state.elapsed + max(0.0, time.time() - state.now) if state.now else 0.0, limits.runtime)
        waited = clock(time.monotonic() - self._since)
        doing = Text(self._doing, overflow="ellipsis", no_wrap=True)
        doing.truncate(max(self._console.width - 24, 10), overflow="ellipsis")
        yield "now", Text.assemble(doing, (f"  {waited}", "dim"))
        yield "iterations", _bar(state.finished, limits.iterations, f"{state.finished} of {limits.iterations} done")
        left = clock(limits.runtime - elapsed)
        yield "time", _bar(elapsed, limits.runtime, f"{clock(elapsed)}, {left} left of {clock(limits.runtime)}")
        tokens = spent.tokens.total if spent.tokens is not None else None
        said = "unknown" if tokens is None else f"{tokens:,} of {limits.tokens:,}"
        yield "tokens", _bar(tokens, limits.tokens, said)
        more = " and what is unknown" if spent.cost is not None and spent.unmetered else ""
        of = "" if spent.cost is None else f" of ${limits.cost:g}"
        yield "cost", _bar(spent.cost, limits.cost, f"{dollars(spent)}{of}{more}")
        if self._tasks is not None:
            yield "tasks", _bar(self._tasks.done, self._tasks.total, str(self._tasks))
        yield "gates", _gates(state)
        yield "snapshot", Text(self._snapshot(state))

    def _snapshot(self, state: RunState) -> str:
        if state.snapshot is None:
            return "none"
        ago = "" if self._snapshot_at is None else f", {clock(time.monotonic() - self._snapshot_at)} ago"
        return f"{state.snapshot.rpartition('/')[2]}{ago}"


def _doing(record: AuditRecord) -> str | None:
    """What is being done from this record on; None if it says nothing of that."""
    words = printable(record.message)
    return {
        "agent.started": f"{record.actor} at work",
        "agent.text": f"{record.actor} says: {words}",
        "tool.started": f"{record.actor} uses {words} {brief(record.data.get('input'))}".rstrip(),
        "tool.finished": f"{record.actor} at work",
        "tool.failed": f"{record.actor} at work",
        "gate.started": f"gate {words}",
        "checkpoint.started": "snapshot of the files",
        "wait.started": f"waiting: {words}",
        "wait.finished": "goes on",
        "run.finished": "ends",
    }.get(record.type)


def _bar(done: float | None, total: float, words: str) -> RenderableType:
    """A bar with its figures; no bar for what is unknown, which is not zero."""
    row = Table.grid(padding=(0, 1))
    row.add_column(width=BAR)
    row.add_column(no_wrap=True, overflow="ellipsis")
    bar = Text("?" * 3, "dim") if done is None else ProgressBar(total=total, completed=min(done, total), width=BAR)
    row.add_row(bar, Text(words))
    return row


def _gates(state: RunState) -> Text:
    """What the gates said when they were asked last."""
    if not state.gates:
        return Text("not asked yet", "dim")
    marks = [("✓ ", "green") if gate.passed else ("✗ ", "red") for gate in state.gates]
    parts = [
        part for mark, gate in zip(marks, state.gates, strict=True) for part in (mark, f"{printable(gate.command)}  ")
    ]
    return Text.assemble(*parts)
