"""`ralph backup`: one file that brings the runs of a workspace, with their snapshots and their account, into another clone."""

import gzip
import io
import json
import shutil
import tarfile

import pytest

WORK = 'n=$(ls done.* 2>/dev/null | wc -l); echo "step $n" >done.$((n + 1)); echo "made $n"\n'


@pytest.fixture
def backed(ralph):
    """A run that was stopped after two iterations by its limit, and its backup; the prompt and the settings are in the workspace."""
    ralph.write("TASK.md", "Do what is to be done.\n")
    ralph.write("conf/mine.yml", "max_failures: 4\n")
    agent = ralph.agent(WORK)
    more = ("--prompt", "TASK.md", "--config", "conf/mine.yml", "--max-iterations", "2")
    done = ralph.run(agent, *more, task=None)
    assert done.returncode == 3, done.stderr
    path = ralph.root / "backup.tar.gz"
    made = ralph("backup", "create", "--output", path)
    assert made.returncode == 0, made.stderr
    return path, agent


def clone(ralph, name="clone"):
    """Another clone of the repository, as on another machine: what was not committed is not there."""
    target = ralph.root / name
    ralph.git("clone", "-q", ralph.workspace, target)
    return target


def status(ralph, **options):
    return json.loads(ralph("status", "--json", **options).stdout)


class TestRestored:
    def test_run_goes_on_in_another_clone(self, ralph, backed):
        path, agent = backed
        there = clone(ralph)
        before = ralph("audit", "export").stdout
        shutil.rmtree(ralph.workspace)
        ralph.workspace.mkdir()
        done = ralph("backup", "restore", path, cwd=there)
        assert done.returncode == 0, done.stderr
        (ref,) = [line.split()[-1] for line in done.stdout.splitlines() if "checkpoints restore" in line]
        assert ralph("checkpoints", "restore", ref, cwd=there).returncode == 0
        assert sorted(each.name for each in there.glob("done.*")) == ["done.1", "done.2"]

        done = ralph("resume", "--max-iterations", "3", cwd=there)

        assert done.returncode == 3, done.stderr
        assert agent.calls == 3  # none of the two that were finished is paid for again
        assert str(there) in agent.prompt(3).decode()
        assert str(ralph.workspace) not in agent.prompt(3).decode()
        assert sorted(each.name for each in there.glob("done.*")) == ["done.1", "done.2", "done.3"]
        assert ralph("audit", "verify", cwd=there).returncode == 0
        assert ralph("audit", "export", cwd=there).stdout.startswith(before)
        assert not list(ralph.workspace.iterdir())
        assert "max_failures" in ralph("config", "show", "--given", "--config", "conf/mine.yml", cwd=there).stdout

    def test_tells_programs_what_is_in_it(self, ralph, backed):
        path, _ = backed
        there = clone(ralph)
        made = json.loads(ralph("backup", "create", "--output", ralph.root / "second.tar.gz", "--json").stdout)
        found = json.loads(ralph("backup", "verify", path, "--json").stdout)
        put_back = json.loads(ralph("backup", "restore", path, "--json", cwd=there).stdout)
        run = ralph.folder.name
        assert made["runs"] == found["runs"] == put_back["runs"] == [run]
        assert (found["file"], found["workspace"]) == (str(path), str(ralph.workspace))
        assert min(found["files"], found["bytes"]) > 5
        assert (put_back["resume"], put_back["snapshot"].startswith(f"refs/ralph/{run}/")) == (run, True)

    def test_run_is_not_resumed_while_the_original_is_at_work(self, ralph):
        """What belongs to a run is known by its id: the original's agent would be taken for left over, and killed."""
        agent = ralph.agent("touch begun; while [ ! -e go ]; do sleep 0.05; done; echo LOOP_COMPLETE")
        process = ralph.begin(agent)
        ralph.until((ralph.workspace / "begun").exists)
        there = clone(ralph)
        assert ralph("backup", "create", "--output", ralph.root / "b").returncode == 0
        assert ralph("backup", "restore", ralph.root / "b", cwd=there).returncode == 0
        refused = ralph("resume", cwd=there)
        assert refused.returncode == 2
        assert f"is at work in {ralph.workspace}" in refused.stderr
        (ralph.workspace / "go").touch()
        assert ralph.end(process).returncode == 0
        assert agent.calls == 1

    def test_run_is_shown_and_checked_as_before(self, ralph, backed):
        path, _ = backed
        there = clone(ralph)
        ralph("backup", "restore", path, cwd=there)
        for words in (["checkpoints", "list"], ["checkpoints", "diff", "0", "1"], ["explain"], ["trace", "--json"]):
            assert ralph(*words, cwd=there).stdout == ralph(*words).stdout
        assert ralph("audit", "verify", cwd=there).stdout == ralph("audit", "verify").stdout

    def test_users_branch_index_and_configuration_are_as_they_were(self, ralph, backed):
        path, _ = backed
        there = clone(ralph)
        (there / "dirty").write_text("mine")
        look = ("status", "--porcelain=v2", "--branch"), ("stash", "list"), ("config", "--list", "--local")
        refs = ("for-each-ref", "refs/heads", "refs/tags", "refs/remotes")
        before = [ralph.git("-C", there, *words) for words in (*look, refs)]
        ralph("backup", "restore", path, cwd=there)
        assert [ralph.git("-C", there, *words) for words in (*look, refs)] == before
        assert not (there / ".git/FETCH_HEAD").exists()

    def test_run_of_a_workspace_without_git(self, ralph):
        plain, there = ralph.root / "plain", ralph.root / "elsewhere"
        plain.mkdir()
        there.mkdir()
        agent = ralph.agent(WORK)
        ralph.run(agent, "--max-iterations", "1", cwd=plain)
        path = ralph.root / "backup.tar.gz"
        assert ralph("backup", "create", "-o", path, cwd=plain).returncode == 0
        shutil.rmtree(plain)
        assert ralph("backup", "restore", path, cwd=there).returncode == 0
        assert ralph("checkpoints", "restore", "1", cwd=there).returncode == 0
        assert ralph("resume", "--max-iterations", "2", cwd=there).returncode == 3
        assert sorted(each.name for each in there.glob("done.*")) == ["done.1", "done.2"]
        assert agent.calls == 2


