"""Agents with exactly one fault each, on the kit; run by test_kit_faults.py, which says what has to fail.

The agent that is made worse is the one that `ralph plugins new acme --kind agent` writes.
"""

import json
import os
import subprocess
import time
from dataclasses import replace

import pytest
from ralph_acme.agent import AcmeAgent

from ralph_core import Failed, FailureKind, Finished, Probe, Provider, Text, Tokens, ToolCall, ToolResult, Usage
from ralph_core.testing import agents
from ralph_core.testing.agents import AgentContract
from ralph_core.testing.scenarios import Scenario

DONE = b"""\
{"type": "init", "session": "s-1", "model": "acme-large"}
{"type": "message", "id": "m1", "input": 120, "output": 30, "text": "I look at the tests."}
{"type": "tool_use", "id": "t1", "name": "shell", "arguments": {"command": "pytest -q"}}
{"type": "tool_result", "id": "t1", "text": "3 passed"}
{"type": "result", "text": "All tests pass."}
"""
NO_KEY = b'{"type": "init", "session": "s-2"}\n{"type": "error", "code": "auth", "message": "the key was refused"}\n'
ABLE = frozenset({"tools", "session", "usage", "usage-live", "model"})


class Base(AgentContract):
    able = ABLE
    settings = "ralph_acme.settings:AcmeSettings"

    def __init_subclass__(cls):
        super().__init_subclass__()
        if "agent" in vars(cls):
            globals()[f"Agent_{cls.__name__}"] = cls.agent
            cls.provider = Provider("acme", "one", f"{__name__}:Agent_{cls.__name__}", cls.settings, cls.able)

    @pytest.fixture
    def scenarios(self):
        return [
            Scenario(name="done", capture=DONE),
            Scenario(name="no key", capture=NO_KEY, exit=1, expect=FailureKind.AUTH),
        ]


class Test_none(Base):
    agent = AcmeAgent


class Test_probe_raises(Base):
    class agent(AcmeAgent):
        def probe(self):
            raise OSError("no disk")


class Test_probe_answers_nothing(Base):
    class agent(AcmeAgent):
        def probe(self):
            return None


class Test_probe_takes_long(Base):
    @pytest.fixture(autouse=True)
    def hurry(self, monkeypatch):
        monkeypatch.setattr(agents, "QUICK", 2.0)

    class agent(AcmeAgent):
        def probe(self):
            time.sleep(2.2)
            return super().probe()


class Test_probe_finds_everything(Base):
    class agent(AcmeAgent):
        def probe(self):
            return Probe("/usr/bin/acme")


class Test_knows_skills_that_are_not_there(Base):
    class agent(AcmeAgent):
        def skills(self):
            return [self.context.workspace / "skills" / "one" / "SKILL.md"]


class Test_only_success(Base):
    agent = AcmeAgent

    @pytest.fixture
    def scenarios(self):
        return [Scenario(name="done", capture=DONE)]


class Test_one_name_twice(Base):
    agent = AcmeAgent

    @pytest.fixture
    def scenarios(self):
        wrong = Scenario(name="done", capture=NO_KEY, expect=FailureKind.AUTH)
        return [Scenario(name="done", capture=DONE), wrong, replace(wrong, name="other")]

    test_comes_to_what_is_expected = None  # what was played under that name is another one's


class Test_two_final_events(Base):
    class agent(AcmeAgent):
        async def run(self, request):
            async for event in super().run(request):
                yield event
                if isinstance(event, Finished):
                    yield event


class Test_something_after_the_end(Base):
    class agent(AcmeAgent):
        async def run(self, request):
            async for event in super().run(request):
                yield event
            yield Text("bye")


class Test_no_final_event(Base):
    class agent(AcmeAgent):
        async def run(self, request):
            async for event in super().run(request):
                if not isinstance(event, (Finished, Failed)):
                    yield event


class Test_raises(Base):
    class agent(AcmeAgent):
        async def run(self, request):
            async for event in super().run(request):
                if isinstance(event, (Finished, Failed)):
                    raise ConnectionError("lost")
                yield event


class Test_wrong_kind(Base):
    class agent(AcmeAgent):
        def parse(self, line):
            for event in super().parse(line):
                yield replace(event, kind=FailureKind.AGENT) if isinstance(event, Failed) else event


class Test_says_nothing(Base):
    class agent(AcmeAgent):
        def parse(self, line):
            for event in super().parse(line):
                yield replace(event, message=" ") if isinstance(event, Failed) else event


class Test_wrong_types(Base):
    class agent(AcmeAgent):
        def parse(self, line):
            for event in super().parse(line):
                yield Text(7) if isinstance(event, Text) else event


