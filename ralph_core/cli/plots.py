"""Plots for the pages, as SVG: nothing to load, sharp at every size, in the colours of the page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ralph_core import conventions as names
from ralph_core.tracing.tracefile import TraceSpan

from .display import clock
from .page import text
from .spanwords import is_call, remark, title, went_wrong

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 520, 190, 48, 20, 10


@dataclass(frozen=True)
class Bar:
    """A bar of parts, each with a value and a colour of the page; `unknown`: not all of it is known."""

    label: str
    parts: Sequence[tuple[float, str]]
    unknown: bool = False

    @property
    def total(self) -> float:
        return sum(value for value, _ in self.parts)


def bars(found: Sequence[Bar], words: Callable[[float], str], *, running: bool = False) -> str:
    """Bars side by side; with `running`, the sum up to each of them as a line, on the same scale."""
    sums = [sum(bar.total for bar in found[: at + 1]) for at in range(len(found))]
    top = _nice(max([*(bar.total for bar in found), *(sums if running else ())], default=0.0))
    step = (WIDTH - LEFT - 6) / max(len(found), 1)
    wide = min(step * 0.72, 44.0)
    drawn = [_grid(top, words)]
    for at, bar in enumerate(found):
        x, y = LEFT + step * at + (step - wide) / 2, float(HEIGHT - BOTTOM)
        tip = f"iteration {bar.label}: {words(bar.total)}{' and what is not known' if bar.unknown else ''}"
        drawn.append(f"<g><title>{text(tip)}</title>")
        for value, colour in bar.parts:
            high = value / top * (HEIGHT - BOTTOM - TOP)
            y -= high
            drawn.append(
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{wide:.1f}" height="{high:.1f}" style="fill:var(--{colour})"/>'
            )
        if bar.unknown:
            drawn.append(f'<text x="{x + wide / 2:.1f}" y="{y - 4:.1f}" text-anchor="middle">?</text>')
        if len(found) <= 26 or at % (len(found) // 13) == 0:
            drawn.append(f'<text x="{x + wide / 2:.1f}" y="{HEIGHT - 5}" text-anchor="middle">{text(bar.label)}</text>')
        drawn.append("</g>")
    if running and len(found) > 1:
        points = " ".join(
            f"{LEFT + step * (at + 0.5):.1f},{HEIGHT - BOTTOM - value / top * (HEIGHT - BOTTOM - TOP):.1f}"
            for at, value in enumerate(sums)
        )
        drawn.append(f'<polyline points="{points}" style="fill:none;stroke:var(--d);stroke-width:2"/>')
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{"".join(drawn)}</svg>'


def timeline(tops: Sequence[TraceSpan]) -> str:
    """The run from left to right: a lane for each sitting, with iterations, gates, waits and checkpoints."""
    wide, lane = 1060, 34
    start, end = tops[0].start, max(span.end for top in tops for span in top.walk())
    whole = max(end - start, 1)
    drawn = []
    for at, top in enumerate(tops):
        y = at * lane + 4
        waits = [each for span in top.below for each in span.below if each.name == "wait"]
        for span in (*(span for span in top.below if not is_call(span)), *waits):
            x, long = (span.start - start) / whole * wide, max((span.end - span.start) / whole * wide, 1.5)
            high, down = (22, 0) if span.name == "ralph.iteration" else (10, 6)
            tip = f"{title(span)}: {clock(span.seconds)} {remark(span)}"
            drawn.append(
                f'<g><title>{text(tip[:200])}</title><rect x="{x:.1f}" y="{y + down}" width="{long:.1f}" height="{high}" rx="3" style="fill:var(--{_colour(span)})"/>'
            )
            if span.name == "ralph.iteration" and long > 16:
                label = str(span.attributes.get(names.ITERATION, ""))
                drawn.append(f'<text x="{x + 5:.1f}" y="{y + 15}" style="fill:#fff">{text(label)}</text>')
            drawn.append("</g>")
    bottom = len(tops) * lane
    for part in range(5):
        x, anchor = wide * part / 4, ("start", "middle", "middle", "middle", "end")[part]
        drawn.append(
            f'<text x="{x}" y="{bottom + 12}" text-anchor="{anchor}">{text(clock(whole / 1e9 * part / 4))}</text>'
        )
    return f'<svg viewBox="0 0 {wide} {bottom + 16}" role="img">{"".join(drawn)}</svg>'


def _colour(span: TraceSpan) -> str:
    if went_wrong(span):
        return "bad"
    return {"ralph.iteration": "own", "gate": "gate", "wait": "wait"}.get(span.name, "step")


def _grid(top: float, words: Callable[[float], str]) -> str:
    drawn = []
    for part in range(5):
        y = HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * part / 4
        drawn.append(f'<line x1="{LEFT}" x2="{WIDTH}" y1="{y:.1f}" y2="{y:.1f}" style="stroke:var(--faint)"/>')
        drawn.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{text(words(top * part / 4))}</text>')
    return "".join(drawn)


def _nice(largest: float) -> float:
    """The end of an axis: a round figure, not far above the largest value."""
    if largest <= 0:
        return 1.0
    scale = 1.0
    while scale * 10 <= largest:
        scale *= 10
    while scale > largest:
        scale /= 10
    return next(step * scale for step in (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10) if step * scale >= largest * 0.999)