class TestMade:
    def test_while_a_run_works(self, ralph):
        agent = ralph.agent(WORK, WORK, f"{WORK}touch ready; while [ ! -e go ]; do sleep 0.05; done\n", WORK)
        process = ralph.begin(agent, "--max-iterations", "4", "--checkpoint-interval", "1")
        ralph.until((ralph.workspace / "ready").exists)
        path = ralph.root / "backup.tar.gz"
        assert ralph("backup", "create", "-o", path).returncode == 0
        (ralph.workspace / "go").touch()
        process.communicate(timeout=60)
        there = clone(ralph)
        assert ralph("backup", "restore", path, cwd=there).returncode == 0
        assert status(ralph, cwd=there)["finished"] == 2
        assert ralph("audit", "verify", cwd=there).returncode == 0
        assert ralph("resume", "--max-iterations", "3", cwd=there).returncode == 3
        assert agent.calls == 5  # the third was cut short there, and is begun anew

    def test_holds_no_raw_output_and_is_for_its_owner_alone(self, ralph, backed):
        path, _ = backed
        assert path.stat().st_mode & 0o777 == 0o600
        with tarfile.open(path) as tar:
            names = tar.getnames()
        assert not [name for name in names if "/raw/" in name or "repo.git" in name]
        assert names[-1] == "manifest.json"

    def test_gets_a_name_with_its_time(self, ralph, backed):
        done = ralph("backup", "create", cwd=ralph.workspace)
        (made,) = ralph.workspace.glob("ralph-*.tar.gz")
        assert made.name in done.stdout

    def test_never_takes_the_place_of_another_file(self, ralph, backed):
        path, _ = backed
        before = path.read_bytes()
        done = ralph("backup", "create", "--output", path)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
        assert "exists already" in done.stderr
        assert path.read_bytes() == before

    def test_not_of_nothing(self, ralph):
        done = ralph("backup", "create")
        assert done.returncode == 2
        assert "no run" in done.stderr
        assert not (ralph.workspace / ".agent").exists()

    def test_not_where_nothing_can_be_written(self, ralph, backed):
        done = ralph("backup", "create", "-o", ralph.root / "missing/backup.tar.gz")
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
        assert "missing" in done.stderr


def entries(path):
    with tarfile.open(path) as tar:
        return [(each.name, tar.extractfile(each).read()) for each in tar]


def write(path, found, kind=tarfile.REGTYPE):
    with tarfile.open(path, "w:gz") as tar:
        for name, data in found:
            entry = tarfile.TarInfo(name)
            entry.size, entry.type = len(data), kind
            tar.addfile(entry, io.BytesIO(data))


PACKING = """
from ralph_core import Provider, hookimpl
from ralph_core.builtin.local import LocalStore

class Packing(LocalStore):
    def save(self, state, lease, *, durable=True):
        super().save(state, lease, durable=durable)
        (self.context.home / "acme.db").write_text("torn")
    def pack(self, folder):
        (folder / "acme.db").write_text("whole")
    def unpack(self, folder):
        (self.context.home / "acme.db").write_text((folder / "acme.db").read_text())

@hookimpl
def ralph_checkpoint_stores():
    return [Provider("acme", "one", f"{__name__}:Packing")]
"""


def test_what_a_store_packs_takes_the_place_of_the_file(ralph):
    """A database that is copied while a run writes it is torn; its store knows how to copy it whole."""
    ralph.plugin("acme", PACKING)
    ralph.settings("checkpoint_store: acme\n")
    assert ralph.run("cat > /dev/null; echo LOOP_COMPLETE").returncode == 0
    path = ralph.root / "backup.tar.gz"
    assert ralph("backup", "create", "--output", path).returncode == 0
    with tarfile.open(path) as tar:
        assert [name for name in tar.getnames() if name.endswith("acme.db")] == ["store/acme.db"]
    there = clone(ralph)
    (there / "ralph.yml").write_text("checkpoint_store: acme\n")
    done = ralph("backup", "restore", path, cwd=there)
    assert done.returncode == 0, done.stderr
    assert (there / ".agent" / "acme.db").read_text() == "whole"


