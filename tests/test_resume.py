"""A run that was cut short goes on where it was, whatever has changed meanwhile."""

import json
import resource
import shutil
import subprocess
import time

import pytest

from ralph_core.sitting import new_run_id

STEP = 'echo "$RALPH_ITERATION" >> done.txt; echo did a piece\n'
LAST = f"{STEP}echo LOOP_COMPLETE\n"


def killed_in_iteration(ralph, agent, number, *more):
    """Start a run and kill it with SIGKILL while its agent works in that iteration."""
    process = ralph.begin(agent, *more)
    ralph.until((agent.folder / f"pid.{number}").exists)

    def saved():  # with the process: no other save follows for some seconds
        current = ralph.state()["current"]
        return current is not None and current["number"] == number and current["pid"] is not None

    ralph.until(saved)
    process.kill()
    ralph.end(process)


class TestAfterAKill:
    """`kill -9` loses nothing that was finished, and repeats nothing of it."""

    def test_resume_goes_on_with_the_interrupted_iteration(self, ralph):
        agent = ralph.agent(STEP, "echo half > half.txt; sleep 60", STEP, LAST)
        killed_in_iteration(ralph, agent, 2)
        done = ralph("resume")
        assert done.returncode == 0, done.stderr
        assert (ralph.workspace / "done.txt").read_text() == "1\n2\n3\n"
        assert (ralph.workspace / "half.txt").exists(), "half-done files are kept unless the user says otherwise"
        state = ralph.state()
        assert (state["finished"], state["attempts"], state["sittings"]) == (3, 4, 2)
        assert [attempt["result"] for attempt in state["recent"]] == ["finished", "abandoned", "finished", "finished"]
        assert "going on with run" in done.stdout

    def test_the_same_task_is_resumed_by_run_too(self, ralph):
        agent = ralph.agent(STEP, "sleep 60", LAST)
        killed_in_iteration(ralph, agent, 2)
        assert ralph.run(agent).returncode == 0
        assert len(ralph.folders) == 1
        assert (ralph.workspace / "done.txt").read_text() == "1\n2\n"

    def test_another_task_begins_a_new_run(self, ralph):
        agent = ralph.agent(STEP, "sleep 60", LAST)
        killed_in_iteration(ralph, agent, 2)
        assert ralph.run(agent, task="Something else.").returncode == 0
        assert len(ralph.folders) == 2

    def test_no_agent_is_left_alive(self, ralph):
        agent = ralph.agent("setsid sleep 98 & echo $! > orphan; sleep 60", LAST)
        killed_in_iteration(ralph, agent, 1)
        orphan = int((ralph.workspace / "orphan").read_text())
        ralph.until(lambda: not ralph.alive(agent.pids[0]) and not ralph.alive(orphan), limit=5)

    def test_spend_and_time_are_not_forgotten(self, ralph):
        usage = json.dumps({"type": "usage", "message_id": "a", "tokens": {"input": 70, "output": 7}, "cost": 1.5})
        final = json.dumps({"type": "finished", "text": "LOOP_COMPLETE", "cost": 0.25})
        agent = ralph.agent(f"echo '{usage}'; sleep 60", f"echo '{final}'")
        ralph.settings("agents: {command: {output: events}}\n")
        process = ralph.begin(agent)
        ralph.until((agent.folder / "pid.1").exists)
        ralph.until(lambda: ralph.state()["spend"]["cost"] == 1.5)
        elapsed = ralph.state()["elapsed"]
        process.kill()
        ralph.end(process)
        assert ralph("resume").returncode == 0
        assert ralph.state()["spend"]["cost"] == 1.75
        assert ralph.state()["elapsed"] > elapsed

    def test_a_complete_run_is_resumed_at_no_cost(self, ralph):
        agent = ralph.agent(LAST)
        ralph.run(agent)
        done = ralph("resume")
        assert done.returncode == 0
        assert "it was complete already" in done.stdout
        assert agent.calls == 1

    def test_a_torn_state_falls_back_to_the_one_before_and_says_so(self, ralph):
        agent = ralph.agent(STEP, "sleep 60", LAST)
        killed_in_iteration(ralph, agent, 2)
        state = ralph.folder / "state.json"
        state.write_bytes(state.read_bytes()[:-40])
        done = ralph("resume")
        assert done.returncode == 0
        assert "the state saved before it is used" in done.stdout
        assert (ralph.workspace / "done.txt").read_text() == "1\n2\n"


