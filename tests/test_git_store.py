"""Snapshots in git: what they hold, that they come back, and that the user's repository never notices."""

import ctypes
import hashlib
import multiprocessing
import os
import pickle
import shutil
import signal
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from ralph_core.builtin import gitrefs, gitrepo, gitsync
from ralph_core.builtin.git import GitStore
from ralph_core.contracts import Context
from ralph_core.errors import LeaseLost, StoreError, UnknownName, UserError
from ralph_core.state import RunState, Task
from ralph_core.verdicts import Outcome, OutcomeKind

RUN = "20250101-120000-abc123"
OTHER = "20250102-120000-abc123"
STATE = RunState(run=RUN, workspace="/w", agent="scripted", task=Task("d", text="do it"), started=1700000000.25)
ENDED = Outcome(OutcomeKind.COMPLETED, "done", "agent")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory to somebody else")


def without_privileges(call):
    """What `call` returns or raises in a process for which permissions count, also if it is root's."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH: neither here, nor in what is started
            libc.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP
        # linux/capability.h: version 3, this process; then no capability at all
        libc.capset((ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)())
        try:
            result = call()
        except BaseException as error:
            result = error
        os.write(writer, pickle.dumps(result))
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        result = pickle.loads(stream.read())
    os.waitpid(child, 0)
    if isinstance(result, BaseException):
        raise result
    return result


@pytest.fixture(autouse=True)
def user(tmp_path, monkeypatch):
    """A home directory and a git configuration of the test's own."""
    home = tmp_path / "user"
    home.mkdir()
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "config"))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(home / "gitconfig"))
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", "/dev/null")
    (home / "gitconfig").write_text(
        '[user]\nname=U\nemail=u@example.org\n[init]\ndefaultBranch=main\n[protocol "file"]\nallow=always\n'
    )
    return home


def git(where, *args, data=None, check=True):
    done = subprocess.run(["git", *args], cwd=where, input=data, capture_output=True, check=False)
    assert not check or done.returncode == 0, done.stderr
    return os.fsdecode(done.stdout).removesuffix("\n")


