"""Whole runs with the command agent: when they end, how they end, and what they leave behind and alone."""

import ctypes
import json
import shutil
import signal
import time

import pytest

DONE = "cat > /dev/null; echo LOOP_COMPLETE"


def bound_by_permissions():
    """Called in a process before it begins: permissions hold for it, also if it is root's."""
    for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP


TERMINAL = ("finished", "failed", "abandoned")

WATCHED = """
from ralph_core import Provider, hookimpl
from ralph_core.builtin.git import GitStore

class Store(GitStore):
    def note(self, what, state):
        with (self.context.home / "calls").open("a") as calls:
            calls.write(f"{what} {state.attempts}\\n")
    def look(self, state, lease):
        self.note("look", state)
        return super().look(state, lease)
    def snapshot(self, state, lease):
        self.note("snapshot", state)
        return super().snapshot(state, lease)

@hookimpl
def ralph_checkpoint_stores():
    return [Provider("watched", "writes down what it is asked", f"{__name__}:Store", capabilities=frozenset({"snapshots"}))]
"""
HOSTILE = {
    "markup": b"[/x] [bold red]boo[/bold red] [link=file:///]x[/link] :bomb:",
    "escapes": b"\x1b[31mred\x1b[0m \x1b]0;title\x07 \x1b[2J\x1b[10A \x9b31m \r over \x08\x08",
    "nul": b"a\x00b\x01\x02\x7f",
    "not-utf-8": b"\xff\xfe\xc3( \xe2\x82 \xf0\x9f",
    "other-scripts": "完成了任务 🎉 עברית \u202eright to left\u202c \u2028 \u00a0 e\u0301".encode(),
    "a-long-line": b"x" * 3_000_000,
    "many-lines": b"line\n" * 20_000,
    "percent": b"%s %d {0} {name} $HOME `id` \\n",
}


def pairs(records):
    """How often each pair was opened, and how often it was closed."""
    stems = [record["type"].rpartition(".") for record in records]
    opened = sorted(stem for stem, _, end in stems if end == "started")
    closed = sorted(stem for stem, _, end in stems if end in TERMINAL)
    return opened, closed


class TestCompletion:
    """A run is complete when the last line of the final message is exactly the completion line."""

    @pytest.mark.parametrize(
        "message",
        [
            "LOOP_COMPLETE",
            "All done.\nLOOP_COMPLETE",
            "LOOP_COMPLETE\n\n\n",
            "All done.\r\nLOOP_COMPLETE\r\n",
            "not LOOP_COMPLETE\nLOOP_COMPLETE",
        ],
    )
    def test_it_is(self, ralph, message):
        ralph.write("message", message)
        done = ralph.run("cat > /dev/null; cat message")
        assert done.returncode == 0
        assert "✓ completed: claimed by the agent, not verified" in done.stdout
        assert ralph.state()["finished"] == 1

    @pytest.mark.parametrize(
        "message",
        [
            "",
            "LOOP_COMPLETE\nbut there is more",
            "LOOP_COMPLETE.",
            "LOOP_COMPLETED",
            " LOOP_COMPLETE",
            "\tLOOP_COMPLETE",
            "**LOOP_COMPLETE**",
            "I must not print LOOP_COMPLETE yet",
            "LOOP_COMPLETE LOOP_COMPLETE",
            "loop_complete",
            "working\rLOOP_COMPLETE",
            "LOOP_COMPLETE\x00",
        ],
    )
    def test_it_is_not(self, ralph, message):
        ralph.write("message", message)
        done = ralph.run("cat > /dev/null; cat message", "-i", "1")
        assert done.returncode == 3
        assert ralph.state()["outcome"]["kind"] == "stopped"

    @pytest.mark.parametrize("task", ["Do it.", "Print LOOP_COMPLETE when done.", "Say:\n\nLOOP_COMPLETE"])
    def test_an_agent_that_echoes_its_prompt_completes_nothing(self, ralph, task):
        assert ralph.run("cat", "-i", "2", task=task).returncode == 3

    def test_a_failed_agent_completes_nothing(self, ralph):
        assert ralph.run(f"{DONE}; exit 1", "-i", "1").returncode == 3

    def test_standard_error_completes_nothing(self, ralph):
        assert ralph.run("cat > /dev/null; echo LOOP_COMPLETE >&2", "-i", "1").returncode == 3

    def test_in_the_last_allowed_iteration_it_is_completion(self, ralph):
        done = ralph.run(ralph.agent("echo one", "echo LOOP_COMPLETE"), "-i", "2")
        assert done.returncode == 0
        assert ralph.state()["finished"] == 2

    def test_after_a_long_answer(self, ralph):
        assert ralph.run("cat > /dev/null; seq 200000; echo LOOP_COMPLETE", "-i", "1").returncode == 0


