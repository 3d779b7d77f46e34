"""Checkpoint stores with exactly one fault each, on the kit; run by test_kit_faults.py, which says what has to fail.

The store that is made worse is the one that `ralph plugins new acme --kind store` writes; where files matter, Ralph's own.
"""

import shutil
import sqlite3
import time
from contextlib import suppress
from dataclasses import replace

import pytest
from ralph_acme.store import AcmeStore

from ralph_core import Lease, LeaseLost, Provider, Saved, StoreError, UnknownName, UserError
from ralph_core.builtin.git import GitStore
from ralph_core.testing.stores import CheckpointStoreContract
from ralph_core.testing.values import fresh_state


class Base(CheckpointStoreContract):
    kills = 1
    able = frozenset()
    settings_model = "ralph_acme.settings:AcmeSettings"

    def __init_subclass__(cls):
        if "store_class" in vars(cls):
            globals()[f"Store_{cls.__name__}"] = cls.store_class
            factory = f"{__name__}:Store_{cls.__name__}"
            cls.provider = Provider("acme", "one", factory, cls.settings_model, frozenset(cls.able))


class Git(Base):
    able = ("snapshots",)
    settings_model = "ralph_core.builtin.gitreview:GitSettings"


class Test_none(Base):
    store_class = AcmeStore


class Test_none_of_files(Git):
    store_class = GitStore


class Test_forgets_a_part(Base):
    class store_class(AcmeStore):
        def save(self, state, lease, *, durable=True):
            super().save(replace(state, recent=state.recent[:10]), lease, durable=durable)


class Test_notes_on_nothing(Base):
    class store_class(AcmeStore):
        def load(self, run):
            return Saved(super().load(run).state, "the newest state was torn")


class Test_keeps_the_old_one(Base):
    class store_class(AcmeStore):
        def save(self, state, lease, *, durable=True):
            if not (durable and state.iteration == 5):
                super().save(state, lease, durable=durable)


class Test_durable_or_not_at_all(Base):
    class store_class(AcmeStore):
        def save(self, state, lease, *, durable=True):
            if durable or state.iteration != 4:
                super().save(state, lease, durable=durable)


class Test_oldest_first(Base):
    class store_class(AcmeStore):
        def runs(self):
            found = super().runs()
            return found[::-1] if len(found) == 4 else found


class Test_latest_is_the_first(Base):
    class store_class(AcmeStore):
        def latest(self):
            return self.runs()[-1] if self.runs() else None


class Test_knows_all_runs(Base):
    class store_class(AcmeStore):
        def load(self, run):
            try:
                return super().load(run)
            except UnknownName:
                return Saved(fresh_state())


class Test_takes_any_id(Base):
    class store_class(AcmeStore):
        def _database(self, run=None):
            return super()._database()


class Test_writes_outside(Base):
    class store_class(AcmeStore):
        def claim(self, run):
            with suppress(ValueError, OSError):
                (self.context.home / "runs" / run).mkdir(parents=True)
            return super().claim(run)


class Stale(AcmeStore):
    """What it does when a stale writer saves the second state."""

    def save(self, state, lease, *, durable=True):
        try:
            super().save(state, lease, durable=durable)
        except LeaseLost:
            if state.iteration != 2:
                raise
            self.lost(state)


class Test_lets_stale_writers_pass(Base):
    class store_class(Stale):
        def lost(self, state):
            pass


class Test_has_another_word_for_it(Base):
    class store_class(Stale):
        def lost(self, state):
            raise StoreError("somebody else is writing")


class Test_looks_at_the_lease_too_late(Base):
    class store_class(Stale):
        def lost(self, state):
            with self._database() as database:
                database.execute("UPDATE runs SET token = 1")
            super().save(state, Lease(state.run, 1))
            with self._database() as database:
                database.execute("UPDATE runs SET token = 2")
            raise LeaseLost("too late")


class Test_first_come_first_served(Base):
    class store_class(AcmeStore):
        def save(self, state, lease, *, durable=True):
            if lease.token == 2 and state.iteration == 3:
                raise LeaseLost("the first one has it")
            super().save(state, lease, durable=durable)


class Test_one_lease_for_all(Base):
    class store_class(AcmeStore):
        def save(self, state, lease, *, durable=True):
            super().save(state, Lease(state.run, lease.token), durable=durable)


