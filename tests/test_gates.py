"""A claim of completion is checked by commands that the host runs itself."""

import json

import pytest

from ralph_core.gates import count_tests

CLAIM = "echo LOOP_COMPLETE\n"


def settings(*gates, more=""):
    return f"gates: {json.dumps(gates)}\nretry_delay: 0\n{more}"


def gates_of(ralph):
    return [record for record in ralph.records() if record["type"] in ("gate.finished", "gate.failed")]


class TestAClaim:
    """What an agent says is a claim; what the gates say is the outcome."""

    def test_without_gates_is_called_unverified(self, ralph):
        done = ralph.run(ralph.agent(CLAIM))
        assert done.returncode == 0
        assert "completed: claimed by the agent, not verified: no gates are set" in done.stdout

    def test_that_is_true_completes_the_run_as_verified(self, ralph):
        ralph.settings(settings("test -f made"))
        done = ralph.run(ralph.agent(f"touch made\n{CLAIM}"))
        assert done.returncode == 0
        assert "completed: verified by 1 gate(s)" in done.stdout

    def test_that_is_false_is_caught_and_the_next_prompt_says_why(self, ralph):
        ralph.settings(settings("echo expected 4 but got 5 >&2; test -f made"))
        agent = ralph.agent(CLAIM, f"touch made\n{CLAIM}")
        done = ralph.run(agent)
        assert done.returncode == 0
        assert agent.calls == 2
        second = agent.prompt(2).decode()
        assert "$ echo expected 4 but got 5 >&2; test -f made" in second
        assert "exit code 1" in second
        assert "\nexpected 4 but got 5\n" in second
        assert "which Ralph ran itself" not in agent.prompt(1).decode()

    def test_that_stays_false_runs_into_the_iteration_limit(self, ralph):
        ralph.settings(settings("false"))
        done = ralph.run(ralph.agent(CLAIM), "-i", "3")
        assert done.returncode == 3
        assert [record["type"] for record in gates_of(ralph)] == ["gate.failed"] * 3

    def test_in_the_last_iteration_is_judged_before_the_limit(self, ralph):
        ralph.settings(settings("true"))
        assert ralph.run(ralph.agent(CLAIM), "-i", "1").returncode == 0

    def test_is_not_checked_when_there_is_none(self, ralph):
        ralph.settings(settings("touch checked"))
        ralph.run(ralph.agent("echo not yet"), "-i", "2")
        assert not (ralph.workspace / "checked").exists()

    def test_has_to_be_confirmed_as_often_as_is_set(self, ralph):
        ralph.settings(settings("true", more="completion: {confirmations: 3}\n"))
        agent = ralph.agent(CLAIM, "echo after all not", CLAIM, CLAIM, CLAIM)
        assert ralph.run(agent).returncode == 0
        assert agent.calls == 5, "the second iteration took the first claim back"
        assert "fresh eyes" in agent.prompt(4).decode()

    def test_is_checked_again_when_ralph_was_killed_over_it(self, ralph):
        ralph.settings(settings("echo x >> checks; test -f made"))
        ralph.settings(settings("echo x >> checks; test -f go || sleep 60"))
        agent = ralph.agent(CLAIM)
        process = ralph.begin(agent)
        ralph.until((ralph.workspace / "checks").exists)
        process.kill()
        ralph.end(process)
        ralph.write("go", "")
        done = ralph("resume")
        assert done.returncode == 0
        assert agent.calls == 1, "the iteration was finished: only its claim was still open"
        assert (ralph.workspace / "checks").read_text() == "x\nx\n"

    def test_that_stood_is_not_forgotten_when_ralph_is_killed_before_it_has_written_the_outcome(self, ralph):
        ralph.plugin(
            "slow",
            "import os, time\n"
            "from ralph_core import Provider, hookimpl\n"
            "from ralph_core.builtin.local import LocalStore\n"
            "class Store(LocalStore):\n"
            "    def save(self, state, lease, *, durable=True):\n"
            "        if state.outcome is not None and not os.path.exists('held'):\n"
            "            open('held', 'w').close()\n"
            "            time.sleep(60)\n"
            "        super().save(state, lease, durable=durable)\n"
            "@hookimpl\n"
            "def ralph_checkpoint_stores():\n"
            "    return [Provider('slow', 'waits', __name__ + ':Store')]\n",
        )
        ralph.settings(settings("true", more="checkpoint_store: slow\n"))
        agent = ralph.agent(CLAIM)
        process = ralph.begin(agent)
        ralph.until((ralph.workspace / "held").exists)
        process.kill()
        ralph.end(process)
        assert ralph("resume").returncode == 0
        assert agent.calls == 1


