"""Spans in the words of a person: what a piece of work was, how long it took, and what came of it."""

from __future__ import annotations

from ralph_core import conventions as names
from ralph_core.tracing.tracefile import TraceSpan

from .display import clock


def is_call(span: TraceSpan) -> bool:
    """Whether this is a call of a plugin, which takes next to no time and is of interest only when something is wrong."""
    return names.HOOK in span.attributes or span.name == "save" or span.name.startswith("sink ")


def title(span: TraceSpan) -> str:
    """A span in the words of a person: `iteration 3` says more than `ralph.iteration`."""
    attributes = span.attributes
    if span.name == "ralph.iteration":
        return f"iteration {attributes.get(names.ITERATION, '?')}"
    if span.name == "ralph.run":
        sitting = attributes.get(names.SITTING, 1)
        return "run" if sitting == 1 else f"run, resumed (sitting {sitting})"
    if span.name == "gate":
        return f"gate {attributes.get(names.GATE, '')}"
    if span.name == "wait":
        return f"wait: {attributes.get(names.REASON, '')}"
    if span.name == "judge" and names.MOMENT in attributes:
        return f"judge ({attributes[names.MOMENT]})"
    if names.HOOK in attributes and names.PLUGIN in attributes:  # it stands below the hook's own name
        return span.name.partition(" ")[2]
    return span.name.removeprefix("invoke_agent ").removeprefix("execute_tool ")


def remark(span: TraceSpan) -> str:
    """What came of it, in few words."""
    attributes = span.attributes
    if not span.ended:
        return "not ended"
    if span.name == "gate":
        return "passed" if attributes.get(names.PASSED) else f"failed, exit code {attributes.get(names.EXIT_CODE, '?')}"
    if span.name == "ralph.run":
        return str(attributes.get(names.OUTCOME, ""))
    if span.name == "ralph.iteration" and not span.failed:
        return "failed" if went_wrong(span) else ""
    if span.name.startswith("invoke_agent"):
        cost, counted = attributes.get(names.COST), tokens(span)
        said = [f"{short(counted)} tok" if counted else "", f"${cost:.2f}" if isinstance(cost, (int, float)) else ""]
        return " ".join([*filter(None, said), str(attributes.get(names.ERROR, ""))]).strip()
    if span.failed:
        return str(attributes.get(names.ERROR) or span.message)
    answer = attributes.get(names.VERDICT) or attributes.get(names.ANSWER)
    return str(answer or "")


def tokens(span: TraceSpan) -> int:
    """All tokens of an agent's process; 0 when it has not said."""
    counts = [span.attributes.get(name, 0) for name in (names.INPUT_TOKENS, names.OUTPUT_TOKENS)]
    return sum(count for count in counts if isinstance(count, int))


def short(count: int) -> str:
    """A number of tokens in four characters."""
    return f"{count / 1e6:.1f}M" if count >= 1e6 else f"{count / 1e3:.1f}k" if count >= 1000 else str(count)


def duration(seconds: float) -> str:
    """How long something took, in few characters."""
    return f"{seconds * 1000:.0f} ms" if seconds < 0.0995 else clock(seconds)


def went_wrong(span: TraceSpan) -> bool:
    """Whether this piece of work failed, whatever became of what it was for."""
    attributes = span.attributes
    return (
        span.failed
        or names.ERROR in attributes
        or attributes.get(names.PASSED) is False
        or attributes.get(names.RESULT) == "failed"
    )
