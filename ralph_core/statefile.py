"""State on disk: a checked JSON document, written so that a crash at any instant leaves one that loads.

A run's folder holds `state.json` and `state.prev.json`, the one saved before. Each carries a SHA-256 of its own content,
so a torn or edited file is refused and the other one is read.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from dataclasses import is_dataclass
from functools import lru_cache
from hashlib import sha256
from json.encoder import encode_basestring_ascii
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .contracts import Saved
from .errors import StoreError
from .state import SCHEMA, RunState

if TYPE_CHECKING:
    from pydantic import TypeAdapter

IGNORE = ".gitignore"
CURRENT = "state.json"
PREVIOUS = "state.prev.json"


# --- the document -----------------------------------------------------------------------------------------------------


def seal(content: Mapping[str, Any]) -> bytes:
    """`content` as readable JSON, plain ASCII, with a checksum that `unseal` verifies. Dataclasses stand for their fields."""
    parts = {_encode(name): _parts(value) for name, value in content.items()}
    canonical = ",".join(f"{name}:{_canonical(part)}" for name, part in sorted(parts.items()))
    lines = [
        f'"checksum": "{_digest("{" + canonical + "}")}"',
        *(f"{name}: {_lines(part)}" for name, part in parts.items()),
    ]
    return ("{\n " + ",\n ".join(lines) + "\n}\n").encode("ascii")


def unseal(data: bytes) -> dict[str, Any]:
    """The content that was sealed. Raises `StoreError` if `data` is torn or was edited."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise StoreError("is torn or was edited: not JSON") from error
    if not isinstance(content, dict):
        raise StoreError("is torn or was edited: not a JSON object")
    said = content.pop("checksum", None)
    if said != _checksum(content):
        raise StoreError("is torn or was edited: the checksum does not match")
    return content


def dump_state(state: RunState) -> bytes:
    """`state` as a checked document; `parse_state` reads it back."""
    return seal({"state": state})


def parse_state(data: bytes) -> RunState:
    """The state in a document of `dump_state`. Raises `StoreError` if it is torn, edited, or of a newer Ralph."""
    return state_of(unseal(data))


