"""`ralph status` while a run works, and over all runs; and what a shell completes."""

import json
import re

import pytest

WAITS = 'touch begun; while [ ! -e "$here/go" ]; do sleep 0.05; done'
SPENDS = """
from ralph_core import Agent, Finished, Probe, Provider, Started, Tokens, hookimpl
class Spender(Agent):
    def probe(self): return Probe()
    async def run(self, request):
        yield Started()
        yield Finished("LOOP_COMPLETE", usage=Tokens(input=600), cost=0.25)
@hookimpl
def ralph_agents(): return [Provider("spender", "spends", factory=f"{__name__}:Spender")]
"""


def lines(ralph, *arguments):
    done = ralph("status", *arguments)
    assert done.returncode == 0, done.stderr
    return {line[:12].strip(): line[12:] for line in done.stdout.splitlines()}


def elapsed(ralph):
    return json.loads(ralph("status", "--json").stdout)["elapsed"]


class TestOfARunAtWork:
    def test_says_what_is_done_and_how_long_it_has_taken_by_now(self, ralph):
        agent = ralph.agent(WAITS, "echo LOOP_COMPLETE")
        process = ralph.begin(agent)
        ralph.until((ralph.workspace / "begun").exists)
        said = lines(ralph)
        assert said["condition"] == "running"
        assert re.fullmatch(r"iteration 1, command at work since [\d: -]+", said["now"])
        assert "all runs" not in said
        first = json.loads(ralph("status", "--json").stdout)
        assert first["all"] == {"runs": 1, "conditions": {"running": 1}, "tokens": None, "cost_usd": None}
        assert elapsed(ralph) > first["elapsed"]
        (agent.folder / "go").touch()
        assert ralph.end(process).returncode == 0
        assert "now" not in lines(ralph)

    def test_says_that_it_pauses_and_then_its_time_stands_still(self, ralph):
        agent = ralph.agent(WAITS, "echo LOOP_COMPLETE")
        process = ralph.begin(agent)
        ralph.until((ralph.workspace / "begun").exists)
        assert ralph("pause").returncode == 0
        assert lines(ralph)["condition"] == "running, pauses after this iteration"
        (agent.folder / "go").touch()
        ralph.until(lambda: lines(ralph)["condition"] == "running, paused")
        first = json.loads(ralph("status", "--json").stdout)
        assert (first["condition"], first["paused"]) == ("running", True)
        ralph.until(lambda: elapsed(ralph) == elapsed(ralph))
        assert ralph("pause", "--off").returncode == 0
        assert ralph.end(process).returncode == 0
        assert lines(ralph)["condition"].startswith("completed")


def test_all_runs_stand_below_the_latest(ralph):
    ralph.plugin("spender", SPENDS)
    ralph.run("cat > /dev/null; echo more", "-i", "1")
    for _ in range(2):
        assert ralph("run", "-a", "spender", "-p", "x").returncode == 0
    assert ralph("run", "-a", "spender", "-p", "x", "--worktree").returncode == 0
    said = lines(ralph)
    assert re.match(r"4 \((3 completed, 1 stopped|1 stopped, 3 completed)\), 1,800 tokens, \$0\.7500", said["all runs"])
    found = json.loads(ralph("status", "--json").stdout)["all"]
    assert (found["runs"], found["conditions"]["completed"], found["tokens"], found["cost_usd"]) == (4, 3, 1800, 0.75)
    assert "all runs" not in lines(ralph, ralph.folders[0].name)


class TestCompletion:
    """As bash asks for it, by the script that `ralph --install-completion` writes."""

    def offered(self, ralph, words):
        env = {"_RALPH_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
        return ralph(env=env).stdout.split()

    @pytest.mark.parametrize(
        ("words", "some"),
        [
            ("ralph st", {"status", "stop", "steer"}),
            ("ralph config ", {"show", "check", "schema", "init"}),
            ("ralph run --max-", {"--max-iterations", "--max-cost"}),
            ("ralph run -a cl", {"claude"}),
            ("ralph run -a claude,g", {"claude,gemini"}),
        ],
    )
    def test_of_commands_options_and_agents(self, ralph, words, some):
        assert some <= set(self.offered(ralph, words))

    def test_of_runs(self, ralph):
        for _ in range(2):
            ralph.run("cat > /dev/null; echo LOOP_COMPLETE")
        names = [folder.name for folder in reversed(ralph.folders)]
        assert self.offered(ralph, "ralph status ") == names
        assert self.offered(ralph, f"ralph resume {names[0][:-1]}") == names[:1]
        assert self.offered(ralph, "ralph audit verify x") == []

    def test_its_script_is_printed(self, ralph):
        done = ralph("--show-completion", "bash")
        assert (done.returncode, "_RALPH_COMPLETE=complete_bash" in done.stdout) == (0, True)