def fill(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def commit(root, files=(), message="commit"):
    fill(root, dict(files))
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", message)


@pytest.fixture
def repo(tmp_path):
    root = tmp_path / "repo"
    root.mkdir()
    git(root, "init", "-q")
    commit(root, {"a.txt": "a\n", "dir/b.txt": "b\n", ".gitignore": "ignored*\n"})
    return root


def store_in(workspace, home=None, env=None):
    return GitStore(None, Context(workspace, home or workspace / ".agent", dict(os.environ if env is None else env)))


def snap(store, run=RUN, **changes):
    return store.snapshot(replace(STATE, run=run, **changes), store.claim(run))


def files_of(where, ref):
    """Path to content of what is recorded; a gitlink's content is None."""
    listed = git(where, "ls-tree", "-r", "-z", ref).split("\0")
    found = {}
    for line in filter(None, listed):
        facts, path = line.split("\t", 1)
        mode, kind, _ = facts.split()
        data = None if kind == "commit" else os.fsencode(git_bytes(where, "cat-file", "blob", facts.split()[2]))
        found[path] = (mode, data)
    return found


def git_bytes(where, *args):
    return os.fsdecode(subprocess.run(["git", *args], cwd=where, capture_output=True, check=True).stdout)


def contents(where, ref):
    return {path: data for path, (_, data) in files_of(where, ref).items()}


def tree_on_disk(root, *, but=(".git", ".agent")):
    """All files of a directory with type, mode and content."""
    found = {}
    for folder, names, files in os.walk(os.fsencode(root)):
        names[:] = [name for name in names if os.fsdecode(name) not in but]
        links = [name for name in names if os.path.islink(os.path.join(folder, name))]
        for name in [*files, *links]:
            path = os.path.join(folder, name)
            mode = os.lstat(path).st_mode
            if os.fsdecode(name) not in but:
                data = os.readlink(path) if stat.S_ISLNK(mode) else Path(os.fsdecode(path)).read_bytes()
                found[os.path.relpath(path, os.fsencode(root))] = (stat.S_IFMT(mode), bool(mode & 0o100), data)
    return found


def all_of_the_user_s(root):
    """Everything that must not change: every file of the git directory but objects and our refs, and what git says."""
    git_dir = Path(git(root, "rev-parse", "--absolute-git-dir"))
    common = Path(os.path.normpath(root / git(root, "rev-parse", "--git-common-dir")))
    found = {}
    for base in {git_dir, common}:
        for path in base.rglob("*"):
            if path.is_file() and "objects" not in path.parts and "ralph" not in path.parts:
                facts = path.stat()
                # Every git that reads the shared part of a split index says so by touching it.
                changed = 0 if path.name.startswith("sharedindex") else facts.st_mtime_ns
                found[str(path)] = (hashlib.sha256(path.read_bytes()).hexdigest(), changed, facts.st_mode)
    # Asked for without refreshing: the question itself must not touch the index.
    for args in [
        ("status", "--porcelain=v2", "--branch"),
        ("branch", "-avv"),
        ("stash", "list"),
        ("reflog", "--all"),
        ("config", "--list", "--local"),
        ("for-each-ref", "refs/heads", "refs/tags", "refs/stash", "refs/remotes"),
        ("worktree", "list"),
    ]:
        found[args] = git(root, "--no-optional-locks", *args)
    return found


def hooks_that_leave_a_mark(root):
    hooks = Path(git(root, "rev-parse", "--absolute-git-dir")) / "hooks"
    hooks.mkdir(exist_ok=True)
    mark = root.parent / "hook-was-run"
    for name in (
        "pre-commit",
        "reference-transaction",
        "post-index-change",
        "post-commit",
        "commit-msg",
        "post-checkout",
    ):
        (hooks / name).write_text(f"#!/bin/sh\necho {name} >> '{mark}'\nexit 1\n")
        (hooks / name).chmod(0o755)
    return mark


def dirty(root):
    """Staged, unstaged, untracked, stashed, intent-to-add and removed files."""
    fill(root, {"a.txt": "stashed\n"})
    git(root, "stash", "push", "-q")
    fill(root, {"a.txt": "staged\n", "new-staged.txt": "n\n"})
    git(root, "add", "-A")
    fill(root, {"a.txt": "unstaged\n", "untracked/x.txt": "x\n", "intent.txt": "i\n", "ignored.log": "secret\n"})
    git(root, "add", "-N", "intent.txt")
    (root / "dir" / "b.txt").unlink()


def merging(root):
    """A merge that stopped at a conflict."""
    git(root, "checkout", "-q", "-b", "side")
    commit(root, {"clash.txt": "side\n", "sub/clash.txt": "side\n"})
    git(root, "checkout", "-q", "main")
    commit(root, {"clash.txt": "main\n", "sub/clash.txt": "main\n"})
    git(root, "merge", "-q", "side", check=False)
    assert "AA clash.txt" in git(root, "status", "--porcelain")


def rebasing(root):
    """A rebase that stopped at a conflict: HEAD is detached."""
    git(root, "checkout", "-q", "-b", "side")
    commit(root, {"clash.txt": "side\n"})
    git(root, "checkout", "-q", "main")
    commit(root, {"clash.txt": "main\n"})
    git(root, "checkout", "-q", "side")
    git(root, "rebase", "-q", "main", check=False)
    assert git(root, "rev-parse", "--abbrev-ref", "HEAD") == "HEAD"


class TestTheUserNeverNotices:
    """Branch, index, stash, hooks, configuration and reflogs are the same bytes as before."""

    @pytest.mark.parametrize("trouble", [dirty, merging, rebasing])
    def test_after_fifty_snapshots_of_a_dirty_tree(self, repo, trouble):
        trouble(repo)
        fill(repo, {"untracked.txt": "u", "a.txt": "unstaged\n"})
        git(repo, "config", "commit.gpgSign", "true")
        git(repo, "config", "gpg.program", "/bin/false")
        git(repo, "config", "core.logAllRefUpdates", "always")
        mark = hooks_that_leave_a_mark(repo)
        store = store_in(repo)
        lease = store.claim(RUN)
        before = all_of_the_user_s(repo)
        for iteration in range(50):
            fill(repo, {"ignored-by-git.txt": str(iteration)})
            store.save(replace(STATE, iteration=iteration), lease)
            taken = store.snapshot(replace(STATE, iteration=iteration), lease)
            assert taken.notes == ()
            assert taken.changed == (0 if iteration else None)
        assert all_of_the_user_s(repo) == before
        assert not mark.exists()
        assert len(store.history(RUN)) == 50

    def test_after_restores_but_for_the_files(self, repo):
        dirty(repo)
        mark = hooks_that_leave_a_mark(repo)
        store = store_in(repo)
        files = tree_on_disk(repo)
        first = snap(store)
        before = all_of_the_user_s(repo)
        fill(repo, {"a.txt": "again\n", "more.txt": "m\n"})
        shutil.rmtree(repo / "untracked")
        undo = store.restore(first.ref, repo)
        assert tree_on_disk(repo) == files
        assert all_of_the_user_s(repo) == before
        store.restore(undo.ref, repo)
        assert (repo / "more.txt").read_text() == "m\n"
        assert not (repo / "untracked").exists()
        assert not mark.exists()

    def test_with_the_index_locked(self, repo):
        (repo / ".git" / "index.lock").write_text("")
        fill(repo, {"a.txt": "changed\n"})
        first = snap(store_in(repo))
        fill(repo, {"a.txt": "later\n"})
        store_in(repo).restore(first.ref, repo)
        assert contents(repo, first.ref)["a.txt"] == b"changed\n"
        assert (repo / "a.txt").read_text() == "changed\n"
        assert (repo / ".git" / "index.lock").exists()

    def test_whatever_the_environment_says_of_repositories(self, repo, tmp_path):
        other = tmp_path / "other"
        other.mkdir()
        git(other, "init", "-q")
        env = {
            **os.environ,
            "GIT_DIR": str(other / ".git"),
            "GIT_WORK_TREE": str(other),
            "GIT_INDEX_FILE": str(repo / ".git" / "index"),
            "GIT_OBJECT_DIRECTORY": str(other / ".git" / "objects"),
            "GIT_AUTHOR_DATE": "nonsense",
        }
        before = all_of_the_user_s(repo)
        taken = snap(store_in(repo, env=env))
        assert contents(repo, taken.ref)["a.txt"] == b"a\n"
        assert all_of_the_user_s(repo) == before
        assert git(other, "for-each-ref") == ""

    def test_the_identity_is_ralph_s(self, repo):
        taken = snap(store_in(repo))
        assert (
            git(repo, "log", "-1", "--format=%an <%ae> %cn <%ce>", taken.ref)
            == "Ralph <ralph@localhost> Ralph <ralph@localhost>"
        )

    def test_what_is_written_is_what_git_would_write(self, repo):
        snap(store_in(repo))
        snap(store_in(repo))
        assert git(repo, "fsck", "--strict", "--full") == ""

    def test_a_shared_repository_stays_shared(self, repo):
        git(repo, "config", "core.sharedRepository", "group")
        (repo / ".git" / "objects").chmod(0o2775)
        old = {path.name for path in (repo / ".git" / "objects").iterdir()}
        for number in range(8):
            fill(repo, {"a.txt": str(number)})
            snap(store_in(repo))
        new = [path for path in (repo / ".git" / "objects").iterdir() if path.name not in old]
        assert new
        assert all(path.stat().st_mode & 0o2070 == 0o2070 for path in new)


class TestWhatASnapshotHolds:
    """All files that git does not ignore, as they are."""

    def test_the_files_as_they_are_not_as_they_are_staged(self, repo):
        dirty(repo)
        taken = snap(store_in(repo))
        assert contents(repo, taken.ref) == {
            ".gitignore": b"ignored*\n",
            "a.txt": b"unstaged\n",
            "new-staged.txt": b"n\n",
            "untracked/x.txt": b"x\n",
            "intent.txt": b"i\n",
        }

    def test_parents_are_the_snapshot_before_and_at_first_the_commit_checked_out(self, repo):
        store = store_in(repo)
        lease = store.claim(RUN)
        refs = [store.snapshot(STATE, lease).ref for _ in range(3)]
        assert refs == [f"refs/ralph/{RUN}/{number:04d}" for number in range(3)]
        parents = [git(repo, "rev-parse", f"{ref}^") for ref in refs]
        assert parents == [git(repo, "rev-parse", ref) for ref in ("HEAD", refs[0], refs[1])]

    def test_changed_counts_files_against_the_snapshot_before(self, repo):
        store = store_in(repo)
        lease = store.claim(RUN)
        counts = [store.snapshot(STATE, lease).changed]
        for step in (
            lambda: None,
            lambda: fill(repo, {"a.txt": "1", "new1": "1", "new2": "2"}),
            (repo / "new1").unlink,
            lambda: (repo / "a.txt").chmod(0o755),
            lambda: os.utime(repo / "a.txt"),
            lambda: (repo / "new2").rename(repo / "new3"),
            lambda: ((repo / "new3").unlink(), fill(repo, {"new3/x": "x", "new3/y": "y"})),
            lambda: fill(repo, {"with\nbreak": "x", "x'\nadd 'y": "x"}),
        ):
            step()
            counts.append(store.snapshot(STATE, lease).changed)
        assert counts == [None, 0, 3, 1, 1, 0, 2, 3, 2]
        assert [taken.changed for taken in store.history(RUN)] == counts
        fill(repo, {"a.txt": "by another process"})
        assert snap(store_in(repo)).changed == 1

    def test_a_change_of_the_same_size_in_the_same_instant_is_seen(self, repo):
        """Git's index holds times; copying it must not make it trust one that it must not trust."""
        for number in range(20):
            fill(repo, {"a.txt": f"{number:02d}\n"})
            git(repo, "add", "-A")
            fill(repo, {"a.txt": f"{number + 50:02d}\n"})
            run = f"20250101-12{number:02d}00-abc123"
            taken = snap(store_in(repo), run)
            assert contents(repo, taken.ref)["a.txt"] == f"{number + 50:02d}\n".encode()

    def test_modes_links_and_empty_directories(self, repo):
        fill(repo, {"run.sh": "#!/bin/sh\n"})
        (repo / "run.sh").chmod(0o755)
        (repo / "link").symlink_to("a.txt")
        (repo / "dangling").symlink_to("/nowhere/at all")
        (repo / "dirlink").symlink_to("dir")
        (repo / "empty").mkdir()
        store = store_in(repo)
        files = tree_on_disk(repo)
        taken = snap(store)
        modes = {path: mode for path, (mode, _) in files_of(repo, taken.ref).items()}
        assert (modes["run.sh"], modes["link"], modes["dirlink"], modes["a.txt"]) == (
            "100755",
            "120000",
            "120000",
            "100644",
        )
        for name in ("run.sh", "link", "dangling", "dirlink"):
            (repo / name).unlink()
        fill(repo, {"link": "now a file", "dirlink/x": "now a directory"})
        store.restore(taken.ref, repo)
        assert tree_on_disk(repo) == files

    def test_unusual_names(self, repo):
        names = [
            "with space",
            "new\nline",
            'quo"te',
            "-rf",
            "--",
            ":(glob)*",
            ":!a.txt",
            "*",
            "é",
            "新.txt",
            "tab\t",
            "\\",
            "a\udcffb",
            "[x]",
        ]
        for name in names:
            (repo / name).write_text(name.encode("utf-8", "replace").decode())
        (repo / "a.txt").write_text("changed")
        store = store_in(repo)
        files = tree_on_disk(repo)
        taken = snap(store)
        for name in names:
            (repo / name).unlink()
        later = snap(store_in(repo))
        assert later.changed == len(names)
        changed = store.changed_files(RUN)
        assert len(changed) == len(names)
        assert {"new\nline", "a\\xffb", "-rf"} <= set(changed)
        "\n".join(changed).encode()
        store.restore(taken.ref, repo)
        assert tree_on_disk(repo) == files

    def test_ignored_files_are_left_out_and_left_alone(self, repo):
        fill(repo, {"ignored.log": "1"})
        git(repo, "add", "-f", "ignored.log")
        git(repo, "commit", "-qm", "tracked although ignored")
        fill(repo, {"ignored.log": "2", "ignored.secret": "s"})
        store = store_in(repo)
        taken = snap(store)
        assert contents(repo, taken.ref)["ignored.log"] == b"2"
        assert "ignored.secret" not in contents(repo, taken.ref)
        fill(repo, {"ignored.log": "3", "ignored.secret": "t"})
        store.restore(taken.ref, repo)
        assert (repo / "ignored.log").read_text() == "2"
        assert (repo / "ignored.secret").read_text() == "t"

    @pytest.mark.parametrize("how", ["ignored", "unignored", "tracked", "elsewhere"])
    def test_ralph_s_own_directory_is_never_in_it(self, repo, how):
        home = repo / "dir" / "state [x]*" if how == "elsewhere" else repo / ".agent"
        store = store_in(repo, home)
        store.save(STATE, store.claim(RUN))
        if how != "ignored":
            (home / ".gitignore").unlink()
        if how == "tracked":
            fill(home, {"plan.md": "committed"})
            commit(repo)
            assert ".agent/plan.md" in contents(repo, "HEAD")
        for _ in range(2):
            assert not [path for path in contents(repo, snap(store).ref) if "agent" in path or "state" in path]
        assert store.restore(f"{RUN}/0", repo)
        assert store.load(RUN).state == STATE

    def test_a_link_to_ralph_s_own_directory_stays(self, repo, tmp_path):
        (tmp_path / "state").mkdir()
        (repo / ".agent").symlink_to(tmp_path / "state")
        commit(repo)
        git(repo, "rm", "-q", "--cached", ".agent")
        store = store_in(repo)
        taken = snap(store)
        assert ".agent" not in contents(repo, taken.ref)
        fill(repo, {"a.txt": "changed"})
        store.restore(taken.ref, repo)
        assert (repo / ".agent").is_symlink()

    def test_filters_are_applied_both_ways(self, repo):
        git(repo, "config", "filter.toy.clean", "tr a-z A-Z")
        git(repo, "config", "filter.toy.smudge", "tr A-Z a-z")
        git(repo, "config", "filter.toy.required", "true")
        fill(repo, {".gitattributes": "*.big filter=toy\n", "x.big": "large\n"})
        store = store_in(repo)
        taken = snap(store)
        assert contents(repo, taken.ref)["x.big"] == b"LARGE\n"
        (repo / "x.big").write_text("other\n")
        store.restore(taken.ref, repo)
        assert (repo / "x.big").read_text() == "large\n"

    def test_a_filter_that_is_needed_and_fails_is_named(self, repo):
        git(repo, "config", "filter.toy.clean", "exit 3")
        git(repo, "config", "filter.toy.required", "true")
        fill(repo, {".gitattributes": "*.big filter=toy\n", "x.big": "large\n"})
        with pytest.raises(StoreError, match=r"x\.big.*filter 'toy' failed"):
            snap(store_in(repo))

    @pytest.mark.parametrize("safecrlf", ["warn", "true"])
    def test_line_ends_are_never_an_obstacle(self, repo, safecrlf):
        git(repo, "config", "core.autocrlf", "true")
        git(repo, "config", "core.safecrlf", safecrlf)
        fill(repo, {"dos.txt": "x\r\ny\r\n", "mixed.txt": "x\r\ny\n"})
        taken = snap(store_in(repo))
        assert taken.notes == ()
        assert contents(repo, taken.ref)["dos.txt"] == b"x\ny\n"

    def test_a_look_is_for_the_snapshot_after_the_same_attempt(self, repo):
        store = store_in(repo)
        lease = store.claim(RUN)
        first = replace(STATE, attempts=1)
        store.look(first, lease)
        fill(repo, {"new": "1"})
        assert "new" not in contents(repo, store.snapshot(first, lease).ref), "it was looked before"
        assert "new" in contents(repo, store.snapshot(first, lease).ref), "a look is used once"
        store.look(first, lease)
        fill(repo, {"other": "2"})
        assert "other" in contents(repo, store.snapshot(replace(STATE, attempts=2), lease).ref)

    def test_changes_are_counted_over_looks_of_which_nothing_came(self, repo):
        store = store_in(repo)
        lease = store.claim(RUN)
        store.snapshot(STATE, lease)
        for name in ("one", "two", "three"):
            fill(repo, {name: name})
            store.look(STATE, lease)
        assert store.snapshot(STATE, lease).changed == 3
        fill(repo, {"four": "4"})
        store.look(STATE, lease)
        assert store.snapshot(STATE, lease).changed == 1

    def test_assume_unchanged_and_skip_worktree_hide_nothing(self, repo):
        commit(repo, {"gone.txt": "g\n"})
        git(repo, "update-index", "--assume-unchanged", "a.txt")
        git(repo, "update-index", "--skip-worktree", "dir/b.txt", "gone.txt")
        fill(repo, {"a.txt": "local\n", "dir/b.txt": "local\n"})
        (repo / "gone.txt").unlink()
        store = store_in(repo)
        before = all_of_the_user_s(repo)
        taken = snap(store)
        found = contents(repo, taken.ref)
        assert (found["a.txt"], found["dir/b.txt"], found["gone.txt"]) == (b"local\n", b"local\n", b"g\n")
        fill(repo, {"a.txt": "agent\n", "dir/b.txt": "agent\n"})
        undo = store.restore(taken.ref, repo)
        assert (repo / "a.txt").read_text() == (repo / "dir/b.txt").read_text() == "local\n"
        store.restore(undo.ref, repo)
        assert (repo / "a.txt").read_text() == (repo / "dir/b.txt").read_text() == "agent\n"
        assert all_of_the_user_s(repo) == before

    @pytest.mark.parametrize(
        "options", [(), ("--cone",), ("--cone", "--sparse-index")], ids=["lines", "cone", "sparse-index"]
    )
    def test_a_sparse_checkout(self, repo, options):
        commit(repo, {"out/x.txt": "x\n", "out/deep/y.txt": "y\n", "in/z.txt": "z\n"})
        if (
            git(repo, "sparse-checkout", "init", *options, check=False)
            or not (repo / ".git/info/sparse-checkout").exists()
        ):
            pytest.skip("this git has no such sparse checkout")
        git(repo, "sparse-checkout", "set", "in", "dir")
        assert not (repo / "out").exists()
        before = all_of_the_user_s(repo)
        fill(repo, {"in/z.txt": "changed\n", "out/new.txt": "n\n"})
        store = store_in(repo)
        taken = snap(store)
        found = contents(repo, taken.ref)
        assert (found["in/z.txt"], found["out/x.txt"], found["out/deep/y.txt"]) == (b"changed\n", b"x\n", b"y\n")
        assert found["out/new.txt"] == b"n\n"
        fill(repo, {"in/z.txt": "again\n"})
        shutil.rmtree(repo / "out")
        store.restore(taken.ref, repo)
        assert (repo / "in/z.txt").read_text() == "changed\n"
        assert (repo / "out/new.txt").read_text() == "n\n"
        shutil.rmtree(repo / "out")
        fill(repo, {"in/z.txt": "z\n"})
        assert all_of_the_user_s(repo) == before

    def test_a_split_index(self, repo):
        git(repo, "config", "core.splitIndex", "true")
        git(repo, "update-index", "--split-index")
        before = all_of_the_user_s(repo)
        fill(repo, {"a.txt": "changed\n"})
        taken = snap(store_in(repo))
        fill(repo, {"a.txt": "a\n"})
        assert contents(repo, taken.ref)["a.txt"] == b"changed\n"
        assert all_of_the_user_s(repo) == before

    @pytest.mark.parametrize("version", ["2", "4"])
    def test_other_forms_of_the_index(self, repo, version):
        git(repo, "config", "core.untrackedCache", "true")
        git(repo, "update-index", "--index-version", version)
        git(repo, "status")
        fill(repo, {"dir/new.txt": "n\n"})
        assert contents(repo, snap(store_in(repo)).ref)["dir/new.txt"] == b"n\n"

    def test_a_file_monitor_is_not_asked(self, repo, tmp_path):
        script = tmp_path / "monitor"
        script.write_text(f"#!/bin/sh\ntouch '{tmp_path}/asked'\n")
        script.chmod(0o755)
        git(repo, "config", "core.fsmonitor", str(script))
        fill(repo, {"a.txt": "changed\n"})
        assert contents(repo, snap(store_in(repo)).ref)["a.txt"] == b"changed\n"
        assert not (tmp_path / "asked").exists()


class TestNestedRepositories:
    """They are recorded by their commit, and the snapshot says so."""

    def nested(self, root):
        root.mkdir(parents=True)
        git(root, "init", "-q")
        commit(root, {"inner.txt": "i\n"})

    def test_one_that_appears_is_noted_in_this_snapshot_and_the_later_ones(self, repo):
        store = store_in(repo)
        lease = store.claim(RUN)
        assert store.snapshot(STATE, lease).notes == ()
        self.nested(repo / "libs" / "inner repo")
        for _ in range(2):
            (note,) = store.snapshot(STATE, lease).notes
            assert note == "of nested repositories only the commit is recorded, not the files: libs/inner repo"
        (note,) = snap(store_in(repo)).notes
        assert "libs/inner repo" in note
        assert contents(repo, f"refs/ralph/{RUN}/0001")["libs/inner repo"] is None
        assert list(store.history(RUN)[1].notes) == [note]
        shutil.rmtree(repo / "libs")
        assert store.snapshot(STATE, store.claim(RUN)).notes == ()

    def test_a_submodule(self, repo, tmp_path):
        self.nested(tmp_path / "library")
        git(repo, "submodule", "--quiet", "add", str(tmp_path / "library"), "lib")
        commit(repo)
        fill(repo, {"lib/inner.txt": "dirty\n"})
        before = all_of_the_user_s(repo)
        store = store_in(repo)
        taken = snap(store)
        assert "lib" in taken.notes[0]
        fill(repo, {"a.txt": "x"})
        store.restore(taken.ref, repo)
        assert (repo / "lib/inner.txt").read_text() == "dirty\n"
        assert all_of_the_user_s(repo) == before

    def test_one_without_a_commit_is_said_to_be_missing(self, repo):
        (repo / "fresh").mkdir()
        git(repo / "fresh", "init", "-q")
        fill(repo, {"fresh/x.txt": "x", "a.txt": "changed"})
        taken = snap(store_in(repo))
        assert taken.notes == ("not recorded: fresh (a nested repository without a commit)",)
        assert contents(repo, taken.ref)["a.txt"] == b"changed"

    def test_a_restore_leaves_one_that_came_later_and_says_so(self, repo):
        store = store_in(repo)
        first = snap(store)
        self.nested(repo / "inner")
        fill(repo, {"a.txt": "x"})
        before = store.restore(first.ref, repo)
        assert (repo / "inner/inner.txt").read_text() == "i\n"
        assert (repo / "a.txt").read_text() == "a\n"
        assert [note for note in before.notes if note.startswith("not restored: ") and "inner" in note]

    def test_a_tracked_directory_that_becomes_a_repository_keeps_its_files_in(self, repo):
        store = store_in(repo)
        first = snap(store)
        git(repo / "dir", "init", "-q")
        fill(repo, {"dir/b.txt": "changed\n"})
        taken = snap(store)
        assert contents(repo, taken.ref)["dir/b.txt"] == b"changed\n"
        store.restore(first.ref, repo)
        assert (repo / "dir/b.txt").read_text() == "b\n"


class TestFilesThatMakeTrouble:
    """Files that can't be read are named; those that come and go meanwhile don't stop a snapshot."""

    def test_unreadable_ones_are_named(self, repo):
        fill(repo, {"secret.txt": "s", "closed/x.txt": "x", "fine.txt": "f"})
        (repo / "a.txt").write_text("changed")
        for name in ("secret.txt", "a.txt", "closed"):
            (repo / name).chmod(0)
        store = store_in(repo)
        lease = store.claim(RUN)
        for _ in range(2):
            taken = without_privileges(lambda: store.snapshot(STATE, lease))
            assert set(taken.notes) == {
                "not recorded as it is now: secret.txt (permission denied)",
                "not recorded as it is now: a.txt (permission denied)",
                "not recorded as it is now: closed/ (permission denied)",
            }
        assert contents(repo, taken.ref)["fine.txt"] == b"f"
        assert contents(repo, taken.ref)["a.txt"] == b"a\n"
        (repo / "closed").chmod(0o755)

    def test_sockets_and_pipes_are_left_out(self, repo):
        os.mkfifo(repo / "pipe")
        (repo / "a.txt").unlink()
        os.mkfifo(repo / "a.txt")
        fill(repo, {"fine.txt": "f"})
        taken = snap(store_in(repo))
        assert contents(repo, taken.ref)["fine.txt"] == b"f"
        assert taken.notes == () or "a.txt" in taken.notes[0]

    def test_files_that_come_and_go_all_the_time(self, repo):
        churn = (
            "import os,time,itertools\n"
            "for i in itertools.count():\n"
            "    p = f'churn/{i % 50}.txt'\n"
            "    open(p, 'w').write('x' * (i % 999)) if i % 3 else (os.path.exists(p) and os.unlink(p))\n"
        )
        (repo / "churn").mkdir()
        process = subprocess.Popen([sys.executable, "-c", churn], cwd=repo)
        try:
            store = store_in(repo)
            lease = store.claim(RUN)
            for number in range(12):
                fill(repo, {"a.txt": str(number)})
                taken = store.snapshot(STATE, lease)
                assert contents(repo, taken.ref)["a.txt"] == str(number).encode()
        finally:
            process.kill()
            process.wait()

    def test_a_full_disk_is_an_error_not_a_note(self, repo, tmp_path):
        """A git that says what git says on a full disk: played, for want of one to fill."""
        fake = tmp_path / "bin"
        fake.mkdir()
        script = (
            'case "$*" in *" add "*) echo "error: unable to write file .git/objects/x: No space left on device" >&2\n'
        )
        script += "echo \"error: unable to index file 'a.txt'\" >&2; exit 1;; esac\n"
        real = shutil.which("git")
        (fake / "git").write_text(f'#!/bin/sh\n{script}exec {real} "$@"\n')
        (fake / "git").chmod(0o755)
        store = store_in(repo, env={**os.environ, "PATH": f"{fake}:{os.environ['PATH']}"})
        with pytest.raises(StoreError, match="No space left"):
            snap(store)
        assert store.history(RUN) == []

    @as_root
    def test_a_repository_of_somebody_else_is_refused_with_the_mend(self, repo):
        for path in [repo, repo / ".git"]:
            os.chown(path, 12345, 12345)
        with pytest.raises(
            StoreError, match=r"another user owns it.*git config --global --add safe\.directory .*/repo$"
        ):
            snap(store_in(repo))
        git(repo, "config", "--global", "--add", "safe.directory", str(repo))
        assert snap(store_in(repo)).number == 0

    def test_without_git_the_reason_is_given(self, repo, tmp_path):
        store = store_in(repo, env={"PATH": str(tmp_path)})
        with pytest.raises(StoreError, match=r"git can't be run.*--no-git"):
            snap(store)
        store.save(STATE, store.claim(RUN))
        assert store.runs() == [RUN]
        assert store.load(RUN).state == STATE

    def test_a_git_that_hangs_is_killed_with_its_filters(self, repo, monkeypatch):
        monkeypatch.setattr(gitrepo, "TIMEOUT", 0.5)
        git(repo, "config", "filter.toy.clean", "sleep 47.11; cat")
        fill(repo, {".gitattributes": "*.big filter=toy\n", "x.big": "large\n"})
        with pytest.raises(StoreError, match=r"took more than 0\.5 seconds"):
            snap(store_in(repo))
        time.sleep(0.1)
        assert b"47.11" not in subprocess.run(["ps", "-eo", "args"], capture_output=True, check=True).stdout
        monkeypatch.setattr(gitrepo, "TIMEOUT", 60.0)
        git(repo, "config", "filter.toy.clean", "cat")
        assert snap(store_in(repo)).number == 0


class TestKindsOfRepositories:
    def test_before_the_first_commit(self, tmp_path):
        root = tmp_path / "new"
        root.mkdir()
        git(root, "init", "-q")
        store = store_in(root)
        assert contents(root, snap(store).ref) == {}
        fill(root, {"x.txt": "x"})
        taken = snap(store)
        assert taken.changed == 1
        assert git(root, "rev-list", "--count", taken.ref) == "2"
        (root / "x.txt").unlink()
        store.restore(taken.ref, root)
        assert (root / "x.txt").read_text() == "x"
        assert git(root, "status", "--porcelain") == "?? x.txt"

    def test_a_detached_head(self, repo):
        git(repo, "checkout", "-q", "--detach")
        before = all_of_the_user_s(repo)
        taken = snap(store_in(repo))
        assert git(repo, "rev-parse", f"{taken.ref}^") == git(repo, "rev-parse", "HEAD")
        assert all_of_the_user_s(repo) == before

    def test_a_linked_worktree(self, repo, tmp_path):
        linked = tmp_path / "linked"
        git(repo, "worktree", "add", "-q", "-b", "work", str(linked))
        fill(linked, {"a.txt": "linked\n"})
        fill(repo, {"a.txt": "main\n"})
        store = store_in(linked)
        before = all_of_the_user_s(linked)
        taken = snap(store)
        assert contents(repo, taken.ref)["a.txt"] == b"linked\n"
        fill(linked, {"a.txt": "later\n"})
        store.restore(taken.ref, linked)
        assert (linked / "a.txt").read_text() == "linked\n"
        assert (repo / "a.txt").read_text() == "main\n"
        assert all_of_the_user_s(linked) == before

    def test_a_bare_repository_with_worktrees(self, repo, tmp_path):
        git(tmp_path, "clone", "-q", "--bare", str(repo), "bare.git")
        git(tmp_path / "bare.git", "worktree", "add", "-q", str(tmp_path / "work"), "main")
        fill(tmp_path / "work", {"a.txt": "changed\n"})
        taken = snap(store_in(tmp_path / "work"))
        assert contents(tmp_path / "bare.git", taken.ref)["a.txt"] == b"changed\n"

    def test_a_git_directory_elsewhere(self, tmp_path):
        root = tmp_path / "work"
        root.mkdir()
        git(root, "init", "-q", "--separate-git-dir", str(tmp_path / "elsewhere.git"))
        git(root, "config", "core.worktree", str(root))
        commit(root, {"a.txt": "a\n"})
        fill(root, {"a.txt": "changed\n"})
        before = all_of_the_user_s(root)
        taken = snap(store_in(root))
        assert contents(root, taken.ref)["a.txt"] == b"changed\n"
        assert all_of_the_user_s(root) == before

    def test_another_object_format(self, tmp_path):
        root = tmp_path / "work"
        root.mkdir()
        git(root, "init", "-q", "--object-format=sha256")
        commit(root, {"a.txt": "a\n"})
        taken = snap(store_in(root))
        assert len(git(root, "rev-parse", taken.ref)) == 64
        assert git(root, "fsck", "--strict") == ""

    def test_a_workspace_that_is_reached_by_a_link_with_an_odd_name(self, tmp_path):
        root = tmp_path / "odd \n'\"$x*"
        root.mkdir()
        git(root, "init", "-q")
        commit(root, {"sub/a.txt": "a\n"})
        (tmp_path / "link").symlink_to(root)
        for workspace in (tmp_path / "link", tmp_path / "link" / "sub"):
            fill(root, {"sub/a.txt": workspace.name})
            taken = snap(store_in(workspace))
            assert contents(root, taken.ref) == {"sub/a.txt": workspace.name.encode()}
            shutil.rmtree(workspace / ".agent")

    def test_no_checkout_yet(self, repo, tmp_path):
        git(tmp_path, "clone", "-q", "--no-checkout", str(repo), "clone")
        fill(tmp_path / "clone", {"new.txt": "n"})
        assert contents(tmp_path / "clone", snap(store_in(tmp_path / "clone")).ref) == {"new.txt": b"n"}

    def test_a_broken_index_of_the_user_s(self, repo):
        (repo / ".git" / "index").write_bytes(b"DIRC broken")
        taken = snap(store_in(repo))
        assert set(contents(repo, taken.ref)) == {".gitignore", "a.txt", "dir/b.txt"}
        assert (repo / ".git" / "index").read_bytes() == b"DIRC broken"

    def test_where_refs_are_no_files_git_writes_them(self, repo, tmp_path, monkeypatch):
        """As with reftable, of which nothing but the folder has to be known (gitrepository-layout(5))."""
        calls, real = tmp_path / "calls", shutil.which("git")
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "git").write_text(f'#!/bin/sh\necho "$@" >> {calls}\nexec {real} "$@"\n')
        (tmp_path / "bin" / "git").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
        assert contents(repo, snap(store_in(repo)).ref)["a.txt"] == b"a\n"
        assert "update-ref" not in calls.read_text(), "a file is written at once"
        (repo / ".git" / "reftable").mkdir()
        assert contents(repo, snap(store_in(repo)).ref)["a.txt"] == b"a\n"
        assert calls.read_text().count("update-ref") == 1

    def test_a_ref_that_is_packed_is_not_written_again(self, repo):
        store, late = store_in(repo), store_in(repo)
        lease = store.claim(RUN)
        store.snapshot(STATE, lease)
        late.look(STATE, lease)  # from now on it takes 1 for the next number
        assert store.snapshot(STATE, lease).ref.endswith("0001")
        git(repo, "pack-refs", "--all")
        with pytest.raises(LeaseLost, match="was written by another Ralph process"):
            late.snapshot(STATE, lease)


