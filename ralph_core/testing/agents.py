"""What every agent has to hold, whatever program it stands for.

    class TestAcme(AgentContract):
        provider = "acme"

        @pytest.fixture
        def scenarios(self):
            return [
                Scenario(name="done", capture=CAPTURES / "done.jsonl"),
                Scenario(name="no key", capture=CAPTURES / "401.jsonl", exit=1, expect=FailureKind.AUTH),
            ]

What the program printed is played, mutilated and cut off; a scenario without a capture runs the program itself.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from ralph_core.contracts import Agent, AskChannel, Capability, CommandAgent, McpServers, Probe, Provider
from ralph_core.events import (
    Event,
    Failed,
    Finished,
    Started,
    Text,
    ToolCall,
    ToolResult,
    Usage,
    UsageWindow,
)
from ralph_core.testing.rules import Named, broken, built, clean_env, context_in, found, holds, imported
from ralph_core.testing.scenarios import PROMPT, Played, Scenario, made, play, run
from ralph_core.wire import NAMES, event_from, fields_of

QUICK = 10.0
"""Seconds that a probe may take."""
MARK = "ralph-kit-5e1f"
"""By this name what a request brings is found again in what the program is handed."""
BUDGET = 0.734512
REQUESTED: Mapping[Capability, str] = {
    Capability.ASKS: f"{MARK}-ask",
    Capability.BUDGET: str(BUDGET),
    Capability.MCP: f"{MARK}-mcp",
}
"""Capabilities that are seen in what the program is handed: by what."""
GARBAGE = (b"npm warn deprecated", b"", b"[1]", b'"result"', b"null", b"{", b"}", b"=" * 200)
HUGE = b"x" * 10_000_000


class Stage:
    """The agent under test, in a place of its own for each attempt."""

    def __init__(
        self, provider: Provider[Agent], scenarios: Sequence[Scenario], folder: Path, kept: dict[str, Any]
    ) -> None:
        self.provider, self.scenarios, self._folder, self._kept = provider, scenarios, folder, kept
        self._count = 0

    def agent(self, scenario: Scenario, env: Mapping[str, str] | None = None) -> tuple[Agent, dict[str, str], Path]:
        """A fresh one, the environment of its process, and the folder that all of it is in."""
        self._count += 1
        folder = self._folder / str(self._count)
        given = {**clean_env(folder), **scenario.env, **(env or {})}
        return made("agent", self.provider, scenario, context_in(folder, given)), given, folder

    def play(self, scenario: Scenario, *, env: Mapping[str, str] | None = None, **how: Any) -> Played:
        """One attempt of a fresh agent, with nothing started."""
        agent, given, _ = self.agent(scenario, env)
        return play(agent, scenario, given, **how)

    def whole(self, scenario: Scenario) -> Played:
        """The scenario as it is: a program that is to be run is run once for all tests of the class."""
        if scenario.name not in self._kept:
            agent, given, folder = self.agent(scenario)
            self._kept[scenario.name] = (
                run(agent, scenario, given, folder) if scenario.online else play(agent, scenario, given)
            )
        played: Played = self._kept[scenario.name]
        return played

    @property
    def starts_processes(self) -> bool:
        """Whether it asks the host for a process: one that is a library, or a player, does not."""
        return any(isinstance(self.agent(each)[0], CommandAgent) or self.play(each).commands for each in self.scenarios)

    def each(self) -> Iterator[tuple[Scenario, Played]]:
        for scenario in self.scenarios:
            yield scenario, self.whole(scenario)

    def offline(self) -> list[Scenario]:
        """Those that are played."""
        return [scenario for scenario in self.scenarios if not scenario.online]


class AgentContract:
    """The rules for agents. Override the fixture `scenarios`."""

    provider: ClassVar[Named] = ""
    """What is tested: the name of an installed provider, or a `Provider` that no plugin declares yet."""
    _kept: ClassVar[dict[str, Any]] = {}

    def __init_subclass__(cls) -> None:
        cls._kept = {}

    @pytest.fixture
    def scenarios(self) -> Sequence[Scenario]:
        """To be overridden: attempts of the agent, at least one that finishes and one that fails."""
        broken(
            f"{type(self).__name__} has no scenarios",
            mend="override the fixture `scenarios`: a list of ralph_core.testing.scenarios.Scenario",
        )

    @pytest.fixture
    def stage(self, scenarios: Sequence[Scenario], tmp_path: Path) -> Stage:
        return Stage(found("agent", self.provider), scenarios, tmp_path, self._kept)

    # --- looking for the program ---

    @pytest.fixture
    def bare(self, tmp_path: Path) -> Agent:
        """The agent on a machine that has nothing."""
        (tmp_path / "empty").mkdir()
        context = context_in(tmp_path, {"PATH": str(tmp_path / "empty"), "HOME": str(tmp_path / "empty")})
        agent: Agent = built("agent", found("agent", self.provider), {}, context)
        return agent

    def test_probe_is_quick_and_does_not_raise(self, bare: Agent) -> None:
        """On a machine that has nothing, `probe` answers a `Probe`, and soon."""
        probe, seconds = _probed(bare)
        holds(
            isinstance(probe, Probe),
            f"probe raised {probe!r}" if isinstance(probe, BaseException) else f"probe answered {probe!r}",
            mend="return a Probe whatever is wrong with the machine; what is missing goes into `missing`",
        )
        holds(
            seconds < QUICK, f"probe took {seconds:.0f} s", mend=f"give what it runs a time limit: {QUICK:g} s in all"
        )

    def test_probe_says_what_is_missing(self, bare: Agent) -> None:
        """With an empty PATH, no home and no variables, an agent can't be usable, unless it needs nothing at all."""
        probe, _ = _probed(bare)
        if not isinstance(probe, Probe) or (probe.usable and not isinstance(bare, CommandAgent)):
            return  # said by the test before; or an agent that needs no program
        holds(
            not probe.usable,
            "with an empty PATH and no credentials, the probe says that the agent is usable",
            mend="look for the program with find_program(name, self.context.env), and name it in `missing`",
        )
        holds(
            all(isinstance(each, str) and each.strip() for each in probe.missing),
            f"what the probe says is missing is not in words: {probe.missing!r}",
            mend="say in a sentence what to install or to set",
        )

    def test_skills_are_files_that_are_there(self, bare: Agent) -> None:
        """`skills` names files `SKILL.md` that exist: none on a machine that has nothing."""
        try:
            found: object = list(bare.skills())
        except Exception as error:
            found = error
        holds(
            isinstance(found, list)
            and all(isinstance(each, Path) and each.name == "SKILL.md" and each.is_file() for each in found),
            f"where there is no skill, skills() answers {found!r:.200}",
            mend="answer the paths of the files SKILL.md that are there; () where there is none, or leave it to the base class",
        )

    # --- attempts ---

    def test_scenarios_show_success_and_failure(self, stage: Stage) -> None:
        """There are scenarios of both, each with a name of its own, and one that can be played without the program."""
        names = [scenario.name for scenario in stage.scenarios]
        holds(
            len(set(names)) == len(names), f"two scenarios have one name: {names}", mend="give each a name of its own"
        )
        wanted = {scenario.expect is None for scenario in stage.scenarios}
        holds(
            wanted == {True, False},
            "the scenarios show only one of success and failure",
            mend="add one that finishes (expect=None) and one that fails (expect=FailureKind....)",
        )
        holds(
            stage.offline() or not stage.starts_processes,
            "all scenarios run the program, so none can be mutilated",
            mend="add one with a `capture`: what the program printed, or a recording made with `ralph run --record`",
        )

    def test_ends_with_exactly_one_final_event(self, stage: Stage) -> None:
        """`run` raises nothing, and yields one `Finished` or `Failed`, as the last event."""
        for scenario, played in stage.each():
            if played.error is not None:
                broken(
                    f"{scenario.name}: run raised {type(played.error).__name__}: {played.error}",
                    mend="what goes wrong in an attempt is a Failed event, never an exception",
                )
            kinds = [type(event).__name__ for event in played.events]
            holds(
                len(played.finals) == 1 and played.events and played.events[-1] in played.finals,
                f"{scenario.name}: the events are {', '.join(kinds[-8:]) or 'none'}",
                mend="yield one Finished or Failed in each attempt, as the last event",
            )

    def test_comes_to_what_is_expected(self, stage: Stage) -> None:
        """Each scenario finishes, or fails with the kind that it expects and a message."""
        for scenario, played in stage.each():
            if not played.finals:
                continue  # there is a test for that
            final = played.finals[-1]
            kind = final.kind if isinstance(final, Failed) else None
            words = f"Failed({final.kind.value!r}, {final.message!r:.200})" if isinstance(final, Failed) else "Finished"
            wanted = f"a failure of the kind {scenario.expect.value}" if scenario.expect else "success"
            holds(
                kind == scenario.expect,
                f"{scenario.name}: {wanted} was expected, and {words} came",
                mend="let the final event, not the exit code or the model's words, decide, and tell its kinds apart",
            )
            holds(
                kind is None or (isinstance(final, Failed) and final.message.strip()),
                f"{scenario.name}: the failure says nothing",
                mend="give Failed a message that a person can act on",
            )

    def test_events_can_be_written_down(self, stage: Stage) -> None:
        """The fields of events have the types that are stated, and figures that can be."""
        for scenario, played in stage.each():
            for event in played.events:
                wrong = _wrong(event)
                holds(
                    not wrong,
                    f"{scenario.name}: {event!r:.200}: {wrong}",
                    mend="give the fields of an event the types that ralph_core.events states, and figures that can be",
                )

    def test_tool_results_belong_to_calls(self, stage: Stage) -> None:
        """Each `ToolCall` has an id of its own, each `ToolResult` comes once, after its call."""
        for scenario, played in stage.each():
            called: set[str] = set()
            ended: set[str] = set()
            for event in played.events:
                if isinstance(event, ToolCall):
                    holds(
                        event.id and event.id not in called,
                        f"{scenario.name}: the tool call {event.id!r} ({event.name}) is reported twice, or has no id",
                        mend="give each ToolCall an id of its own, and report it once",
                    )
                    called.add(event.id)
                elif isinstance(event, ToolResult):
                    holds(
                        event.id in called and event.id not in ended,
                        f"{scenario.name}: a result for {event.id!r}, of which there is no call, or a result already",
                        mend="report the ToolCall first, and each ToolResult once, with the id of its call",
                    )
                    ended.add(event.id)

    def test_usage_of_a_message_never_shrinks(self, stage: Stage) -> None:
        """Reported again for a message, usage is all that it used so far."""
        for scenario, played in stage.each():
            told: dict[str, Usage] = {}
            for event in played.events:
                if not isinstance(event, Usage):
                    continue
                before = told.get(event.message_id)
                holds(
                    before is None or event.tokens.at_least(before.tokens) == event.tokens,
                    f"{scenario.name}: the usage of message {event.message_id!r} went down to {event.tokens}",
                    mend="report all that a message used so far, not what was added; an id is for one message",
                )
                told[event.message_id] = event

    def test_a_second_attempt_starts_afresh(self, stage: Stage) -> None:
        """The same scenario, played twice with one instance, comes to the same."""
        scenarios = [scenario for scenario in stage.scenarios if not scenario.online or not stage.starts_processes]
        for first in scenarios:
            agent, given, _ = stage.agent(first)
            once, again = play(agent, first, given), play(agent, first, given)
            if once.error is None:
                holds(
                    again.error is None and _outline(again.events) == _outline(once.events),
                    f"{first.name}: played twice with one agent, it came to something else: {_outline(again.events)[-3:]}"
                    f" after {_outline(once.events)[-3:]}",
                    mend="forget in `begin` (or at the start of `run`) what was gathered in the attempt before",
                )

    # --- noise ---

    def test_survives_garbage(self, stage: Stage) -> None:
        """Lines that mean nothing change nothing but themselves."""
        self._noise(stage, "lines that mean nothing", lambda lines: [*GARBAGE, *_between(lines, GARBAGE)])

    def test_survives_half_a_line_at_the_end(self, stage: Stage) -> None:
        """Output that is cut off ends in one final event."""
        self._noise(
            stage,
            "half of the last line",
            lambda lines: [*lines[:-1], *(line[: len(line) // 2] for line in lines[-1:])],
        )

    def test_survives_invalid_utf8(self, stage: Stage) -> None:
        """Bytes that are no UTF-8 raise nothing."""
        self._noise(
            stage, "bytes that are no UTF-8", lambda lines: _between(lines, (b"\xff\xfe\x00 \xc3(", b'{"a": "\xff"}'))
        )

    def test_survives_a_line_of_10_megabytes(self, stage: Stage) -> None:
        """A line of 10 MB raises nothing."""
        self._noise(stage, "a line of 10 MB", lambda lines: [HUGE, *lines])

    def _noise(self, stage: Stage, what: str, mutilated: Any) -> None:
        for scenario in stage.offline():
            clean = stage.whole(scenario)
            noisy = stage.play(scenario, lines=mutilated(scenario.printed()[0]))
            holds(
                noisy.error is None or clean.error is not None,
                f"{scenario.name}: with {what} in the output, run raised {type(noisy.error).__name__}: {noisy.error!s:.200}",
                mend="a line that can't be understood means nothing: yield nothing for it, and go on",
            )
            holds(
                1 <= len(noisy.finals) <= len(clean.finals) or len(clean.finals) != 1,
                f"{scenario.name}: with {what} in the output there are {len(noisy.finals)} final events",
                mend="end with exactly one Finished or Failed, whatever was printed",
            )

    # --- what the program is handed ---

    def test_prompt_is_handed_over_to_the_byte(self, stage: Stage) -> None:
        """A prompt of any characters, and one of 1.5 MB, arrives as it is, or the attempt is refused."""
        looked_at = not stage.starts_processes
        for scenario in stage.scenarios:
            for prompt in (PROMPT, PROMPT + 300_000 * "long "):
                played = stage.play(scenario, prompt=prompt)
                if any(each.converses for each in played.commands) and (scenario.online or scenario.expect):
                    continue  # a conversation that may not come to the prompt
                looked_at = True
                refused = isinstance(played.events[-1] if played.events else None, Failed) and not played.commands
                holds(
                    played.was_handed(prompt) or not stage.starts_processes or (refused and prompt != PROMPT),
                    f"{scenario.name}: the prompt, of {len(prompt.encode())} bytes, is not in what the program is handed",
                    mend="hand over request.prompt as it is, on standard input, as an argument or in a file; if it is too "
                    "long for that, raise SpawnError: nothing may be cut off, quoted, trimmed or filled in",
                )
        holds(
            looked_at,
            "no scenario comes to the prompt without the program",
            mend="add one that finishes, with a `capture` of the whole conversation",
        )

    def test_environment_is_what_it_was_given(self, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
        """The program has the variables of `Request.env`, and none of Ralph's own beside."""
        monkeypatch.setenv("RALPH_KIT_LEAK", f"{MARK}-leak")
        for scenario in stage.scenarios:
            played = stage.play(scenario, env={"RALPH_KIT_GIVEN": f"{MARK}-given"})
            for command in played.commands:
                holds(
                    command.env.get("RALPH_KIT_GIVEN") == f"{MARK}-given",
                    f"{scenario.name}: a variable of request.env does not arrive",
                    mend="begin the environment of the command with all of request.env",
                )
                holds(
                    f"{MARK}-leak" not in command.env.values(),
                    f"{scenario.name}: a variable of Ralph's own environment leaks into the agent's",
                    mend="take variables from request.env (or context.env), never from os.environ",
                )

    def test_works_in_the_workspace(self, stage: Stage) -> None:
        """The program is started in `Request.workspace`."""
        for scenario in stage.scenarios:
            agent, given, _ = stage.agent(scenario)
            for command in play(agent, scenario, given).commands:
                holds(
                    Path(command.cwd) == agent.context.workspace,
                    f"{scenario.name}: the program is started in {command.cwd}",
                    mend="start it in request.workspace",
                )

    # --- the end ---

    def test_can_be_stopped_in_the_middle(self, stage: Stage) -> None:
        """Told to end, it ends with one final event; and of a program that was run, no process is left."""
        for scenario in stage.scenarios:
            agent, given, folder = stage.agent(scenario)
            if scenario.online:
                played = run(agent, scenario, given, folder, stop=True)
            else:
                lines = scenario.printed()[0]
                played = play(agent, scenario, given, lines=lines[: len(lines) // 2], hangs=stage.starts_processes)
            clean = stage.whole(scenario)
            holds(
                (played.error is None and len(played.finals) == 1) or clean.error is not None or len(clean.finals) != 1,
                f"{scenario.name}: told to end in the middle, it came to {len(played.finals)} final events"
                + (f" and raised {type(played.error).__name__}: {played.error}" if played.error else ""),
                mend="when the process has ended without a final event, yield Failed(FailureKind.CRASH, ...)",
            )
            holds(
                not played.left,
                f"{scenario.name}: {played.left} processes were left when it had ended",
                mend="start processes through request.host alone: what the host starts can't outlive the run",
            )

    # --- promises ---

    def test_capabilities_are_those_that_are_observed(self, stage: Stage) -> None:
        """Every capability that is declared is shown by a scenario, and none is shown that is not declared."""
        promised: set[str] = set()
        seen: set[str] = set()
        for scenario, played in stage.each():
            agent, _, folder = stage.agent(scenario)
            able = {str(getattr(each, "value", each)) for each in agent.capabilities(stage.provider.capabilities)}
            here = _observed(played.events) | {str(getattr(each, "value", each)) for each in scenario.shows}
            here |= _requested(stage, scenario, folder) | _model(stage.provider)
            surplus = here - able
            holds(
                not surplus,
                f"drift: {scenario.name} shows {', '.join(sorted(surplus))}, which is not declared",
                mend="add it to the provider's capabilities (or to what Agent.capabilities answers for these settings)",
            )
            promised |= able
            seen |= here
        holds(
            promised <= seen,
            f"drift: {', '.join(sorted(promised - seen))} is declared, and no scenario shows it",
            mend="add a scenario that shows it (with `shows` if no event can), or take it out of the capabilities",
        )


def _probed(agent: Agent) -> tuple[object, float]:
    """What the probe answered, or raised, and how long it took; given up after thrice the time that it has."""
    answer: list[object] = [TimeoutError(f"no answer within {3 * QUICK:g} s")]

    def ask() -> None:
        try:
            answer[0] = agent.probe()
        except BaseException as error:
            answer[0] = error

    thread, began = threading.Thread(target=ask, daemon=True), time.monotonic()
    thread.start()
    thread.join(3 * QUICK)
    return answer[0], time.monotonic() - began


def _between(lines: Sequence[bytes], noise: Sequence[bytes]) -> list[bytes]:
    """The lines, with noise after each of the first ones."""
    return [each for number, line in enumerate(lines) for each in (line, *(noise if number < 20 else ()))]


def _wrong(event: object) -> str:
    """What is wrong with an event; empty if nothing is."""
    if type(event) not in NAMES:
        return "is no event of ralph_core.events"
    try:
        same = event_from(fields_of(event)) == event  # type: ignore[arg-type]
    except (ValueError, TypeError) as error:
        return str(error)
    tokens = event.tokens if isinstance(event, Usage) else getattr(event, "usage", None)
    cost = getattr(event, "cost", None)
    if tokens is not None and min(tokens.input, tokens.output, tokens.cache_read, tokens.cache_write) < 0:
        return "a number of tokens is negative"
    if cost is not None and not 0 <= cost < float("inf"):
        return "the cost is negative, or no number"
    return "" if same else "read back, it is another one"


def _outline(events: Sequence[Event]) -> list[tuple[object, ...]]:
    """The events without what may differ from attempt to attempt: ids and times."""
    found: list[tuple[object, ...]] = []
    for event in events:
        if isinstance(event, (ToolCall, ToolResult)):
            found.append((type(event).__name__, getattr(event, "name", ""), getattr(event, "ok", None)))
        elif isinstance(event, Usage):
            found.append(("Usage", event.tokens, event.cost))
        elif isinstance(event, (Finished, Failed)):
            kind = event.kind.value if isinstance(event, Failed) else ""
            found.append((type(event).__name__, kind, getattr(event, "text", ""), event.usage, event.cost))
        elif isinstance(event, Text):
            found.append(("Text", event.text))
        else:
            found.append((type(event).__name__,))
    return found


def _observed(events: Sequence[Event]) -> set[str]:
    """The capabilities that the events show."""
    seen: set[Capability] = set()
    used = False
    for event in events:
        if isinstance(event, ToolCall):
            seen.add(Capability.TOOLS)
        if isinstance(event, Started) and event.session:
            seen.add(Capability.SESSION)
        if isinstance(event, UsageWindow):
            seen.add(Capability.QUOTA)
        if isinstance(event, Usage) or (isinstance(event, (Finished, Failed)) and event.usage is not None):
            seen.add(Capability.USAGE)
        if isinstance(event, (Usage, Finished, Failed)) and event.cost is not None:
            seen.add(Capability.COST)
        if used and isinstance(event, (Text, ToolCall, ToolResult)):
            seen.add(Capability.USAGE_LIVE)
        used = used or isinstance(event, Usage)
    return {capability.value for capability in seen}


def _requested(stage: Stage, scenario: Scenario, folder: Path) -> set[str]:
    """The capabilities that show in what the program is handed."""
    played = stage.play(
        replace(scenario, capture=scenario.capture or b""),
        ask=AskChannel(str(folder / REQUESTED[Capability.ASKS]), (REQUESTED[Capability.ASKS],)),
        budget=BUDGET,
        mcp=McpServers({REQUESTED[Capability.MCP]: {"command": "true", "args": [], "env": {}}}, 5.0, 5.0),
    )
    return {capability.value for capability, mark in REQUESTED.items() if played.was_handed(mark)}


def _model(provider: Provider[Agent]) -> set[str]:
    settings = imported(provider.settings) if provider.settings else None
    return {Capability.MODEL.value} if "model" in getattr(settings, "model_fields", ()) else set()
