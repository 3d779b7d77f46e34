"""Runs that programs look after: events for them, a file with the pid, and a command at the end."""

import json
import os
import signal

import pytest

DONE = "cat > /dev/null; echo LOOP_COMPLETE"
GO_ON = "cat > /dev/null; echo more"


class TestEvents:
    def test_are_every_record_and_the_account_as_the_last_one(self, ralph):
        done = ralph.run(ralph.agent("echo one", "echo LOOP_COMPLETE"), "--events")
        assert (done.returncode, done.stderr) == (0, "")
        *events, account = map(json.loads, done.stdout.splitlines())
        chain = ("prev_hash", "hash")
        assert events == [{k: v for k, v in record.items() if k not in chain} for record in ralph.records()]
        assert (account["type"], account["run"], account["outcome"]) == ("account", ralph.folder.name, "completed")
        assert (account["exit_code"], account["iterations"], account["cost"], account["tokens"]) == (0, 2, None, None)
        assert account["sinks"][0]["lost"] == 0

    def test_of_a_run_that_goes_on(self, ralph):
        ralph.run(GO_ON, "-i", "1")
        done = ralph("resume", "-i", "2", "--events")
        account = json.loads(done.stdout.splitlines()[-1])
        assert (done.returncode, account["outcome"], account["exit_code"], account["resumable"]) == (3, "stopped", 3, True)  # fmt: skip

    def test_are_one_a_line_whatever_an_agent_says(self, ralph):
        done = ralph.run(ralph.agent(r"printf 'a\033[31m\r\342\200\250b\377\nLOOP_COMPLETE\n'"), "--events")
        assert done.returncode == 0
        assert done.stdout.isascii()
        assert "\x1b" not in done.stdout
        assert all(json.loads(line) for line in done.stdout.split("\n") if line)

    def test_a_mistake_is_one_line_on_standard_error(self, ralph):
        ralph.refuses(*ralph.flags(DONE, task=None), "--events", says="no prompt")


@pytest.mark.parametrize("flag", ["-q", "--quiet"])
def test_quiet_is_the_account_alone(ralph, flag):
    done = ralph.run(DONE, flag)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("\n✓ completed")


class TestPidFile:
    """`pid_file`, or --pid-file."""

    @pytest.mark.parametrize("way", ["file", "flag"])
    def test_is_there_while_it_runs(self, ralph, way):
        path = ralph.root / "ralph.pid"
        if way == "file":
            ralph.settings(f"pid_file: {path}")
        agent = ralph.agent("sleep 30")
        process = ralph.begin(agent, *(["--pid-file", path] if way == "flag" else []))
        ralph.until(lambda: agent.calls)
        assert path.read_text() == f"{process.pid}\n"
        os.kill(int(path.read_text()), signal.SIGTERM)
        assert ralph.end(process).returncode == 143
        assert not path.exists()

    def test_of_a_process_that_lives_is_not_taken(self, ralph):
        path = ralph.root / "ralph.pid"
        agent = ralph.agent("sleep 30")
        process = ralph.begin(agent, "--pid-file", path)
        ralph.until(lambda: agent.calls)
        (ralph.workspace / "other").mkdir()
        done = ralph.run(DONE, "--pid-file", path, "-w", "other")
        assert done.returncode == 2
        assert f"{path} is held by process {process.pid}" in done.stderr
        assert path.read_text() == f"{process.pid}\n"

    def test_that_a_killed_one_has_left_is_taken_over(self, ralph):
        path = ralph.root / "ralph.pid"
        path.write_text(f"{os.getpid()}\n")
        assert ralph.run(DONE, "--pid-file", path).returncode == 0
        assert not path.exists()

    def test_is_gone_after_a_mistake_too(self, ralph):
        ralph.run(DONE, "--pid-file", "pid", task=None)
        assert not (ralph.workspace / "pid").exists()

    def test_that_can_not_be_written_is_a_mistake(self, ralph):
        ralph.refuses(*ralph.flags(DONE), "--pid-file", "nowhere/pid", says=["pid_file", "nowhere/pid can't be written"])  # fmt: skip


class TestOnDone:
    """`on_done`, or --on-done."""

    @pytest.mark.parametrize("way", ["file", "flag"])
    def test_is_told_how_it_ended(self, ralph, way):
        command = f'printf "%s|" "$RALPH_OUTCOME" "$RALPH_EXIT_CODE" "$RALPH_RUN_ID" "$RALPH_ITERATIONS" "$RALPH_COST" "$RALPH_REASON" > {ralph.root}/told'
        if way == "file":
            ralph.write("ralph.json", json.dumps({"on_done": command}))
        done = ralph.run(GO_ON, "-i", "2", *(["--on-done", command] if way == "flag" else []))
        assert done.returncode == 3, done.stderr
        told = (ralph.root / "told").read_text().split("|")
        assert told[:-1] == ["stopped", "3", ralph.folder.name, "2", "", "2 of 2 iterations are used up"]

    def test_is_told_the_cost_where_it_is_known(self, ralph):
        ralph.settings("agents: {command: {output: events}}")
        used = {"type": "usage", "message_id": "m", "tokens": {"input": 60, "output": 5}, "cost": 0.25}
        agent = ralph.agent(
            f"echo '{json.dumps(used)}'; echo '{json.dumps({'type': 'finished', 'text': 'LOOP_COMPLETE'})}'"
        )
        ralph.run(agent, "--on-done", f"echo $RALPH_COST $RALPH_TOKENS > {ralph.root}/told")
        assert (ralph.root / "told").read_text() == "0.250000 65\n"

    def test_runs_where_the_work_is_and_prints_beside_the_account(self, ralph):
        done = ralph.run(DONE, "--on-done", "pwd", "--events")
        assert done.stderr == f"{ralph.workspace}\n"
        assert json.loads(done.stdout.splitlines()[-1])["type"] == "account"

    def test_that_fails_is_a_note(self, ralph):
        done = ralph.run(DONE, "--on-done", "exit 7")
        assert done.returncode == 0
        assert "note        on_done: exit code 7: exit 7" in done.stdout

    def test_is_told_of_an_interrupted_run_too(self, ralph):
        agent = ralph.agent("sleep 30")
        process = ralph.begin(agent, "--on-done", f"echo $RALPH_OUTCOME > {ralph.root}/told")
        ralph.until(lambda: agent.calls)
        process.terminate()
        assert ralph.end(process).returncode == 143
        assert (ralph.root / "told").read_text() == "terminated\n"

    def test_is_not_told_of_a_run_that_never_began(self, ralph):
        ralph.refuses(*ralph.flags(DONE, task=None), "--on-done", "touch told", says="no prompt")