class Test_negative_tokens(Base):
    class agent(AcmeAgent):
        def parse(self, line):
            for event in super().parse(line):
                yield replace(event, tokens=Tokens(input=-1)) if isinstance(event, Usage) else event


class Test_result_without_a_call(Base):
    class agent(AcmeAgent):
        def parse(self, line):
            for event in super().parse(line):
                yield replace(event, id="t7") if isinstance(event, ToolResult) else event


class Test_call_twice(Base):
    class agent(AcmeAgent):
        def parse(self, line):
            for event in super().parse(line):
                yield event
                if isinstance(event, ToolCall):
                    yield event


class Test_shrinking_usage(Base):
    class agent(AcmeAgent):
        def parse(self, line):
            for event in super().parse(line):
                yield event
                if isinstance(event, Usage):
                    yield replace(event, tokens=Tokens(input=1))


class Test_remembers(Base):
    class agent(AcmeAgent):
        seen = 0

        def parse(self, line):
            for event in super().parse(line):
                self.seen += 1
                yield replace(event, text=f"event {self.seen}") if isinstance(event, Finished) else event


class Test_begins_once(Base):
    class agent(AcmeAgent):
        said = None

        def begin(self, request):
            self.said = [] if self.said is None else self.said

        def parse(self, line):
            for event in super().parse(line):
                if isinstance(event, Text):
                    self.said.append(event.text)
                yield Finished(" ".join(self.said)) if isinstance(event, Finished) else event


class Test_hates_garbage(Base):
    class agent(AcmeAgent):
        def parse(self, line):
            if line.startswith(b"npm"):
                raise ValueError("no JSON")
            return super().parse(line)


class Test_hates_half_a_line(Base):
    class agent(AcmeAgent):
        def parse(self, line):
            if line.startswith(b'{"') and not line.endswith(b"}"):
                raise ValueError("torn")
            return super().parse(line)


class Test_hates_bytes(Base):
    class agent(AcmeAgent):
        def parse(self, line):
            line.decode()
            return super().parse(line)


class Test_hates_long_lines(Base):
    class agent(AcmeAgent):
        def parse(self, line):
            if len(line) > 1_000_000:
                raise ValueError("chunk exceed the limit")
            return super().parse(line)


class Test_trims_the_prompt(Base):
    class agent(AcmeAgent):
        def command(self, request):
            return replace(super().command(request), stdin=request.prompt.strip().encode())


class Test_cuts_the_prompt(Base):
    class agent(AcmeAgent):
        def command(self, request):
            return replace(super().command(request), stdin=request.prompt.encode()[:100_000])


class Test_leaks_the_environment(Base):
    class agent(AcmeAgent):
        def command(self, request):
            return replace(super().command(request), env={**os.environ, **request.env})


class Test_drops_the_environment(Base):
    class agent(AcmeAgent):
        def command(self, request):
            return replace(super().command(request), env={"PATH": request.env["PATH"]})


class Test_works_elsewhere(Base):
    class agent(AcmeAgent):
        def command(self, request):
            return replace(super().command(request), cwd="/")


class Test_raises_when_stopped(Base):
    class agent(AcmeAgent):
        def finish(self, end):
            if end.code < 0:
                raise RuntimeError("killed")
            return ()


class Test_leaves_a_process(Base):
    class agent(AcmeAgent):
        async def run(self, request):
            if "RALPH_RUN_ID" in request.env:
                subprocess.Popen(["sleep", "300"], env=request.env, start_new_session=True)
            async for event in super().run(request):
                yield event

    @pytest.fixture
    def scenarios(self, tmp_path):
        program = tmp_path / "acme"
        program.write_text(f"#!/bin/sh\ncat <<'END'\n{DONE.decode()}END\n")
        program.chmod(0o755)
        run = Scenario(name="run", settings={"executable": str(program)})
        return [run, Scenario(name="no key", capture=NO_KEY, exit=1, expect=FailureKind.AUTH)]


class Test_shows_too_much(Base):
    able = ABLE - {"session"}
    agent = AcmeAgent


class Test_promises_too_much(Base):
    able = ABLE | {"cost", "quota"}
    agent = AcmeAgent


class Test_is_set_up_for_more(Base):
    class agent(AcmeAgent):
        def capabilities(self, declared):
            return declared | {"asks"}


class Test_has_no_model(Base):
    settings = "ralph_core.builtin.command:ShellAgentSettings"

    class agent(AcmeAgent):
        def __init__(self, settings, context):
            from ralph_acme.settings import AcmeSettings

            super().__init__(AcmeSettings(), context)


class Test_takes_servers_in_secret(Base):
    class agent(AcmeAgent):
        def command(self, request):
            command = super().command(request)
            given = json.dumps(request.mcp.servers) if request.mcp else ""
            return replace(command, argv=(*command.argv, given))