class TestThePrompt:
    """Each iteration is a fresh process that gets the task word for word."""

    def test_task_context_and_scratchpad(self, ralph):
        agent = ralph.agent("exit 7", "echo LOOP_COMPLETE")
        ralph.run(agent, "-i", "9", task="Paint the fence.")
        first, second = agent.prompt(1).decode(), agent.prompt(2).decode()
        assert first.startswith("# Task\n\nPaint the fence.\n\n")
        assert "This is iteration 1 of at most 9." in first
        assert "This is iteration 2 of at most 9." in second
        assert str(ralph.home / "scratchpad.md") in first
        assert str(ralph.workspace) in first
        assert "exactly LOOP_COMPLETE\n" in first
        assert "did not end well" not in first
        assert "did not end well: agent: exit code 7" in second

    def test_notes_reach_the_next_iteration(self, ralph):
        step = 'cat "$notes" 2> /dev/null; echo LOOP_COMPLETE'
        find = "notes=$(sed -n 's/.* are in \\(.*scratchpad.md\\).*/\\1/p' \"$here/prompt.$n\")\n"
        agent = ralph.agent(f'{find}echo half done > "$notes"', find + step)
        assert ralph.run(agent).returncode == 0
        assert (ralph.folder / "output" / "0002.out").read_text() == "half done\nLOOP_COMPLETE\n"

    def test_a_megabyte_arrives_byte_for_byte(self, ralph):
        line = "Tab\t, Zeilenende\r\n然后修复所有测试 🎉\n\n# nicht\\n \"'`$HOME`'\" é e\u0301 \u2028 \ufeff\x0b\x7f "
        task = (line * (1_000_000 // len(line.encode()) + 1)).encode()
        ralph.write("PROMPT.md", task)
        agent = ralph.agent("echo LOOP_COMPLETE")
        assert ralph.run(agent, task=None).returncode == 0
        assert len(task) > 1_000_000
        assert agent.prompt().startswith(b"# Task\n\n" + task + b"\n\n# How this works")

    def test_an_agent_that_does_not_read_it_does_no_harm(self, ralph):
        ralph.write("PROMPT.md", "x" * 300_000)
        assert ralph.run("echo LOOP_COMPLETE", task=None).returncode == 0

    def test_every_version_is_archived(self, ralph):
        agent = ralph.agent("echo LOOP_COMPLETE")
        for words in ("first", "second", "first"):
            ralph.write("PROMPT.md", words)
            ralph.run(agent, task=None)
        assert sorted(path.read_text() for path in (ralph.home / "prompts").iterdir()) == ["first", "second"]

    def test_a_fresh_process_each_time(self, ralph):
        agent = ralph.agent(":", ":", "echo LOOP_COMPLETE")
        ralph.run(agent)
        assert len(set(agent.pids)) == 3
        assert {agent.environment(n)["RALPH_RUN_ID"] for n in (1, 2, 3)} == {ralph.folder.name}
        assert [agent.environment(n)["RALPH_ITERATION"] for n in (1, 2, 3)] == ["1", "2", "3"]
        outputs = [path.name for path in sorted((ralph.folder / "output").glob("*.out"))]
        assert outputs == ["0001.out", "0002.out", "0003.out"]

    def test_standard_input_ends_after_it(self, ralph):
        assert ralph.run("cat > /dev/null; read more || echo LOOP_COMPLETE").returncode == 0


class TestLimits:
    """A run ends in time, and says by which limit."""

    def test_iterations(self, ralph):
        agent = ralph.agent("echo more")
        done = ralph.run(agent, "-i", "3")
        assert done.returncode == 3
        assert "stopped: 3 of 3 iterations are used up (by iterations)" in done.stdout
        assert agent.calls == 3

    def test_runtime_ends_an_agent_at_work(self, ralph):
        agent = ralph.agent("setsid sleep 60 & echo $! > child; trap '' TERM INT; sleep 60; sleep 60")
        started = time.monotonic()
        done = ralph.run(agent, "--max-runtime", "1", limit=20)
        assert done.returncode == 3
        assert "of 1 s are used up (by runtime)" in done.stdout
        assert time.monotonic() - started < 10
        assert not ralph.alive(agent.pids[0])
        assert not ralph.alive(int((ralph.workspace / "child").read_text()))
        assert ralph.state()["recent"][-1]["result"] == "abandoned"

    def test_failures_in_a_row(self, ralph):
        ralph.settings("max_failures: 3")
        agent = ralph.agent("exit 1", "exit 1", ":", "echo no good >&2; exit 9")
        done = ralph.run(agent)
        assert done.returncode == 1
        assert "failed: the agent failed 3 times in a row (by failures)" in done.stdout
        assert agent.calls == 6
        assert ralph.state()["failures"] == 5
        assert "agent: exit code 9: no good" in done.stderr

    def test_silence(self, ralph):
        ralph.settings("timeout_per_iteration: 1\nmax_failures: 1")
        agent = ralph.agent("sleep 60")
        done = ralph.run(agent, limit=20)
        assert done.returncode == 1
        assert ralph.state()["recent"][-1]["failure"] == "timeout"
        assert not ralph.alive(agent.pids[0])

    @pytest.mark.parametrize("stream", ["", " >&2"])
    def test_an_agent_that_goes_on_writing_is_not_silent(self, ralph, stream):
        ralph.settings("timeout_per_iteration: 1\nmax_failures: 1")
        agent = ralph.agent(f"for i in 1 2 3 4 5 6; do sleep 0.4; printf .{stream}; done; echo; echo LOOP_COMPLETE")
        assert ralph.run(agent).returncode == 0

    def test_the_hard_limit(self, ralph):
        ralph.settings("timeout_hard: 1\nmax_failures: 1")
        agent = ralph.agent("while sleep 0.1; do echo busy; done")
        assert ralph.run(agent, limit=20).returncode == 1
        assert "timeout: still working after 1 s (timeout_hard)" in ralph.state()["recent"][-1]["message"]
        assert not ralph.alive(agent.pids[0])


class TestFaults:
    """What goes wrong with an agent."""

    def test_the_next_agent_takes_over_when_a_program_is_missing(self, ralph):
        ralph.plugin("spare", "from ralph_core import *\nclass A(Agent):\n  def probe(self): return Probe()\n  async def run(self, request): yield Finished('LOOP_COMPLETE')\n@hookimpl\ndef ralph_agents(): return [Provider('spare', '', __name__ + ':A')]")  # fmt: skip
        done = ralph.run("no-such-program", "-a", "command,spare")
        assert done.returncode == 0, done.stdout
        assert [(attempt["agent"], attempt["failure"]) for attempt in ralph.state()["recent"]] == [("command", "spawn"), ("spare", None)]  # fmt: skip
        assert ralph.state()["finished"] == 1
        assert ralph.state()["failures"] == 0

    def test_without_another_agent_the_run_fails_at_once(self, ralph):
        done = ralph.run("no-such-program")
        assert done.returncode == 1
        assert "spawn: exit code 127" in done.stdout
        assert ralph.state()["attempts"] == 1

    def test_a_key_that_is_refused_is_not_tried_again(self, ralph):
        ralph.settings("agents: {command: {output: events}}")
        agent = ralph.agent("""echo '{"type": "failed", "kind": "auth", "message": "no such key"}'""")
        done = ralph.run(agent)
        assert done.returncode == 1
        assert "failed: auth: no such key (by command)" in done.stdout
        assert agent.calls == 1

    def test_an_overloaded_model_is_tried_again_with_growing_pauses(self, ralph):
        ralph.settings("agents: {command: {output: events}}\nmax_failures: 1")
        failed = """echo '{"type": "failed", "kind": "overloaded", "message": "529"}'; exit 1"""
        agent = ralph.agent(failed, failed, failed, """echo '{"type": "finished", "text": "LOOP_COMPLETE"}'""")
        assert ralph.run(agent, "--retry-delay", "0.1", "-i", "1").returncode == 0
        waits = [record["data"]["seconds"] for record in ralph.records() if record["type"] == "wait.started"]
        assert len(waits) == 3
        for wait, expected in zip(waits, (0.1, 0.2, 0.4), strict=True):
            assert 0.7 * expected <= wait <= 1.3 * expected + 0.05
        assert ralph.state()["finished"] == 1

    def test_a_quota_that_is_used_up_is_waited_for(self, ralph):
        ralph.settings("agents: {command: {output: events}}")
        failed = (
            """echo '{"type": "failed", "kind": "usage_limit", "message": "come back later", "retry_after": 0.5}'"""
        )
        agent = ralph.agent(failed, """echo '{"type": "finished", "text": "LOOP_COMPLETE"}'""")
        assert ralph.run(agent, "-i", "1").returncode == 0
        assert ralph.state()["failures"] == 0
        assert "wait.finished" in ralph.types()

    def test_the_final_event_decides_and_not_the_exit_code(self, ralph):
        ralph.settings("agents: {command: {output: events}}")
        assert (
            ralph.run("""cat > /dev/null; echo '{"type": "finished", "text": "LOOP_COMPLETE"}'; exit 1""").returncode
            == 0
        )

    def test_no_final_event_is_a_failure_whatever_the_exit_code(self, ralph):
        ralph.settings("agents: {command: {output: events}}\nmax_failures: 1")
        assert ralph.run("cat > /dev/null; echo LOOP_COMPLETE").returncode == 1
        assert ralph.state()["recent"][-1]["failure"] == "crash"

    def test_a_child_in_the_background_is_killed_and_the_iteration_is_a_success(self, ralph):
        agent = ralph.agent("(trap '' TERM HUP; exec setsid sleep 60) & echo $! > child; sleep 0.2; echo LOOP_COMPLETE")
        started = time.monotonic()
        assert ralph.run(agent).returncode == 0
        assert time.monotonic() - started < 10
        assert not ralph.alive(int((ralph.workspace / "child").read_text()))

    def test_thirty_failing_iterations_change_nothing_of_the_users(self, ralph):
        for number in range(5):
            ralph.git("commit", "-q", "--allow-empty", "-m", f"work {number}")
        ralph.write("README", "half-finished\n")
        ralph.write("staged", "x")
        ralph.git("add", "staged")
        ralph.write(".env", "SECRET=1")
        ralph.settings("max_failures: 50")
        before, files = ralph.repository(), ralph.tree()
        agent = ralph.agent("exit 1")
        assert ralph.run(agent, "-i", "30").returncode == 3
        assert agent.calls == 30
        assert ralph.repository() == before
        after = ralph.tree()
        ours = {name for name in after if name.split("/")[0] == ".agent" or name.startswith((".git/objects", ".git/refs", ".git/logs"))}  # fmt: skip
        assert {name: stat for name, stat in after.items() if name not in ours and name not in (".git", ".")} == {
            name: stat for name, stat in files.items() if name not in ours and name != ".git"
        }

    @pytest.mark.parametrize("kind", HOSTILE)
    def test_what_an_agent_says_changes_nothing(self, ralph, kind):
        said = HOSTILE[kind]
        ralph.write("words", said)
        agent = ralph.agent("cat words; echo; cat words >&2; exit 3", "cat words; echo; echo LOOP_COMPLETE")
        done = ralph.run(agent, "-v", "-i", "2")
        assert done.returncode == 0, done.stdout
        assert (ralph.folder / "output" / "0002.out").read_bytes() == said + b"\nLOOP_COMPLETE\n"
        shown = (done.stdout + done.stderr).replace("\n", "")
        assert shown.isprintable()
        opened, closed = pairs(ralph.records())
        assert opened == closed
        assert "lost" not in done.stdout
        assert ralph("status").stdout.replace("\n", "").isprintable()

    @pytest.mark.parametrize("kind", HOSTILE)
    def test_what_an_event_says_changes_nothing(self, ralph, kind):
        ralph.settings("agents: {command: {output: events}}")
        text = HOSTILE[kind].decode(errors="replace")
        events = [
            {"type": "started", "session": text, "model": text},
            {"type": "tool_call", "id": "1", "name": text, "input": {"path": text, "command": text}},
            {"type": "tool_result", "id": "1", "ok": False, "text": text},
            {"type": "finished", "text": f"{text}\nLOOP_COMPLETE"},
        ]
        ralph.write("events", "\n".join(map(json.dumps, events)) + "\n")
        done = ralph.run("cat > /dev/null; cat events", "-v")
        assert done.returncode == 0, done.stdout
        assert (done.stdout + done.stderr).replace("\n", "").isprintable()


class TestTheWorkspace:
    """Snapshots are Ralph's; the rest of the repository is the user's."""

    def test_nothing_of_the_users_is_touched(self, ralph):
        ralph.write("README", "stashed\n")
        ralph.git("stash")
        ralph.write("README", "changed\n")
        ralph.write("staged", "x")
        ralph.git("add", "staged")
        ralph.write("untracked", "x")
        ralph.git("branch", "other")
        before = ralph.repository()
        ralph.run("cat > /dev/null; true", "-i", "4", "--checkpoint-interval", "1")
        assert ralph.repository() == before
        assert len(ralph.snapshots()) == 5

    def test_snapshots_hold_what_the_agent_made(self, ralph):
        agent = ralph.agent("echo one > made", "echo two > made", "echo LOOP_COMPLETE")
        done = ralph.run(agent, "--checkpoint-interval", "1")
        refs = ralph.snapshots()
        assert refs[0].startswith(f"refs/ralph/{ralph.folder.name}/")
        assert [ralph.git("show", f"{ref}:made") for ref in refs[1:]] == ["one\n", "two\n", "two\n"]
        assert ralph.git("ls-tree", "-r", "--name-only", refs[-1]).split() == ["README", "made"]
        assert "files       1 changed" in done.stdout

    def test_the_store_may_look_at_the_files_before_each_snapshot(self, ralph):
        ralph.plugin("watched", WATCHED)
        ralph.settings("checkpoint_store: watched\ncheckpoint_interval: 2\n")
        assert ralph.run("cat > /dev/null; date >> x", "-i", "4").returncode == 3
        calls = (ralph.workspace / ".agent" / "calls").read_text().splitlines()
        assert calls == ["look 0", "snapshot 0", "look 2", "snapshot 2", "look 4", "snapshot 4"]

    def test_no_agent_begins_before_the_files_are_recorded(self, ralph):
        ralph.program(
            "git",
            f'#!/bin/sh\ncase "$*" in *" add "*|*" write-tree"*) sleep 0.2;; esac\nexec {shutil.which("git")} "$@"\n',
        )
        agent = ralph.agent(*[f"cat > /dev/null; echo {number} > n" for number in (1, 2, 3)])
        assert ralph.run(agent, "-i", "3", "--checkpoint-interval", "1").returncode == 3
        assert [ralph.git("show", f"{ref}:n").strip() for ref in ralph.snapshots()[1:]] == ["1", "2", "3"]
        order = [name for name in ralph.types() if name in ("agent.started", "checkpoint.finished")]
        assert order == ["checkpoint.finished", *["agent.started", "checkpoint.finished"] * 3]

    def test_no_agent_begins_when_the_files_could_not_be_recorded(self, ralph):
        ralph.program(
            "git",
            f'#!/bin/sh\ncase "$*" in *" write-tree"*) [ ! -e broken ] || exit 128;; esac\nexec {shutil.which("git")} "$@"\n',
        )
        agent = ralph.agent("cat > /dev/null", "cat > /dev/null; touch broken", "cat > /dev/null")
        done = ralph.run(agent, "-i", "3", "--checkpoint-interval", "1")
        assert (done.returncode, agent.calls) == (1, 2)
        assert "state can't be kept" in done.stdout
        assert ralph.state()["finished"] == 2
        assert ralph.types().count("checkpoint.failed") == 1

    def test_a_directory_without_git(self, ralph):
        shutil.rmtree(ralph.workspace / ".git")
        done = ralph.run(ralph.agent("echo x > made", "echo LOOP_COMPLETE"))
        assert done.returncode == 0, done.stderr
        assert "files       1 changed" in done.stdout
        assert {path.name for path in ralph.workspace.iterdir()} == {".agent", "README", "made"}

    def test_a_repository_without_a_commit(self, ralph):
        shutil.rmtree(ralph.workspace / ".git")
        ralph.git("init", "-q", "-b", "main")
        assert ralph.run(DONE).returncode == 0
        assert ralph.git("for-each-ref", "refs/heads", "refs/tags", "refs/stash") == ""

    def test_no_git(self, ralph):
        done = ralph.run(ralph.agent("echo x > made", "echo LOOP_COMPLETE"), "--no-git")
        assert done.returncode == 0
        assert ralph.snapshots() == []
        assert "files  " not in done.stdout

    def test_an_agent_that_removes_the_state_directory(self, ralph):
        agent = ralph.agent("rm -rf .agent; git clean -fdxq; echo gone", "echo LOOP_COMPLETE")
        done = ralph.run(agent)
        assert agent.calls >= 1
        assert "Traceback" not in done.stderr
        assert done.returncode in (0, 1)

    @pytest.mark.parametrize("folder", [".agent", ".agent/runs/*/output/raw"])
    def test_an_agent_that_locks_the_state_directory(self, ralph, folder):
        agent = ralph.agent(f"cat > /dev/null; chmod 000 {folder}", DONE)
        done = ralph.run(agent, preexec_fn=bound_by_permissions)
        for locked in ralph.workspace.glob(folder):
            locked.chmod(0o700)
        assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
        assert "✗ failed: state can't be kept: can't write " in done.stdout
        assert "raised" not in done.stdout
        resumed = ralph("resume")
        assert resumed.returncode == 0, resumed.stderr
        assert ralph.state()["outcome"]["kind"] == "completed"
        assert not (ralph.folder / "output" / "raw").exists(), "what was left has been gone through"


class TestTheAccount:
    """The records and the trace say what happened, and fit together."""

    def test_every_start_has_one_end_and_the_count_has_no_gap(self, ralph):
        ralph.settings("agents: {command: {output: events}}\nmax_failures: 9")
        steps = [
            """echo '{"type": "tool_call", "id": "1", "name": "never ends"}'; exit 1""",
            """echo '{"type": "failed", "kind": "network"}'""",
            """echo '{"type": "tool_call", "id": "2", "name": "ends"}'; echo '{"type": "tool_result", "id": "2"}'; echo '{"type": "finished", "text": ""}'""",
            "sleep 60",
        ]
        agent = ralph.agent(*steps)
        done = ralph.run(agent, "--retry-delay", "0.1", "--max-runtime", "3", limit=20)
        assert done.returncode == 3
        records = ralph.records()
        opened, closed = pairs(records)
        assert opened == closed
        assert {"run", "iteration", "agent", "tool", "wait", "checkpoint"} == set(opened)
        assert [record["seq"] for record in records] == list(range(1, len(records) + 1))
        assert len({record["id"] for record in records}) == len(records)
        assert {record["run"] for record in records} == {ralph.folder.name}
        assert [record["type"] for record in records][-1] == "run.finished"

    def test_unknown_spend_is_unknown(self, ralph):
        done = ralph.run(DONE)
        assert "tokens unknown, cost unknown" in done.stdout
        assert "$0" not in done.stdout + done.stderr

    def test_what_the_agent_reports_is_added_up(self, ralph):
        ralph.settings("agents: {command: {output: events}}")
        usage = '{"type": "usage", "message_id": "m", "tokens": {"input": 100, "output": 10, "cache_read": 1000, "cache_write": 1}, "cost": 0.5}'
        agent = ralph.agent(f"""echo '{usage}'; echo '{usage}'; echo '{{"type": "finished", "text": ""}}'""", f"echo '{usage}'; exit 1", """echo '{"type": "finished", "text": "LOOP_COMPLETE"}'""")  # fmt: skip
        done = ralph.run(agent)
        assert "2,222 tokens, $1.0000 and an unknown cost of 1 attempt(s)" in done.stdout

    def test_secrets_are_not_written_down(self, ralph):
        secret = "sk-very-secret-0123456789"
        done = ralph.run('cat > /dev/null; echo "key $ACME_API_KEY"; echo LOOP_COMPLETE', "-v", env={"ACME_API_KEY": secret})  # fmt: skip
        assert done.returncode == 0
        assert secret not in done.stdout + done.stderr
        assert secret not in json.dumps(ralph.records()) + json.dumps(ralph.spans())


class TestResuming:
    """A run goes on where it was."""

    def test_after_a_limit_with_a_higher_one(self, ralph):
        agent = ralph.agent("echo one", "echo two", "echo LOOP_COMPLETE")
        assert ralph.run(agent, "-i", "2").returncode == 3
        run, elapsed = ralph.folder.name, ralph.state()["elapsed"]
        assert ralph("resume").returncode == 3
        assert agent.calls == 2
        done = ralph("resume", run[:20], "-i", "5")
        assert done.returncode == 0, done.stderr
        assert ralph.folder.name == run
        assert agent.calls == 3
        state = ralph.state()
        assert (state["finished"], state["sittings"]) == (3, 3)
        assert state["elapsed"] > elapsed
        records = ralph.records()
        assert pairs(records)[0] == pairs(records)[1]
        assert [record["seq"] for record in records] == list(range(1, len(records) + 1))

    def test_a_stopped_run_is_not_gone_on_with_by_starting_another(self, ralph):
        agent = ralph.agent("echo one")
        ralph.run(agent, "-i", "1")
        ralph.run(agent, "-i", "1")
        assert len(ralph.folders) == 2

    def test_a_run_whose_folder_was_removed_is_not_gone_on_with_either(self, ralph):
        agent = ralph.agent("echo LOOP_COMPLETE")
        ralph.run(agent)
        first = ralph.folder.name
        shutil.rmtree(ralph.home)
        done = ralph.run(agent)
        assert done.returncode == 0
        assert agent.calls == 2
        assert ralph.folder.name != first

    def test_with_a_changed_prompt_file(self, ralph):
        ralph.write("PROMPT.md", "first words")
        agent = ralph.agent("echo one", "echo LOOP_COMPLETE")
        ralph.run(agent, "-i", "1", task=None)
        ralph.write("PROMPT.md", "second words")
        done = ralph("resume", "-i", "2")
        assert done.returncode == 0
        assert b"second words" in agent.prompt(2)
        assert "the prompt has changed" in done.stdout

    @pytest.mark.parametrize("command", ["run", "resume"])
    def test_after_a_kill_nothing_is_lost_and_nobody_is_left(self, ralph, command):
        agent = ralph.agent("echo one", "setsid sleep 60 & echo $! > child; echo two; sleep 60", "echo LOOP_COMPLETE")
        process = ralph.begin(agent)
        ralph.until(lambda: (ralph.workspace / "child").exists() and (ralph.workspace / "child").read_text().strip())
        time.sleep(0.5)
        process.kill()
        process.wait()
        done = ralph.run(agent) if command == "run" else ralph("resume")
        assert done.returncode == 0, done.stderr
        assert not ralph.alive(agent.pids[1])
        assert not ralph.alive(int((ralph.workspace / "child").read_text()))
        state = ralph.state()
        assert (state["finished"], state["attempts"], state["sittings"]) == (2, 3, 2)
        assert [(attempt["iteration"], attempt["result"]) for attempt in state["recent"]] == [
            (1, "finished"),
            (2, "abandoned"),
            (2, "finished"),
        ]
        records = ralph.records()
        opened, closed = pairs(records)
        assert opened == closed
        assert {record["type"] for record in records} >= {"agent.abandoned", "iteration.abandoned", "run.abandoned"}
        assert [record["seq"] for record in records] == list(range(1, len(records) + 1))

    @pytest.mark.parametrize("when", ["checkpoint", "waiting", "between"])
    def test_after_a_kill_at_another_moment_the_account_is_whole_too(self, ralph, when):
        stall = {
            "checkpoint": "def ralph_checkpoint_stores(): return [Provider('slow', '', __name__ + ':S')]\nfrom ralph_core.builtin.local import LocalStore\nclass S(LocalStore):\n  def snapshot(self, state, lease):\n    if state.finished == 0 and hold(): return None",
            "waiting": "def ralph_classify_failure(failure):\n  hold\n  return FailureKind.NETWORK",
            "between": "def ralph_choose_agent(state):\n  if state.finished == 1: hold()",
        }[when]
        hold = "import os, time\nfrom ralph_core import *\ndef hold():\n  if not os.path.exists('held'):\n    open('held', 'w').close()\n    time.sleep(60)\n"
        ralph.plugin("slow", f"{hold}@hookimpl\n{stall}")
        ralph.settings(f"checkpoint_store: {'slow' if when == 'checkpoint' else 'git'}\nretry_delay: 60")
        agent = ralph.agent("exit 1" if when == "waiting" else "echo one", "echo LOOP_COMPLETE")
        process = ralph.begin(agent)
        if when == "waiting":
            ralph.until(lambda: (ralph.home / "audit").exists() and "wait.started" in ralph.types())
        else:
            ralph.until((ralph.workspace / "held").exists)
        time.sleep(0.3)
        process.kill()
        process.wait()
        assert ralph.run(agent, "--retry-delay", "0").returncode == 0
        records = ralph.records()
        assert pairs(records)[0] == pairs(records)[1]
        assert [record["seq"] for record in records] == list(range(1, len(records) + 1))

    def test_a_run_that_was_killed_is_not_gone_on_with_for_another_task(self, ralph):
        agent = ralph.agent("sleep 60", "echo LOOP_COMPLETE")
        process = ralph.begin(agent)
        ralph.until(lambda: agent.calls)
        process.kill()
        process.wait()
        assert ralph.run(agent, task="Something else.").returncode == 0
        assert len(ralph.folders) == 2


class TestSignals:
    """A person, or a service manager, can end a run in good order."""

    def test_term_ends_it_without_waiting_for_the_agent(self, ralph):
        agent = ralph.agent("setsid sleep 60 & echo $! > child; trap '' TERM INT; echo working; sleep 60; sleep 60")
        process = ralph.begin(agent)
        ralph.until((ralph.workspace / "child").exists)
        started = time.monotonic()
        process.terminate()
        done = ralph.end(process)
        assert done.returncode == 143
        assert time.monotonic() - started < 6
        assert "terminated: asked to end (by SIGTERM)" in done.stdout
        assert f"ralph resume {ralph.folder.name}" in done.stdout
        assert not ralph.alive(agent.pids[0])
        assert not ralph.alive(int((ralph.workspace / "child").read_text()))
        assert pairs(ralph.records())[0] == pairs(ralph.records())[1]

    def test_one_interrupt_lets_the_iteration_finish(self, ralph):
        agent = ralph.agent("sleep 1; echo one")
        process = ralph.begin(agent)
        ralph.until(lambda: agent.calls)
        process.send_signal(signal.SIGINT)
        done = ralph.end(process)
        assert done.returncode == 130
        assert ralph.state()["recent"][-1]["result"] == "finished"
        assert ralph.state()["finished"] == agent.calls == 1

    def test_one_interrupt_does_not_spoil_a_completion(self, ralph):
        agent = ralph.agent("sleep 1; echo LOOP_COMPLETE")
        process = ralph.begin(agent)
        ralph.until(lambda: agent.calls)
        process.send_signal(signal.SIGINT)
        assert ralph.end(process).returncode == 0

    def test_two_interrupts_end_it_at_once(self, ralph):
        agent = ralph.agent("sleep 60")
        process = ralph.begin(agent)
        ralph.until(lambda: agent.calls)
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        started = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert ralph.end(process).returncode == 130
        assert time.monotonic() - started < 6
        assert not ralph.alive(agent.pids[0])
        assert ralph.state()["recent"][-1]["result"] == "abandoned"

    @pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    def test_a_wait_is_cut_short(self, ralph, number, code):
        ralph.plugin("network", "from ralph_core import *\n@hookimpl\ndef ralph_classify_failure(failure): return FailureKind.NETWORK")  # fmt: skip
        process = ralph.begin("exit 1", "--retry-delay", "60")
        ralph.until(lambda: (ralph.home / "audit").exists() and "wait.started" in ralph.types())
        process.send_signal(number)
        assert ralph.end(process).returncode == code

    def test_an_interrupted_run_can_be_resumed(self, ralph):
        agent = ralph.agent("sleep 60", "echo LOOP_COMPLETE")
        process = ralph.begin(agent)
        ralph.until(lambda: agent.calls)
        process.terminate()
        ralph.end(process)
        assert ralph("resume").returncode == 0
        assert ralph.state()["finished"] == 1

    def test_hangup_reads_the_limits_again(self, ralph):
        ralph.settings("max_iterations: 50")
        agent = ralph.agent("sleep 0.2")
        process = ralph.begin(agent)
        ralph.until(lambda: agent.calls)
        ralph.settings("max_iterations: many")
        process.send_signal(signal.SIGHUP)
        ralph.until(lambda: any("settings not reloaded: ralph.yml, line 1" in record["message"] for record in ralph.records()))  # fmt: skip
        ralph.settings("max_iterations: 2")
        process.send_signal(signal.SIGHUP)
        done = ralph.end(process)
        assert done.returncode == 3
        assert "settings reloaded" in [record["message"] for record in ralph.records()]
        assert ralph.state()["limits"]["iterations"] == 2

    def test_a_stop_during_the_first_look_at_a_large_tree_brings_no_second_look(self, ralph):
        calls, go = ralph.root / "calls", ralph.root / "go"
        wait = f'case "$*" in *" add -A"*) echo add >> "{calls}"; while [ ! -e "{go}" ]; do sleep 0.05; done;; esac'
        ralph.program("git", f'#!/bin/sh\n{wait}\nexec {shutil.which("git")} "$@"\n')
        agent = ralph.agent(DONE)
        process = ralph.begin(agent)
        ralph.until(lambda: calls.exists() and list(ralph.home.glob("runs/*/state.json")))
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        go.touch()
        assert ralph.end(process).returncode == 143
        assert calls.read_text() == "add\n"
        assert agent.calls == 0

    def test_usr1_writes_a_diagnosis_and_changes_nothing(self, ralph):
        agent = ralph.agent("sleep 1; echo LOOP_COMPLETE")
        process = ralph.begin(agent)
        ralph.until(lambda: agent.calls)
        process.send_signal(signal.SIGUSR1)
        assert ralph.end(process).returncode == 0
        (diagnosis,) = ralph.folder.glob("diagnosis-*.txt")
        words = diagnosis.read_text()
        assert f"run='{ralph.folder.name}'" in words
        assert "attempt.py" in words
        assert "Current thread" in words


def test_an_agent_that_clears_everything_away_takes_neither_state_nor_account(ralph):
    before = ralph.repository()["status"]
    agent = ralph.agent("rm -rf .agent; echo one", "git clean -fdxq; echo two", "rm -rf .agent; echo LOOP_COMPLETE")
    done = ralph.run(agent)
    assert done.returncode == 0, done.stderr
    assert ralph.state()["finished"] == 3
    assert ralph.types()[-1] == "run.finished"
    assert ralph.repository()["status"] == before, "the state directory ignores itself again"
