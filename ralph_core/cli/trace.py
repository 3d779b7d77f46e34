"""`ralph trace`: the waterfall of a run, in the terminal, as a page, or for programs."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ralph_core.tracing.tracefile import TraceSpan, read_trace
from ralph_core.verdicts import ExitCode

from .common import printable, say, say_json, session
from .display import clock
from .output import stdout
from .page import redactor, write_page
from .spanwords import duration, is_call, remark, title, went_wrong

SHOWN_TOOLS = 12
"""Tools of one agent process that are shown one by one; the others are summed up."""
NARROWEST, WIDEST = 60, 160
EIGHTHS = " ▏▎▍▌▋▊▉█"
COLOURS = {"invoke_agent": "36", "execute_tool": "34", "gate": "35", "wait": "33", "checkpoint": "2", "error": "31"}


def show(
    run: str | None,
    overrides: Mapping[str, Any],
    *,
    config: Path | None,
    everything: bool,
    html: Path | None,
    as_json: bool,
) -> int:
    """Draw the trace of a run, or write it as a page."""
    here = session(overrides, config=config)
    here, run, _ = here.find(run)
    tops = read_trace(here.home / "runs" / run)
    if as_json:
        say_json(redactor(here).value([_plain(span) for top in tops for span in top.walk()]))
    elif html is not None:
        from .waterfall import page

        write_page(html, page(run, tops, redactor(here)))
    else:
        terminal = stdout().isatty()
        width = max(NARROWEST, min(WIDEST, shutil.get_terminal_size((80, 24)).columns))
        plain = not terminal or bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
        fancy = (stdout().encoding or "").lower().replace("-", "") == "utf8"
        for line in Drawing(tops, width=width, colours=not plain, fancy=fancy, everything=everything).lines(run):
            say(line)
    return ExitCode.COMPLETED


def _plain(span: TraceSpan) -> dict[str, Any]:
    return {
        **{name: value for name, value in vars(span).items() if name != "below"},
        "seconds": round(span.seconds, 6),
    }


@dataclass
class Row:
    """A line of the drawing: what is before the name, the name, and the span whose time it shows."""

    stem: str
    name: str
    span: TraceSpan
    said: str


class Drawing:
    """The waterfall as lines of text: names, bars on one time axis, and durations, no wider than `width`."""

    def __init__(self, tops: Sequence[TraceSpan], *, width: int, colours: bool, fancy: bool, everything: bool) -> None:
        self._tops, self._width, self._colours, self._fancy = tops, width, colours, fancy
        self._everything = everything
        self._start = min(top.start for top in tops)
        self._whole = max(max(span.end for top in tops for span in top.walk()) - self._start, 1)
        self._hidden = 0

    def lines(self, run: str) -> Iterator[str]:
        """The heading, a line for each span that is shown, and what is not."""
        rows = [row for top in self._tops for row in self._rows(top, "", "")]
        names_wide = min(max(len(row.stem) + len(row.name) for row in rows), self._width * 3 // 8)
        said_wide = min(max(len(row.said) for row in rows), self._width // 5)
        bar_wide = self._width - names_wide - said_wide - 11
        last = self._tops[-1]
        yield f"run {run} · {remark(last) or 'at work'} · {clock(self._whole / 1e9)}"
        axis = clock(self._whole / 1e9)
        yield self._paint(f"{'':{names_wide}}  {'0':<{bar_wide - len(axis)}}{axis}", "2")
        for row in rows:
            room = names_wide - len(row.stem)
            name = row.name if len(row.name) <= room else row.name[: max(room - 1, 0)] + "…"
            colour = self._colour(row.span)
            bar = self._bar(row.span, bar_wide)
            said = row.said if len(row.said) <= said_wide else row.said[: said_wide - 1] + "…"
            line = f"{self._paint(row.stem, '2')}{name:{room}}  {self._paint(bar, colour)} {duration(row.span.seconds):>7} {self._paint(said, colour if went_wrong(row.span) else '2')}"
            yield line.rstrip()
        if self._hidden:
            yield self._paint(f"{self._hidden} more: calls of plugins, and tools (`ralph trace --all`)", "2")

    def _rows(self, span: TraceSpan, stem: str, lead: str) -> Iterator[Row]:
        yield Row(stem, printable(title(span)), span, printable(remark(span)))
        shown, summed = self._chosen(span)
        mid, end, bar, gap = ("├ ", "└ ", "│ ", "  ") if self._fancy else ("|-", "`-", "| ", "  ")
        for at, child in enumerate(shown):
            last = at == len(shown) - 1 and not summed
            yield from self._rows(child, lead + (end if last else mid), lead + (gap if last else bar))
        if summed:
            self._hidden += len(summed)
            yield Row(lead + end, _counted(summed), _summed(span, summed), "")

    def _chosen(self, span: TraceSpan) -> tuple[list[TraceSpan], list[TraceSpan]]:
        """The spans below that are shown, and the tools that are summed up."""
        if self._everything:
            return span.below, []
        wanted = []
        for child in span.below:
            # A call that went wrong is what one looks for.
            if is_call(child) and not any(each.failed for each in child.walk()):
                self._hidden += sum(1 for _ in child.walk())
            else:
                wanted.append(child)
        tools = [child for child in wanted if child.name.startswith("execute_tool")]
        if len(tools) <= SHOWN_TOOLS:
            return wanted, []
        longest = sorted(tools, key=lambda tool: (tool.ended, not tool.failed, -tool.seconds))[: SHOWN_TOOLS - 2]
        kept = {tool.span_id for tool in longest}
        summed = [tool for tool in tools if tool.span_id not in kept]
        left = {tool.span_id for tool in summed}
        return [child for child in wanted if child.span_id not in left], summed

    def _bar(self, span: TraceSpan, width: int) -> str:
        """Where the span lies on the time axis; at least a sliver of it."""
        begin, end = ((at - self._start) / self._whole * width for at in (span.start, span.end))
        first = min(int(begin), width - 1)
        length = max(end - begin, 0.0)
        if not self._fancy:
            return (" " * first + "#" * max(1, round(length))).ljust(width)[:width]
        if length < 1:
            return (" " * first + EIGHTHS[max(1, int(length * 8))]).ljust(width)
        tail = EIGHTHS[int((end - int(end)) * 8)].strip()
        return (" " * first + "█" * (int(end) - first) + tail).ljust(width)[:width]

    def _colour(self, span: TraceSpan) -> str:
        if went_wrong(span):
            return COLOURS["error"]
        return COLOURS.get(span.name.partition(" ")[0], "32")

    def _paint(self, text: str, colour: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._colours and text.strip() else text


def _counted(tools: Sequence[TraceSpan]) -> str:
    counts = Counter(printable(title(tool)) for tool in tools)
    most = ", ".join(f"{name} {count}" for name, count in counts.most_common(3))
    return f"{len(tools)} more: {most}{', …' if len(counts) > 3 else ''}"


def _summed(span: TraceSpan, tools: Sequence[TraceSpan]) -> TraceSpan:
    """A span over all of these, for the line that stands for them."""
    return TraceSpan(
        name="execute_tool",
        span_id="",
        parent_id=span.span_id,
        trace_id=span.trace_id,
        start=min(tool.start for tool in tools),
        end=max(tool.end for tool in tools),
        ended=True,
        status="UNSET",
        message="",
        attributes={},
    )