class TestASubDirectory:
    """Only the workspace is recorded and put back; the rest of the tree is as it was in the index."""

    def test_the_rest_is_neither_recorded_nor_touched(self, repo):
        commit(repo, {"sub/x.txt": "x\n", "sub/deep/y.txt": "y\n", "subway.txt": "s\n"})
        fill(repo, {"a.txt": "outside\n", "sub/x.txt": "inside\n", "untracked.txt": "u\n", "subway.txt": "t\n"})
        store = store_in(repo / "sub")
        before = all_of_the_user_s(repo)
        taken = snap(store)
        found = contents(repo, taken.ref)
        assert (found["a.txt"], found["sub/x.txt"], found["subway.txt"]) == (b"a\n", b"inside\n", b"s\n")
        assert "untracked.txt" not in found
        assert not [path for path in found if ".agent" in path]
        fill(repo, {"a.txt": "outside later\n", "sub/x.txt": "changed\n", "sub/new.txt": "n\n", "untracked.txt": "v\n"})
        shutil.rmtree(repo / "sub/deep")
        assert snap(store).changed == 3
        assert sorted(store.changed_files(RUN)) == ["deep/y.txt", "new.txt", "x.txt"]
        commit(repo.parent / "repo", {"a.txt": "committed meanwhile\n"})
        undo = store.restore(taken.ref, repo / "sub")
        assert tree_on_disk(repo / "sub").keys() == {b"x.txt", b"deep/y.txt"}
        assert (repo / "sub/x.txt").read_text() == "inside\n"
        assert (repo / "a.txt").read_text() == "committed meanwhile\n"
        store.restore(undo.ref, repo / "sub")
        assert (repo / "sub/new.txt").read_text() == "n\n"
        assert not (repo / "sub/deep").exists()
        assert before.keys()

    def test_nothing_in_it_yet_and_nothing_in_it_any_more(self, repo):
        (repo / "sub").mkdir()
        store = store_in(repo / "sub")
        empty = snap(store)
        fill(repo, {"sub/x.txt": "x"})
        full = snap(store)
        assert full.changed == 1
        store.restore(empty.ref, repo / "sub")
        assert tree_on_disk(repo / "sub") == {}
        store.restore(full.ref, repo / "sub")
        assert (repo / "sub/x.txt").read_text() == "x"

    def test_a_merge_going_on_around_it(self, repo):
        merging(repo)
        (repo / "quiet").mkdir()
        fill(repo, {"quiet/x.txt": "x"})
        before = all_of_the_user_s(repo)
        taken = snap(store_in(repo / "quiet"))
        assert contents(repo, taken.ref)["quiet/x.txt"] == b"x"
        assert b"<<<<" in contents(repo, taken.ref)["clash.txt"]
        git(repo, "--no-optional-locks", "status")
        after = all_of_the_user_s(repo)
        assert {key: value for key, value in after.items() if key != ("status",)} == before

    def test_one_that_is_ignored_gets_a_repository_of_its_own(self, repo):
        fill(repo, {"ignored-project/x.txt": "x"})
        taken = snap(store_in(repo / "ignored-project"))
        assert git(repo, "for-each-ref", "refs/ralph") == ""
        private = repo / "ignored-project/.agent/repo.git"
        assert contents(private, taken.ref) == {"x.txt": b"x"}