class Test_remembers(Base):
    class store_class(AcmeStore):
        def load(self, run):
            self.seen = getattr(self, "seen", {})
            self.seen[run] = self.seen.get(run) or super().load(run)
            return self.seen[run]


class Test_forgets_other_processes(Base):
    class store_class(AcmeStore):
        def save(self, state, lease, *, durable=True):
            try:
                super().save(state, lease, durable=durable)
            except LeaseLost:
                if state.iteration != 3:
                    raise


class Test_writes_in_two_steps(Base):
    kills = 25

    class store_class(AcmeStore):
        def save(self, state, lease, *, durable=True):
            with self._database() as database:
                database.execute(
                    "UPDATE runs SET state = ? WHERE run = ? AND token = ?", (b"{", lease.run, lease.token)
                )
            super().save(state, lease, durable=durable)


class Test_prunes_live_runs(Base):
    class store_class(AcmeStore):
        def prune(self, keep):
            old = self.runs()[keep:]
            with sqlite3.connect(self.path) as database:
                database.executemany("DELETE FROM runs WHERE run = ?", [(run,) for run in old])
            return len(old)


class Test_miscounts(Base):
    class store_class(AcmeStore):
        def prune(self, keep):
            super().prune(keep)
            return 0


class Test_keeps_no_head(Base):
    class store_class(AcmeStore):
        def anchor(self, state, lease):
            pass


class Test_forgets_the_head(Base):
    class store_class(AcmeStore):
        def anchors(self, run):
            return ()


class Away(Base):
    """Kept in the workspace, outside of the state directory."""

    @pytest.fixture
    def settings(self):
        return {"path": "states.db"}


class Test_none_away(Away):
    store_class = AcmeStore


class Test_packs_nothing(Away):
    class store_class(AcmeStore):
        def pack(self, folder):
            pass


class Test_packs_no_files(Git):
    class store_class(GitStore):
        def pack(self, folder):
            pass


class Test_unpacks_once(Away):
    class store_class(AcmeStore):
        def unpack(self, folder):
            if self.runs():
                raise UserError("there is something here already")
            super().unpack(folder)


class Test_unpacks_over_all(Away):
    class store_class(AcmeStore):
        def unpack(self, folder):
            shutil.copyfile(folder / self.path.name, self.path)


class Test_has_another_word_for_a_contradiction(Away):
    class store_class(AcmeStore):
        def unpack(self, folder):
            try:
                super().unpack(folder)
            except UserError as error:
                raise StoreError("there is another one") from error


class Test_promises_snapshots(Base):
    able = ("snapshots",)
    store_class = AcmeStore


class Test_hides_snapshots(Git):
    able = ()
    store_class = GitStore


class Test_gives_another_name(Git):
    class store_class(GitStore):
        def snapshot(self, state, lease):
            taken = super().snapshot(state, lease)
            second = (self.context.workspace / "README").read_bytes() == b"1\n"
            return replace(taken, ref=f"{taken.ref}~") if second else taken


class Test_history_backwards(Git):
    class store_class(GitStore):
        def history(self, run):
            return super().history(run)[::-1]


class Test_restores_for_good(Git):
    class store_class(GitStore):
        def restore(self, ref, into):
            super().restore(ref, into)


class Test_restores_nothing_elsewhere(Git):
    class store_class(GitStore):
        def restore(self, ref, into):
            return super().restore(ref, into) if into == self.context.workspace else None


class Test_sees_no_change(Git):
    class store_class(GitStore):
        def diff(self, ref, other=None):
            return b""


class Test_names_other_files(Git):
    class store_class(GitStore):
        def changed_files(self, run):
            return ["all"]


class Test_looks_for_good(Git):
    class store_class(GitStore):
        """What it has once seen, it takes for what is there."""

        def look(self, state, lease):
            super().look(state, lease)
            self.seen = getattr(self, "seen", None) or self._lines[state.run].found

        def snapshot(self, state, lease):
            if getattr(self, "seen", None) and state.run in self._lines:
                self._lines[state.run].found = (state.attempts, self.seen[1])
            return super().snapshot(state, lease)


class Test_fingerprint_of_the_time(Git):
    class store_class(GitStore):
        def fingerprint(self, state, lease):
            return str(time.monotonic_ns())
