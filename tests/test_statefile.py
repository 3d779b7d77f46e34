"""State on disk, and the store that keeps nothing else."""

import errno
import json
import multiprocessing
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from ralph_core import statefile
from ralph_core.builtin.local import LocalStore
from ralph_core.contracts import Context
from ralph_core.errors import LeaseLost, StoreError, UnknownName, UserError
from ralph_core.events import FailureKind, Tokens
from ralph_core.plugins.bounds import bounded
from ralph_core.state import SCHEMA, Attempt, Limits, RunState, Spend, Task
from ralph_core.verdicts import Outcome, OutcomeKind

RUN = "20250101-120000-abc123"
ENDED = Outcome(OutcomeKind.COMPLETED, "done", "agent")


def a_state(run=RUN, **changes):
    return replace(
        RunState(run=run, workspace="/w", agent="scripted", task=Task("d", text="do it"), started=1700000000.25),
        **changes,
    )


FULL = a_state(
    workspace="/w\udcff/新",  # a path that is not UTF-8
    limits=Limits(iterations=3, runtime=float("inf")),
    iteration=7,
    spend=Spend(Tokens(1, 2, 3, 4), 0.1 + 0.2, 1),
    current=Attempt(7, 1, "scripted", 2.0, spend=Spend(None, None, 1)),
    recent=(Attempt(6, 2, "scripted", 1.0, 2.0, "failed", FailureKind.CRASH, "a\nb\x00\x1b[31m \ud800"),),
    outcome=ENDED,
)


@pytest.fixture
def folder(tmp_path):
    return tmp_path


class TestTheDocument:
    """What `dump` writes and `parse` takes."""

    @pytest.mark.parametrize("state", [a_state(), FULL], ids=["small", "full"])
    def test_comes_back_equal(self, state):
        assert statefile.parse_state(statefile.dump_state(state)) == state

    def test_is_readable_json(self):
        document = json.loads(statefile.dump_state(FULL))
        assert document["state"]["recent"][0]["failure"] == "crash"
        assert document["state"]["spend"]["tokens"]["cache_write"] == 4
        assert b"\n" in statefile.dump_state(FULL)

    def test_every_torn_one_is_refused(self):
        data = statefile.dump_state(FULL)
        for end in range(len(data) - 2):  # the last two bytes are the brace and the line's end
            with pytest.raises(StoreError, match="torn or was edited"):
                statefile.parse_state(data[:end])

    def test_every_changed_value_is_refused(self):
        def edits(value, path=()):
            if isinstance(value, dict):
                for key in value:
                    yield from edits(value[key], (*path, key))
            elif isinstance(value, list):
                for at, item in enumerate(value):
                    yield from edits(item, (*path, at))
            else:
                yield path

        document = json.loads(statefile.dump_state(FULL))
        paths = list(edits(document))
        assert len(paths) > 40
        for path in paths:
            edited = json.loads(json.dumps(document))
            place = edited
            for key in path[:-1]:
                place = place[key]
            place[path[-1]] = 17 if place[path[-1]] != 17 else 18
            with pytest.raises(StoreError):
                statefile.parse_state(json.dumps(edited).encode())

    def test_indentation_is_nobody_s_business(self):
        assert statefile.parse_state(json.dumps(json.loads(statefile.dump_state(FULL))).encode()) == FULL

    @pytest.mark.parametrize(
        "data", [b"", b"null", b"[]", b"{}", b"\xff\xfe", b"[" * 100000, b'{"checksum": 3}', b"\0" * 4096], ids=range(8)
    )
    def test_nonsense_is_refused(self, data):
        with pytest.raises(StoreError):
            statefile.parse_state(data)

    def test_sealed_nonsense_is_refused(self):
        with pytest.raises(StoreError, match="does not hold a run's state"):
            statefile.parse_state(statefile.seal({"state": {"run": 3}}))
        with pytest.raises(StoreError, match="does not hold a run's state"):
            statefile.parse_state(statefile.seal({}))

    def test_of_a_newer_ralph_is_refused_with_the_reason(self):
        with pytest.raises(StoreError, match="newer Ralph"):
            statefile.parse_state(statefile.dump_state(a_state(schema=SCHEMA + 1)))

    def test_a_field_of_a_later_version_is_no_obstacle(self):
        content = statefile.unseal(statefile.dump_state(a_state()))
        content["state"]["mood"] = "good"
        assert statefile.parse_state(statefile.seal(content)) == a_state()