class TestWhatMayChangeMeanwhile:
    """A resume takes the command line of the start, and what is given now over it."""

    def test_the_limits(self, ralph):
        agent = ralph.agent(STEP, STEP, LAST)
        assert ralph.run(agent, "-i", "2").returncode == 3
        assert ralph("resume").returncode == 3, "the limit of the start still holds"
        assert ralph("resume", "-i", "5").returncode == 0
        assert agent.calls == 3

    def test_the_settings_file(self, ralph):
        agent = ralph.agent(STEP, STEP, LAST)
        ralph.settings("max_iterations: 1\n")
        assert ralph.run(agent).returncode == 3
        ralph.settings("max_iterations: 5\n")
        assert ralph("resume").returncode == 0

    def test_the_prompt_file(self, ralph):
        ralph.write("PROMPT.md", "First words.\n")
        agent = ralph.agent(STEP, LAST)
        assert ralph.run(agent, "-i", "1", task=None).returncode == 3
        ralph.write("PROMPT.md", "Other words.\n")
        done = ralph("resume", "-i", "2")
        assert done.returncode == 0
        assert "the prompt has changed" in done.stdout
        assert b"Other words." in agent.prompt(2)
        assert any("the prompt has changed" in record["message"] for record in ralph.records())
        assert len(list((ralph.home / "prompts").iterdir())) == 2

    def test_the_files_with_rollback(self, ralph):
        ralph.settings("checkpoint_interval: 1\n")
        agent = ralph.agent(STEP, "echo half > half.txt; rm README; sleep 60", LAST)
        killed_in_iteration(ralph, agent, 2)
        done = ralph("resume", "--rollback")
        assert done.returncode == 0, done.stderr
        assert not (ralph.workspace / "half.txt").exists()
        assert (ralph.workspace / "README").read_text() == "hello\n"
        assert (ralph.workspace / "done.txt").read_text() == "1\n2\n"
        (undo,) = [ref for ref in ralph.snapshots() if "restore" in ref]
        assert ralph.git("show", f"{undo}:half.txt") == "half\n"

    def test_the_clone(self, ralph, tmp_path):
        ralph.settings("checkpoint_interval: 1\n")
        agent = ralph.agent(STEP, STEP, LAST)
        assert ralph.run(agent, "-i", "2").returncode == 3
        run = ralph.folder.name
        clone = tmp_path / "clone"
        subprocess.run(["git", "clone", "-q", ralph.workspace, clone], check=True, env=ralph.env)
        subprocess.run(
            ["git", "fetch", "-q", "origin", "refs/ralph/*:refs/ralph/*"], cwd=clone, check=True, env=ralph.env
        )
        restored = ralph("checkpoints", "restore", f"{run}/0002", cwd=clone)
        assert restored.returncode == 0, restored.stderr
        done = ralph("resume", run, "-i", "3", cwd=clone)
        assert done.returncode == 0, done.stderr
        assert (clone / "done.txt").read_text() == "1\n2\n3\n"


def test_ids_of_runs_sort_by_time_within_a_second_too():
    ids = []
    for _ in range(50):
        ids.append(new_run_id())
        time.sleep(0.001)
    assert ids == sorted(ids)
    assert len(set(ids)) == 50


