"""Money is bounded: what an agent spends is seen while it spends it, and over a limit it is killed with all it has started."""

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest

from ralph_core.events import Tokens
from ralph_core.testing.messages_api import MessagesAPI, Reply, text, tool_use

sys.path.insert(0, str(Path(__file__).parent / "proofs"))
import budget

EVENTS = "agents: {command: {output: events}}\n"
OPUS = "claude-opus-4-8"


def says(**event):
    return f"echo '{json.dumps(event)}'\n"


def usage(name="m", cost=None, model=None, given=100, output=50):
    return says(type="usage", message_id=name, tokens={"input": given, "output": output}, cost=cost, model=model)


def finished(words="more", cost=None, usage=None):
    return says(type="finished", text=words, cost=cost, usage=usage)


FOR_EVER = r"""trap '' TERM INT
setsid sh -c 'trap "" TERM INT; sleep 1000' < /dev/null > /dev/null 2>&1 & echo $! > "$here/child"
n=0
while :; do
    n=$((n + 1)); sleep 0.2
    printf '{"type": "usage", "message_id": "m%s", "tokens": {"input": 100, "output": 50}, "cost": 0.01}\n' $n
done
"""


@pytest.fixture
def events(ralph):
    """A run of a command agent that prints events."""

    def run(*steps, flags=(), settings="", **options):
        ralph.settings(EVENTS + settings)
        return ralph.run(ralph.agent(*steps), *flags, **options)

    return run


class TestProof:
    """A short version of `make prove-budget`."""

    def test_random_budgets_hold_and_leave_no_process(self):
        figures = budget.prove(6, seed=7, jobs=3)
        assert figures.failures == []
        assert max(figures.over) <= 1


class TestMidIteration:
    @pytest.mark.parametrize(
        ("flags", "words", "policy"),
        [
            (("--max-cost", "0.035"), "$0.0400 of $0.035 are used up", "cost"),
            (("--max-tokens", "500"), "600 of 500 tokens are used up", "tokens"),
        ],
    )
    def test_the_agent_and_all_it_started_are_killed_at_once(self, ralph, events, flags, words, policy):
        before = time.monotonic()
        done = events(FOR_EVER, flags=flags)
        assert done.returncode == 3, (done.stdout, done.stderr)
        assert f"stopped: {words} (by {policy})" in done.stdout
        assert time.monotonic() - before < 8
        child = int((ralph.root / "agent0" / "child").read_text())
        assert not ralph.alive(child)
        state = ralph.state()
        assert (state["finished"], state["failures"], state["attempts"]) == (0, 0, 1)
        (attempt,) = state["recent"]
        assert attempt["result"] == "abandoned"
        assert attempt["spend"] == state["spend"] == state["booked"]
        (record,) = [record for record in ralph.records() if record["type"] == "agent.abandoned"]
        assert record["data"]["cost_usd"] == pytest.approx(state["spend"]["cost"])

    def test_what_was_reported_but_not_read_by_then_is_on_the_bill(self, ralph, events):
        burst = "".join(usage(f"m{number}", 1.0) for number in range(40))
        done = events(burst + "sleep 60", flags=("--max-cost", "3"))
        assert done.returncode == 3
        assert ralph.state()["spend"]["cost"] == 40.0

    def test_completion_with_the_last_dollar_is_completion(self, ralph, events):
        done = events(finished("LOOP_COMPLETE", cost=9.0), flags=("--max-cost", "5"))
        assert done.returncode == 0
        assert ralph.state()["spend"]["cost"] == 9.0

    def test_an_agent_that_fails_for_want_of_budget_is_stopped_by_cost_and_has_not_failed(self, ralph, events):
        fails = says(type="failed", kind="agent", message="Reached maximum budget ($5)", cost=5.1)
        done = events(fails, flags=("--max-cost", "5"))
        assert done.returncode == 3
        assert "(by cost)" in done.stdout
        assert ralph.state()["failures"] == ralph.state()["finished"] == 0


