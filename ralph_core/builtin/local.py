"""Keeps the state of runs in files of Ralph's own directory, and no snapshots."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

from ralph_core import statefile
from ralph_core.contracts import CheckpointStore, Lease, Saved
from ralph_core.errors import LeaseLost, StoreError, UnknownName, UserError
from ralph_core.state import RunState

RUN_ID = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{6}")
LOCK_PATIENCE = 30.0
"""Seconds to wait for another writer's save to end; only one that was stopped (SIGSTOP) takes that long."""
CLEARED_AWAY = 5
"""How often a save is tried again whose folder goes away meanwhile, as by an agent's `git clean -fdx`."""
_FORGOTTEN = ".forgotten-"


class LocalStore(CheckpointStore):
    """State only: `<home>/runs/<id>/state.json`, the one before it, and the `lease` that says who may write."""

    _durable = False
    """Whether the state saved last was written to survive a power cut."""

    @cached_property
    def root(self) -> Path:
        """The folder that holds a folder for each run."""
        return self.context.home.absolute() / "runs"

    def folder(self, run: str) -> Path:
        """The folder of `run`. Raises `UserError` if that can't be a run's id: an id never leads anywhere else."""
        if not RUN_ID.fullmatch(run):
            raise UserError(f"{run!r} is not the id of a run", mend="ids look like 20250131-235959-1a2b3c")
        return self.root / run

    def claim(self, run: str) -> Lease:
        folder = self.folder(run)
        statefile.ensure_home(self.context.home)
        with _locked(folder) as lease:
            token = _token(lease) + 1
            _write_token(folder, lease, token)
            statefile.sweep(folder)
        return Lease(run, token)

    def save(self, state: RunState, lease: Lease, *, durable: bool = True) -> None:
        durable = durable or not self._durable  # of two states in a row, one survives a power cut
        folder = self.folder(state.run)
        if state.run != lease.run:
            raise LeaseLost(f"the lease is for run {lease.run}, not for {state.run}")
        for tries in range(CLEARED_AWAY, -1, -1):
            try:
                with self.held(lease):
                    statefile.write(folder, state, durable=durable)
            except StoreError as error:
                if not tries or not isinstance(error.__cause__, FileNotFoundError):
                    raise
                time.sleep(0.02)  # somebody clears the folder away at this very moment
            else:
                self._durable = durable
                return

    @contextmanager
    def held(self, lease: Lease) -> Iterator[None]:
        """Nobody else can claim or save meanwhile. Raises `LeaseLost` at once if a newer claim exists."""
        folder = self.folder(lease.run)
        if not os.path.exists(self.context.home / statefile.IGNORE):  # noqa: PTH110 - False, too, where it can't be told
            statefile.ensure_home(self.context.home)  # an agent's `git clean -fdx` takes it away, the run goes on
        with _locked(folder) as handle:
            token = _token(handle)
            if token > lease.token:
                raise LeaseLost(f"run {lease.run} was taken over by another Ralph process ({folder / 'lease'})")
            if token < lease.token:
                _write_token(folder, handle, lease.token)
            yield

    def load(self, run: str) -> Saved:
        folder = self.folder(run)
        if not folder.is_dir():
            raise UnknownName("run", run, self.runs(), where=str(self.root))
        saved = statefile.read(folder)
        if saved.state.run != run:
            raise StoreError(f"{folder}: holds the state of another run, {saved.state.run!r}")
        return saved

    def runs(self) -> Sequence[str]:
        return sorted((run for run in self._folders() if statefile.loads(self.root / run)), reverse=True)

    def latest(self) -> str | None:
        return next((run for run in sorted(self._folders(), reverse=True) if statefile.loads(self.root / run)), None)

    def prune(self, keep: int) -> int:
        ended = [run for run in self.runs() if self._has_ended(run)]
        return sum(self._forget(run) for run in ended[max(keep, 0) :])

    def _folders(self) -> list[str]:
        try:
            return [entry.name for entry in os.scandir(self.root) if RUN_ID.fullmatch(entry.name) and entry.is_dir()]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StoreError(f"can't read {self.root}: {error.strerror or error}") from error

    def _has_ended(self, run: str) -> bool:
        try:
            return self.load(run).state.outcome is not None
        except StoreError:
            return False

    def _forget(self, run: str) -> bool:
        """Remove the folder of `run`, unless somebody is writing there; returns whether it is gone."""
        folder = self.folder(run)
        if not folder.is_dir():
            return True
        gone = self.root / f"{_FORGOTTEN}{run}"
        try:
            with _locked(folder, patience=0.0):
                if not self._has_ended(run):  # it was resumed meanwhile
                    return False
                shutil.rmtree(gone, ignore_errors=True)
                folder.rename(gone)  # at once: half a run is never seen
            shutil.rmtree(gone)
        except _HeldError:
            return False
        except OSError as error:
            raise statefile.unwritable(folder, error) from error
        return True


# --- the lease --------------------------------------------------------------------------------------------------------


class _HeldError(StoreError):
    """The lock was held by another writer for all of the patience."""


@contextmanager
def _locked(folder: Path, *, patience: float = LOCK_PATIENCE) -> Iterator[int]:
    """Hold the lock of a run's folder, made if need be; yields the open lease file. Raises `StoreError`."""
    path = folder / "lease"
    try:
        handle = _open_locked(path, time.monotonic() + patience)
    except OSError as error:
        raise statefile.unwritable(path, error) from error
    try:
        yield handle
    finally:
        os.close(handle)


def _open_locked(path: Path, until: float) -> int:
    while True:
        handle = _opened(path)
        try:
            _lock(handle, path, until)
            if _same_file(handle, path):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # the folder was removed while we waited: what we hold locks nobody out


def _opened(path: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
    try:
        return os.open(path, flags, 0o666)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, flags, 0o666)


def _lock(handle: int, path: Path, until: float) -> None:
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                raise _HeldError(f"{path}: another Ralph process has been writing here for too long") from None
            time.sleep(0.005)
        else:
            return


def _same_file(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _token(handle: int) -> int:
    words = os.pread(handle, 64, 0).strip()
    if not words:
        return 0
    # What isn't a number was torn or edited: any token that was ever given out is below the time in seconds.
    return int(words) if words.isdigit() else int(time.time())


def _write_token(folder: Path, handle: int, token: int) -> None:
    try:
        os.pwrite(handle, b"%020d\n" % token, 0)  # of one width and in place: there is no instant without a token
        os.fsync(handle)
        statefile.sync_folder(folder)
    except OSError as error:
        raise statefile.unwritable(folder / "lease", error) from error