class TestWithoutARepository:
    @pytest.fixture
    def plain(self, tmp_path):
        root = tmp_path / "plain"
        root.mkdir()
        fill(root, {"x.txt": "x", "build/out.o": "o", ".gitignore": "build/\n"})
        return root

    def test_a_private_one_serves(self, plain):
        store = store_in(plain)
        taken = snap(store)
        assert not (plain / ".git").exists()
        assert contents(plain / ".agent/repo.git", taken.ref) == {"x.txt": b"x", ".gitignore": b"build/\n"}
        fill(plain, {"x.txt": "changed", "build/out.o": "p", "new.txt": "n"})
        assert snap(store).changed == 2
        undo = store.restore(taken.ref, plain)
        assert tree_on_disk(plain).keys() == {b"x.txt", b".gitignore", b"build/out.o"}
        assert (plain / "x.txt").read_text() == "x"
        assert (plain / "build/out.o").read_text() == "p"
        store.restore(undo.ref, plain)
        assert (plain / "new.txt").read_text() == "n"
        assert sorted(store.changed_files(RUN)) == ["new.txt", "x.txt"]

    def test_a_run_stays_with_it_when_the_agent_makes_a_repository(self, plain):
        store = store_in(plain)
        snap(store)
        git(plain, "init", "-q")
        commit(plain)
        fill(plain, {"x.txt": "changed"})
        taken = snap(store_in(plain))
        assert (taken.number, taken.changed) == (1, 1)
        assert git(plain, "for-each-ref", "refs/ralph") == ""
        assert (
            contents(plain, snap(store_in(plain), OTHER).ref)["x.txt"] == b"changed"
        )  # another run begins with what there is
        assert store_in(plain).runs() == [OTHER, RUN]

    def test_a_home_outside_the_workspace(self, plain, tmp_path):
        store = store_in(plain, tmp_path / "state")
        taken = snap(store)
        assert sorted(path.name for path in plain.iterdir()) == [".gitignore", "build", "x.txt"]
        (plain / "x.txt").unlink()
        store.restore(taken.ref, plain)
        assert (plain / "x.txt").read_text() == "x"

    def test_a_home_around_the_workspace_is_refused(self, plain):
        with pytest.raises(UserError, match="RALPH_HOME"):
            store_in(plain, plain.parent)

    def test_pruning_tidies_it_up(self, plain):
        store = store_in(plain)
        for run in (RUN, OTHER):
            store.save(replace(STATE, run=run, outcome=ENDED), store.claim(run))
            snap(store, run, outcome=ENDED)
        assert store.prune(1) == 1
        assert store.runs() == [OTHER]
        assert len(store.history(OTHER)) == 1
        assert store.history(RUN) == []


