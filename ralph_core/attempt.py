"""One attempt: a fresh agent process, from its prompt to the entry in the account of how it ended."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import conventions as names
from .account.audit import Pair
from .approvals import FOLDER as APPROVALS
from .approvals import Asked, AskServer
from .consent import Consent
from .contracts import Capability, Command, Failure, McpServers, Request
from .events import (
    Failed,
    FailureKind,
    Finished,
    Tokens,
    Usage,
)
from .intake import TEXT_KEPT, Intake, spend_data
from .prompt import as_ticked, claims_completion, compose
from .records import Severity
from .run import Ended, Run
from .state import RECENT, Attempt
from .verdicts import Moment, MomentKind
from .watch import AgentHost, Watch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.trace import Span

    from .processes.job import Job
    from .processes.recording import Recorder
    from .steering import Word

AT_ONCE = 64 * 1024
"""Bytes of output that are gone through for secrets in less time than a thread takes to be woken."""
READ_ON = 5.0
"""Seconds for which the output of an agent that was killed is read on, for what it had reported of its spending."""


class AttemptRunner:
    """Makes one attempt with one agent, and books what it used whatever happens."""

    def __init__(self, run: Run, agent: str, iteration: int) -> None:
        self.run, self.agent, self.iteration = run, agent, iteration
        self._plugin, _ = run.parts.plugins.provider("agent", agent)
        self._able = run.parts.plugins.capabilities(agent, run.parts.agents[agent])
        self._intake = Intake(run, agent, self._plugin, self._able)
        self._job: Job | None = None
        self._words: Sequence[Word] = ()

    async def make(self) -> Attempt:
        """Run the agent once. Raises `Ended` when a policy or a person ends the run meanwhile."""
        run, number = self.run, self.run.state.attempts + 1
        output = f"output/{number:04d}.out"
        # What it spends is unknown from its first moment on, also if Ralph is killed in it.
        spend = self._intake.meter.spend()
        current = Attempt(self.iteration, number, self.agent, time.time(), output=output, spend=spend)
        starts = self._starts(current.started)
        # Not durable: a power cut now takes the attempt with it, and what it has spent is saved as it is reported.
        run.save(
            durable=False,
            agent=self.agent,
            iteration=self.iteration,
            attempts=number,
            current=current,
            starts=starts,
            booked=self._intake.booked_before,
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
            if isinstance(self._intake.final, Finished) and self.run.is_due(self.iteration):
                await self.run.begin_look()
        finally:
            if parts.transcripts.size(output, parts.scratchpad) > AT_ONCE:
                await asyncio.to_thread(self._keep, output)
            else:
                self._keep(output)

    def _keep(self, output: str) -> None:
        """Keep what was written; the agent's notes are in Ralph's own directory: no secret stays in them, either."""
        self.run.parts.transcripts.keep(output)
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
        from .processes.recording import Recorder, path_of  # most runs keep none

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
        # The store makes this one durable, after the one before; the agent is at work meanwhile.
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
                        await self._intake.take(event, consent)
                    elif self._intake.final is None and await self._overdue(
                        watch
                    ):  # once it is through, that is judged first
                        break
            except Exception:
                watch.kill()  # over a limit, or nothing there that would watch over it: every further second may cost
                await self._take_the_rest(watch, host)
                raise
            finally:
                await consent.close()
        if run.parts.halt.now is not None and self._intake.final is None:
            raise Ended(run.parts.halt.now)

    async def _overdue(self, watch: Watch) -> bool:
        """At a tick: whether a policy denies the agent more time, which fails the attempt."""
        run = self.run
        run.note(current=replace(self._current, silent=watch.silent, worked=watch.worked))
        run.save_now_and_then()
        ruling = await run.judged(Moment(MomentKind.TICK))
        if ruling is None:
            return False
        self._intake.final = Failed(FailureKind.TIMEOUT, getattr(ruling.verdict, "reason", ""))
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
                self._intake.meter.usage(event)
            elif isinstance(event, (Finished, Failed)):
                self._intake.meter.final(event)

    # --- after ---

    @property
    def answer(self) -> str | None:
        """The agent's last words; None if it has not finished."""
        return (
            self.run.parts.redactor.text(self._intake.final.text) if isinstance(self._intake.final, Finished) else None
        )

    @property
    def _current(self) -> Attempt:
        assert self.run.state.current is not None
        return self.run.state.current

    def _judged(self) -> Attempt:
        """What became of the attempt: its final event decides, whatever the exit code was."""
        run, final = self.run, self._intake.final
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
        self._intake.end_tools()
        attempt = replace(attempt, ended=time.time(), spend=self._intake.meter.spend())
        state, booked = self.run.state, self._intake.booked_before + attempt.spend
        recent = (*state.recent, attempt)[-RECENT:]
        self.run.note(current=None, recent=recent, booked=booked, spend=state.spend.at_least(booked))
        span.set_attributes(_attributes(attempt, self._intake.provider, self._job))
        pair.ending = attempt.result or "abandoned"
        pair.message = attempt.message
        pair.severity = Severity.INFO if attempt.result == "finished" else Severity.WARNING
        failure = {"failure": attempt.failure.value} if attempt.failure is not None else {}
        spent = {**spend_data(attempt.spend), **self._intake.meter.differences()}
        pair.data = {"attempt": attempt.number, "claimed": attempt.claimed, **failure, **spent}
        pair.usage = spend_data(attempt.spend)
        return attempt


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
