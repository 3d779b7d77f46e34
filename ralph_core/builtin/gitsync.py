"""Makes the objects of a snapshot durable, all at once.

Git would wait for each object before it writes the next one. Here it writes them without waiting, then all are sent off
to the disk together, then they are waited for. The real fsync of the ref that follows makes them durable: what git's own
`core.fsyncMethod=batch` relies on, too, but across several calls of git and without its waiting in line.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from threading import get_ident

from ralph_core.statefile import discard, unwritable

_BATCH = 512
_FEW = 2
_WAIT_BEFORE, _WRITE, _WAIT_AFTER = 1, 2, 4
_LONG_AGO = 60_000_000_000
"""Nanoseconds after which a system has written out what nobody waited for (Linux: 30 s)."""


def long_ago(objects: Path) -> int:
    """A time of the file system that holds `objects`, for `sync`: so long before now that what is older is safe."""
    probe = objects / f"tmp_obj_{os.getpid()}_{get_ident()}"  # a name that git itself clears away
    try:
        probe.touch()
        return probe.stat().st_mtime_ns - _LONG_AGO
    except OSError as error:
        raise unwritable(objects, error) from error
    finally:
        discard(probe)


def moment_of(objects: Path, name: str) -> int:
    """When an object was written that is in no pack yet, for `sync`: what that waited for is not older."""
    path = objects / name[:2] / name[2:]
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:  # packed at once
        return long_ago(objects)
    except OSError as error:
        raise unwritable(path, error) from error


def sync(objects: Path, since: int) -> None:
    """Wait until the loose objects written since then have gone to the disk. (Packs are git's to sync: it always does.)

    They are durable with the next fsync of anything on the same file system. Raises `StoreError`.
    """
    try:
        paths = list(_written(objects, since))
        for start in range(0, len(paths), _BATCH):
            _sync_all(paths[start : start + _BATCH])
    except OSError as error:
        raise unwritable(objects, error) from error


def _written(objects: Path, since: int) -> Iterator[str]:
    for folder in os.scandir(objects):
        if len(folder.name) == 2 and folder.stat().st_mtime_ns >= since:
            yield from (entry.path for entry in os.scandir(folder) if entry.stat().st_mtime_ns >= since)


def _sync_all(paths: list[str]) -> None:
    # For the one or two objects of a first snapshot, to load ctypes takes ten times as long as to wait for each.
    send = _sync_file_range() if len(paths) > _FEW or "ctypes" in sys.modules else None
    handles: list[int] = []
    try:
        for path in paths:
            try:
                handles.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
            except FileNotFoundError:
                continue  # a temporary file of somebody else, or packed meanwhile
            if send:
                send(handles[-1], 0, 0, _WRITE)
        for handle in handles:
            if not send or send(handle, 0, 0, _WAIT_BEFORE | _WRITE | _WAIT_AFTER):
                os.fsync(handle)  # where there is no other way, or to learn what is wrong
    finally:
        for handle in handles:
            os.close(handle)


@lru_cache(maxsize=1)
def _sync_file_range() -> Callable[[int, int, int, int], int] | None:
    """The system call of that name; None where there is none (it is Linux's)."""
    import ctypes  # takes a while, and is needed for the first snapshot only

    try:
        function = ctypes.CDLL(None).sync_file_range
    except (OSError, AttributeError):
        return None
    function.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    return function