class TestRestoring:
    def test_makes_the_files_equal_and_can_be_undone(self, repo):
        store = store_in(repo)
        fill(repo, {"same.txt": "same", "dir/gone.txt": "g", "becomes-dir": "file", "was-dir/x": "x"})
        one = tree_on_disk(repo)
        first = snap(store)
        fill(repo, {"a.txt": "two", "added/deep/new.txt": "n"})
        (repo / "dir/gone.txt").unlink()
        (repo / "becomes-dir").unlink()
        fill(repo, {"becomes-dir/x": "x"})
        shutil.rmtree(repo / "was-dir")
        fill(repo, {"was-dir": "file"})
        two = tree_on_disk(repo)
        undo = store.restore(f"{RUN}/0", repo)
        assert tree_on_disk(repo) == one
        assert not (repo / "added").exists()
        assert undo.ref == f"refs/ralph/{RUN}/pre-restore-0000"
        redo = store.restore(undo.ref, repo)
        assert tree_on_disk(repo) == two
        store.restore(f"{RUN}/pre-restore-{redo.number}", repo)
        assert tree_on_disk(repo) == one
        numbers = [taken.ref.rsplit("/", 1)[1] for taken in store.history(RUN)]
        assert numbers == ["0000", "pre-restore-0000", "pre-restore-0001", "pre-restore-0002"]
        assert "before 0000 was restored" in store.history(RUN)[1].notes[0]
        assert snap(store_in(repo)).ref == first.ref[:-4] + "0001"

    def test_an_ignored_file_in_the_way_is_saved_first(self, repo):
        store = store_in(repo)
        fill(repo, {"conf.txt": "old", "cache": "a file", "deep/er": "file"})
        first = snap(store)
        (repo / "cache").unlink()
        shutil.rmtree(repo / "deep")
        fill(
            repo,
            {".gitignore": "conf.txt\ncache/\ndeep\n", "conf.txt": "precious", "cache/x": "cached", "deep": "blocks"},
        )
        two = tree_on_disk(repo)
        undo = store.restore(first.ref, repo)
        assert (repo / "conf.txt").read_text() == "old"
        assert (repo / "cache").read_text() == "a file"
        assert (repo / "deep/er").read_text() == "file"
        store.restore(undo.ref, repo)
        assert tree_on_disk(repo) == two

    def test_never_writes_through_a_link(self, repo, tmp_path):
        store = store_in(repo)
        fill(repo, {"data/x.txt": "x"})
        first = snap(store)
        shutil.rmtree(repo / "data")
        outside = tmp_path / "outside"
        fill(outside, {"x.txt": "outside"})
        (repo / "data").symlink_to(outside)
        store.restore(first.ref, repo)
        assert (outside / "x.txt").read_text() == "outside"
        assert (repo / "data/x.txt").read_text() == "x"

    def test_into_an_empty_directory_nothing_is_lost(self, repo, tmp_path):
        store = store_in(repo)
        fill(repo, {"sub/x.txt": "x", ".gitattributes": "*.txt eol=crlf\n", "a.txt": "1\n2\n"})
        taken = snap(store)
        assert store.restore(taken.ref, tmp_path / "out" / "there") is None
        assert (tmp_path / "out/there/sub/x.txt").read_text() == "x"
        assert (tmp_path / "out/there/a.txt").read_bytes() == b"1\r\n2\r\n"
        with pytest.raises(UserError, match="not empty"):
            store.restore(taken.ref, tmp_path / "out")
        inner = store_in(repo / "sub")
        part = snap(inner, OTHER)
        inner.restore(part.ref, tmp_path / "part")
        assert tree_on_disk(tmp_path / "part").keys() == {b"x.txt"}

    @pytest.mark.parametrize(
        "ref",
        [
            "../evil",
            "",
            "HEAD",
            "refs/heads/main",
            f"{RUN}/../../heads/main",
            f"{RUN}/x",
            f"refs/ralph/{RUN}",
            f"{RUN}/1 --",
            "/0",
        ],
    )
    def test_what_names_no_snapshot_is_refused(self, repo, ref):
        store = store_in(repo)
        snap(store)
        fill(repo, {"a.txt": "mine"})
        with pytest.raises(UserError):
            store.restore(ref, repo)
        assert (repo / "a.txt").read_text() == "mine"

    def test_an_unknown_one_is_answered_with_the_nearest(self, repo):
        store = store_in(repo)
        snap(store)
        with pytest.raises(UnknownName, match="0000"):
            store.restore(f"{RUN}/0003", repo)

    def test_what_cannot_be_written_is_an_error_that_names_the_way_back(self, repo):
        store = store_in(repo)
        first = snap(store)
        fill(repo, {"dir/b.txt": "changed"})
        (repo / "dir").chmod(0o555)
        try:
            with pytest.raises(StoreError, match="pre-restore-0000"):
                without_privileges(lambda: store.restore(first.ref, repo))
        finally:
            (repo / "dir").chmod(0o755)


