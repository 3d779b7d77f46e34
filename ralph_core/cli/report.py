"""`ralph report`: one page of a run, for the person who reads it in the morning."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ralph_core import conventions as names
from ralph_core.errors import RalphError, UserError
from ralph_core.records import AuditFilter, AuditRecord
from ralph_core.tracing.tracefile import TraceSpan, read_trace
from ralph_core.tracing.tracefile import named as spans_named
from ralph_core.verdicts import ExitCode, OutcomeKind

from .common import session
from .display import clock, since
from .page import document, element, redactor, table, text, write_page
from .plots import Bar, bars, timeline
from .spanwords import duration, short

if TYPE_CHECKING:
    from ralph_core.session import Session
    from ralph_core.state import RunState

FILES_SHOWN = 200
"""Changed files of one snapshot that are listed; the others are counted."""
TOLD = {"verdict": "verdict", "wait.started": "wait", "note": "note"}
"""Records that say why the run went as it did, and what to call them."""
KINDS = (("cache_read", "cache read", "b"), ("cache_write", "cache written", "c"), ("input", "input", "a"), ("output", "output", "d"))  # fmt: skip

STYLE = """
.top { display: flex; flex-wrap: wrap; gap: 10px 14px; align-items: center; } .why { font-size: 16px; margin: 8px 0 2px; overflow-wrap: anywhere; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin: 18px 0 0; }
.tile { padding: 12px 16px; } .tile b { display: block; font-size: 20px; font-weight: 600; line-height: 1.35; overflow-wrap: anywhere; }
.two { display: grid; grid-template-columns: repeat(auto-fit, minmax(360px, 1fr)); gap: 16px; }
svg { display: block; width: 100%; height: auto; } svg text { font: 11px system-ui, sans-serif; fill: var(--dim); }
.keys span { margin-right: 14px; font-size: 12.5px; color: var(--dim); white-space: nowrap; }
.keys i { display: inline-block; width: 10px; height: 10px; border-radius: 3px; margin-right: 5px; }
.plus { color: var(--good); } .minus { color: var(--bad); } nav { margin-top: 10px; font-size: 13px; } nav a { margin-right: 16px; }
.said { max-width: 430px; } h3 { margin: 0 0 8px; font-size: 13.5px; font-weight: 600; }
"""


@dataclass
class Step:
    """An iteration as the trace tells of it."""

    number: int
    span: TraceSpan
    agents: list[TraceSpan] = field(default_factory=list)

    @property
    def cost(self) -> float | None:
        """US dollars; None when no attempt has said."""
        known = [span.attributes[names.COST] for span in self.agents if names.COST in span.attributes]
        return sum(known) if known else None

    @property
    def unknown(self) -> bool:
        """Whether an attempt has not said what it cost."""
        return any(names.COST not in span.attributes for span in self.agents)

    def tokens(self) -> dict[str, int] | None:
        """Tokens by kind, kept apart as Ralph does: the conventions count cached ones as input."""
        told = [span.attributes for span in self.agents if names.INPUT_TOKENS in span.attributes]
        if not told:
            return None
        read, write, whole, output = (
            sum(int(each.get(name, 0)) for each in told)
            for name in (names.CACHE_READ_TOKENS, names.CACHE_WRITE_TOKENS, names.INPUT_TOKENS, names.OUTPUT_TOKENS)
        )
        return {"cache_read": read, "cache_write": write, "input": whole - read - write, "output": output}


def write(run: str | None, overrides: Mapping[str, Any], *, config: Path | None, output: Path | None) -> int:
    """Make the page of a run."""
    here = session(overrides, config=config)
    here, run, saved = here.find(run)
    folder = here.home / "runs" / run
    path = output or folder / "report.html"
    try:
        tops = read_trace(folder)
    except UserError:  # without it there is still the state and the account
        tops = []
    report = Report(here, saved.state, here.account_of(AuditFilter(run=run)), tops, folder, path)
    write_page(path, report.page())
    return ExitCode.COMPLETED


class Report:
    """Puts the page together from the state, the account, the trace and the store."""

    def __init__(
        self,
        here: Session,
        state: RunState,
        records: Sequence[AuditRecord],
        tops: Sequence[TraceSpan],
        folder: Path,
        path: Path,
    ) -> None:
        self._here, self._state, self._records, self._tops = here, state, records, tops
        self._folder, self._path = folder, path
        self._redactor = redactor(here)
        self._steps = list(_steps(tops))

    def page(self) -> str:
        """The whole page."""
        return document(
            f"Run {self._state.run}",
            STYLE,
            [
                *self._heading(),
                *self._plots(),
                *self._section("Iterations", self._iterations()),
                *self._section("Gates", self._gates()),
                *self._section("Files", self._files()),
                *self._section("Why it went as it did", self._verdicts()),
                f"<p class=dim><small>Run {self._safe(self._state.run)} in {self._safe(self._state.workspace)}.</small></p>",
            ],
        )

    def _safe(self, value: Any) -> str:
        """Text of the page, without secrets and without markup."""
        return text(self._redactor.text(str(value)))

    def _section(self, heading: str, content: str) -> Iterator[str]:
        if content:
            yield f"<h2>{text(heading)}</h2><div class=card>{content}</div>"

    # --- the top ---

    def _heading(self) -> Iterator[str]:
        state, outcome = self._state, self._state.outcome
        kind = outcome.kind.value if outcome is not None else "not ended"
        good = outcome is not None and outcome.kind is OutcomeKind.COMPLETED
        by = f" <small>(by {self._safe(outcome.by)})</small>" if outcome is not None and outcome.by else ""
        task = state.task.text or state.task.path or ""
        yield f"<div class=top><span class='pill {'good' if good else 'bad' if outcome else 'warn'}'>{text(kind)}</span>"
        yield f"<h1>{self._safe(_brief(task))}</h1></div>"
        yield f"<p class=why>{self._safe(outcome.reason) if outcome is not None else 'It is at work, or was cut short.'}{by}</p>"
        sittings = f", {state.sittings} sittings" if state.sittings > 1 else ""
        yield f"<p class=dim>{text(since(state.started))}{sittings} · agent {self._safe(', '.join(state.agents) or state.agent)}</p>"
        spent = state.spend
        estimated = "≈ " if spent.estimated else ""
        cost = "unknown" if spent.cost is None else f"{estimated}${spent.cost:.2f}"
        unmetered = f"and unknown, {spent.unmetered}×" if spent.unmetered and spent.cost is not None else ""
        failed = f"{state.failures} failed" if state.failures else "none failed"
        tiles = (
            ("iterations", f"{state.finished}", f"of {state.limits.iterations}, {failed}"),
            ("time", clock(state.elapsed), f"of {clock(state.limits.runtime)}"),
            ("cost", cost, unmetered or f"of ${state.limits.cost:.2f}"),
            ("tokens", short(spent.tokens.total) if spent.tokens else "unknown", f"of {short(state.limits.tokens)}"),
            ("gates", _gate_words(self._state), "after the last claim"),
        )
        cells = "".join(
            f"<div class='card tile'><small>{text(name)}</small><b>{text(value)}</b><small>{text(note)}</small></div>"
            for name, value, note in tiles
        )
        yield f"<div class=tiles>{cells}</div>"

    # --- plots ---

    def _plots(self) -> Iterator[str]:
        if not self._steps:
            return
        yield "<h2>Timeline</h2><div class=card>"
        yield _keys(
            (("own", "iteration"), ("bad", "failed"), ("gate", "gate"), ("wait", "wait"), ("step", "checkpoint"))
        )
        yield timeline(self._tops) + "</div>"
        costs = [Bar(str(step.number), [(step.cost or 0.0, "a")], unknown=step.unknown) for step in self._steps]
        counts = []
        for step in self._steps:
            told = step.tokens()
            parts = [(float(told[kind]), colour) for kind, _, colour in KINDS] if told is not None else []
            counts.append(Bar(str(step.number), parts, unknown=told is None))
        yield "<div class=two style='margin-top:16px'>"
        yield f"<div class=card><h3>Cost of each iteration, and in all</h3>{bars(costs, lambda value: f'${value:.2f}', running=True)}</div>"
        keys = _keys((colour, words) for _, words, colour in KINDS)
        yield f"<div class=card><h3>Tokens of each iteration</h3>{bars(counts, lambda value: short(int(value)))}{keys}</div>"
        yield "</div>"
        if any(bar.unknown for bar in (*costs, *counts)):
            yield "<p class=dim><small>?: not known, or not all of it; that is not zero.</small></p>"

    # --- tables ---

    def _iterations(self) -> str:
        ended = {
            record.data.get("attempt"): record
            for record in self._records
            if record.type in ("agent.finished", "agent.failed", "agent.abandoned")
        }
        rows = []
        for step in self._steps:
            for at, span in enumerate(step.agents):
                number = span.attributes.get(names.ATTEMPT)
                record = ended.get(number)
                result = str(span.attributes.get(names.RESULT, "not ended" if not span.ended else "ended"))
                mark = "good" if result == "finished" else "warn" if result == "not ended" else "bad"
                told = sum((Step(0, span, [span]).tokens() or {}).values())
                cost = span.attributes.get(names.COST)
                rows.append(
                    (
                        str(step.number) if at == 0 else "",
                        self._safe(span.attributes.get(names.AGENT, "")),
                        f"<span class={mark}>{self._safe(span.attributes.get(names.ERROR, result))}</span>",
                        duration(span.seconds),
                        str(sum(child.name.startswith("execute_tool") for child in span.below)),
                        short(told) if told else "?",
                        f"${cost:.4f}" if isinstance(cost, (int, float)) else "?",
                        f"<div class=said>{self._safe(record.message if record is not None else '')}</div>",
                        self._links(number),
                    )
                )
        if not rows:
            return ""
        head = ("#", "agent", "result", "time", "tools", "tokens", "cost", "it said", "transcript")
        return table(head, rows, numbers=(3, 4, 5, 6))

    def _links(self, number: Any) -> str:
        """Links to what an agent process wrote, from where the page lies."""
        if not isinstance(number, int):
            return ""
        found = []
        for name, words in ((f"{number:04d}.out", "output"), (f"{number:04d}.out.err", "errors")):
            path = self._folder / "output" / name
            if path.is_file() and (words == "output" or path.stat().st_size):
                relative = os.path.relpath(path.absolute(), self._path.absolute().parent)
                found.append(element("a", words, href=Path(relative).as_posix()))
        return " · ".join(found)

    def _gates(self) -> str:
        rows = []
        for record in self._records:
            if record.type not in ("gate.finished", "gate.failed"):
                continue
            good = record.type == "gate.finished"
            shown = self._safe(record.data.get("output", "")).strip()
            output = f"<details><summary class=dim>output</summary><pre>{shown}</pre></details>" if shown else ""
            verdict = "<span class='good keep'>passed</span>" if good else "<span class='bad keep'>failed</span>"
            time = duration((record.duration_ms or 0) / 1000)
            rows.append((_time(record), verdict, f"<span class=mono>{self._safe(record.message)}</span>{output}", time))
        return table(("when", "", "gate", "time"), rows, numbers=(3,)) if rows else ""

    def _files(self) -> str:
        rows, before = [], 0
        try:
            snapshots = self._here.store().history(self._state.run)
            for snapshot in snapshots[1:]:
                files = _changes(self._here.store().diff(snapshot.ref))
                first, last = before + 1, snapshot.iteration
                span = f"{first} to {last}" if last > first else str(max(last, 1))
                before = max(last, before)
                if not files:
                    continue
                lines = "".join(
                    f"<div><span class=mono>{self._safe(name)}</span> <small><span class=plus>+{plus}</span> <span class=minus>−{minus}</span></small></div>"
                    for name, plus, minus in files[:FILES_SHOWN]
                )
                more = f"<small>and {len(files) - FILES_SHOWN} more</small>" if len(files) > FILES_SHOWN else ""
                rows.append((text(span), str(len(files)), lines + more, f"<code>{self._safe(snapshot.ref)}</code>"))
        except RalphError as error:
            return f"<p class=dim>What changed is not known: {self._safe(error)}</p>"
        if not rows:
            return "<p class=dim>No snapshot differs from the one before.</p>"
        return table(("iteration", "files", "changed", "snapshot"), rows, numbers=(1,))

    def _verdicts(self) -> str:
        rows = []
        for record in self._records:
            if record.type not in TOLD:
                continue
            verdict = str(record.data.get("verdict", TOLD[record.type]))
            tone = {"stop": "bad", "deny": "bad", "pause": "warn", "ask": "warn", "wait": "warn"}.get(verdict, "dim")
            rows.append(
                (
                    _time(record),
                    str(record.iteration or ""),
                    f"<span class={tone}>{self._safe(verdict)}</span>",
                    self._safe(record.actor),
                    self._safe(record.message),
                )
            )
        return table(("when", "#", "", "who", "why"), rows) if rows else ""


def _steps(tops: Sequence[TraceSpan]) -> Iterator[Step]:
    """The iterations in order; one that was cut short by a kill, and its second try, are two."""
    for span in spans_named(tops, "ralph.iteration"):
        agents = [child for child in span.below if child.name.startswith("invoke_agent")]
        yield Step(int(span.attributes.get(names.ITERATION, 0)), span, agents)


def _changes(diff: bytes) -> list[tuple[str, int, int]]:
    """The files of a unified diff, with the lines that were added and taken away."""
    found: list[tuple[str, int, int]] = []
    inside = False
    for line in diff.split(b"\n"):
        if line.startswith(b"diff --git "):
            name = line.rpartition(b" b/")[2].decode(errors="replace").rstrip('"')
            found.append((name, 0, 0))
            inside = False
        elif line.startswith(b"@@"):
            inside = True
        elif inside and found and line[:1] in (b"+", b"-"):
            name, plus, minus = found[-1]
            found[-1] = (name, plus + (line[:1] == b"+"), minus + (line[:1] == b"-"))
    return found


def _gate_words(state: RunState) -> str:
    if not state.gates:
        return "none"
    return f"{sum(gate.passed for gate in state.gates)} of {len(state.gates)}"


def _brief(task: str) -> str:
    line = next((line.strip("# ").strip() for line in task.splitlines() if line.strip()), "")
    return line if len(line) <= 140 else f"{line[:139]}…"


def _time(record: AuditRecord) -> str:
    """When it was written, in UTC, as a cell of a table."""
    return f"<span class=keep>{text(record.time[11:19])}</span>"


def _keys(entries: Any) -> str:
    marks = "".join(
        f"<span><i style='background:var(--{colour})'></i>{text(words)}</span>" for colour, words in entries
    )
    return f"<div class=keys>{marks}</div>"
