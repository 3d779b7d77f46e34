"""Takes in what an agent reports during one attempt: meters it, keeps it in the state, the account and the trace, has it judged."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from . import conventions as names
from . import pricing
from .account.audit import RESULTS
from .consent import Consent
from .contracts import Capability
from .events import Event, Failed, FailureKind, Finished, Started, Text, ToolCall, ToolResult, Usage, UsageWindow
from .meter import Meter
from .records import Severity
from .run import Run
from .state import Attempt, Quota, Spend
from .verdicts import Moment, MomentKind

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from opentelemetry.trace import Span

TEXT_KEPT = 1000
"""Characters of a text that go into its audit record; all of it is in the run's folder."""


class Intake:
    """What one attempt has reported so far: `final` is its last event, once it is there, `provider` who runs its model."""

    def __init__(self, run: Run, agent: str, plugin: str, able: AbstractSet[str]) -> None:
        self.run, self._agent, self._plugin, self._able = run, agent, plugin, able
        self.meter = Meter()
        self.booked_before = run.state.booked or run.state.spend
        self.final: Finished | Failed | None = None
        self.provider: str | None = None
        self._tools: dict[str, tuple[ToolCall, Span, int]] = {}

    async def take(self, event: Event, consent: Consent) -> None:
        """Meter an event, write it into the account, and have it judged."""
        if isinstance(event, Started):
            self.meter.started(event)
            self.run.note(current=replace(self._current, session=event.session, model=event.model))
            self.provider = event.provider
            self.record("agent.session", data={"session": event.session, "model": event.model})
        elif isinstance(event, Text):
            self.record("agent.text", self.run.parts.redactor.cut(event.text, TEXT_KEPT), severity=Severity.DEBUG)
        elif isinstance(event, ToolCall):
            attributes = {names.OPERATION: "execute_tool", names.TOOL: event.name, names.TOOL_CALL: event.id}
            span = self.run.parts.telemetry.begin(f"execute_tool {event.name}", attributes)
            self._tools[event.id] = (event, span, time.time_ns())
            used = {"id": event.id, "input": event.input}
            self.record("tool.started", event.name, capability=f"tool:{event.name}", data=used)
            await consent.reported(event)
        elif isinstance(event, ToolResult):
            call = self._tools[event.id][0] if event.id in self._tools else None
            self._end_tool(event.id, "finished" if event.ok else "failed", event.text)
            consent.ended(event.id)
            if call is not None and event.ok:
                await consent.used(call)
        elif isinstance(event, Usage):
            await self._load_prices(event)
            self.meter.usage(event)
            self._save_spend()
            if Capability.USAGE not in self._able or Capability.USAGE_LIVE in self._able:
                # Else it reports when it is through, and a claim of completion comes next: that is judged first.
                await self.run.rule(Moment(MomentKind.USAGE, event))
        elif isinstance(event, UsageWindow):
            figures = {"window": event.window, "utilization": event.utilization, "resets_at": event.resets_at}
            self.record("agent.window", event.status, data=figures)
            self._heed_quota(event)
            await self.run.rule(Moment(MomentKind.WINDOW, event))
        else:
            self.final = event
            await self._load_prices(event)
            self.meter.final(event)
            if isinstance(event, Failed) and event.kind is FailureKind.USAGE_LIMIT:
                until = None if event.retry_after is None else time.time() + event.retry_after
                self._heed_quota(UsageWindow("rejected", resets_at=until))
            self._save_spend()
            if isinstance(event, Failed):
                # With the budget used up, that is why it ended: an agent that heeds its own share of it says "failed", too.
                await self.run.rule(Moment(MomentKind.USAGE, event))

    async def _load_prices(self, event: Usage | Finished | Failed) -> None:
        """Have the price list at hand if it is needed: that takes a while, so it is done beside the loop."""
        tokens = event.tokens if isinstance(event, Usage) else event.usage
        if event.cost is None and tokens is not None and not pricing.loaded():
            await asyncio.to_thread(pricing.load)

    def _heed_quota(self, event: UsageWindow) -> None:
        """Keep what was said of a quota in the state, where it survives Ralph."""
        now = time.time()
        others = (
            quota for quota in self.run.state.quotas if (quota.agent, quota.window) != (self._agent, event.window)
        )
        quota = Quota(self._agent, event.window, event.status, event.utilization, event.resets_at, now)
        self.run.save(quotas=(*others, quota))

    def _save_spend(self) -> None:
        """Save what was spent so far, before anyone judges it: a kill right now must not make it unspent."""
        spend = self.meter.spend()
        total = self.run.state.spend.at_least(self.booked_before + spend)
        if spend != self._current.spend or total != self.run.state.spend:
            measured = (
                spend.tokens is not None or spend.cost is not None
            )  # else the end of the attempt says it soon enough
            keep = self.run.save if measured else self.run.note
            keep(current=replace(self._current, spend=spend), spend=total)

    def record(self, type_: str, message: str = "", **more: Any) -> None:
        known = {"actor": self._agent, "plugin": self._plugin, "capability": "agent"}
        self.run.parts.trail.record(type_, message=message, **{**known, **more})

    def _end_tool(self, tool: str, ending: str, text: str = "") -> None:
        if tool not in self._tools:
            return
        call, span, started = self._tools.pop(tool)
        now, good = time.time_ns(), ending == "finished"
        self.run.parts.telemetry.end(span, None if good else ending)
        self.record(
            f"tool.{ending}",
            call.name if good else f"{call.name}: {self.run.parts.redactor.cut(text, 300)}",
            capability=f"tool:{call.name}",
            result=RESULTS[ending],
            severity=Severity.INFO if good else Severity.WARNING,
            data={"id": call.id},
            duration=(now - started) / 1e9,
        )

    def end_tools(self) -> None:
        """The attempt is over: so is every tool that was still at work."""
        for tool in list(self._tools):
            self._end_tool(tool, "abandoned")

    @property
    def _current(self) -> Attempt:
        assert self.run.state.current is not None
        return self.run.state.current


def spend_data(spend: Spend) -> dict[str, Any]:
    """A spend for the account: what is unknown is null, and what is estimated is said."""
    estimated = {"estimated_usd": round(spend.estimated, 6)} if spend.estimated else {}
    partly = {"unmetered": spend.unmetered} if spend.unmetered and spend.cost is not None else {}
    tokens = spend.tokens.total if spend.tokens is not None else None
    return {"cost_usd": spend.cost, "tokens": tokens, **estimated, **partly}
