"""Why a run went as it did, and how it would have gone under other limits."""

import json

USAGE = '{"type": "usage", "message_id": "%s", "tokens": {"input": 10, "output": 5}, "cost": %s}'
FINAL = '{"type": "finished", "text": "more"}'


def spender(ralph, costs):
    """An agent that spends `costs` in its first iteration, one message each."""
    ralph.settings("agents: {command: {output: events}}\nmax_cost: 100\n")
    lines = [USAGE % (number, cost) for number, cost in enumerate(costs)]
    return ralph.agent("\n".join(f"echo '{line}'" for line in [*lines, FINAL]), f"echo '{FINAL}'")


class TestExplain:
    """`ralph explain` tells every verdict with its time, policy, figures and reason."""

    def test_the_verdict_that_stopped_a_run(self, ralph):
        ralph.run(ralph.agent("echo more"), "-i", "2")
        told = ralph("explain").stdout
        assert "iterations" in told
        assert "stop at iteration: 2 of 2 iterations are used up" in told
        assert "finished 2" in told

    def test_failures_and_gates(self, ralph):
        ralph.settings("gates: ['test -f made']\n")
        ralph.run(ralph.agent("echo LOOP_COMPLETE", "exit 3", "touch made; echo LOOP_COMPLETE"))
        told = ralph("explain").stdout
        assert "test -f made: exit code 1" in told
        assert "agent: exit code 3" in told
        assert "verified by 1 gate(s)" in told

    def test_for_programs(self, ralph):
        ralph.run(ralph.agent("echo more"), "-i", "1")
        records = json.loads(ralph("explain", "--json").stdout)
        (verdict,) = [record for record in records if record["type"] == "verdict"]
        assert verdict["data"]["figures"]["finished"] == 1
        assert verdict["data"]["moment"] == "iteration"


class TestReplay:
    """`ralph replay` asks the policies again, about what has happened, and spends nothing."""

    def test_says_where_a_lower_limit_would_have_stopped_it(self, ralph):
        agent = spender(ralph, ["1", "2", "4"])
        ralph.run(agent, "-i", "3")
        done = ralph("replay", "--set", "max_cost=2.5")
        assert done.returncode == 3
        assert "Policy cost would have stopped it in iteration 1" in done.stdout
        assert "$3.0000" in done.stdout
        assert agent.calls == 3

    def test_says_so_when_nothing_would_have(self, ralph):
        ralph.run(spender(ralph, ["1"]), "-i", "2")
        done = ralph("replay", "--set", "max_iterations=50")
        assert done.returncode == 0
        assert "nothing would have stopped it" in done.stdout

    def test_under_the_same_limits_it_stops_where_it_did(self, ralph):
        ralph.run(ralph.agent("echo more"), "-i", "2")
        done = ralph("replay", "--set", "max_iterations=2")
        assert "would have stopped it in iteration 2: 2 of 2 iterations are used up" in done.stdout

    def test_after_a_kill_in_the_middle_it_knows_both_sittings(self, ralph):
        agent = ralph.agent("echo more", "sleep 60", "echo more")
        process = ralph.begin(agent, "-i", "3")
        ralph.until((agent.folder / "pid.2").exists)
        process.kill()
        ralph.end(process)
        assert ralph("resume").returncode == 3
        assert "would have stopped it in iteration 3" in ralph("replay", "--set", "max_iterations=3").stdout

    def test_a_wrong_setting_is_refused(self, ralph):
        ralph.run(ralph.agent("echo more"), "-i", "1")
        ralph.refuses("replay", "--set", "max_csot=5", says="did you mean 'max_cost'?")
        ralph.refuses("replay", "--set", "max_cost", says="NAME=VALUE")

    def test_what_would_only_be_denied_does_not_stop_it(self, ralph):
        ralph.run(ralph.agent("sleep 2.5; echo LOOP_COMPLETE"))
        done = ralph("replay", "--set", "timeout_per_iteration=0.5")
        assert done.returncode == 0
        assert "nothing would have stopped it" in done.stdout
