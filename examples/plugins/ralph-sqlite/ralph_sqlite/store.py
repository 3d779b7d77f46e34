"""A checkpoint store on SQLite: the state of runs in one database, and no snapshots of files."""

import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from ralph_core import (
    CheckpointStore,
    Context,
    Lease,
    LeaseLost,
    RunState,
    Saved,
    StoreError,
    UnknownName,
    UserError,
    dump_state,
    parse_state,
)

TABLE = "CREATE TABLE IF NOT EXISTS runs (run TEXT PRIMARY KEY, token INTEGER NOT NULL, state BLOB, ended INTEGER)"
RUN_ID = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{6}")


class SqliteSettings(BaseModel):
    """Settings of the store `sqlite`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str | None = None
    """The database, relative to the workspace; `runs.sqlite` in the state directory without it."""


class SqliteStore(CheckpointStore):
    """One row a run. Each call is one transaction, so that a crash leaves this state or the one before."""

    settings: SqliteSettings

    def __init__(self, settings: SqliteSettings, context: Context) -> None:
        super().__init__(settings, context)
        named = settings.path
        self._path = context.home / "runs.sqlite" if named is None else Path(context.workspace, named)

    def claim(self, run: str) -> Lease:
        _check(run)
        with self._database() as database:
            database.execute(
                "INSERT INTO runs VALUES (?, 1, NULL, 0) ON CONFLICT (run) DO UPDATE SET token = token + 1", (run,)
            )
            (token,) = database.execute("SELECT token FROM runs WHERE run = ?", (run,)).fetchone()
        return Lease(run, token)

    def save(self, state: RunState, lease: Lease, *, durable: bool = True) -> None:
        _check(state.run)
        if state.run != lease.run:
            raise LeaseLost(f"the lease is for run {lease.run}, not for {state.run}")
        with self._database() as database:  # SQLite makes every transaction durable
            row = (dump_state(state), state.outcome is not None, lease.run, lease.token)
            changed = database.execute("UPDATE runs SET state = ?, ended = ? WHERE run = ? AND token = ?", row).rowcount
            if not changed:
                raise LeaseLost(f"run {lease.run} was taken over by another Ralph process")

    def load(self, run: str) -> Saved:
        _check(run)
        with self._database() as database:
            row = database.execute("SELECT state FROM runs WHERE run = ? AND state IS NOT NULL", (run,)).fetchone()
        if row is None:
            raise UnknownName("run", run, self.runs(), where=str(self._path))
        return Saved(parse_state(row[0]))

    def runs(self) -> Sequence[str]:
        with self._database() as database:
            rows = database.execute("SELECT run FROM runs WHERE state IS NOT NULL ORDER BY run DESC").fetchall()
        return [run for (run,) in rows]

    def prune(self, keep: int) -> int:
        old = "SELECT run FROM runs WHERE ended ORDER BY run DESC LIMIT -1 OFFSET ?"
        with self._database() as database:
            return database.execute(f"DELETE FROM runs WHERE run IN ({old})", (max(keep, 0),)).rowcount

    def pack(self, folder: Path) -> None:
        """A copy that is whole, whoever writes meanwhile."""
        packed = folder / self._path.name
        with self._database(), closing(sqlite3.connect(self._path)) as whole, closing(sqlite3.connect(packed)) as copy:
            whole.backup(copy)

    def unpack(self, folder: Path) -> None:
        path = folder / self._path.name
        if not path.is_file():  # it was another store that has packed
            return
        with closing(sqlite3.connect(path)) as packed:
            rows = packed.execute("SELECT run, token, state, ended FROM runs").fetchall()
        with self._database() as database:
            for row in rows:
                here = database.execute("SELECT state FROM runs WHERE run = ?", row[:1]).fetchone()
                if here is not None and here != (row[2],):
                    raise UserError(
                        f"run {row[0]} is here already, in another state", mend="restore into another clone"
                    )
                database.execute("INSERT OR IGNORE INTO runs VALUES (?, ?, ?, ?)", row)

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        """A transaction that is written when the block ends well, and undone when it does not. Raises `StoreError`."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            database = sqlite3.connect(self._path, timeout=30, isolation_level=None)
            try:
                database.execute("PRAGMA synchronous = FULL")
                database.execute(TABLE)
                database.execute("BEGIN IMMEDIATE")
                yield database
                database.execute("COMMIT")
            finally:
                database.close()  # what was not committed is undone
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"can't use {self._path}: {error}") from error


def _check(run: str) -> None:
    if not RUN_ID.fullmatch(run):
        raise UserError(f"{run!r} is not the id of a run", mend="ids look like 20250131-235959-1a2b3c")
