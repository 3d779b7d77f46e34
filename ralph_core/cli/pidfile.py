"""`--pid-file`: says which process works on a run, for what supervises it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ralph_core.errors import UserError


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Keep the number of this process in the file while the block runs. Raises `UserError` if another one has it.

    It is held by a lock: a file that a killed process has left behind is taken over, whoever has its number now.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise UserError(f"pid_file: {path} can't be written: {error.strerror}") from None
    try:
        _take(fd, path)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
    finally:
        os.close(fd)


def _take(fd: int, path: Path) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.read(fd, 20).decode(errors="replace").strip() or "another process"
        raise UserError(f"pid_file: {path} is held by process {holder}", mend="end it, or name another file") from None
    try:
        os.ftruncate(fd, 0)
        os.write(fd, f"{os.getpid()}\n".encode())
    except OSError as error:
        raise UserError(f"pid_file: {path} can't be written: {error.strerror}") from None
