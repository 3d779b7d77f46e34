"""What a person can do with a run while it works: stop it, pause it, tell it something, look at it."""

import json

import pytest


@pytest.fixture
def busy(ralph):
    """A run whose first iteration ends when the file `go` is there."""
    agent = ralph.agent(
        "touch begun; while [ ! -e go ]; do sleep 0.05; done; echo one",
        "touch second; while [ ! -e go2 ]; do sleep 0.05; done; echo two",
        "echo LOOP_COMPLETE",
    )
    process = ralph.begin(agent, "--max-runtime", "600")
    ralph.until((ralph.workspace / "begun").exists)
    return process, agent


def go(ralph, name="go"):
    (ralph.workspace / name).touch()


class TestStop:
    def test_ends_it_after_the_iteration_in_hand(self, ralph, busy):
        process, agent = busy
        done = ralph("stop")
        assert done.returncode == 0, done.stderr
        assert f"ralph resume {ralph.folder.name}" in done.stdout
        assert process.poll() is None
        go(ralph)
        ralph.end(process)
        assert process.returncode == 130
        assert (agent.calls, ralph.state()["finished"]) == (1, 1)

    def test_now_and_waits_for_the_end(self, ralph, busy):
        process, _ = busy
        assert ralph("stop", "--now", "--wait").returncode == 0
        assert process.wait(10) == 143
        ralph.end(process)

    def test_tells_programs_what_was_done(self, ralph, busy):
        process, _ = busy
        here = {"run": ralph.folder.name, "workspace": str(ralph.workspace)}
        steered = json.loads(ralph("steer", "Use tabs.", "--json").stdout)
        paused = [json.loads(ralph("pause", *more, "--json").stdout) for more in ([], [], ["--off"], ["--off"])]
        stopped = json.loads(ralph("stop", "--now", "--wait", "--json").stdout)
        ralph.end(process)
        assert steered == {**here, "live": True}
        assert [(each["before"], each["paused"]) for each in paused] == [
            (False, True),
            (True, True),
            (True, False),
            (False, False),
        ]
        assert stopped == {**here, "now": True, "ended": True}

    @pytest.mark.parametrize("command", [["stop"], ["pause"], ["pause", "--off"]])
    def test_nothing_that_is_at_work(self, ralph, command):
        assert "no run is at work" in ralph.refuses(*command)


class TestPause:
    def test_holds_it_between_iterations_and_costs_no_time(self, ralph, busy):
        process, agent = busy
        assert "pauses after the iteration in hand" in ralph("pause").stdout
        go(ralph)
        ralph.until(lambda: "wait.started" in ralph.types())
        before = ralph.state()["elapsed"]
        assert agent.calls == 1
        assert "goes on" in ralph("pause", "--off").stdout
        go(ralph, "go2")
        ralph.end(process)
        assert process.returncode == 0
        (waited,) = [record["duration_ms"] for record in ralph.records() if record["type"] == "wait.finished"]
        took = next(record["duration_ms"] for record in ralph.records() if record["type"] == "run.finished")
        assert before <= ralph.state()["elapsed"] <= (took - waited) / 1000 + 0.5

    def test_can_be_ended(self, ralph, busy):
        process, agent = busy
        ralph("pause")
        go(ralph)
        ralph.until(lambda: "wait.started" in ralph.types())
        ralph("stop")
        ralph.end(process)
        assert (process.returncode, agent.calls) == (130, 1)

    def test_that_nobody_wanted(self, ralph, busy):
        process, _ = busy
        assert "was not to pause" in ralph("pause", "--off").stdout
        ralph("stop", "--now", "--wait")
        ralph.end(process)


class TestSteer:
    def test_stands_in_the_next_prompt_once(self, ralph, busy):
        process, agent = busy
        assert ralph("steer", "Use *tabs*, 請.").returncode == 0
        assert ralph("steer", "And no emoji.").returncode == 0
        go(ralph)
        go(ralph, "go2")
        ralph.end(process)
        assert process.returncode == 0
        first, second, third = (agent.prompt(number).decode() for number in (1, 2, 3))
        assert "Use *tabs*, 請.\n\nAnd no emoji." in second
        assert "tabs" not in first + third
        assert [r["message"] for r in ralph.records() if r["type"] == "steered"] == ["Use *tabs*, 請.", "And no emoji."]

    def test_a_run_that_is_not_at_work_hears_it_when_it_goes_on(self, ralph):
        agent = ralph.agent("echo one", "echo LOOP_COMPLETE")
        ralph.run(agent, "-i", "1")
        assert "once it goes on" in ralph("steer", "Hurry up.").stdout
        ralph("resume", "-i", "5")
        assert "Hurry up." in agent.prompt(2).decode()

    def test_it_is_not_lost_when_the_attempt_is_repeated(self, ralph):
        failed = json.dumps({"type": "failed", "kind": "network", "message": "gone"})
        done = json.dumps({"type": "finished", "text": "LOOP_COMPLETE"})
        ralph.settings("agents: {command: {output: events}}\n")
        agent = ralph.agent(
            "echo " + repr(json.dumps({"type": "finished", "text": "x"})), f"echo '{failed}'", f"echo '{done}'"
        )
        ralph.run(agent, "-i", "1", "--retry-delay", "0.1")
        ralph("steer", "Hurry up.")
        ralph("resume", "-i", "5")
        assert "Hurry up." in agent.prompt(2).decode()
        assert "Hurry up." in agent.prompt(3).decode()

    def test_nothing_is_refused(self, ralph):
        ralph.run(ralph.agent("echo one"), "-i", "1")
        assert "there is nothing to say" in ralph.refuses("steer", " ")

    def test_a_run_that_is_complete_is_told_nothing(self, ralph):
        ralph.run(ralph.agent("echo LOOP_COMPLETE"))
        assert "is complete" in ralph.refuses("steer", "more")


class TestRuns:
    def test_a_line_for_each_with_what_became_of_it(self, ralph):
        ralph.run(ralph.agent("echo LOOP_COMPLETE"), task="the first")
        ralph.run(ralph.agent("echo no"), "-i", "1", task="the second " + "x" * 100)
        listed = ralph("runs").stdout.splitlines()
        assert [line.split()[0] for line in listed[1:]] == [folder.name for folder in reversed(ralph.folders)]
        assert "stopped" in listed[1]
        assert "the second xxx" in listed[1]
        assert "completed" in listed[2]
        first = json.loads(ralph("runs", "--json").stdout)[1]
        assert (first["condition"], first["iterations"], first["cost_usd"]) == ("completed", 1, None)

    def test_none(self, ralph):
        assert "there is no run" in ralph("runs").stdout
        assert json.loads(ralph("runs", "--json").stdout) == []

    def test_the_one_at_work(self, ralph, busy):
        process, _ = busy
        assert json.loads(ralph("runs", "--json").stdout)[0]["condition"] == "running"
        ralph("stop", "--now", "--wait")
        ralph.end(process)


class TestLogs:
    def test_last_lines_and_those_that_come(self, ralph, busy):
        process, _ = busy
        following = ralph.start("logs", "-f")
        go(ralph)
        go(ralph, "go2")
        ralph.end(process)
        out, _ = following.communicate(timeout=30)
        assert "agent.started" in out
        assert "run.finished" in out
