"""Runs in git worktrees of their own, and what `ralph clean` takes away of them and of all other runs."""

import json
import os
import shutil

import pytest

DONE = "echo LOOP_COMPLETE"
WORK = "echo new > made; git add made; git commit -q -m made; echo LOOP_COMPLETE"


def trees(ralph):
    """The worktrees, the oldest first."""
    return sorted((ralph.home / "worktrees").glob("2*"))


def branches(ralph):
    return ralph.git("for-each-ref", "--format=%(refname:short)", "refs/heads").split()


def busy(name):
    """An agent's step that waits until there is a file of that name beside the workspace."""
    return f'touch begun; while [ ! -e "$here/{name}" ]; do sleep 0.05; done; echo LOOP_COMPLETE'


def apart(ralph, agent, *more, **options):
    done = ralph.run(agent, "--worktree", *more, **options)
    assert done.returncode == 0, done.stderr
    return done


class TestRun:
    def test_works_on_a_branch_of_its_own_and_leaves_the_workspace_alone(self, ralph):
        ralph.write("half", "finished")
        before = ralph.repository()
        apart(ralph, ralph.agent(WORK))
        (tree,) = trees(ralph)
        after = ralph.repository()
        assert after.pop("refs") != before.pop("refs")
        assert after == before
        assert not (ralph.workspace / "made").exists()
        assert (tree / "made").read_text() == "new\n"
        assert not (tree / "half").exists()
        assert branches(ralph) == ["main", f"ralph/{tree.name}"]
        assert ralph.git("log", "--format=%s", f"ralph/{tree.name}").split() == ["made", "begin"]

    def test_is_found_by_the_commands_of_the_workspace(self, ralph):
        apart(ralph, ralph.agent("echo new > made; echo LOOP_COMPLETE"))
        (tree,) = trees(ralph)
        shown = ralph("status").stdout
        assert f"{tree}, on branch ralph/{tree.name}" in shown
        assert "completed" in shown
        assert json.loads(ralph("status", tree.name[:-3], "--json").stdout)["condition"] == "completed"
        (row,) = json.loads(ralph("runs", "--json").stdout)
        assert (row["run"], row["condition"]) == (tree.name, "completed")
        for command in (
            ["explain"],
            ["trace"],
            ["logs"],
            ["audit", "verify"],
            ["audit", "query"],
            ["report"],
            ["approvals", "list"],
        ):
            done = ralph(*command, tree.name)
            assert (done.returncode, done.stderr) == (0, ""), command
        assert "run.finished" in ralph("audit", "export", tree.name).stdout
        assert "made" in ralph("checkpoints", "diff", f"{tree.name}/0", f"{tree.name}/1").stdout
        (tree / "made").unlink()
        assert ralph("checkpoints", "restore", "1").returncode == 0
        assert (tree / "made").exists()
        assert not (ralph.workspace / "made").exists()

    def test_several_run_side_by_side_with_one_in_the_workspace(self, ralph):
        agents = [ralph.agent(busy("go")) for _ in range(3)]
        runs = [ralph.begin(agents[0]), *(ralph.begin(agent, "--worktree") for agent in agents[1:])]
        ralph.until(lambda: all(agent.calls for agent in agents))
        rows = json.loads(ralph("runs", "--json").stdout)
        assert [row["condition"] for row in rows] == ["running"] * 3
        for agent in agents:
            (agent.folder / "go").touch()
        assert [ralph.end(run).returncode for run in runs] == [0, 0, 0]

    def test_is_resumed_where_it_was(self, ralph):
        ralph.settings("max_iterations: 1\n")
        agent = ralph.agent("pwd > where", "pwd >> where; echo LOOP_COMPLETE")
        assert ralph.run(agent, "--worktree").returncode == 3
        (tree,) = trees(ralph)
        assert ralph("resume", tree.name, "-i", "5").returncode == 0
        assert (tree / "where").read_text().split() == [str(tree)] * 2
        assert len(trees(ralph)) == 1

    def test_is_stopped_from_the_workspace_unless_there_are_several(self, ralph):
        agents = [ralph.agent(busy("go")) for _ in range(2)]
        runs = [ralph.begin(agent, "--worktree") for agent in agents]
        ralph.until(lambda: all(agent.calls for agent in agents))
        refused = ralph("stop", "--now")
        assert refused.returncode == 2
        assert "several runs are at work" in refused.stderr
        first, second = trees(ralph)
        assert ralph("stop", "--now", "--wait", "-w", first).returncode == 0
        assert f"run {second.name} is asked to end now" in ralph("stop", "--now", "--wait").stdout
        assert [ralph.end(run).returncode for run in runs] == [143, 143]

    def test_of_a_directory_below_the_root(self, ralph):
        ralph.write("sub/file", "1")
        ralph.git("add", ".")
        ralph.git("commit", "-q", "-m", "sub")
        agent = ralph.agent("pwd > where; echo LOOP_COMPLETE")
        apart(ralph, agent, "-w", "sub")
        (tree,) = (ralph.workspace / "sub" / ".agent" / "worktrees").iterdir()
        assert (tree / "sub" / "where").read_text() == f"{tree}/sub\n"
        assert "completed" in ralph("status", "-w", "sub").stdout

    def test_under_another_state_directory(self, ralph):
        env = {"RALPH_HOME": str(ralph.root / "elsewhere")}
        apart(ralph, ralph.agent(DONE), env=env)
        (tree,) = (ralph.root / "elsewhere" / "worktrees").iterdir()
        assert (tree / ".agent" / "runs" / tree.name / "state.json").exists()
        assert "completed" in ralph("status", env=env).stdout

    @pytest.mark.parametrize("committed", [True, False])
    def test_the_prompt_is_the_committed_one_or_a_copy(self, ralph, committed):
        ralph.write("PROMPT.md", "- [ ] do it\n")
        if committed:
            ralph.git("add", ".")
            ralph.git("commit", "-q", "-m", "prompt")
        agent = ralph.agent(DONE)
        apart(ralph, agent, task=None)
        (tree,) = trees(ralph)
        path = tree / "PROMPT.md" if committed else tree / ".agent" / "PROMPT.md"
        assert f"tick in {path}".encode() in agent.prompt()
        assert path.read_text() == "- [ ] do it\n"


