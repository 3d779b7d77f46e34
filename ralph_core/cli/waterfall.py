"""The trace as a page: a waterfall in which each iteration opens into one on its own time axis."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ralph_core.tracing.tracefile import TraceSpan

from .display import clock, since
from .page import document, text
from .spanwords import duration, is_call, remark, title, went_wrong

ZOOMED = ("ralph.iteration",)
"""Spans that are given a time axis of their own when they are opened."""

OPEN = 3
"""Iterations with something wrong in them, the latest, that are open to begin with."""

STYLE = """
main { max-width: 1400px; }
.head { display: flex; flex-wrap: wrap; gap: 6px 18px; align-items: baseline; margin-bottom: 14px; }
.legend span { margin-right: 14px; font-size: 12.5px; color: var(--dim); white-space: nowrap; }
.legend i { display: inline-block; width: 10px; height: 10px; border-radius: 3px; margin-right: 5px; }
label { color: var(--dim); font-size: 13px; cursor: pointer; }
.tree { padding: 6px 0; overflow-x: auto; } .tree > * { min-width: 760px; }
.row { display: grid; grid-template-columns: minmax(230px, 34%) 1fr 74px; align-items: center; gap: 10px; padding: 1px 14px; min-height: 24px; }
.row:hover { background: var(--paper); }
.leaf, details > summary { list-style: none; } summary::-webkit-details-marker { display: none; }
.name { display: flex; align-items: baseline; white-space: nowrap; min-width: 0; } .name b { font-weight: 400; overflow: hidden; text-overflow: ellipsis; }
.name small { margin-left: 7px; flex: none; max-width: 60%; overflow: hidden; text-overflow: ellipsis; }
.name::before { content: ""; flex: none; width: 14px; color: var(--dim); }
details > summary .name::before { content: "▸"; } details[open] > summary .name::before { content: "▾"; }
.lane { position: relative; height: 13px; background: linear-gradient(90deg, var(--faint) 1px, transparent 1px) 0 0 / 25% 100%; }
.lane i { position: absolute; top: 1px; height: 11px; min-width: 2px; border-radius: 3px; background: var(--own); }
.took { text-align: right; font-variant-numeric: tabular-nums; color: var(--dim); font-size: 12.5px; white-space: nowrap; }
i.agent { background: var(--agent) !important; } i.tool { background: var(--tool) !important; } i.gate { background: var(--gate) !important; }
i.wait { background: var(--wait) !important; } i.step { background: var(--step) !important; } i.bad { background: var(--bad) !important; }
i.open { background: repeating-linear-gradient(135deg, var(--warn) 0 5px, transparent 5px 9px) !important; }
.axis { color: var(--dim); font-size: 11.5px; } .axis .lane { background: none; display: flex; justify-content: space-between; height: auto; }
.zoom { margin: 2px 0 8px; border-left: 3px solid var(--faint); background: color-mix(in srgb, var(--card) 92%, var(--agent)); }
.more { margin: 0 14px 4px 28px; font-size: 12px; } .more > summary { color: var(--dim); } .more > summary::before { content: "▸ "; }
.more[open] > summary::before { content: "▾ "; } .more .facts { margin: 2px 0 6px; }
.facts { margin: 2px 14px 8px; padding: 8px 12px; background: var(--paper); border-radius: 6px; font-size: 12.5px; }
.facts td { padding: 2px 14px 2px 0; border: 0; } .facts td:first-child { color: var(--dim); white-space: nowrap; width: 1%; }
body:not(:has(#calls:checked)) .call { display: none; }
"""

LEGEND = (
    ("own", "iteration"),
    ("agent", "agent"),
    ("tool", "tool"),
    ("gate", "gate"),
    ("wait", "wait"),
    ("step", "Ralph, plugins"),
    ("bad", "failed"),
    ("open", "not ended"),
)


def page(run: str, tops: Sequence[TraceSpan], redactor: Any) -> str:
    """The trace of a run as a page."""
    start, end = tops[0].start, max(span.end for top in tops for span in top.walk())
    count = sum(1 for top in tops for _ in top.walk())
    last = tops[-1]
    legend = "".join(
        f'<span><i class="{kind}" style="background:var(--own)"></i>{words}</span>' for kind, words in LEGEND
    )
    facts = f"{since(start / 1e9)} · {clock((end - start) / 1e9)} · {count} spans · trace {last.trace_id}"
    waterfall = Waterfall(tops, redactor)
    return document(
        f"Trace of {run}",
        STYLE,
        [
            f'<div class=head><h1>Trace of run <span class=mono>{text(run)}</span></h1><span class="pill {_tone(last)}">{text(remark(last) or "at work")}</span></div>',
            f"<p class=dim>{text(facts)}</p>",
            f"<div class=head><div class=legend>{legend}</div><label><input type=checkbox id=calls> calls of plugins, too</label></div>",
            '<div class="card tree">',
            _axis(start, end, start),
            *(line for top in tops for line in waterfall.lines(top, start, end, 0)),
            "</div>",
        ],
    )


class Waterfall:
    """Makes the rows of the page."""

    def __init__(self, tops: Sequence[TraceSpan], redactor: Any) -> None:
        self._redactor = redactor
        iterations = [span for top in tops for span in top.below if span.name in ZOOMED]
        troubled = [span for span in iterations if any(each.failed or not each.ended for each in span.walk())]
        shown = [*tops, *troubled[-OPEN:], *iterations[-1:]]
        self._open = {span.span_id for span in shown}

    def lines(self, span: TraceSpan, start: int, end: int, depth: int) -> Iterator[str]:
        """A span and all below it; `start` and `end` are those of the time axis it is drawn on."""
        call = " call" if is_call(span) and not any(each.failed for each in span.walk()) else ""
        row = self._row(span, start, end, depth)
        opened = " open" if span.span_id in self._open or span.name.startswith("invoke_agent") else ""
        yield f'<details class="span{call}"{opened}><summary class=row>{row}</summary>'
        facts = self._facts(span)
        yield f"<details class=more><summary>details</summary>{facts}</details>" if span.below else facts
        if span.name in ZOOMED:
            yield "<div class=zoom>"
            yield _axis(span.start, span.end, start)
            start, end = span.start, span.end
        for child in span.below:
            yield from self.lines(child, start, end, depth + 1)
        if span.name in ZOOMED:
            yield "</div>"
        yield "</details>"

    def _row(self, span: TraceSpan, start: int, end: int, depth: int) -> str:
        whole = max(end - start, 1)
        left = min(max((span.start - start) / whole * 100, 0), 99.8)
        wide = min(max((span.end - span.start) / whole * 100, 0), 100 - left)
        said, name = self._redactor.text(remark(span)), self._redactor.text(title(span))
        tone = "bad" if _kind(span) == "bad" else "dim"
        return (
            f'<span class=name style="padding-left:{depth * 14}px" title="{text(name)}"><b>{text(name)}</b><small class={tone}>{text(said[:80])}</small></span>'
            f'<span class=lane><i class="{_kind(span)}" style="left:{left:.3f}%;width:{wide:.3f}%"></i></span>'
            f"<span class=took>{text(duration(span.seconds))}</span>"
        )

    def _facts(self, span: TraceSpan) -> str:
        found: Mapping[str, Any] = {
            "span": span.name,
            "began": since(span.start / 1e9),
            **span.attributes,
            **({"message": span.message} if span.message else {}),
        }
        rows = "".join(
            f"<tr><td>{text(self._redactor.text(str(name)))}</td><td class=mono>{text(self._redactor.text(str(value)))}</td></tr>"
            for name, value in found.items()
        )
        return f"<div class=facts><table>{rows}</table></div>"


def _axis(start: int, end: int, zero: int) -> str:
    marks = "".join(f"<span>{text(clock((start - zero + (end - start) * part / 4) / 1e9))}</span>" for part in range(5))
    return f'<div class="row axis"><span></span><span class=lane>{marks}</span><span></span></div>'


def _kind(span: TraceSpan) -> str:
    if not span.ended:
        return "open"
    if went_wrong(span):
        return "bad"
    kinds = {"invoke_agent": "agent", "execute_tool": "tool", "ask": "wait", "gate": "gate", "wait": "wait"}
    own = "own" if span.name.startswith("ralph.") else "step"
    return kinds.get(span.name.partition(" ")[0], own)


def _tone(span: TraceSpan) -> str:
    return "good" if remark(span) == "completed" else "warn" if not span.ended else "bad"
