"""A run survives one of its agents failing by going to the next, and says what was tried and why."""

import json

import pytest

PLUGIN = """
import json, pathlib
from ralph_core import Agent, Failed, FailureKind, Finished, Probe, Provider, hookimpl

class Scripted(Agent):
    '''Answers with the words of its file: a failure kind, or else a finished attempt.'''
    def probe(self):
        return Probe()
    async def run(self, request):
        name = type(self).__name__.lower()
        path = self.context.workspace / f"{name}.json"
        words = json.loads(path.read_text())
        word = words.pop(0) if len(words) > 1 else words[0]
        path.write_text(json.dumps(words if words else [word]))
        with (self.context.workspace / "calls").open("a") as calls:
            calls.write(name + "\\n")
        kind, _, after = word.partition(" ")
        if kind in {each.value for each in FailureKind}:
            yield Failed(FailureKind(kind), "said so", float(after) if after else None)
        else:
            yield Finished(word)

class One(Scripted): pass
class Two(Scripted): pass

@hookimpl
def ralph_agents():
    return [Provider(n, n, f"ralph_pair_module:{n.title()}") for n in ("one", "two")]
"""


@pytest.fixture
def run(ralph):
    ralph.plugin("pair", PLUGIN)

    def run(one, two, *arguments, agents="one,two"):
        ralph.write("one.json", json.dumps(one))
        ralph.write("two.json", json.dumps(two))
        done = ralph("run", "-a", agents, "-p", "x", "--retry-delay", "0.1", *arguments)
        return done, (ralph.workspace / "calls").read_text().split()

    return run


@pytest.mark.parametrize("kind", ["auth", "spawn", "usage_limit 60", "overloaded", "network"])
def test_a_fault_that_is_not_the_agents_costs_no_iteration_and_no_wait(ralph, run, kind):
    done, calls = run([kind], ["go on", "LOOP_COMPLETE"])
    assert done.returncode == 0, done.stderr
    assert calls == ["one", "two", "two"], "the first one is left alone meanwhile"
    assert ralph.state()["finished"] == 2
    assert "wait.started" not in ralph.types()


@pytest.mark.parametrize("kind", ["crash", "invalid_output", "timeout"])
def test_a_fault_of_the_agent_ends_its_iteration_and_the_next_one_is_anothers(ralph, run, kind):
    done, calls = run([kind], ["go on", "LOOP_COMPLETE"])
    assert done.returncode == 0, done.stderr
    assert calls == ["one", "two", "two"]
    assert (ralph.state()["finished"], ralph.state()["failures"]) == (3, 1)


def test_an_agent_that_says_it_failed_is_asked_again(run):
    assert run(["agent", "LOOP_COMPLETE"], ["never asked"])[1] == ["one", "one"]


def test_the_one_whose_time_is_over_first_is_waited_for_and_no_other(ralph, run):
    done, calls = run(["overloaded 1", "overloaded 1", "LOOP_COMPLETE"], ["overloaded 30"])
    assert done.returncode == 0, done.stderr
    assert calls == ["one", "two", "one", "one"], "the other one has said when to come back"
    assert all(wait["data"]["seconds"] < 3 for wait in ralph.records() if wait["type"] == "wait.started")


@pytest.mark.parametrize(("agents", "want"), [("one,two", "one two one"), ("two,one", "two one one")])
def test_where_nobody_waits_the_one_whose_time_is_over_first_is_asked(ralph, run, agents, want):
    ralph.settings("policies: {retry: false}\n")
    done, calls = run(["overloaded 20", "LOOP_COMPLETE"], ["overloaded 60"], agents=agents)
    assert (done.returncode, calls) == (0, want.split())


def test_what_was_tried_and_why_is_in_the_account(ralph, run):
    run(["overloaded 7"], ["LOOP_COMPLETE"])
    (rested,) = [record for record in ralph.records() if record["type"] == "agent.rested"]
    assert rested["actor"] == "one"
    assert rested["message"] == "overloaded: said so: not used for 7 s; then two"
    assert rested["data"] == {"failure": "overloaded", "seconds": 7.0, "others": ["two"]}
    failed = [record for record in ralph.records() if record["type"] == "agent.failed"]
    assert [record["actor"] for record in failed] == ["one"]


def test_one_alone_is_tried_again_after_a_pause_and_never_replaced(ralph, run):
    done, calls = run(["network", "network", "LOOP_COMPLETE"], ["never asked"], agents="one")
    assert done.returncode == 0
    assert calls == ["one"] * 3
    assert ralph.types().count("wait.started") == 2


def test_when_all_are_refused_the_run_fails_and_names_the_last(run):
    done, calls = run(["auth"], ["auth"])
    assert (done.returncode, calls) == (1, ["one", "two"])
    assert "auth: said so (by two)" in done.stdout


def test_when_both_pass_faults_on_the_retries_are_counted(ralph, run):
    ralph.settings("retry_max: 2\n")
    done, calls = run(["overloaded"], ["overloaded"])
    assert done.returncode == 1
    assert calls[:2] == ["one", "two"]
    assert len(calls) <= 5


def test_without_any_agent_one_short_line_says_so(ralph):
    ralph.write("PROMPT.md", "x\n")
    ralph.program("claude", "#!/bin/sh\necho '2.1.197 (Claude Code)'\n")
    said = ralph.refuses(
        "run", env={"PATH": f"{ralph.root}/bin:/usr/bin:/bin"}, says=["no agent can be used", "ralph doctor"]
    )
    assert "agent claude: no credentials: set ANTHROPIC_API_KEY" in said
    assert "not installed, or not set up: " in said
    assert len(said) < 800