class TestTheFolder:
    """`write` keeps the one before; `read` falls back to it and says so."""

    def test_the_last_one_written_is_read_without_a_note(self, folder):
        for iteration in range(3):
            statefile.write(folder, a_state(iteration=iteration))
        assert statefile.read(folder) == statefile.Saved(a_state(iteration=2))
        assert sorted(path.name for path in folder.iterdir()) == ["state.json", "state.prev.json"]

    @pytest.mark.parametrize("damage", ["torn", "gone", "edited", "empty", "folder"])
    def test_a_damaged_one_gives_way_to_the_one_before(self, folder, damage):
        statefile.write(folder, a_state(iteration=1))
        statefile.write(folder, a_state(iteration=2))
        path = folder / "state.json"
        data = path.read_bytes()
        path.unlink()
        if damage == "folder":
            path.mkdir()
        elif damage != "gone":
            path.write_bytes(
                {"torn": data[:100], "edited": data.replace(b'"iteration": 2', b'"iteration": 3')}.get(damage, b"")
            )
        saved = statefile.read(folder)
        assert saved.state.iteration == 1
        assert "the state saved before it is used" in saved.note
        assert "state.json" in saved.note

    def test_a_torn_one_never_pushes_out_a_good_one(self, folder):
        statefile.write(folder, a_state(iteration=1))
        statefile.write(folder, a_state(iteration=2))
        (folder / "state.json").write_bytes(b"torn")
        statefile.write(folder, a_state(iteration=3))
        (folder / "state.json").write_bytes(b"torn")
        assert statefile.read(folder).state.iteration == 1

    def test_nothing_that_loads_is_an_error_naming_folder_and_faults(self, folder):
        with pytest.raises(StoreError, match=r"state\.json is missing; state\.prev\.json is missing") as caught:
            statefile.read(folder)
        assert str(folder) in str(caught.value)

    def test_without_hard_links_the_one_before_is_copied(self, folder, monkeypatch):
        def no_links(*_):
            raise OSError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(os, "link", no_links)
        for iteration in range(3):
            statefile.write(folder, a_state(iteration=iteration))
        (folder / "state.json").unlink()
        assert statefile.read(folder).state.iteration == 1

    def test_at_every_call_that_changes_the_disk_one_of_the_two_loads(self, folder, monkeypatch):
        """A crash is played before and after each such call; what is there then is copied and read."""
        seen = []

        def watched(owner, name):
            real = getattr(owner, name)

            def call(*args, **kwargs):
                look(f"before {name}")
                result = real(*args, **kwargs)
                look(f"after {name}")
                return result

            monkeypatch.setattr(owner, name, call)

        def look(instant):
            if looking:
                seen.append((instant, statefile.read(folder).state.iteration))

        looking = False
        for owner, name in [(os, "open"), (os, "fsync"), (os, "link"), (Path, "replace"), (Path, "unlink")]:
            watched(owner, name)
        statefile.write(folder, a_state(iteration=1))
        statefile.write(folder, a_state(iteration=2))
        looking = True
        statefile.write(folder, a_state(iteration=3))
        looking = False
        assert len(seen) >= 14
        assert {iteration for _, iteration in seen} == {2, 3}
        assert seen[-1][1] == 3

    @pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
    @pytest.mark.parametrize("failing", ["fsync", "replace"])
    def test_a_failing_disk_leaves_the_old_state_and_no_litter(self, folder, monkeypatch, code, failing):
        statefile.write(folder, a_state(iteration=1))

        def fail(*_):
            raise OSError(code, os.strerror(code))

        with monkeypatch.context() as patch:
            patch.setattr(Path if failing == "replace" else os, failing, fail)
            with pytest.raises(StoreError, match=os.strerror(code)) as caught:
                statefile.write(folder, a_state(iteration=2))
        assert str(folder / "state") in str(caught.value)
        assert statefile.read(folder) == statefile.Saved(a_state(iteration=1))
        assert not list(folder.glob(".*"))

    def test_a_full_disk_for_real(self):
        if not Path("/dev/full").exists():
            pytest.skip("no /dev/full here")
        with pytest.raises(StoreError, match="/dev/"):
            statefile.write_atomically(Path("/dev/full/state.json"), b"x")

    def test_a_folder_that_is_gone_is_named(self, folder):
        with pytest.raises(StoreError, match="nowhere"):
            statefile.write(folder / "nowhere", a_state())

    def test_home_ignores_itself_and_is_made_once(self, tmp_path):
        home = tmp_path / "a" / ".agent"
        statefile.ensure_home(home)
        assert (home / ".gitignore").read_text() == "*\n"
        (home / ".gitignore").write_text("mine\n")
        statefile.ensure_home(home)
        assert (home / ".gitignore").read_text() == "mine\n"

    def test_a_home_that_is_a_file_is_named(self, tmp_path):
        (tmp_path / "home").write_text("")
        with pytest.raises(StoreError, match="home"):
            statefile.ensure_home(tmp_path / "home")