def test_of_two_that_resume_one_run_exactly_one_wins(ralph):
    agent = ralph.agent(STEP, "sleep 60", f"sleep 1; {LAST}")
    killed_in_iteration(ralph, agent, 2)
    both = [ralph.start("resume") for _ in range(2)]
    done = [ralph.end(process) for process in both]
    assert sorted(each.returncode for each in done) == [0, 2]
    (loser,) = [each for each in done if each.returncode == 2]
    assert "holds the workspace" in loser.stderr
    assert (ralph.workspace / "done.txt").read_text() == "1\n2\n"


def test_a_stale_writer_is_fenced_off(ralph):
    agent = ralph.agent("touch begun; while [ ! -e go ]; do sleep 0.05; done; echo more", LAST)
    process = ralph.begin(agent)
    ralph.until((ralph.workspace / "begun").exists)
    lease = ralph.folder / "lease"
    lease.write_text(f"{int(lease.read_text()) + 1:020d}\n")
    ralph.write("go", "")
    done = ralph.end(process)
    assert done.returncode == 1
    assert "taken over" in done.stdout
    assert agent.calls == 1, "it stops before it spends more"


class TestADiskThatTakesNoMore:
    """When state can't be kept, the run stops before it spends more, and what was saved still loads."""

    @staticmethod
    def small_files():
        # As near to a full disk as one gets without privileges: no file may grow beyond this.
        resource.setrlimit(resource.RLIMIT_FSIZE, (6000, resource.RLIM_INFINITY))

    def test_stops_the_run_and_names_the_path(self, ralph):
        ralph.settings("max_failures: 50\n")
        agent = ralph.agent(STEP)
        done = ralph.run(agent, "-i", "40", preexec_fn=self.small_files)
        assert done.returncode == 1
        assert "can't write" in done.stdout
        assert str(ralph.home) in done.stdout
        assert agent.calls < 40
        assert ralph.state()["finished"] >= 1
        assert ralph("status").returncode == 0


class TestCheckpoints:
    """`ralph checkpoints` shows snapshots, compares them, puts them back, and forgets them."""

    @pytest.fixture
    def run(self, ralph):
        ralph.settings("checkpoint_interval: 1\n")
        ralph.run(ralph.agent("echo one > file.txt", "echo two > file.txt; rm README\necho LOOP_COMPLETE"))
        return ralph.folder.name

    def test_list(self, ralph, run):
        listed = ralph("checkpoints", "list").stdout
        assert [line.split()[0] for line in listed.splitlines()[1:]] == [f"refs/ralph/{run}/000{n}" for n in range(3)]
        found = json.loads(ralph("checkpoints", "list", "--json").stdout)
        assert [entry["iteration"] for entry in found] == [0, 1, 2]

    def test_show(self, ralph, run):
        shown = ralph("checkpoints", "show", "2").stdout
        assert f"refs/ralph/{run}/0002" in shown
        assert "changed    file.txt" in shown
        assert "changed    README" in shown

    def test_diff(self, ralph, run):
        assert "-one\n+two\n" in ralph("checkpoints", "diff", "2").stdout
        assert "+two\n" in ralph("checkpoints", "diff", "0", f"{run}/0002").stdout
        assert ralph("checkpoints", "diff", "1", "1").stdout == ""

    def test_restore_can_be_undone(self, ralph, run):
        before = ralph.repository()
        done = ralph("checkpoints", "restore", "1")
        assert done.returncode == 0, done.stderr
        assert (ralph.workspace / "file.txt").read_text() == "one\n"
        assert (ralph.workspace / "README").read_text() == "hello\n"
        undo = done.stdout.split("ralph checkpoints restore ")[1].split()[0]
        assert ralph("checkpoints", "restore", undo).returncode == 0
        assert (ralph.workspace / "file.txt").read_text() == "two\n"
        assert not (ralph.workspace / "README").exists()
        assert ralph.repository() == before

    def test_restore_into_another_directory(self, ralph, run, tmp_path):
        into = tmp_path / "elsewhere"
        assert ralph("checkpoints", "restore", "1", "--into", into).returncode == 0
        assert (into / "file.txt").read_text() == "one\n"
        assert (ralph.workspace / "file.txt").read_text() == "two\n"

    @pytest.mark.parametrize("ref", ["9", "../evil", "refs/heads/main", "20200101-000000-aaaaaa/0001"])
    def test_what_is_no_snapshot_is_refused(self, ralph, run, ref):
        for command in (["restore"], ["show"], ["diff"]):
            ralph.refuses("checkpoints", *command, ref)

    def test_restore_waits_for_no_live_run(self, ralph, run):
        process = ralph.begin(ralph.agent("touch begun; sleep 60"), task="another")
        ralph.until((ralph.workspace / "begun").exists)
        done = ralph("checkpoints", "restore", f"{run}/0001")
        assert done.returncode == 2
        assert "holds the workspace" in done.stderr
        process.terminate()
        ralph.end(process)

    def test_prune(self, ralph, run):
        for number in range(3):
            ralph.run(ralph.agent("echo LOOP_COMPLETE"), task=f"task {number}")
        assert "2 run(s) forgotten" in ralph("checkpoints", "prune", "--keep", "2").stdout
        assert len(ralph.folders) == 2
        assert not [ref for ref in ralph.snapshots() if run in ref]