class TestStateInGit:
    """A clone that has the ref can resume; what is in files wins."""

    def clone(self, repo, tmp_path):
        git(tmp_path, "clone", "-q", str(repo), "clone")
        git(tmp_path / "clone", "fetch", "-q", "origin", "refs/ralph/*:refs/ralph/*")
        return tmp_path / "clone"

    def test_a_clone_loads_restores_and_goes_on(self, repo, tmp_path):
        store = store_in(repo)
        fill(repo, {"a.txt": "work\n"})
        snap(store, iteration=1)
        snap(store, iteration=2, workspace="/é\udcff\n")
        clone = self.clone(repo, tmp_path)
        there = store_in(clone)
        assert there.runs() == [RUN]
        saved = there.load(RUN)
        assert saved.state == replace(STATE, iteration=2, workspace="/é\udcff\n")
        assert "0001" in saved.note
        there.restore(f"{RUN}/1", clone)
        assert (clone / "a.txt").read_text() == "work\n"
        lease = there.claim(RUN)
        there.save(saved.state, lease)
        taken = there.snapshot(saved.state, lease)
        assert (taken.number, taken.changed) == (2, 0)
        assert there.load(RUN).note == ""

    def test_torn_files_give_way_to_the_ref(self, repo):
        store = store_in(repo)
        store.save(replace(STATE, iteration=5), store.claim(RUN))
        snap(store, iteration=4)
        for path in (repo / ".agent/runs" / RUN).glob("state*"):
            path.write_bytes(b"torn")
        assert store.load(RUN).state.iteration == 4
        assert store.runs() == [RUN]

    def test_an_edited_message_gives_way_to_the_one_before(self, repo):
        store = store_in(repo)
        snap(store, iteration=1)
        message = git(repo, "log", "-1", "--format=%B", f"refs/ralph/{RUN}/0000")
        forged = message.replace('"iteration": 1', '"iteration": 9')
        made = git(repo, "commit-tree", "HEAD^{tree}", data=forged.encode())
        git(repo, "update-ref", f"refs/ralph/{RUN}/0001", made)
        assert store.load(RUN).state.iteration == 1
        assert store.history(RUN)[-1].notes == ("its description is torn or was edited",)

    def test_refs_that_are_not_ours_are_passed_over(self, repo):
        store = store_in(repo)
        for name in ("evil/0000", f"{RUN}/abc", f"{OTHER}/0000", f"{OTHER}/0001/x", "0000"):
            git(repo, "update-ref", f"refs/ralph/{name}", "HEAD", check=False)
        assert store.runs() == []
        with pytest.raises(UnknownName):
            store.load(OTHER)

    def test_prune_deletes_the_refs_of_runs_that_ended(self, repo):
        store = store_in(repo)
        for day in range(1, 5):
            run = f"2025010{day}-120000-abc123"
            outcome = None if day == 2 else ENDED
            store.save(replace(STATE, run=run, outcome=outcome), store.claim(run))
            snap(store, run, outcome=outcome)
        store.restore("20250101-120000-abc123/0", repo)
        before = git(repo, "show-ref", "--heads")
        assert store.prune(1) == 2
        kept = [
            ref.split("/")[2] for ref in git(repo, "for-each-ref", "--format=%(refname)", "refs/ralph").splitlines()
        ]
        assert kept == ["20250102-120000-abc123", "20250104-120000-abc123"]
        assert store.runs() == kept[::-1]
        assert git(repo, "show-ref", "--heads") == before

    def test_packed_refs_are_found_too(self, repo):
        store = store_in(repo)
        snap(store)
        git(repo, "gc", "-q")
        assert not (repo / ".git/refs/ralph" / RUN / "0000").exists()
        assert len(store_in(repo).history(RUN)) == 1
        assert snap(store_in(repo)).number == 1