class TestTotals:
    def test_a_run_over_its_budget_starts_nothing_until_it_gets_more(self, ralph, events):
        assert events(finished(cost=2.0), flags=("--max-cost", "2")).returncode == 3
        agent = ralph.root / "agent0"
        assert ralph("resume").returncode == 3
        assert len(list(agent.glob("env.*"))) == 1
        assert ralph("resume", "--max-cost", "3.5").returncode == 3
        assert len(list(agent.glob("env.*"))) == 2
        assert ralph.state()["spend"]["cost"] == 4.0

    def test_what_was_spent_when_ralph_was_killed_is_not_forgotten(self, ralph):
        ralph.settings(EVENTS)
        agent = ralph.agent(usage("a", 0.3) + "sleep 60", usage("b", 0.4) + finished("LOOP_COMPLETE"))
        process = ralph.begin(agent)
        ralph.until(lambda: ralph.folders and (ralph.folder / "state.json").exists() and ralph.state()["spend"]["cost"])
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert ralph("resume").returncode == 0
        state = ralph.state()
        assert state["spend"]["cost"] == state["booked"]["cost"] == pytest.approx(0.7)
        assert [attempt["spend"]["cost"] for attempt in state["recent"]] == [0.3, 0.4]

    def test_an_estimate_that_was_too_high_is_corrected_but_no_total_goes_down(self, ralph, events):
        metered = usage("a", cost=0.5)
        steps = (metered + finished(cost=0.2), metered + finished("LOOP_COMPLETE", cost=0.4))
        assert events(*steps).returncode == 0
        state = ralph.state()
        assert [attempt["spend"]["cost"] for attempt in state["recent"]] == [0.2, 0.4]
        assert state["booked"]["cost"] == pytest.approx(0.6)
        totals = [record["data"]["figures"]["cost_usd"] for record in ralph.records() if "figures" in record["data"]]
        assert totals == sorted(totals)
        assert state["spend"]["cost"] == pytest.approx(0.7)  # 0.2 + 0.5 once, at its highest
        told = [record["data"] for record in ralph.records() if record["type"] == "agent.finished"]
        assert [(data["cost_usd"], data["metered_usd"]) for data in told] == [(0.2, 0.5), (0.4, 0.5)]


class TestUnknown:
    def test_stays_unknown_in_state_display_status_and_account(self, ralph, events):
        done = events(usage("a", model="fake-model-x") + finished("LOOP_COMPLETE"), flags=("--max-cost", "0.01"))
        assert done.returncode == 0
        assert "spent       150 tokens, cost unknown" in done.stdout
        state = ralph.state()
        assert (state["spend"]["cost"], state["spend"]["unmetered"]) == (None, 1)
        assert "cost unknown" in ralph("status").stdout
        (record,) = [record for record in ralph.records() if record["type"] == "run.finished"]
        assert (record["data"]["cost_usd"], record["data"]["tokens"]) == (None, 150)

    def test_a_price_is_shown_as_an_estimate(self, ralph, events):
        done = events(usage("a", model=OPUS, given=800_000, output=100) + finished("LOOP_COMPLETE"))
        assert "≈ $4.0025" in done.stdout
        (record,) = [record for record in ralph.records() if record["type"] == "agent.finished"]
        assert record["data"]["estimated_usd"] == record["data"]["cost_usd"] == pytest.approx(4.0025)

    def test_a_price_stops_it_too(self, events):
        done = events(usage("a", model=OPUS, given=800_000, output=100) + "sleep 60", flags=("--max-cost", "4"))
        assert done.returncode == 3
        assert "about $4.0025 of $4 are used up (by cost)" in done.stdout

    def test_is_said_at_the_start_and_can_be_refused(self, ralph):
        assert "max_cost and max_tokens can't be enforced" in ralph.run("echo LOOP_COMPLETE").stderr
        ralph.settings("budget: {unmetered: refuse}\n")
        shutil.rmtree(ralph.home)
        ralph.refuses(
            *ralph.flags("echo LOOP_COMPLETE"), says=["agent command: max_cost and max_tokens", "unmetered: allow"]
        )
        ralph.refuses(*ralph.flags("echo x"), "--dry-run", says="agent command:")

    def test_a_program_that_speaks_events_is_taken_at_its_word(self, events):
        settings = "budget: {unmetered: refuse}\n"
        done = events(usage("a", 0.5) + finished("LOOP_COMPLETE"), settings=settings)
        assert done.returncode == 0
        assert "can't be enforced" not in done.stderr

    def test_a_program_that_speaks_events_and_reports_nothing_is_found_out(self, events):
        done = events(finished("more"), settings="budget: {unmetered: refuse}\n")
        assert done.returncode == 3
        assert "(budget.unmetered: refuse)" in done.stdout

    def test_an_agent_that_breaks_its_promise_is_found_out(self, ralph):
        ralph.plugin("acme", PROMISING)
        ralph.settings("budget: {unmetered: refuse}\n")
        done = ralph("run", "-a", "acme", "-p", "x")
        assert done.returncode == 3
        assert "acme did not say how many tokens it used (budget.unmetered: refuse)" in done.stdout
        assert "can be exceeded by at most the one model message in flight" in done.stderr

    def test_limits_that_are_switched_off_do_not_hold_and_are_not_complained_of(self, ralph, events):
        settings = "policies: {cost: false, tokens: false}\n"
        done = events(usage("a", 99.0) + finished("LOOP_COMPLETE"), settings=settings, flags=("--max-cost", "1"))
        assert done.returncode == 0
        assert "enforced" not in done.stderr