def test_a_dry_run_says_where_it_would_be_and_makes_nothing(ralph):
    before = (ralph.tree(), branches(ralph))
    done = ralph.run(DONE, "--worktree", "--dry-run")
    assert done.returncode == 0, done.stderr
    head = ralph.git("rev-parse", "--short", "HEAD").strip()
    assert f"{ralph.home}/worktrees/RUN, on a new branch ralph/RUN of commit {head}" in done.stdout
    assert (ralph.tree(), branches(ralph)) == before
    ralph.write("new/PROMPT.md", "x\n")
    start = ("run", "-a", "command", "--command", DONE, "--worktree")
    for dry in (["--dry-run"], []):
        ralph.refuses(*start, *dry, "-w", "new", says=["new is not in the last commit", "commit it"])
    ralph.git("update-ref", "-d", "HEAD")
    for dry in (["--dry-run"], []):
        ralph.refuses(*start, *dry, "-p", "x", says=["no worktree can be made", "there is no commit yet"])


def test_accounts_of_worktrees_are_verified_with_all_others(ralph):
    ralph.run(DONE)
    apart(ralph, DONE)
    apart(ralph, DONE)
    runs = [run["run"] for run in json.loads(ralph("runs", "--json").stdout)]
    done = ralph("audit", "verify", "--all", "--json")
    assert done.returncode == 0, done.stderr
    assert [checked["run"] for checked in json.loads(done.stdout)] == sorted(runs)
    assert all(checked["anchored"] for checked in json.loads(done.stdout))
    account = trees(ralph)[0] / ".agent/audit/audit.jsonl"
    account.write_text(account.read_text().replace('"run.started"', '"run.begun"'))
    done = ralph("audit", "verify", "--all")
    assert done.returncode == 1
    assert [line[0] for line in done.stdout.splitlines()] == ["✓", "✗", "✓"]
    assert done.stdout.splitlines()[1].startswith(f"✗ {trees(ralph)[0].name}")


def test_an_account_that_worktrees_share_is_verified_once(ralph):
    ralph.env["AUDIT_LOG_DIR"] = str(ralph.root / "account")
    ralph.run(DONE)
    apart(ralph, DONE)
    done = ralph("audit", "verify", "--all")
    assert (done.returncode, done.stdout.count("✓")) == (0, 2), done.stdout
    assert "without an anchor" not in done.stdout


class TestRefusals:
    def test_without_a_repository_or_a_commit(self, ralph):
        (ralph.root / "bare").mkdir()
        flags = ralph.flags(DONE, "--worktree")
        ralph.refuses(*flags, cwd=ralph.root / "bare", says="is in no git repository, which worktrees need")

    def test_before_the_first_commit(self, ralph):
        ralph.git("update-ref", "-d", "HEAD")
        done = ralph.run(DONE, "--worktree")
        assert done.returncode == 2
        assert "no worktree can be made" in done.stderr
        assert done.stderr.count("\n") == 1

    def test_with_another_branch_of_that_name(self, ralph):
        ralph.refuses(*ralph.flags(DONE, "--worktree", "--commit"), says="--worktree and --commit")

    def test_an_agent_that_can_not_be_used_leaves_no_worktree(self, ralph):
        assert ralph("run", "-a", "claude", "-p", "x", "--worktree", env={"PATH": "/usr/bin:/bin"}).returncode == 2
        assert trees(ralph) == []
        assert branches(ralph) == ["main"]

    def test_a_prompt_that_is_not_there(self, ralph):
        ralph.refuses(*ralph.flags(DONE, "--worktree", task=None), says="no prompt")