def state_of(content: Mapping[str, Any]) -> RunState:
    """The state in unsealed `content`. Raises `StoreError` if there is none that this Ralph understands."""
    from pydantic import ValidationError  # heavy, and only needed when something is loaded

    fields = content.get("state")
    schema = fields.get("schema") if isinstance(fields, dict) else None
    if isinstance(schema, int) and schema > SCHEMA:
        raise StoreError(
            f"was written by a newer Ralph (state schema {schema}, this one reads {SCHEMA}): upgrade ralph-core"
        )
    try:
        return _adapter().validate_python(fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise StoreError(f"does not hold a run's state: {where}: {first['msg']}") from error


@lru_cache(maxsize=1)
def _adapter() -> TypeAdapter[RunState]:
    from pydantic import TypeAdapter

    return TypeAdapter(RunState)


def _checksum(content: Mapping[str, Any]) -> str:
    # Over the values, not the bytes: indenting the file is harmless, changing a figure is not.
    return _digest(_encode(content))


def _digest(canonical: str) -> str:
    return "sha256:" + sha256(canonical.encode("ascii")).hexdigest()


def _parts(value: Any) -> str | dict[str, str]:
    """A value in canonical JSON; for a dataclass its fields, each so, since a state is saved with a line for each."""
    if is_dataclass(value):
        return {_encode(name): _text(item) for name, item in _fields(value).items()}
    return _encode(value)


def _canonical(part: str | dict[str, str]) -> str:
    return (
        part if isinstance(part, str) else "{" + ",".join(f"{name}:{text}" for name, text in sorted(part.items())) + "}"
    )


def _lines(part: str | dict[str, str]) -> str:
    return part if isinstance(part, str) else "{\n  " + ",\n  ".join(map(": ".join, part.items())) + "\n }"


def _text(value: Any) -> str:
    """Canonical JSON of a field; of values that are never changed, remembered: most are the same in the next state."""
    kind = type(value)
    if kind is int:
        return repr(value)
    if kind is str:
        return encode_basestring_ascii(value)
    if kind is not tuple and not is_dataclass(value):
        return _encode(value)
    known = _KNOWN.get(id(value))
    if known is not None:
        return known[1]
    text = "[" + ",".join(map(_text, value)) + "]" if kind is tuple else _encode(value)
    if len(_KNOWN) >= _REMEMBERED:
        _KNOWN.clear()
    _KNOWN[id(value)] = value, text
    return text


_KNOWN: dict[int, tuple[object, str]] = {}
"""By the id of a value the value, so that nothing else gets that id, and its JSON."""
_REMEMBERED = 100


def _fields(value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping):  # one that is not a dict
        return dict(value)
    if not is_dataclass(value):
        raise TypeError(f"{type(value).__name__} can't be saved")
    return vars(value)  # not `asdict`: that copies all of it first


_encode = json.JSONEncoder(default=_fields, sort_keys=True, separators=(",", ":")).encode


# --- a run's folder ---------------------------------------------------------------------------------------------------


def write(folder: Path, state: RunState, *, durable: bool = True) -> None:
    """Save `state` in `folder` and keep the one before; at every instant one of the two loads.

    `durable`: also after a power cut; of two saves in a row, one has to be. The caller sees to it that nobody else writes
    there. Raises `StoreError` naming the path; the old state still loads.
    """
    current = folder / CURRENT
    temporary = _temporary(current)
    try:
        written = _write(temporary, dump_state(state), durable=durable)
        _keep(current, folder / PREVIOUS)
        temporary.replace(current)
        _WRITTEN[current] = written
        if durable:
            sync_folder(folder)
    except BaseException as error:
        discard(temporary)
        if isinstance(error, OSError):
            raise unwritable(current, error) from error
        raise


def read(folder: Path) -> Saved:
    """The newest state in `folder` that is whole; its `note` says so if that is not the newest one written.

    Raises `StoreError` that names the folder and says what is wrong with each file.
    """
    faults = []
    for name in (CURRENT, PREVIOUS):
        try:
            state = parse_state((folder / name).read_bytes())
        except FileNotFoundError:
            faults.append(f"{name} is missing")
        except OSError as error:
            faults.append(f"{name} can't be read: {error.strerror or error}")
        except StoreError as error:
            faults.append(f"{name} {error}")
        else:
            return Saved(state, f"{folder / CURRENT}: {faults[0]}; the state saved before it is used" if faults else "")
    raise StoreError(f"{folder}: no state that loads ({'; '.join(faults)})")


def loads(folder: Path) -> bool:
    """Whether a state in `folder` is whole, without building it."""
    return _is_whole(folder / CURRENT) or _is_whole(folder / PREVIOUS)


def sweep(folder: Path) -> None:
    """Remove what writers that were killed left behind in `folder`. Only for who holds the right to write there."""
    for leftover in folder.glob(".state*.tmp"):
        discard(leftover)


def _keep(current: Path, previous: Path) -> None:
    """Make `previous` what `current` is, unless `current` is torn: then the good one is not given up for it."""
    if not _as_written(current) and not _is_whole(current):
        return
    link = _temporary(previous)
    try:
        os.link(current, link)  # `current` stays in place all the time
    except FileExistsError:  # of a process that had this one's number, and was killed
        discard(link)
        os.link(current, link)
    except OSError:  # a file system without hard links
        write_atomically(previous, current.read_bytes())
        return
    try:
        link.replace(previous)
    finally:
        discard(link)  # also after success: replacing a file by another link to itself leaves both names


_WRITTEN: dict[Path, tuple[int, ...]] = {}
"""The marks of the states that this process has written: as long as they are the same, the file need not be read."""


def _marks(found: os.stat_result) -> tuple[int, ...]:
    """What changes when a file is written or replaced."""
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _as_written(path: Path) -> bool:
    """Whether the file is the one that this process has put there."""
    try:
        return _WRITTEN.pop(path, ()) == _marks(path.stat())
    except OSError:
        return False


def _is_whole(path: Path) -> bool:
    try:
        unseal(path.read_bytes())
    except (OSError, StoreError):
        return False
    return True


# --- files ------------------------------------------------------------------------------------------------------------


def ensure_home(home: Path) -> None:
    """Make Ralph's state directory, which ignores itself in git. Raises `StoreError` naming the path."""
    ignore = home / IGNORE
    try:
        home.mkdir(parents=True, exist_ok=True)
        if not ignore.exists():
            ignore.write_bytes(b"*\n")  # nothing that could be lost: it is made anew
    except OSError as error:
        raise unwritable(home, error) from error


def write_atomically(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write `data` to `path`: after a crash there is either the old file or the new one, never a part.

    `durable`: that holds for a power cut, too. Raises `StoreError` naming the path; then the old file is still there and nothing else is left behind.
    """
    temporary = _temporary(path)
    try:
        _write(temporary, data, durable=durable)
        temporary.replace(path)
        if durable:
            sync_folder(path.parent)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        discard(temporary)


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` durable. Raises OSError."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def unwritable(path: Path, error: OSError) -> StoreError:
    """The error to raise when `path` could not be written because of `error`."""
    return StoreError(f"can't write {path}: {error.strerror or error}")


def _write(path: Path, data: bytes, *, durable: bool) -> tuple[int, ...]:
    """Write a new file; returns its marks."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        if durable:
            os.fsync(file.fileno())
        return _marks(os.fstat(file.fileno()))


def _temporary(path: Path) -> Path:
    # In the same folder, for the rename; by process and thread, for two writers of one file must not share it.
    return path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")


def discard(path: Path) -> None:
    """Remove a temporary file, if that can be done."""
    try:
        path.unlink()
    except OSError:
        pass  # it is not there, or the folder can't be written: what matters is said by the one who calls
