"""Backups: the state directory and the snapshots in one file with checksums, to be put back here or in another clone.

The file is a gzipped tar of `state/...` (files of the state directory), `store/...` (what the checkpoint store packs) and,
last, `manifest.json` with the SHA-256 of each. It can be made while a run works: what refers to something is copied before it,
so that no state is newer than the snapshots, and no snapshot newer than the account.
"""

from __future__ import annotations

import io
import os
import shutil
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import IO, Any

from . import __version__
from .contracts import CheckpointStore
from .errors import StoreError, UserError
from .statefile import ensure_home, seal, unseal, unwritable
from .values import dataclass

SCHEMA = 1
MANIFEST = "manifest.json"
LEFT_OUT = ("repo.git", "holder.json", ".gitignore")
"""Of the state directory: the store packs its repository itself, the others are made anew."""
CHUNK = 1 << 20


@dataclass(frozen=True)
class Backup:
    """What a backup holds: `files` are names and SHA-256 sums, `size` their bytes, `created` seconds since the epoch."""

    version: str
    created: float
    workspace: str
    runs: tuple[str, ...]
    files: Mapping[str, str]
    size: int


def create(path: Path, workspace: Path, home: Path, store: CheckpointStore) -> Backup:
    """Write a backup to `path`, which must not exist. Raises `UserError`, or `StoreError`; then there is no such file."""
    runs = tuple(store.runs())
    if not runs:
        raise UserError(f"there is no run in {workspace} to back up")
    if path.exists():
        raise UserError(f"{path} exists already", mend="choose another with --output")
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("xb") as raw:
            temporary.chmod(0o600)  # prompts, answers and the account are nobody else's business
            with tarfile.open(fileobj=raw, mode="w:gz", compresslevel=6) as tar:
                content = _fill(tar, home, store)
                about = {"schema": SCHEMA, "version": __version__, "created": time.time()}
                about |= {"workspace": str(workspace), "runs": list(runs), **content}
                _add(tar, MANIFEST, io.BytesIO(data := seal(about)), len(data))
            raw.flush()
            os.fsync(raw.fileno())
        temporary.replace(path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)
    return _backup(about)


def _fill(tar: tarfile.TarFile, home: Path, store: CheckpointStore) -> dict[str, Any]:
    """Add everything; what is appended to a file meanwhile is for the next backup."""
    files: dict[str, str] = {}
    size = 0
    with tempfile.TemporaryDirectory(prefix="ralph-backup-") as scratch:
        for name, path in _content(home, store, Path(scratch)):
            try:
                with path.open("rb") as file:
                    length = os.fstat(file.fileno()).st_size
                    files[name] = _add(tar, name, file, length)
                    size += length
            except FileNotFoundError:
                continue  # replaced or cleared away meanwhile
    return {"files": files, "size": size}


def _content(home: Path, store: CheckpointStore, scratch: Path) -> Iterator[tuple[str, Path]]:
    """Name and path of every file: the states, then what the store packs, then the account and the rest.

    What the store has packed under the name of a file takes its place: a database that is copied while it is written is torn.
    """
    yield from _below("state", home, home / "runs")
    store.pack(scratch)
    packed = dict(_below("store", scratch, scratch))
    yield from packed.items()
    for name, path in _below("state", home, home):
        if not path.is_relative_to(home / "runs") and name.replace("state/", "store/", 1) not in packed:
            yield name, path


def _below(kind: str, top: Path, folder: Path) -> Iterator[tuple[str, Path]]:
    """Name in the backup, and path, of the files below `folder`."""
    for path in _files(folder):
        yield f"{kind}/{path.relative_to(top).as_posix()}", path


def _files(folder: Path) -> Iterator[Path]:
    """The regular files to be kept, in order."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        raw = path.name == "raw" and path.parent.name == "output"  # of processes at work, with their secrets
        if path.name in LEFT_OUT or path.name.startswith(("index-", ".")) or raw or path.is_symlink():
            continue
        if path.is_dir():
            yield from _files(path)
        elif path.is_file():
            yield path


class _Summed:
    """A file that is read to be added, and summed on the way."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.sum = file, sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self.sum.update(data)
        return data


def _add(tar: tarfile.TarFile, name: str, file: IO[bytes], length: int) -> str:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mtime, entry.mode = length, int(time.time()), 0o600
    summed = _Summed(file)
    tar.addfile(entry, summed)
    return summed.sum.hexdigest()


# --- reading one ------------------------------------------------------------------------------------------------------


def verify(path: Path) -> Backup:
    """Read all of a backup and compare every checksum. Raises `UserError` if there is none, `StoreError` if it is damaged."""
    with _unpacked(path) as (backup, _):
        return backup


def restore(path: Path, home: Path, store: CheckpointStore) -> Backup:
    """Put a backup back, after checking all of it; `home` must hold no run. Raises `UserError` before any effect."""
    if any((home / "runs").glob("*/state.json")):
        raise UserError(f"{home} holds runs already", mend="restore into another clone, or move it away")
    with _unpacked(path) as (backup, folder):
        ensure_home(home)
        if (folder / "store").is_dir():
            store.unpack(folder / "store")
        for name in sorted(
            backup.files, key=lambda name: name.endswith("/state.json")
        ):  # cut short, it can be repeated
            kind, _, rest = name.partition("/")
            if kind == "state":
                target = home / rest
                try:
                    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                    shutil.copyfile(folder / name, target)
                    target.chmod(0o600)
                except OSError as error:
                    raise unwritable(target, error) from error
    return backup


@contextmanager
def _unpacked(path: Path) -> Iterator[tuple[Backup, Path]]:
    """A backup that is whole, in a folder for a while."""
    if not path.is_file():
        raise UserError(f"there is no backup {path}")
    with tempfile.TemporaryDirectory(prefix="ralph-restore-") as scratch:
        folder = Path(scratch)
        try:
            sums, manifest = _extract(path, folder)
            backup = _backup(unseal(manifest))
        except (tarfile.TarError, OSError, EOFError, ValueError, KeyError, TypeError, StoreError) as error:
            raise StoreError(f"{path}: is no backup of Ralph's, or is damaged: {error}") from error
        for name in sorted({*sums, *backup.files}):
            if sums.get(name) != backup.files.get(name):
                how = "is missing" if name not in sums else "is not in its manifest" if name not in backup.files else "was changed"  # fmt: skip
                raise StoreError(f"{path}: is damaged: {name} {how}")
        yield backup, folder


def _extract(path: Path, folder: Path) -> tuple[dict[str, str], bytes]:
    """Unpack the files below `folder`; their sums, and the manifest. Nothing but plain files, and none elsewhere."""
    sums, manifest = {}, b""
    with tarfile.open(path, "r:gz") as tar:
        for entry in tar:
            name = PurePosixPath(entry.name)
            source = tar.extractfile(entry) if entry.isreg() else None
            if source is None or name.is_absolute() or ".." in name.parts or entry.name in sums:
                raise StoreError(f"{entry.name!r} has no place in it")
            if entry.name == MANIFEST:
                manifest = source.read()
                continue
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            digest = sha256()
            with target.open("wb") as file:
                while data := source.read(CHUNK):
                    digest.update(data)
                    file.write(data)
            sums[entry.name] = digest.hexdigest()
    return sums, manifest


def _backup(about: Mapping[str, Any]) -> Backup:
    if about["schema"] > SCHEMA:
        raise StoreError(f"it was made by a newer Ralph ({about['version']}): upgrade ralph-core")
    return Backup(
        about["version"], about["created"], about["workspace"], tuple(about["runs"]), about["files"], about["size"]
    )
