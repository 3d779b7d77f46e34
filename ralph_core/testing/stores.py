"""What every checkpoint store has to hold, wherever it keeps the states.

    class TestAcme(CheckpointStoreContract):
        provider = "acme"

        @pytest.fixture
        def settings(self, tmp_path):
            return {"path": str(tmp_path / "acme.db")}

Each rule opens stores on a place of its own, by the provider's factory, as a run does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest

from ralph_core import backup
from ralph_core.contracts import Capability, CheckpointStore, Context, Lease, Provider, Saved, Snapshot
from ralph_core.errors import LeaseLost, RalphError, UserError
from ralph_core.testing.killed import in_another_process
from ralph_core.testing.rules import Named, broken, built, clean_env, context_in, found, holds
from ralph_core.testing.values import ended_state, fresh_state, long_state, rich_state, run_id, unknown_state

EVIL = ("../evil", "../../../evil", "..", "", "a/../../evil", "20251121-120000-00000\n", "evil\0")
FILES = {"README": b"hello\n", "deep/down/\xe9\u6f22.txt": "漢字\n".encode(), "binary": bytes(range(256)) * 100}


@dataclass(frozen=True)
class Opener:
    """Opens the store under test: each time another instance on the same place."""

    provider: Provider[Any]
    settings: Mapping[str, Any]
    context: Context

    def __call__(self) -> CheckpointStore:
        store: CheckpointStore = built("store", self.provider, self.settings, self.context)
        return store

    def elsewhere(self, job: str, **more: Any) -> list[dict[str, Any]]:
        """Do something in another process."""
        return in_another_process(job, self.provider, self.settings, self.context, **more)


class CheckpointStoreContract:
    """The rules for checkpoint stores. Override the fixture `settings` if it needs any."""

    provider: ClassVar[Named] = ""
    """What is tested: the name of an installed provider, or a `Provider` that no plugin declares yet."""
    kills: ClassVar[int] = 25
    """How often a saving process is killed."""

    @pytest.fixture
    def settings(self) -> Mapping[str, Any]:
        """To be overridden: the store's section of the settings."""
        return {}

    @pytest.fixture
    def settings_elsewhere(self, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        """To be overridden where `settings` name a place outside of the workspace: those of another machine."""
        return settings

    @pytest.fixture
    def opened(self, settings: Mapping[str, Any], tmp_path: Path) -> Opener:
        provider = found("store", self.provider)
        return Opener(provider, settings, context_in(tmp_path / "place", clean_env(tmp_path / "place")))

    @pytest.fixture
    def elsewhere(self, opened: Opener, settings_elsewhere: Mapping[str, Any], tmp_path: Path) -> Opener:
        """Opens the store in another workspace, as on another machine."""
        place = tmp_path / "elsewhere"
        return Opener(opened.provider, settings_elsewhere, context_in(place, clean_env(place)))

    @pytest.fixture
    def store(self, opened: Opener) -> CheckpointStore:
        return opened()

    # --- states ---

    @pytest.mark.parametrize(
        "state",
        [fresh_state(), rich_state(), ended_state(), unknown_state(), long_state()],
        ids=["fresh", "rich", "ended", "unknown", "long"],
    )
    def test_loads_what_was_saved(self, store: CheckpointStore, state: Any) -> None:
        """A state comes back as it was saved, to the last field: fresh, ended, of unknown spend, with all of Unicode in it, or long."""
        store.save(state, store.claim(state.run))
        saved = store.load(state.run)
        holds(
            isinstance(saved, Saved) and saved.state == state,
            f"of a state that was saved, these fields came back otherwise: {_differences(state, saved)}",
            mend="keep all of the state: ralph_core.dump_state and parse_state turn it into checked bytes and back",
        )
        holds(
            not saved.note, f"the newest state is there, and the note says {saved.note!r}", mend="leave the note empty"
        )

    def test_the_last_state_wins(self, store: CheckpointStore) -> None:
        """Of several states of a run, the one that was saved last is loaded."""
        lease = store.claim(run_id(0))
        for step in range(1, 6):
            store.save(rich_state(step=step), lease)
        holds(
            store.load(run_id(0)).state == rich_state(step=5),
            "after five saves, another state than the last one is loaded",
            mend="let each save take the place of the one before",
        )

    def test_saves_that_need_not_be_durable(self, store: CheckpointStore) -> None:
        """What was saved with `durable=False` loads as well."""
        lease = store.claim(run_id(0))
        for step in range(1, 5):
            store.save(rich_state(step=step), lease, durable=False)
        holds(
            store.load(run_id(0)).state == rich_state(step=4),
            "a state saved with durable=False does not load",
            mend="durable=False spares the wait for the disk, and nothing else",
        )

    def test_lists_the_newest_run_first(self, store: CheckpointStore) -> None:
        """`runs` gives the ids of all runs, the newest first."""
        for number in (2, 0, 3, 1):
            store.save(rich_state(number), store.claim(run_id(number)))
        wanted = [run_id(number) for number in (3, 2, 1, 0)]
        runs = list(store.runs())
        holds(runs == wanted, f"runs() answers {runs}, not {wanted}", mend="sort the ids, the largest first")

    def test_knows_the_latest_run(self, store: CheckpointStore) -> None:
        """`latest` is the newest run, and None when there is none."""
        holds(store.latest() is None, f"an empty store's latest run is {store.latest()!r}", mend="answer None")
        for number in (1, 2, 0):
            store.save(rich_state(number), store.claim(run_id(number)))
        holds(store.latest() == run_id(2), f"latest() answers {store.latest()!r}", mend="answer the largest id")

    def test_refuses_a_run_that_it_does_not_know(self, store: CheckpointStore) -> None:
        """A run that was never saved is an error of Ralph's, no empty state."""
        _refused(
            lambda: store.load(run_id(5)),
            "a run that was never saved is loaded",
            mend="raise StoreError or UnknownName",
        )

    def test_ids_lead_nowhere_else(self, opened: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """What is no id of a run, such as `../evil`, is refused before anything is done."""
        monkeypatch.chdir(tmp_path)
        before = _outside(tmp_path, opened.context.home)
        for evil in (*EVIL, str(tmp_path / "evil")):
            state = replace(rich_state(), run=evil)
            attempts: dict[str, Callable[[], object]] = {
                "claimed": partial(opened().claim, evil),
                "saved": partial(opened().save, state, Lease(evil, 1)),
                "loaded": partial(opened().load, evil),
            }
            for what, attempt in attempts.items():
                _refused(
                    attempt,
                    f"a run {evil!r} is {what}",
                    mend="refuse an id that is not as ids are (20250131-235959-1a2b3c): raise UserError",
                )
        holds(
            _outside(tmp_path, opened.context.home) == before,
            "for a bad id, something was written outside of the state directory",
            mend="check the id before anything else is done",
        )

    # --- leases ---

    def test_a_stale_writer_is_fenced_off(self, opened: Opener) -> None:
        """Who has claimed a run before somebody else did gets `LeaseLost`, and changes nothing."""
        old, new = opened(), opened()
        stale = old.claim(run_id(0))
        old.save(rich_state(step=1), stale)
        fresh = new.claim(run_id(0))
        holds(
            fresh.token > stale.token,
            f"token {fresh.token} follows {stale.token}",
            mend="let tokens grow with each claim",
        )
        try:
            old.save(rich_state(step=2), stale)
        except LeaseLost:
            pass
        except Exception as error:
            broken(f"a stale writer's save raised {type(error).__name__}: {error}", mend="raise LeaseLost")
        else:
            broken(
                "a writer whose lease was taken over could save", mend="compare tokens in each save; raise LeaseLost"
            )
        holds(
            new.load(run_id(0)).state == rich_state(step=1),
            "the save that raised LeaseLost has changed what is loaded",
            mend="compare tokens before anything is written, under the same lock",
        )

    def test_the_new_writer_can_save(self, opened: Opener) -> None:
        """Who has claimed a run last can save."""
        opened().claim(run_id(0))
        store = opened()
        try:
            store.save(rich_state(step=3), store.claim(run_id(0)))
        except LeaseLost as error:
            broken(f"who claimed last could not save: {error}", mend="let the highest token write")
        holds(
            store.load(run_id(0)).state == rich_state(step=3),
            "what the last one to claim has saved does not load",
            mend="let the highest token write",
        )

    def test_a_lease_is_for_one_run(self, store: CheckpointStore) -> None:
        """With the lease of one run, no other is saved."""
        store.save(rich_state(1), store.claim(run_id(1)))
        lease = store.claim(run_id(0))
        _refused(
            lambda: store.save(rich_state(1, step=9), lease),
            "with the lease of one run, the state of another was saved",
            mend="raise LeaseLost if state.run is not lease.run",
        )
        holds(
            store.load(run_id(1)).state == rich_state(1),
            "the save that was refused has changed what is loaded",
            mend="compare the runs before anything is written",
        )

    # --- several of them, and death ---

    def test_two_instances_see_the_same(self, opened: Opener) -> None:
        """What one instance has saved, another one in the same process loads."""
        first, second = opened(), opened()
        lease = first.claim(run_id(0))
        for step in (1, 2):
            first.save(rich_state(step=step), lease)
            holds(
                second.load(run_id(0)).state == rich_state(step=step) and list(second.runs()) == [run_id(0)],
                "what one instance has saved, another one does not see",
                mend="keep no copy in memory that others can't see",
            )

    def test_two_processes_see_the_same(self, opened: Opener) -> None:
        """What another process has saved is loaded, and its claim fences this one off."""
        here = opened()
        lease = here.claim(run_id(0))
        here.save(rich_state(step=1), lease)
        try:
            opened.elsewhere("save", run=0, step=2)
        except RuntimeError as error:
            broken(f"in another process: {error}", mend="keep all that a store needs in its settings and context")
        holds(
            here.load(run_id(0)).state == rich_state(step=2),
            "what another process has saved, this one does not see",
            mend="keep no copy in memory, and no lock for longer than a call",
        )
        try:
            here.save(rich_state(step=3), lease)
        except LeaseLost:
            return
        broken(
            "another process has claimed the run, and this one could save", mend="keep the tokens where all see them"
        )

    def test_survives_kill_9(self, opened: Opener) -> None:
        """A process that saves is killed at random instants: the last state that was acknowledged loads, or the one after, whole."""
        try:
            kills = opened.elsewhere("kill saving", times=self.kills)
        except RuntimeError as error:
            broken(f"in another process: {error}", mend="let a store be opened and used after its last user was killed")
        for kill in kills:
            holds(
                "error" not in kill,
                f"after kill -9 of a saving process, loading raised {kill.get('error')}",
                mend="write beside the old state and rename, or use one transaction: at no instant may it be half there",
            )
            holds(
                kill["loaded"] >= kill["acknowledged"],
                f"save {kill['acknowledged']} had returned when kill -9 came, and {kill['loaded']} was loaded",
                mend="return from save only when the state is with the operating system, and loads",
            )
            holds(
                kill["whole"] and kill["loaded"] <= kill["acknowledged"] + 1,
                f"after kill -9, a state was loaded that nobody has saved (number {kill['loaded']})",
                mend="never mix two states: replace the whole of it at once",
            )

    def test_prune_keeps_live_runs(self, store: CheckpointStore) -> None:
        """`prune` forgets runs that have ended, but for the newest, never one that goes on, and counts what it forgot."""
        for number in range(1, 5):
            store.save(ended_state(number), store.claim(run_id(number)))
        store.save(rich_state(0), store.claim(run_id(0)))
        store.save(rich_state(9), store.claim(run_id(9)))
        forgotten = store.prune(2)
        left = list(store.runs())
        holds(
            {run_id(0), run_id(9)} <= set(left),
            "prune has forgotten a run that has not ended",
            mend="forget only runs whose state has an outcome",
        )
        holds(
            {run_id(4), run_id(3)} <= set(left) and forgotten == 6 - len(left),
            f"prune(2) of four ended runs says {forgotten}, and left are {left}",
            mend="keep the newest `keep` of the ended runs, and return how many were forgotten",
        )

    # --- the account, and backups ---

    def test_heads_of_the_account_are_kept(self, store: CheckpointStore, opened: Opener) -> None:
        """What `anchor` was given is among the `anchors` of the run, for another instance, too; and it is the state that loads."""
        lease = store.claim(run_id(0))
        store.save(rich_state(step=1), lease)
        state = replace(rich_state(step=2), audit_seq=99, audit_hash="cd" * 32)
        store.anchor(state, lease)
        holds(
            store.load(run_id(0)).state == state,
            "the state that anchor was given is not the one that loads",
            mend="save the state in anchor, too: leave it to the base class, or call super().anchor(state, lease)",
        )
        kept = [(each.seq, each.hash) for each in opened().anchors(run_id(0)) if each.where]
        holds(
            (99, "cd" * 32) in kept,
            f"of the account's head, number 99, anchors() answers {kept}",
            mend="answer an Anchor for each head that was kept, with the place in words; the base class reads the state's",
        )

    def test_a_backup_can_be_put_back(
        self, store: CheckpointStore, opened: Opener, elsewhere: Opener, tmp_path: Path
    ) -> None:
        """What `ralph backup` makes and puts back in another place has every run and snapshot, and a run can go on there."""
        taken = self._taken(store, opened)
        states = [ended_state(1), replace(rich_state(0), snapshot=taken.ref if taken else None)]
        for state in states:
            store.save(state, store.claim(state.run))
        path, into = tmp_path / "backup", elsewhere.context.workspace
        backup.create(path, opened.context.workspace, opened.context.home, store)
        backup.restore(path, elsewhere.context.home, elsewhere())
        there = elsewhere()
        holds(
            set(there.runs()) == {state.run for state in states}
            and all(there.load(state.run).state == state for state in states),
            f"of the runs {sorted(store.runs())}, after a backup and its restore in another place: {sorted(there.runs())}, or "
            "their states are others",
            mend="write in `pack` what is kept outside of the state directory, and take it in again in `unpack`",
        )
        if taken is not None:
            mend = "write the snapshots in `pack`, and take them in again in `unpack`"
            history = [each.ref for each in there.history(run_id(0))]
            holds(history == [taken.ref], f"of the snapshot {taken.ref}, the backup has {history}", mend=mend)
            there.restore(taken.ref, into)
            holds(_files(into) == FILES, "of a snapshot, the backup has not all files", mend=mend)
        there.save(rich_state(step=9), there.claim(run_id(0)))

    def test_unpack_can_be_repeated(
        self, store: CheckpointStore, opened: Opener, elsewhere: Opener, tmp_path: Path
    ) -> None:
        """A restore that was cut short begins again: what `unpack` has taken in already is no contradiction."""
        self._taken(store, opened)
        folder = tmp_path / "packed"
        folder.mkdir()
        store.pack(folder)
        elsewhere().unpack(folder)
        try:
            elsewhere().unpack(folder)
        except Exception as error:
            broken(
                f"unpacked twice, unpack raised {type(error).__name__}: {error}",
                mend="leave what is here already and is the same",
            )

    def test_unpack_overwrites_nothing(
        self, store: CheckpointStore, opened: Opener, elsewhere: Opener, tmp_path: Path
    ) -> None:
        """A run that is there already in another state stays as it is: `unpack` raises `UserError`, or does not touch it."""
        self._taken(store, opened)
        folder = tmp_path / "packed"
        folder.mkdir()
        store.pack(folder)
        there = elsewhere()
        self._taken(there, elsewhere, {"README": b"other words\n"}, step=8)
        before = there.load(run_id(0)).state, [each.ref for each in there.history(run_id(0))]
        try:
            elsewhere().unpack(folder)
        except UserError:
            pass
        except Exception as error:
            broken(
                f"what is here contradicts the backup, and unpack raised {type(error).__name__}: {error}",
                mend="raise UserError, with what is in the way, and what to do",
            )
        there = elsewhere()
        after = there.load(run_id(0)).state, [each.ref for each in there.history(run_id(0))]
        holds(
            before == after,
            "unpack has changed a run that was there already",
            mend="compare before anything is written, and raise UserError where a run is another one",
        )

    # --- files ---

    def test_snapshots_are_declared(self, store: CheckpointStore, opened: Opener) -> None:
        """A store keeps files if, and only if, its provider says so."""
        declared = Capability.SNAPSHOTS in opened.provider.capabilities
        taken = self._taken(store, opened)
        holds(
            (taken is not None) == declared,
            f"drift: the capability snapshots is {'' if declared else 'not '}declared, and snapshot() answers {taken!r:.100}",
            mend="declare it, or answer None",
        )

    def test_snapshots_have_a_history(self, store: CheckpointStore, opened: Opener) -> None:
        """`history` has every snapshot of a run, oldest first, each with a ref of its own, its run and its iteration."""
        taken = [self._taken(store, opened, {"README": f"{number}\n".encode()}) for number in range(3)]
        history = store.history(run_id(0))
        if None in taken:
            holds(not history, "drift: there is a history without snapshots", mend="answer () from history")
            return
        assert all(isinstance(each, Snapshot) for each in taken)
        refs = [each.ref for each in taken if each]
        holds(
            [each.ref for each in history] == refs and len(set(refs)) == 3,
            f"the snapshots {refs} were taken, and history() answers {[each.ref for each in history]}",
            mend="answer all snapshots of the run, oldest first, each with a ref of its own",
        )
        holds(
            all(each.run == run_id(0) and each.iteration == 7 for each in history),
            "a snapshot does not say of which run and iteration it is",
            mend="fill in run and iteration from the state",
        )

    def test_files_are_put_back(self, store: CheckpointStore, opened: Opener) -> None:
        """`restore` makes the workspace's files those of the snapshot, and takes one of what was there before."""
        taken = self._taken(store, opened)
        if taken is None:
            return  # keeps states alone: see test_snapshots_are_declared
        workspace = opened.context.workspace
        for path in FILES:
            (workspace / path).unlink()
        later = {"README": b"changed\n", "new": b"new\n"}
        _write(workspace, later)
        undo = store.restore(taken.ref, workspace)
        holds(
            _files(workspace) == FILES,
            f"restored, the files are {sorted(_files(workspace))}, or their content is another",
            mend="make the workspace's files those of the snapshot: changed, missing and new ones too",
        )
        holds(undo is not None, "restore took no snapshot of what was there", mend="take one first, and return it")
        assert undo is not None
        store.restore(undo.ref, workspace)
        holds(
            _files(workspace) == later,
            "the snapshot that restore has taken does not hold what was there",
            mend="take it before anything is changed",
        )

    def test_files_are_put_elsewhere(self, store: CheckpointStore, opened: Opener, tmp_path: Path) -> None:
        """`restore` into an empty directory writes all files."""
        taken = self._taken(store, opened)
        if taken is None:
            return
        into = tmp_path / "elsewhere"
        into.mkdir()
        store.restore(taken.ref, into)
        holds(
            _files(into) == FILES, "restored into an empty directory, files are missing or other", mend="write them all"
        )

    def test_changes_are_told(self, store: CheckpointStore, opened: Opener) -> None:
        """`diff` says in a unified diff what changed from one snapshot to another, `changed_files` the paths."""
        first = self._taken(store, opened)
        second = self._taken(store, opened, {"README": b"bye\n"})
        if first is None or second is None:
            return
        diff = store.diff(first.ref, second.ref)
        holds(
            b"-hello" in diff and b"+bye" in diff and b"README" in diff,
            f"the diff of two snapshots is {diff!r:.200}",
            mend="answer a unified diff, from the first to the second",
        )
        changed = store.changed_files(run_id(0))
        holds(
            changed is None or list(changed) == ["README"],
            f"changed_files() answers {changed}, not ['README']",
            mend="answer the paths that differ between the first and the last snapshot, or None",
        )

    def test_a_look_is_for_the_snapshot_that_follows(self, store: CheckpointStore, opened: Opener) -> None:
        """A snapshot holds the files as they were at the `look` before it, or as they are; a later one, those of its own time."""
        if self._taken(store, opened) is None:
            return
        state, workspace = rich_state(), opened.context.workspace
        lease = store.claim(state.run)
        found = []
        for number in range(2):
            (workspace / "README").write_bytes(b"words %d\n" % number)
            store.look(state, lease)
            store.save(state, lease)
            taken = store.snapshot(state, lease)
            state = replace(state, attempts=state.attempts + 1)
            assert taken is not None
            into = workspace.parent / f"looked-{number}"
            into.mkdir()
            store.restore(taken.ref, into)
            there = into / "README"
            found.append(there.read_bytes() if there.exists() else None)  # that it must be there is another rule's
        holds(
            None in found or found == [b"words 0\n", b"words 1\n"],
            f"after a look, the snapshots hold {found}",
            mend="use what a look found for the next snapshot alone",
        )

    def test_fingerprint_names_the_files(self, store: CheckpointStore, opened: Opener) -> None:
        """`fingerprint` is the same as long as the files are, and another when one changes."""
        if self._taken(store, opened) is None:
            return
        state, workspace = rich_state(), opened.context.workspace
        lease = store.claim(state.run)
        before = store.fingerprint(state, lease)
        same = store.fingerprint(state, lease)
        (workspace / "README").write_bytes(b"other words\n")
        other = store.fingerprint(state, lease)
        (workspace / "README").write_bytes(FILES["README"])
        again = store.fingerprint(state, lease)
        holds(
            before is None or (before == same == again and other != before),
            f"fingerprints: {before}, unchanged {same}, changed {other}, put back {again}",
            mend="derive it from the content of the files alone, or answer None",
        )

    @staticmethod
    def _taken(
        store: CheckpointStore, opened: Opener, files: Mapping[str, bytes] = FILES, *, step: int = 7
    ) -> Snapshot | None:
        """A snapshot of the workspace with these files."""
        state = rich_state(step=step)
        _write(opened.context.workspace, files)
        lease = store.claim(state.run)
        store.save(state, lease)
        return store.snapshot(state, lease)


def _refused(call: Callable[[], object], otherwise: str, *, mend: str) -> None:
    """The call raises an error of Ralph's."""
    try:
        call()
    except RalphError:
        return
    except Exception as error:
        broken(f"{otherwise}, or at least tried: {type(error).__name__}: {error}", mend=mend)
    broken(otherwise, mend=mend)


def _differences(state: object, saved: object) -> str:
    loaded = getattr(saved, "state", None)
    return ", ".join(name for name, value in vars(state).items() if getattr(loaded, name, None) != value) or repr(saved)


def _write(workspace: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        (workspace / name).parent.mkdir(parents=True, exist_ok=True)
        (workspace / name).write_bytes(content)


def _files(folder: Path) -> dict[str, bytes]:
    """The files below a folder, Ralph's own state left out."""
    return {
        name: path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not (name := path.relative_to(folder).as_posix()).startswith(".agent/")
    }


def _outside(top: Path, home: Path) -> set[str]:
    """All paths below `top` that are not Ralph's."""
    return {str(path) for path in top.rglob("*") if not path.is_relative_to(home)}
