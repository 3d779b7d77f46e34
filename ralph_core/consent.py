"""Judges each use of a tool, before it happens where the agent can ask; and has a person asked when a policy says so."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import replace

from . import conventions as names
from .account.audit import Pair
from .approvals import GRANTED, Approval, Asked, AskServer, Book, brief, digest_of
from .contracts import Agent, Capability
from .events import ToolCall
from .plugins.registry import Plugins
from .policies import Ruling
from .records import Severity
from .run import Ended, Run
from .verdicts import Deny, Moment, MomentKind, Outcome, OutcomeKind
from .watch import Watch

NOBODY = "nobody to ask (`approvals: wait` makes a run wait for `ralph approvals grant`)"


LOOK_AGAIN = 0.5
"""Seconds after which a call that would be one too many at once is looked at again: the results of others may have been written,
and not been read yet."""


class Consent:
    """Consent to the tools of one attempt. `server` is there if its agent asks before it uses one."""

    def __init__(self, run: Run, agent: str, iteration: int, watch: Watch, server: AskServer | None) -> None:
        self._run, self._agent, self._iteration = run, agent, iteration
        self._watch, self._server = watch, server
        self._book = Book(run.parts.folder)
        self._known: set[str] = set()
        self._working: set[str] = set()
        self._crowded: set[Asked] = set()
        self._persons: set[asyncio.Task[None]] = set()
        self._fault: Exception | None = None
        if server is not None:
            server.deliver = watch.put

    async def close(self) -> None:
        """Deny whatever has no answer yet."""
        if self._server is not None:
            self._server.refuse("the run has been ended, or this attempt has")
        for task in self._persons:
            task.cancel()
        await asyncio.gather(*self._persons, return_exceptions=True)

    # --- an agent that asks ---

    async def decide(self, asked: Asked) -> None:
        """Have the policies judge a call that its agent holds back. Raises `Ended`, or `PluginFault`; then it is denied."""
        if asked.settled.done() or self._too_early(asked):
            return
        self._known.add(asked.call.id)
        self._watch.hold()
        try:
            ruling = await self._run.judged(Moment(MomentKind.TOOL, asked.call))
        except BaseException:
            self._settle(asked, allowed=False, reason="the run is being ended")
            raise
        if ruling is None:
            self._settle(asked, allowed=True)
        elif isinstance(ruling.verdict, Deny):
            self._settle(asked, allowed=False, reason=_words(ruling), policy=ruling.policy)
        else:
            task = asyncio.create_task(self._guarded(asked, ruling))
            self._persons.add(task)
            task.add_done_callback(self._persons.discard)

    def _too_early(self, asked: Asked) -> bool:
        """Whether it is better judged in a moment; before it is, what is at work is noted for whoever judges it."""
        run = self._run
        most, current = run.state.limits.actions, run.state.current
        if most is None or current is None:
            return False
        if len(self._working) >= most and asked not in self._crowded:
            self._crowded.add(asked)
            asyncio.get_running_loop().call_later(LOOK_AGAIN, self._watch.put, asked)
            return True
        self._crowded.discard(asked)
        run.note(current=replace(current, actions=len(self._working)))
        return False

    def ended(self, call: str) -> None:
        """Take note that a tool is no longer at work."""
        self._working.discard(call)

    def heed(self) -> None:
        """Raise what went wrong while a person was asked."""
        if self._fault is not None:
            raise self._fault

    async def _guarded(self, asked: Asked, ruling: Ruling) -> None:
        allowed, reason = False, "the run is being ended"
        try:
            allowed, reason = await self._ask(asked, ruling)
        except Exception as error:
            self._fault = error
        finally:
            self._settle(asked, allowed=allowed, reason=reason, policy=ruling.policy)

    async def _ask(self, asked: Asked, ruling: Ruling) -> tuple[bool, str]:
        """Whether a person agrees, and what to tell the agent."""
        parts, call = self._run.parts, asked.call
        if digest_of(call) in self._book.always():
            return True, ""
        if not parts.someone:
            return False, f"{_words(ruling)}; {NOBODY}"
        approval = self._book.open(
            call,
            run=self._run.state.run,
            iteration=self._iteration,
            agent=self._agent,
            arguments=parts.redactor.value(dict(call.input)),
            reason=parts.redactor.text(_words(ruling)),
            policy=ruling.policy,
            until=time.time() + parts.settings.approval_timeout,
        )
        file = {"approval": approval.id, "file": str(approval.path), "id": call.id}
        message = f"{call.name}({brief(approval.arguments)}): {approval.reason}"
        who = {"actor": self._agent, "capability": f"tool:{call.name}"}
        with parts.trail.pair("approval", message=message, approval_id=approval.id, **who, **file) as pair:
            pair.ending = "abandoned"
            decided = await self._decision(approval, lambda: asked.withdrawn)
            _describe(pair, decided)
        granted = decided.state == GRANTED
        return granted, "" if granted else f"{approval.reason}; denied: {decided.by}"

    async def _decision(self, approval: Approval, withdrawn: Callable[[], bool]) -> Approval:
        try:
            return await self._book.decision(approval, withdrawn)
        except asyncio.CancelledError:
            self._book.lapse(approval, "the run was ended")
            raise

    def _settle(self, asked: Asked, *, allowed: bool, reason: str = "", policy: str | None = None) -> None:
        asked.answer(allowed=allowed, reason=reason)
        self._watch.release()
        if allowed and asked.call.id:  # without an id its end could not be told
            self._working.add(asked.call.id)
        attributes = {
            names.TOOL: asked.call.name,
            names.TOOL_CALL: asked.call.id,
            names.VERDICT: "allow" if allowed else "deny",
            names.POLICY: policy,
        }
        self._run.parts.telemetry.record(f"ask {asked.call.name}", asked.since, time.time_ns(), attributes)

    # --- an agent that only reports ---

    async def reported(self, call: ToolCall) -> None:
        """Judge a call that its agent reports without waiting; one that asks is judged when it does."""
        if self._server is None:
            await self._judge_late(call, f"agent {self._agent} could not be asked before")

    async def used(self, call: ToolCall) -> None:
        """Judge a call that went well although nobody was asked: something in the agent's own settings kept it from asking."""
        if self._server is not None and call.id not in self._known:
            await self._judge_late(call, f"agent {self._agent} did not ask before")

    async def _judge_late(self, call: ToolCall, how: str) -> None:
        ruling = await self._run.judged(Moment(MomentKind.TOOL, call))
        if ruling is not None:
            reason = f"tool {call.name}: {getattr(ruling.verdict, 'reason', '')} ({how})"
            raise Ended(Outcome(OutcomeKind.STOPPED, reason, by=ruling.policy))