@pytest.fixture
def store(tmp_path):
    return LocalStore(None, Context(tmp_path, tmp_path / ".agent", {}))


def saved_run(store, run, **changes):
    store.save(a_state(run, **changes), store.claim(run))


class TestTheLocalStore:
    """Claims fence off older writers; ids can't lead out of the directory; one torn run harms no other."""

    def test_saves_and_loads(self, store):
        saved_run(store, RUN, iteration=3)
        assert store.load(RUN).state.iteration == 3
        assert store.load(RUN).note == ""
        assert store.snapshot(a_state(), store.claim(RUN)) is None

    def test_a_newer_claim_fences_off_the_older_one(self, store, tmp_path):
        old = store.claim(RUN)
        store.save(a_state(iteration=1), old)
        new = LocalStore(None, store.context).claim(RUN)
        assert new.token > old.token
        with pytest.raises(LeaseLost, match="another Ralph process"):
            store.save(a_state(iteration=9), old)
        assert store.load(RUN).state.iteration == 1
        store.save(a_state(iteration=2), new)

    def test_racing_claims_get_different_tokens(self, store):
        store.claim(RUN)
        with multiprocessing.get_context("spawn").Pool(4) as pool:
            tokens = pool.map(_claim, [store.context.workspace] * 40)
        assert sorted(tokens) == list(range(2, 42))

    def test_a_lease_of_another_run_writes_nothing(self, store):
        lease = store.claim("20250101-120000-ffffff")
        with pytest.raises(LeaseLost):
            store.save(a_state(), lease)
        assert store.runs() == []

    @pytest.mark.parametrize("content", [b"", b"torn\0", b"\xff" * 30])
    def test_a_damaged_lease_still_grows(self, store, content):
        old = store.claim(RUN)
        (store.root / RUN / "lease").write_bytes(content)
        new = store.claim(RUN)
        store.save(a_state(), new)
        assert new.token >= old.token

    def test_a_directory_that_was_cleaned_away_comes_back_with_the_next_save(self, store):
        lease = store.claim(RUN)
        store.save(a_state(iteration=1), lease)
        shutil.rmtree(store.context.home)  # git clean -fdx, by an agent
        store.save(a_state(iteration=2), lease)
        assert store.load(RUN).state.iteration == 2
        assert store.claim(RUN).token == lease.token + 1

    def test_its_mark_for_git_comes_back_with_the_next_save(self, store):
        lease = store.claim(RUN)
        store.save(a_state(iteration=1), lease)
        ignore = store.context.home / ".gitignore"
        ignore.unlink()  # by an agent; what is in the directory would show in the user's `git status`
        store.save(a_state(iteration=2), lease)
        assert ignore.read_text() == "*\n"

    def test_a_lease_that_leads_nowhere_is_an_error_and_no_endless_search(self, store):
        lease = store.claim(RUN)
        path = store.folder(RUN) / "lease"
        path.unlink()
        path.symlink_to("/nonexistent/folder/lease")
        with pytest.raises(StoreError, match="lease"):
            bounded(lambda: store.save(a_state(), lease), 20)

    @pytest.mark.parametrize(
        "run", ["../evil", "", ".", "/etc", f"{RUN}/..", f"{RUN}\n", "20250101-120000-ABC123", "٢" * 22]
    )
    def test_what_is_no_id_never_reaches_the_disk(self, store, run, tmp_path):
        for use in (store.claim, store.load, store.folder, lambda run: store.save(a_state(run), None)):
            with pytest.raises(UserError, match="not the id of a run"):
                use(run)
        assert list(tmp_path.iterdir()) == []

    def test_an_unknown_run_is_answered_with_the_nearest(self, store):
        saved_run(store, RUN)
        with pytest.raises(UnknownName, match=f"did you mean '{RUN}'"):
            store.load("20250101-120000-abc124")

    def test_runs_are_listed_newest_first_without_those_that_do_not_load(self, store):
        ids = [f"202501{day:02d}-120000-abc123" for day in range(1, 6)]
        for run in ids:
            saved_run(store, run)
        for name in ("state.json", "state.prev.json"):
            (store.root / ids[2] / name).write_bytes(b"torn")
        store.claim("20250109-120000-abc123")  # never saved
        (store.root / "notes.txt").write_text("")
        (store.root / "20250108-120000-abc123").write_text("a file")
        assert store.runs() == [ids[4], ids[3], ids[1], ids[0]]
        with pytest.raises(StoreError, match=ids[2]):
            store.load(ids[2])
        assert store.load(ids[3]).state.run == ids[3]

    def test_the_state_of_another_run_is_refused(self, store):
        saved_run(store, RUN)
        shutil.copytree(store.root / RUN, store.root / "20250101-120000-ffffff")
        with pytest.raises(StoreError, match="another run"):
            store.load("20250101-120000-ffffff")

    def test_prune_keeps_the_newest_ended_and_all_that_have_not_ended(self, store):
        ids = [f"202501{day:02d}-120000-abc123" for day in range(1, 7)]
        for at, run in enumerate(ids):
            saved_run(store, run, outcome=None if at in (0, 3) else ENDED)
        assert store.prune(2) == 2
        assert store.runs() == [ids[5], ids[4], ids[3], ids[0]]
        assert store.prune(0) == 2
        assert store.runs() == [ids[3], ids[0]]
        assert sorted(path.name for path in store.root.iterdir()) == [ids[0], ids[3]]

    def test_prune_leaves_a_run_alone_in_which_somebody_writes(self, store):
        saved_run(store, RUN, outcome=ENDED)
        lease = store.claim(RUN)
        with LocalStore(None, store.context).held(lease):
            assert store.prune(0) == 0
        assert store.prune(0) == 1

    def test_leftovers_of_killed_writers_go_with_the_next_claim(self, store):
        saved_run(store, RUN)
        leftover = store.root / RUN / ".state.json.123-456.tmp"
        leftover.write_bytes(b"half")
        store.claim(RUN)
        assert not leftover.exists()


def _claim(workspace):
    return LocalStore(None, Context(workspace, workspace / ".agent", {})).claim(RUN).token
