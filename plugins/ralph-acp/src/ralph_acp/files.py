"""Text files that the agent has Ralph read and write: in the workspace alone, whatever the path says or links to.

Every folder on the way is opened from the one before without following links, so that nothing can be changed in between.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath

LARGEST = 10 << 20
"""Bytes of a file that is read."""


class Refused(Exception):
    """A path that is not served; the message says why."""


class Files:
    """The files below `root`; those below `hidden` are Ralph's own."""

    def __init__(self, root: Path, hidden: Path) -> None:
        self._root, self._hidden = Path(os.path.realpath(root)), Path(os.path.realpath(hidden))
        self._named = PurePath(root)

    def read(self, path: str, line: int | None = None, limit: int | None = None) -> str:
        """The text, or `limit` lines of it from the `line`-th on. Raises `Refused`, or OSError."""
        with self._opened(path, os.O_RDONLY | os.O_NONBLOCK) as handle:
            if os.fstat(handle).st_size > LARGEST:
                raise Refused(f"{path} is larger than {LARGEST} bytes")
            with open(handle, "rb", closefd=False) as file:
                text = file.read(LARGEST).decode(errors="replace")
        if line is None and limit is None:
            return text
        first = max(0, (line or 1) - 1)
        return "".join(text.splitlines(keepends=True)[first : None if limit is None else first + limit])

    def write(self, path: str, text: str) -> None:
        """Put the text into the file; the folders on the way are made. Raises `Refused`, or OSError."""
        with self._opened(path, os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK, make=True) as handle:
            os.ftruncate(handle, 0)
            with open(handle, "wb", closefd=False) as file:
                file.write(text.encode())

    @contextmanager
    def _opened(self, path: str, flags: int, *, make: bool = False) -> Iterator[int]:
        *folders, name = self._parts(path)
        place = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for folder in folders:
                place = _entered(place, folder, make=make)
            handle = _open(name, flags, place)
        finally:
            os.close(place)
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise Refused(f"{path} is no regular file")
            yield handle
        finally:
            os.close(handle)

    def _parts(self, path: str) -> tuple[str, ...]:
        """The names on the way from the workspace to the file."""
        pure = PurePath(path)
        if not pure.is_absolute() or ".." in pure.parts or "\0" in path:
            raise Refused(f"{path!r} is not an absolute path without '..'")
        for root in (self._root, self._named):
            if pure != root and pure.is_relative_to(root):
                parts = pure.relative_to(root).parts
                if (self._root / Path(*parts)).is_relative_to(self._hidden):
                    raise Refused(f"{path} is one of Ralph's own records")
                return parts
        raise Refused(f"{path} is not in the workspace {self._named}")


def _entered(place: int, folder: str, *, make: bool) -> int:
    """The folder in the one that `place` has open, which is closed."""
    if make:
        try:
            os.mkdir(folder, dir_fd=place)
        except FileExistsError:
            pass
    inner = _open(folder, os.O_RDONLY | os.O_DIRECTORY, place)
    os.close(place)
    return inner


def _open(name: str, flags: int, place: int) -> int:
    """Open it below the folder `place`. Raises OSError, for a symbolic link, too."""
    return os.open(name, flags | os.O_NOFOLLOW, 0o666, dir_fd=place)