def askers(agents: Mapping[str, Agent], policies: Iterable[str], plugins: Plugins) -> frozenset[str]:
    """The agents that are made to ask before they use a tool: those that can, if a policy wants to see it."""
    if not _wanting(policies, plugins):
        return frozenset()
    return frozenset(name for name, agent in agents.items() if Capability.ASKS in _able(name, agent, plugins))


def unasked(agents: Mapping[str, Agent], policies: Iterable[str], plugins: Plugins) -> list[str]:
    """What has to be said of policies that can't be enforced before a tool runs."""
    wanting, notes = _wanting(policies, plugins), []
    only_before = [name for name in wanting if Capability.BEFORE in _promises(name, plugins)]
    for name, agent in agents.items() if wanting else ():
        able = _able(name, agent, plugins)
        if Capability.ASKS in able:
            continue
        late = [each for each in wanting if each not in only_before] if Capability.TOOLS in able else []
        never = [each for each in wanting if each not in late]
        if late:
            notes.append(
                f"agent {name} can't be asked before it uses a tool: {', '.join(late)} can only stop the run afterwards"
            )
        if never:
            why = (
                "can't be asked before it uses a tool"
                if late or Capability.TOOLS in able
                else "does not say which tools it uses"
            )
            notes.append(f"agent {name} {why}: {', '.join(never)} can't be enforced")
    return notes


def _wanting(policies: Iterable[str], plugins: Plugins) -> list[str]:
    """Those that want to see a tool before it runs."""
    return [name for name in policies if Capability.TOOLS in _promises(name, plugins)]


def _promises(policy: str, plugins: Plugins) -> AbstractSet[str]:
    return plugins.provider("policy", policy)[1].capabilities


def _able(name: str, agent: Agent, plugins: Plugins) -> AbstractSet[str]:
    return plugins.capabilities(name, agent)


def _words(ruling: Ruling) -> str:
    """A ruling as the agent, and a person, are told of it."""
    return f"{getattr(ruling.verdict, 'reason', '')} (Ralph's policy {ruling.policy})"


def _describe(pair: Pair, decided: Approval) -> None:
    granted = decided.state == GRANTED
    pair.ending = "finished"
    pair.severity = Severity.INFO if granted else Severity.WARNING
    scope = ", for the rest of the run" if decided.always else ""
    pair.message = f"{decided.tool}: {decided.state} ({decided.by}{scope})"
    pair.data = {"approval": decided.id, "state": decided.state, "by": decided.by, "always": decided.always}