class TestTwoWriters:
    def test_a_stale_one_is_fenced_off(self, repo):
        old, new = store_in(repo), store_in(repo)
        stale = old.claim(RUN)
        old.snapshot(STATE, stale)
        fresh = new.claim(RUN)
        with pytest.raises(LeaseLost):
            old.snapshot(STATE, stale)
        assert new.snapshot(STATE, fresh).number == 1
        with pytest.raises(LeaseLost):
            old.snapshot(STATE, stale)
        assert len(new.history(RUN)) == 2

    def test_one_that_is_overtaken_in_the_middle_is_fenced_off(self, repo, monkeypatch):
        old, new = store_in(repo), store_in(repo)
        stale = old.claim(RUN)
        real = gitrefs.write

        def overtaken(*args):
            monkeypatch.setattr(gitrefs, "write", real)
            fill(repo, {"a.txt": "by the new one"})
            new.snapshot(STATE, new.claim(RUN))
            return real(*args)

        monkeypatch.setattr(gitrefs, "write", overtaken)
        with pytest.raises(LeaseLost):
            old.snapshot(STATE, stale)
        assert [taken.number for taken in new.history(RUN)] == [0]

    def test_of_two_that_know_nothing_of_each_other_one_wins(self, repo, tmp_path):
        """Two homes, so no common lease: the ref decides."""
        workspaces = [repo]
        git(repo, "worktree", "add", "-q", str(tmp_path / "linked"))
        workspaces.append(tmp_path / "linked")
        one, two = (store_in(workspace) for workspace in workspaces)
        leases = one.claim(RUN), two.claim(RUN)
        one.snapshot(STATE, leases[0])
        two.snapshot(STATE, leases[1])
        with pytest.raises(LeaseLost, match="written by another"):
            one.snapshot(STATE, leases[0])
        assert [taken.number for taken in two.history(RUN)] == [0, 1]

    def test_racing_processes_never_share_a_number(self, repo):
        snap(store_in(repo))
        with multiprocessing.get_context("spawn").Pool(4) as pool:
            won = [ref for ref in pool.map(_race, [repo] * 16) if ref]
        assert won
        assert len(set(won)) == len(won)
        assert len(store_in(repo).history(RUN)) == len(won) + 1