class TestDamage:
    """One clear line and exit code 1, and no trace of a restore."""

    def refused(self, ralph, path, words):
        there = clone(ralph, f"clone-{len(list(ralph.root.iterdir()))}")
        for command in (["verify", path], ["restore", path]):
            done = ralph("backup", *command, cwd=there)
            assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
            assert words in done.stderr
        assert not [each for each in (there / ".agent").rglob("*") if each.name not in (".gitignore", "holder.json")]
        assert not ralph.git("-C", there, "for-each-ref", "refs/ralph")

    def test_that_is_none_is_not_found(self, ralph, backed):
        done = ralph("backup", "verify", backed[0])
        assert done.returncode == 0
        assert "whole" in done.stdout

    @pytest.mark.parametrize("at", [0.3, 0.8])
    def test_of_a_byte(self, ralph, backed, at):
        data = bytearray(backed[0].read_bytes())
        data[int(len(data) * at)] ^= 0x10
        backed[0].write_bytes(data)
        self.refused(ralph, backed[0], "damaged")

    def test_cut_short(self, ralph, backed):
        backed[0].write_bytes(backed[0].read_bytes()[:-200])
        self.refused(ralph, backed[0], "damaged")

    def test_of_a_file_in_it(self, ralph, backed):
        found = [
            (name, data.replace(b"2", b"3") if name.endswith("audit.jsonl") else data)
            for name, data in entries(backed[0])
        ]
        write(backed[0], found)
        self.refused(ralph, backed[0], "audit.jsonl was changed")

    def test_a_file_missing_or_too_many(self, ralph, backed):
        found = entries(backed[0])
        write(backed[0], [each for each in found if not each[0].endswith("audit.jsonl")])
        self.refused(ralph, backed[0], "audit.jsonl is missing")
        write(backed[0], [("state/more", b"x"), *found])
        self.refused(ralph, backed[0], "state/more is not in its manifest")

    @pytest.mark.parametrize("evil", ["../evil", "/tmp/evil", "state/../../evil"])
    def test_a_path_that_leads_elsewhere(self, ralph, backed, evil):
        write(backed[0], [(evil, b"x"), *entries(backed[0])])
        self.refused(ralph, backed[0], "has no place in it")

    def test_a_link(self, ralph, backed):
        write(backed[0], [("state/link", b"")], kind=tarfile.SYMTYPE)
        self.refused(ralph, backed[0], "has no place in it")

    @pytest.mark.parametrize("data", [b"", b"no tar", gzip.compress(b"no tar", mtime=0)])  # the same in every worker
    def test_something_else(self, ralph, backed, data):
        backed[0].write_bytes(data)
        self.refused(ralph, backed[0], "no backup of Ralph's")


class TestRefused:
    def test_where_there_are_runs(self, ralph, backed):
        done = ralph("backup", "restore", backed[0])
        assert done.returncode == 2
        assert "holds runs already" in done.stderr

    def test_a_file_that_is_not_there(self, ralph):
        for command in ("verify", "restore"):
            done = ralph("backup", command, "nothing.tar.gz")
            assert (done.returncode, done.stderr) == (2, "ralph: there is no backup nothing.tar.gz\n")

    def test_where_a_ref_names_something_else(self, ralph, backed):
        there = clone(ralph)
        (ref, *_) = ralph.git("for-each-ref", "--format=%(refname)", "refs/ralph").splitlines()
        ralph.git("-C", there, "update-ref", ref, "HEAD")
        done = ralph("backup", "restore", backed[0], cwd=there)
        assert done.returncode == 2
        assert f"{ref} is there already" in done.stderr
        assert ralph.git("-C", there, "for-each-ref", "--format=%(refname)", "refs/ralph").split() == [ref]
        assert not (there / ".agent/runs").exists()

    def test_while_a_run_works_there(self, ralph, backed):
        there = clone(ralph)
        agent = ralph.agent("touch ready; while [ ! -e go ]; do sleep 0.05; done\n")
        process = ralph.begin(agent, "--max-iterations", "1", cwd=there)
        ralph.until((there / "ready").exists)
        done = ralph("backup", "restore", backed[0], cwd=there)
        (there / "go").touch()
        process.communicate(timeout=60)
        assert done.returncode == 2
        assert "holds the workspace" in done.stderr

    def test_what_a_newer_ralph_made(self, ralph, backed):
        from ralph_core.statefile import seal, unseal

        *found, (_, manifest) = entries(backed[0])
        newer = seal({**unseal(manifest), "schema": 99, "version": "9.9"})
        write(backed[0], [*found, ("manifest.json", newer)])
        done = ralph("backup", "verify", backed[0])
        assert done.returncode == 1
        assert "newer Ralph (9.9)" in done.stderr
