"""One attempt: a fresh agent process, from its prompt to the entry in the account of how it ended."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import conventions as names
from . import pricing
from .approvals import FOLDER as APPROVALS
from .approvals import Asked, AskServer
from .audit import RESULTS, Pair
from .consent import Consent
from .contracts import Capability, Command, Failure, McpServers, Request
from .events import (
    Event,
    Failed,
    FailureKind,
    Finished,
    Started,
    Text,
    Tokens,
    ToolCall,
    ToolResult,
    Usage,
    UsageWindow,
)
from .meter import Meter
from .prompt import as_ticked, claims_completion, compose
from .records import Severity
from .run import Ended, Run
from .state import RECENT, Attempt, Quota, Spend
from .verdicts import Moment, MomentKind
from .watch import AgentHost, Watch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.trace import Span

    from .job import Job
    from .recording import Recorder
    from .steering import Word

TEXT_KEPT = 1000
"""Characters of a text that go into its audit record; all of it is in the run's folder."""


READ_ON = 5.0
"""Seconds for which the output of an agent that was killed is read on, for what it had reported of its spending."""


class AttemptRunner:
    """Makes one attempt with one agent, and books what it used whatever happens."""

    def __init__(self, run: Run, agent: str, iteration: int) -> None:
        self.run, self.agent, self.iteration = run, agent, iteration
        self._meter = Meter()
        self._booked_before = run.state.booked or run.state.spend
        self._plugin, _ = run.parts.plugins.provider("agent", agent)
        self._able = run.parts.plugins.capabilities(agent, run.parts.agents[agent])
        self._final: Finished | Failed | None = None
        self._tools: dict[str, tuple[ToolCall, Span, int]] = {}
        self._job: Job | None = None
        self._words: Sequence[Word] = ()
        self._provider: str | None = None

    async def make(self) -> Attempt:
        """Run the agent once. Raises `Ended` when a policy or a person ends the run meanwhile."""
        run, number = self.run, self.run.state.attempts + 1
        output = f"output/{number:04d}.out"
        # What it spends is unknown from its first moment on, also if Ralph is killed in it.
        spend = self._meter.spend()
        current = Attempt(self.iteration, number, self.agent, time.time(), output=output, spend=spend)
        starts = self._starts(current.started)
        run.save(
            agent=self.agent,
            iteration=self.iteration,
            attempts=number,
            current=current,
            starts=starts,
            booked=self._booked_before,
        )
        attributes = {
            names.OPERATION: "invoke_agent",
            names.AGENT: self.agent,
            names.PLUGIN: self._plugin,
            names.VERSION: run.parts.plugins.version(self._plugin),
            names.ATTEMPT: number,
        }
        with (
            run.parts.telemetry.span(f"invoke_agent {self.agent}", attributes, client=True) as span,
            run.parts.trail.pair("agent", actor=self.agent, plugin=self._plugin, attempt=number) as pair,
        ):
            try:
                await self._work(number, Path(output).name)
                attempt = self._judged()
                if attempt.failure is None or attempt.failure.agent_fault:  # else the same prompt is given again
                    run.parts.desk.heeded(self._words)
            except BaseException as error:
                message = run.parts.redactor.text(str(error))
                self._book(replace(self._current, result="abandoned", message=message), span, pair)
                raise
            return self._book(attempt, span, pair)

    async def _work(self, number: int, output: str) -> None:
        """Let the agent work, and keep what it has written."""
        parts = self.run.parts
        try:
            if self.agent in parts.askers:
                async with AskServer(parts.folder / APPROVALS) as server:
                    await self._follow(self._request(number, output, server), server)
            else:
                await self._follow(self._request(number, output, None), None)
        finally:
            await parts.transcripts.keep(output)
            await asyncio.to_thread(self._clear_notes)

    def _clear_notes(self) -> None:
        """The agent's notes are in Ralph's own directory: no secret stays in them, either."""
        try:
            self.run.parts.redactor.file(self.run.parts.scratchpad)
        except OSError:  # it has made none
            pass

    # --- before ---

    def _starts(self, now: float) -> tuple[float, ...]:
        """When the last iterations began, as many as their rate is judged by; a repeated one has begun already."""
        state, most = self.run.state, self.run.state.limits.iterations_per_hour or 0
        begun = state.starts if state.iteration == self.iteration else (*state.starts, now)
        return begun[max(0, len(begun) - most) :]

    def _budget(self) -> float | None:
        """US dollars that are left; None if nobody asks for them."""
        state = self.run.state
        if self.run.parts.settings.policies.get("cost") is False:
            return None
        return max(0.0, state.limits.cost - (state.spend.cost or 0.0))

    def _request(self, number: int, output: str, server: AskServer | None) -> Request:
        parts, state = self.run.parts, self.run.state
        sections = parts.plugins.prompt_sections(state, state.task)
        return Request(
            run=state.run,
            iteration=self.iteration,
            attempt=number,
            prompt=compose(as_ticked(state.task, parts.words), state, parts.scratchpad, sections, self._said()),
            workspace=parts.workspace,
            env=self._environment(),
            host=AgentHost(
                parts.supervisor,
                parts.transcripts.raw(output),
                prepare=self._prepare,
                spawned=self._spawned,
                limits=parts.settings.process.limits,
                recorder=self._recorder(number),
                words=parts.redactor.text,
            ),
            ask=server.channel if server is not None else None,
            budget=self._budget(),
            mcp=self._mcp(),
        )

    def _mcp(self) -> McpServers | None:
        settings = self.run.parts.settings
        if not settings.mcp.servers or Capability.MCP not in self._able:
            return None
        servers = {name: server.written for name, server in settings.mcp.servers.items()}
        return McpServers(servers, settings.mcp.connection_timeout, settings.mcp.call_timeout)

    def _recorder(self, number: int) -> Recorder | None:
        if not self.run.parts.settings.record:
            return None
        from .recording import Recorder, path_of  # most runs keep none

        return Recorder(path_of(self.run.parts.folder, number), self.run.parts.redactor, self.agent)

    def _said(self) -> list[str]:
        """What a person has said to the run since its last iteration."""
        self._words = self.run.parts.desk.words()
        for word in self._words:
            self.run.parts.trail.record("steered", actor="person", message=word.text[:TEXT_KEPT])
        return [word.text for word in self._words]

    def _environment(self) -> dict[str, str]:
        """The agent's environment, with the run's marks and the way back to this trace."""
        given = self.run.parts.agents[self.agent].context.env
        marks = {"RALPH_RUN_ID": self.run.state.run, "RALPH_ITERATION": str(self.iteration)}
        return {**given, **marks, **self.run.parts.telemetry.environment()}

    def _prepare(self, command: Command) -> Command:
        sandboxed = self.run.parts.settings.security.sandbox_enabled
        prepared = self.run.parts.plugins.prepare_command(command, self.run.state, wrap=sandboxed)
        self.run.parts.redactor.learn(prepared.env)  # what the agent is given, it may say
        return prepared

    def _spawned(self, job: Job) -> None:
        self._job = job
        # Not durable: no process survives the power cut that this would have to survive.
        self.run.save(durable=False, current=replace(self._current, pid=job.pid, pid_started=job.identity))

    # --- meanwhile ---

    async def _follow(self, request: Request, server: AskServer | None) -> None:
        run, host = self.run, request.host
        assert isinstance(host, AgentHost)
        async with Watch(
            run.parts.agents[self.agent], request, host, run.parts.halt, deadline=run.parts.plugins.deadline
        ) as watch:
            consent = Consent(run, self.agent, self.iteration, watch, server)
            try:
                async for event in watch:
                    consent.heed()
                    if isinstance(event, Asked):
                        await consent.decide(event)
                    elif event is not None:
                        await self._take(event, consent)
                    elif self._final is None and await self._overdue(watch):  # once it is through, that is judged first
                        break
            except Exception:
                watch.kill()  # over a limit, or nothing there that would watch over it: every further second may cost
                await self._take_the_rest(watch, host)
                raise
            finally:
                await consent.close()
        if run.parts.halt.now is not None and self._final is None:
            raise Ended(run.parts.halt.now)

    async def _overdue(self, watch: Watch) -> bool:
        """At a tick: whether a policy denies the agent more time, which fails the attempt."""
        run = self.run
        run.note(current=replace(self._current, silent=watch.silent, worked=watch.worked))
        run.save_now_and_then()
        ruling = await run.judged(Moment(MomentKind.TICK))
        if ruling is None:
            return False
        self._final = Failed(FailureKind.TIMEOUT, getattr(ruling.verdict, "reason", ""))
        return True

    async def _take_the_rest(self, watch: Watch, host: AgentHost) -> None:
        """Kill the agent, and count what it had reported by then but nobody had read: it is on the bill, too."""
        until = time.monotonic()
        if host.job is not None:
            await host.job.stop(now=True)
            until = time.monotonic() + READ_ON
        async for event in watch:
            if event is None and time.monotonic() >= until:
                return
            if isinstance(event, Usage):
                self._meter.usage(event)
            elif isinstance(event, (Finished, Failed)):
                self._meter.final(event)

    async def _take(self, event: Event, consent: Consent) -> None:
        """Meter an event, write it into the account, and have it judged."""
        if isinstance(event, Started):
            self._meter.started(event)
            self.run.note(current=replace(self._current, session=event.session, model=event.model))
            self._provider = event.provider
            self._record("agent.session", data={"session": event.session, "model": event.model})
        elif isinstance(event, Text):
            self._record("agent.text", self.run.parts.redactor.cut(event.text, TEXT_KEPT), severity=Severity.DEBUG)
        elif isinstance(event, ToolCall):
            attributes = {names.OPERATION: "execute_tool", names.TOOL: event.name, names.TOOL_CALL: event.id}
            span = self.run.parts.telemetry.begin(f"execute_tool {event.name}", attributes)
            self._tools[event.id] = (event, span, time.time_ns())
            used = {"id": event.id, "input": event.input}
            self._record("tool.started", event.name, capability=f"tool:{event.name}", data=used)
            await consent.reported(event)
        elif isinstance(event, ToolResult):
            call = self._tools[event.id][0] if event.id in self._tools else None
            self._end_tool(event.id, "finished" if event.ok else "failed", event.text)
            consent.ended(event.id)
            if call is not None and event.ok:
                await consent.used(call)
        elif isinstance(event, Usage):
            await self._load_prices(event)
            self._meter.usage(event)
            self._save_spend()
            if Capability.USAGE not in self._able or Capability.USAGE_LIVE in self._able:
                # Else it reports when it is through, and a claim of completion comes next: that is judged first.
                await self.run.rule(Moment(MomentKind.USAGE, event))
        elif isinstance(event, UsageWindow):
            figures = {"window": event.window, "utilization": event.utilization, "resets_at": event.resets_at}
            self._record("agent.window", event.status, data=figures)
            self._heed_quota(event)
            await self.run.rule(Moment(MomentKind.WINDOW, event))
        else:
            self._final = event
            await self._load_prices(event)
            self._meter.final(event)
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
        others = (quota for quota in self.run.state.quotas if (quota.agent, quota.window) != (self.agent, event.window))
        quota = Quota(self.agent, event.window, event.status, event.utilization, event.resets_at, now)
        self.run.save(quotas=(*others, quota))

    def _save_spend(self) -> None:
        """Save what was spent so far, before anyone judges it: a kill right now must not make it unspent."""
        spend = self._meter.spend()
        total = self.run.state.spend.at_least(self._booked_before + spend)
        if spend != self._current.spend or total != self.run.state.spend:
            measured = (
                spend.tokens is not None or spend.cost is not None
            )  # else the end of the attempt says it soon enough
            keep = self.run.save if measured else self.run.note
            keep(current=replace(self._current, spend=spend), spend=total)

    def _record(self, type_: str, message: str = "", **more: Any) -> None:
        known = {"actor": self.agent, "plugin": self._plugin, "capability": "agent"}
        self.run.parts.trail.record(type_, message=message, **{**known, **more})

    def _end_tool(self, tool: str, ending: str, text: str = "") -> None:
        if tool not in self._tools:
            return
        call, span, started = self._tools.pop(tool)
        now, good = time.time_ns(), ending == "finished"
        self.run.parts.telemetry.end(span, None if good else ending)
        self._record(
            f"tool.{ending}",
            call.name if good else f"{call.name}: {self.run.parts.redactor.cut(text, 300)}",
            capability=f"tool:{call.name}",
            result=RESULTS[ending],
            severity=Severity.INFO if good else Severity.WARNING,
            data={"id": call.id},
            duration=(now - started) / 1e9,
        )

    # --- after ---

    @property
    def answer(self) -> str | None:
        """The agent's last words; None if it has not finished."""
        return self.run.parts.redactor.text(self._final.text) if isinstance(self._final, Finished) else None

    @property
    def _current(self) -> Attempt:
        assert self.run.state.current is not None
        return self.run.state.current

    def _judged(self) -> Attempt:
        """What became of the attempt: its final event decides, whatever the exit code was."""
        run, final = self.run, self._final
        if isinstance(final, Finished):
            claimed = claims_completion(final.text, run.state.promise)
            message = run.parts.redactor.text(_first_line(final.text))
            return replace(self._current, result="finished", claimed=claimed, message=message)
        final = final or Failed(FailureKind.CRASH, "no final event")
        kind = run.parts.plugins.classify_failure(Failure(self.agent, final.kind, final.message), run.state)
        message = run.parts.redactor.text(f"{kind.value}: {final.message}")[:500]
        failed = replace(self._current, result="failed", failure=kind, message=message)
        return replace(failed, retry_after=final.retry_after)

    def _book(self, attempt: Attempt, span: Span, pair: Pair) -> Attempt:
        """Enter an attempt that is over into the state, the trace and the account."""
        for tool in list(self._tools):
            self._end_tool(tool, "abandoned")
        attempt = replace(attempt, ended=time.time(), spend=self._meter.spend())
        state, booked = self.run.state, self._booked_before + attempt.spend
        recent = (*state.recent, attempt)[-RECENT:]
        self.run.note(current=None, recent=recent, booked=booked, spend=state.spend.at_least(booked))
        span.set_attributes(_attributes(attempt, self._provider, self._job))
        pair.ending = attempt.result or "abandoned"
        pair.message = attempt.message
        pair.severity = Severity.INFO if attempt.result == "finished" else Severity.WARNING
        failure = {"failure": attempt.failure.value} if attempt.failure is not None else {}
        spent = {**spend_data(attempt.spend), **self._meter.differences()}
        pair.data = {"attempt": attempt.number, "claimed": attempt.claimed, **failure, **spent}
        pair.usage = spend_data(attempt.spend)
        return attempt