class TestClean:
    def test_forgets_all_but_the_last_runs_and_says_so_before(self, ralph):
        for _ in range(3):
            ralph.run(ralph.agent(DONE))
        oldest, *others = [folder.name for folder in ralph.folders]
        before = ralph.tree()
        said = ralph("clean", "--keep", "2", "--dry-run").stdout
        assert f"would go  run {oldest}" in said
        assert f"metrics/state_{oldest}.json" in said
        assert not any(run in said for run in others)
        assert ralph.tree() == before
        assert said.replace("would go ", "gone     ") == ralph("clean", "--keep", "2").stdout
        assert [folder.name for folder in ralph.folders] == others
        assert sorted(path.name for path in (ralph.home / "metrics").iterdir()) == [
            f"state_{run}.json" for run in others
        ]
        assert oldest not in "".join(ralph.snapshots())

    def test_tells_programs_what_goes_and_what_stays(self, ralph):
        ralph.run(ralph.agent(DONE))
        run = ralph.folder.name
        apart(ralph, ralph.agent(DONE))
        (tree,) = trees(ralph)
        (tree / "work.txt").write_text("not committed\n")
        for flags in (["--dry-run"], []):
            told = json.loads(ralph("clean", "--keep", "0", *flags, "--json").stdout)
            assert told["dry_run"] is bool(flags)
            kept, gone = sorted(told["runs"], key=lambda each: each["worktree"] is None)
            assert (gone["run"], gone["kept"]) == (run, None)
            assert (kept["run"], kept["worktree"]) == (tree.name, str(tree))
            assert kept["kept"]
            assert [path.endswith(f"state_{run}.json") for path in told["files"]] == [True]
        assert (tree / "work.txt").exists()

    def test_a_worktree_without_work_goes_with_its_branch_and_snapshots(self, ralph):
        ralph.run(ralph.agent(DONE))
        kept = ralph.snapshots()
        apart(ralph, ralph.agent(DONE))
        (tree,) = trees(ralph)
        assert f"run {tree.name}, with its worktree" in ralph("clean", "--keep", "0", "--dry-run").stdout
        assert tree.exists()
        assert f"gone      run {tree.name}, with its worktree" in ralph("clean", "--keep", "0").stdout
        assert trees(ralph) == []
        assert branches(ralph) == ["main"]
        assert ralph.snapshots() == []
        assert kept
        assert "worktrees" not in ralph.git("worktree", "list")

    def test_of_a_worktree_leaves_the_snapshots_of_the_workspace(self, ralph):
        apart(ralph, ralph.agent(DONE))
        ralph.run(ralph.agent(DONE))
        (own,) = [folder.name for folder in ralph.folders]
        ralph("clean", "--keep", "1")
        assert trees(ralph) == []
        assert {ref.split("/")[2] for ref in ralph.snapshots()} == {own}

    @pytest.mark.parametrize(
        ("step", "why"),
        [
            ("echo new > made", "1 changed or new file(s) in it are not committed"),
            ("echo new >> README", "1 changed or new file(s) in it are not committed"),
            (
                "git checkout -q --detach; echo new >> README; git commit -q -a -m lost",
                "the commits in it are on no branch",
            ),
        ],
    )
    def test_a_worktree_with_work_is_never_taken_away(self, ralph, step, why):
        apart(ralph, ralph.agent(f"{step}; echo LOOP_COMPLETE"))
        (tree,) = trees(ralph)
        for dry in (["--dry-run"], []):
            assert f"kept      run {tree.name}: {why}" in ralph("clean", "--keep", "0", *dry).stdout
        assert tree.exists()
        assert "completed" in ralph("status", tree.name).stdout

    def test_a_branch_that_is_not_merged_stays(self, ralph):
        apart(ralph, ralph.agent(WORK))
        (tree,) = trees(ralph)
        assert "with its worktree" in ralph("clean", "--keep", "0").stdout
        assert not tree.exists()
        assert branches(ralph) == ["main", f"ralph/{tree.name}"]

    def test_a_worktree_whose_run_never_began_goes_after_an_hour(self, ralph):
        apart(ralph, ralph.agent(DONE))
        (tree,) = trees(ralph)
        shutil.rmtree(tree / ".agent" / "runs")
        for ref in ralph.git("for-each-ref", "--format=%(refname)", "refs/ralph").split():
            ralph.git("update-ref", "-d", ref)
        assert "there is no run in" in ralph("status").stderr
        ralph("clean", "--keep", "0")
        assert tree.exists()
        os.utime(tree, (0, 0))
        assert "with its worktree" in ralph("clean", "--keep", "0").stdout
        assert not tree.exists()

    def test_a_live_run_and_one_that_was_cut_short_are_not_touched(self, ralph):
        agents = [ralph.agent(busy("go")) for _ in range(3)]
        cut, *live = [
            ralph.begin(agents[0], "--worktree"),
            ralph.begin(agents[1]),
            ralph.begin(agents[2], "--worktree"),
        ]
        ralph.until(lambda: all(agent.calls for agent in agents))
        cut.kill()
        cut.wait()
        assert "no more than 0 runs have ended" in ralph("clean", "--keep", "0").stdout
        assert len(trees(ralph)) == 2
        for agent in agents:
            (agent.folder / "go").touch()
        assert [ralph.end(run).returncode for run in live] == [0, 0]