def test_without_git_there_are_snapshots_too(ralph):
    shutil.rmtree(ralph.workspace / ".git")
    ralph.settings("checkpoint_interval: 1\n")
    assert ralph.run(ralph.agent("echo one > file.txt; echo LOOP_COMPLETE")).returncode == 0
    assert not (ralph.workspace / ".git").exists()
    (ralph.workspace / "file.txt").write_text("spoilt")
    assert ralph("checkpoints", "restore", "1").returncode == 0
    assert (ralph.workspace / "file.txt").read_text() == "one\n"


class TestTheBranchForReview:
    """With `--commit`, what each good iteration left is a commit on a branch of its own; nothing else is touched."""

    STEPS = ("echo one > file.txt", "exit 3", "true", "echo two > file.txt; echo LOOP_COMPLETE")

    def test_has_a_commit_for_each_good_iteration_that_changed_something(self, ralph):
        ralph.settings("checkpoint_interval: 1\n")
        ralph.git("add", "ralph.yml")
        before = ralph.repository()
        assert ralph.run(ralph.agent(*self.STEPS), "--commit").returncode == 0
        branch = f"ralph/{ralph.folder.name}"
        log = ralph.git("log", "--format=%an %s", branch).splitlines()
        assert [line.split(":")[0] for line in log] == [
            "Ralph Ralph, iteration 4",
            "Ralph Ralph, iteration 1",
            "tester begin",
        ]
        assert ralph.git("show", f"{branch}:file.txt") == "two\n"
        after = ralph.repository()
        assert [ref for ref in after.pop("refs") if ref not in before["refs"]] == [
            f"{ralph.git('rev-parse', branch).strip()} commit\trefs/heads/{branch}"
        ]
        assert {name: after[name] for name in ("head", "index", "stash", "config")} == {
            name: before[name] for name in ("head", "index", "stash", "config")
        }

    def test_is_not_made_without_it(self, ralph):
        ralph.settings("checkpoint_interval: 1\n")
        ralph.run(ralph.agent(*self.STEPS))
        assert ralph.git("branch", "--list", "ralph/*") == ""

    def test_is_left_alone_while_it_is_checked_out(self, ralph):
        ralph.settings("checkpoint_interval: 1\n")
        agent = ralph.agent(
            "echo one > file.txt", 'git checkout -q "ralph/$RALPH_RUN_ID" -f; echo two > file.txt', "echo LOOP_COMPLETE"
        )
        assert ralph.run(agent, "--commit").returncode == 0
        assert ralph.git("show", f"ralph/{ralph.folder.name}:file.txt") == "one\n"
        assert any("is checked out" in str(record["data"]) for record in ralph.records())