def spend_data(spend: Spend) -> dict[str, Any]:
    """A spend for the account: what is unknown is null, and what is estimated is said."""
    estimated = {"estimated_usd": round(spend.estimated, 6)} if spend.estimated else {}
    partly = {"unmetered": spend.unmetered} if spend.unmetered and spend.cost is not None else {}
    tokens = spend.tokens.total if spend.tokens is not None else None
    return {"cost_usd": spend.cost, "tokens": tokens, **estimated, **partly}


def _attributes(attempt: Attempt, provider: str | None, job: Job | None) -> dict[str, Any]:
    """What the span of an attempt says of it; the unknown is left out."""
    tokens = attempt.spend.tokens
    known = {
        names.RESULT: attempt.result,
        names.PROVIDER: provider,
        names.MODEL: attempt.model,
        names.CONVERSATION: attempt.session,
        names.COST: attempt.spend.cost,
        names.ERROR: attempt.failure.value if attempt.failure is not None else None,
        names.PID: attempt.pid,
        names.EXIT_CODE: job.code if job is not None else None,
    }
    return {**{name: value for name, value in known.items() if value is not None}, **_token_attributes(tokens)}


def _token_attributes(tokens: Tokens | None) -> dict[str, int]:
    """The conventions count cached tokens as input tokens; Ralph keeps them apart."""
    if tokens is None:
        return {}
    return {
        names.INPUT_TOKENS: tokens.input + tokens.cache_read + tokens.cache_write,
        names.OUTPUT_TOKENS: tokens.output,
        names.CACHE_READ_TOKENS: tokens.cache_read,
        names.CACHE_WRITE_TOKENS: tokens.cache_write,
    }


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")[:500]