def _race(repo):
    try:
        return snap(store_in(repo)).ref
    except LeaseLost:
        return None


class TestAfterACrash:
    def test_a_stale_lock_on_the_private_index_is_removed(self, repo):
        store = store_in(repo)
        lease = store.claim(RUN)
        store.snapshot(STATE, lease)
        index = repo / ".agent/runs" / RUN / f"index-{lease.token}"
        index.with_name(index.name + ".lock").write_bytes(b"half")
        fill(repo, {"a.txt": "changed"})
        assert store.snapshot(STATE, lease).changed == 1
        index.with_name(index.name + ".lock").write_bytes(b"half")
        fill(repo, {"a.txt": "again"})
        assert snap(store_in(repo)).changed == 1
        assert [path.name for path in index.parent.glob("index*")] == [f"index-{lease.token + 1}"]

    def test_a_broken_private_index_is_made_anew(self, repo):
        store = store_in(repo)
        snap(store)
        (index,) = (repo / ".agent/runs" / RUN).glob("index-*")
        index.write_bytes(b"DIRC broken")
        fill(repo, {"a.txt": "changed"})
        taken = snap(store_in(repo))
        assert taken.changed == 1
        assert set(contents(repo, taken.ref)) == {".gitignore", "a.txt", "dir/b.txt"}

    def test_files_that_were_gathered_but_not_recorded_are_counted(self, repo, monkeypatch):
        store = store_in(repo)
        lease = store.claim(RUN)
        store.snapshot(STATE, lease)
        fill(repo, {"a.txt": "changed"})

        def fail(*_):
            raise StoreError("the disk is full")

        with monkeypatch.context() as patch:
            patch.setattr(gitrefs, "write", fail)
            with pytest.raises(StoreError, match="full"):
                store.snapshot(STATE, lease)
        taken = store.snapshot(STATE, lease)
        assert (taken.number, taken.changed) == (1, 1)

    def test_ralph_s_directory_cleaned_away_in_the_middle(self, repo):
        store = store_in(repo)
        lease = store.claim(RUN)
        store.snapshot(STATE, lease)
        git(repo, "clean", "-fdxq")
        assert not (repo / ".agent").exists()
        fill(repo, {"a.txt": "changed"})
        taken = store.snapshot(STATE, lease)
        assert (taken.number, taken.changed) == (1, 1)
        assert ".agent" not in str(contents(repo, taken.ref).keys())

    def test_every_object_is_waited_for_before_the_ref_names_it(self, repo, monkeypatch):
        waited, real, create = set(), gitsync._sync_all, gitrefs.create
        late = []

        def watched(paths):
            waited.update("".join(path.split("/")[-2:]) for path in paths)
            real(paths)

        def named(repository, ref, made):
            objects = git(repo, "rev-list", "--objects", "--no-object-names", made, "^HEAD").split()
            late.extend(name for name in objects if name not in waited)
            assert len(objects) >= 2
            create(repository, ref, made)

        monkeypatch.setattr(gitsync, "_sync_all", watched)
        monkeypatch.setattr(gitrefs, "create", named)
        store = store_in(repo)
        lease = store.claim(RUN)
        for turn in range(4):
            fill(repo, {f"d{turn}/{number}.txt": f"{turn} {number}" for number in range(30)})
            store.snapshot(STATE, lease)
        for turn, look in enumerate((store.look, store.fingerprint)):
            fill(repo, {f"looked{turn}": f"{turn}"})
            look(STATE, lease)
            time.sleep(0.05)  # longer than the clock of any file system takes to go on
            store.snapshot(STATE, lease)
        fill(repo, {"staged": "by the agent, whose git waits for no disk"})
        git(repo, "add", "staged")
        time.sleep(0.05)
        store.snapshot(STATE, lease)
        fill(repo, {"a.txt": "staged by the user only now"})
        git(repo, "add", "a.txt")
        store.restore(f"{RUN}/1", repo)
        assert late == []

    def test_objects_are_waited_for_without_the_system_call_too(self, repo, monkeypatch):
        synced = []
        real = os.fsync
        monkeypatch.setattr(gitsync, "_sync_file_range", lambda: None)
        monkeypatch.setattr(os, "fsync", lambda handle: (synced.append(handle), real(handle)))
        fill(repo, {f"{number}.txt": str(number) for number in range(30)})
        snap(store_in(repo))
        assert len(synced) >= 30

    def test_killed_at_random_instants_it_goes_on(self, repo):
        """Ralph and its git are killed; each time the next process takes up the line, and the repository is whole."""
        script = (
            "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[2]); import test_git_store as t\n"
            "s = t.store_in(Path(sys.argv[1])); l = s.claim(t.RUN); print('go', flush=True)\n"
            "for i in range(10**6):\n"
            "    t.fill(Path(sys.argv[1]), {f'f{i % 7}.txt': str(i), 'a.txt': str(i * 7)})\n"
            "    x = s.snapshot(t.STATE, l); print(x.number, flush=True)\n"
        )
        before = all_of_the_user_s(repo)
        reached = -1
        for attempt in range(12):
            command = [sys.executable, "-c", script, str(repo), str(Path(__file__).parent)]
            with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True, text=True) as process:
                assert process.stdout.readline() == "go\n"
                time.sleep(0.013 * attempt)
                process.send_signal(signal.SIGKILL)
                said = [int(line) for line in process.stdout.read().split()]
            reached = max([reached, *said])
            numbers = [taken.number for taken in store_in(repo).history(RUN)]
            assert numbers == list(range(len(numbers)))
            assert len(numbers) - 1 >= reached
        taken = snap(store_in(repo))
        assert contents(repo, taken.ref)["a.txt"] == (repo / "a.txt").read_bytes()
        assert "missing" not in git(repo, "fsck", "--strict")
        git(repo, "checkout", "-q", "a.txt")
        for path in repo.glob("f*.txt"):
            path.unlink()
        git(repo, "status")
        after = all_of_the_user_s(repo)
        index = str(repo / ".git/index")
        assert {key: value for key, value in after.items() if key != index} == {
            k: v for k, v in before.items() if k != index
        }