PROMISING = """
from ralph_core import *
class Acme(Agent):
    def probe(self): return Probe("acme")
    async def run(self, request):
        assert request.budget == 50.0
        yield Finished("did it")
@hookimpl
def ralph_agents(): return [Provider("acme", "", __name__ + ":Acme", capabilities=frozenset({"usage", "usage-live", "cost"}))]
"""


@pytest.fixture(scope="module")
def claude():
    local = Path(__file__).parents[1] / ".tools/node_modules/.bin/claude"
    found = os.environ.get("RALPH_TEST_CLAUDE") or (str(local) if local.exists() else shutil.which("claude"))
    if not found or not shutil.which(found):
        pytest.skip("no genuine Claude Code (npm install @anthropic-ai/claude-code, or RALPH_TEST_CLAUDE)")
    return found


@pytest.fixture
def run(ralph, claude):
    """A run of Ralph with Claude Code, whose command lines are kept."""
    wrapper = ralph.root / "claude"
    wrapper.write_text(f'#!/bin/sh\necho "$@" >> {ralph.root}/commands\nexec {claude} "$@"\n')
    wrapper.chmod(0o755)

    def run(api, *flags):
        ralph.settings(f"agents: {{claude: {{executable: {wrapper}, model: opus}}}}\n")
        return ralph("run", "-a", "claude", "-p", "MAIN WORK", *flags, env=api.env(), limit=90)

    return run


@pytest.mark.real_cli
class TestClaudeCode:
    def test_is_stopped_in_the_middle_of_its_work(self, ralph, run):
        def answer(_request):
            time.sleep(0.3)
            return Reply([tool_use("Bash", {"command": "true", "description": "on"})], Tokens(1000, 4000))

        with MessagesAPI(answer) as api:  # $0.105 a message
            done = run(api, "--max-cost", "0.3")
            assert len(api.requests) <= 4
        assert done.returncode == 3, (done.stdout, done.stderr)
        assert "are used up (by cost)" in done.stdout
        assert 0.3 <= ralph.state()["spend"]["cost"] <= 0.42
        assert ralph.state()["failures"] == 0

    def test_its_own_cap_sees_its_sub_agents(self, ralph, run):
        def answer(request):
            if "SIDE WORK" in request.texts():
                return Reply([tool_use("Bash", {"command": "true", "description": "on"})], Tokens(100, 4000))
            task = {"description": "side", "prompt": "SIDE WORK", "subagent_type": "general-purpose"}
            return Reply([tool_use("Task", task)], Tokens(100, 10))

        with MessagesAPI(answer) as api:
            done = run(api, "--max-cost", "0.25")
            assert len(api.requests) == 4  # one of its own, three of the sub-agent: the third is over it
        assert done.returncode == 3, (done.stdout, done.stderr)
        assert "of $0.25 are used up (by cost)" in done.stdout
        assert ralph.state()["spend"]["cost"] == pytest.approx(0.30225)
        assert ralph.state()["failures"] == 0

    def test_the_budget_that_is_left_is_what_it_is_told(self, ralph, run):
        with MessagesAPI([Reply([text("more")], Tokens(0, 4000)), Reply([text("LOOP_COMPLETE")])]) as api:  # $0.1
            assert run(api, "--max-cost", "2").returncode == 0
        lines = [line.split() for line in (ralph.root / "commands").read_text().splitlines() if "-p" in line.split()]
        assert [line[line.index("--max-budget-usd") + 1] for line in lines] == ["2.000000", "1.900000"]

    def test_what_it_cost_is_its_own_figure(self, ralph, run):
        with MessagesAPI([Reply([text("LOOP_COMPLETE")])]) as api:
            done = run(api)
        assert "≈" not in done.stdout
        assert ralph.state()["spend"] == {**ralph.state()["spend"], "cost": pytest.approx(0.0011975), "estimated": 0.0}