class TestAGate:
    """A gate is a command with a place, an environment, and an end."""

    def test_runs_in_its_directory_with_its_variables(self, ralph):
        ralph.write("sub/here", "")
        ralph.settings(
            settings({"command": 'test -f here && test "$COLOUR" = red', "cwd": "sub", "env": {"COLOUR": "red"}})
        )
        assert ralph.run(ralph.agent(CLAIM), "-i", "1").returncode == 0

    def test_that_takes_too_long_has_failed_and_leaves_nothing(self, ralph):
        ralph.settings(settings({"command": "setsid sleep 97 & echo $! > pid; sleep 97", "timeout": 0.5}))
        done = ralph.run(ralph.agent(CLAIM), "-i", "1")
        assert done.returncode == 3
        assert "not done after 0.5 s" in gates_of(ralph)[0]["message"]
        assert not ralph.alive(int((ralph.workspace / "pid").read_text()))

    def test_ends_at_once_with_the_run(self, ralph):
        ralph.settings(settings("touch begun; sleep 60"))
        process = ralph.begin(ralph.agent(CLAIM))
        ralph.until((ralph.workspace / "begun").exists)
        process.terminate()
        assert ralph.end(process, limit=10).returncode == 143

    def test_all_are_run_and_all_failures_are_told(self, ralph):
        ralph.settings(settings("echo one; false", "echo two; exit 7", "true"))
        agent = ralph.agent(CLAIM)
        ralph.run(agent, "-i", "2")
        second = agent.prompt(2).decode()
        assert "$ echo one; false" in second
        assert "$ echo two; exit 7" in second
        assert "$ true" not in second

    def test_secrets_in_its_output_reach_neither_prompt_nor_account(self, ralph):
        ralph.settings(settings("echo $SERVICE_TOKEN; false"))
        agent = ralph.agent(CLAIM)
        ralph.run(agent, "-i", "2", env={"SERVICE_TOKEN": "canary-12345678"})
        assert b"canary-12345678" not in agent.prompt(2)
        assert "canary-12345678" not in (ralph.home / "audit" / "audit.jsonl").read_text()
        assert "canary-12345678" not in (ralph.folder / "state.json").read_text()

    def test_has_a_span(self, ralph):
        ralph.settings(settings("true"))
        ralph.run(ralph.agent(CLAIM))
        (span,) = [span for span in ralph.spans() if span["name"] == "gate"]
        assert span["attributes"]["ralph.gate"] == "true"
        assert span["attributes"]["ralph.passed"] is True


class TestAGateThatTestsNothing:
    """Exit code 0 alone is no proof."""

    @pytest.mark.parametrize(
        ("gate", "why"),
        [
            ("echo 'no tests ran in 0.01s'", "tests nothing: no tests were run"),
            ("echo 'Ran 0 tests in 0.000s'", "tests nothing: no tests were run"),
            ({"command": "echo fine", "must_match": "^[0-9]+ checks$"}, "does not match must_match"),
            ({"command": "echo '2 passed in 1s'", "min_tests": 3}, "3 tests are wanted and 2 were run"),
            ({"command": "echo fine", "min_tests": 1}, "1 tests are wanted and none that Ralph can count were run"),
            ({"command": "true", "must_fail_after": "rm README"}, "tests nothing: it passes on a broken tree"),
            ({"command": "true", "must_fail_after": "rm nowhere"}, "must_fail_after itself failed"),
        ],
    )
    def test_does_not_count(self, ralph, gate, why):
        ralph.settings(settings(gate))
        done = ralph.run(ralph.agent(CLAIM), "-i", "1")
        assert done.returncode == 3, done.stdout
        assert why in gates_of(ralph)[0]["message"]

    @pytest.mark.parametrize(
        ("gate", "check"),
        [
            ("echo '== 12 passed, 1 skipped in 1.0s =='", "12 tests"),
            ({"command": "echo 8 checks", "must_match": "^[0-9]+ checks$"}, "output matches"),
            ({"command": "echo 'Ran 4 tests in 0.1s'", "min_tests": 3}, "4 tests"),
            ({"command": "test -f README", "must_fail_after": "rm README"}, "fails on a broken tree"),
            ("true", "unchecked"),
        ],
    )
    def test_one_that_does_says_how_that_was_seen(self, ralph, gate, check):
        ralph.settings(settings(gate))
        done = ralph.run(ralph.agent(CLAIM))
        assert done.returncode == 0
        assert gates_of(ralph)[0]["data"]["checked_by"] == check
        assert ("nothing shows that 'true' tests anything" in done.stdout) is (check == "unchecked")

    def test_breaking_the_tree_does_not_touch_the_workspace(self, ralph):
        ralph.settings(settings({"command": "test -f README", "must_fail_after": "rm README"}))
        before = ralph.repository()
        ralph.run(ralph.agent(CLAIM))
        assert (ralph.workspace / "README").exists()
        assert ralph.repository()["index"] == before["index"]
        assert not list(ralph.folder.glob("broken-*"))


@pytest.mark.parametrize(
    ("output", "count"),
    [
        ("===== 3 failed, 41 passed, 2 skipped in 3.21s =====", 41),
        ("41 passed in 0.12s", 41),
        ("Ran 17 tests in 0.003s\n\nOK", 17),
        ("test result: ok. 5 passed; 0 failed; 0 ignored", 5),
        ("# tests 9\n# suites 1", 9),
        ("Tests:       1 failed, 23 passed, 24 total", 24),
        ("30 examples, 0 failures", 30),
        ("?   	example.org/x	[no test files]", 0),
        ("all good", None),
        ("I passed by the river", None),
    ],
)
def test_the_summary_lines_of_test_runners_are_understood(output, count):
    assert count_tests(output) == count


@pytest.mark.parametrize("gate", ["''", "{command: x, timeout: 0}", "{command: x, must_match: '('}", "{comand: x}"])
def test_a_gate_that_is_written_wrongly_is_refused_before_anything_starts(ralph, gate):
    ralph.settings(f"gates: [{gate}]\n")
    agent = ralph.agent(CLAIM)
    done = ralph.run(agent)
    assert done.returncode == 2
    assert done.stderr.startswith("ralph: ralph.yml, line 1: ")
    assert agent.calls == 0
