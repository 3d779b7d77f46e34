"""One running process of a run: its output is on disk, read as it grows, and its end is the end of all its tree."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ralph_core.contracts import LINE_LIMIT, Command, Exit
from ralph_core.errors import StoreError
from ralph_core.values import dataclass

from . import supervisor as helper
from .survivors import process_identity

if TYPE_CHECKING:
    from .process import Supervisor

STDERR_KEPT = 8 * 1024
FAST = 0.01
"""Seconds between two looks at a file while it grows; when it has long been silent it is `Command.poll`."""

START_LIMIT, KILL_LIMIT = 30.0, helper.PATIENCE + 2.0
"""Seconds in which the supervisor has to start or to kill a job; a slower one hangs, and is killed with what it has."""


@dataclass(frozen=True)
class ProcessLimits:
    """Limits of the operating system for a job and, each for itself, all its children. None: as Ralph's own.

    `memory_bytes` is address space, of which runtimes such as Node reserve far more than they use (tens of GB).
    `cpu_seconds` ends in SIGXCPU, 5 s later in SIGKILL. `file_bytes` holds for every file it writes, its own standard
    output too: past it the process dies of SIGXFSZ (exit code -25), and what was written is kept. `processes` counts all
    of the user's processes, not only the job's, and does not bind root.
    """

    memory_bytes: int | None = None
    cpu_seconds: int | None = None
    file_bytes: int | None = None
    processes: int | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and value < 1:
                raise ValueError(f"{name} has to be at least 1")

    def __str__(self) -> str:
        """The form in which the supervisor takes them."""
        named = (
            ("RLIMIT_AS", self.memory_bytes),
            ("RLIMIT_CPU", self.cpu_seconds),
            ("RLIMIT_FSIZE", self.file_bytes),
            ("RLIMIT_NPROC", self.processes),
        )
        return " ".join(f"{name}={value}" for name, value in named if value is not None)


class Job:
    """A running process; implements `Process`. Made by `Supervisor.start`.

    Its files may be read until the next job starts or the supervisor is closed.
    """

    pid = 0
    identity: str | None = None
    """With the pid, identifies the process on this machine (see `process_identity`); None: it had ended at once."""
    leftovers = 0
    """How many descendants were still alive when the process itself had ended; known after `wait` or `stop`."""
    unkillable: tuple[int, ...] = ()
    """Those of them that SIGKILL did not end in time: they belong to another user, or hang in the kernel."""
    farewell = b""

    def __init__(
        self, supervisor: Supervisor, command: Command, output: Path, errors: Path, *, words: Callable[[str], str] = str
    ) -> None:
        self.command, self.output, self.errors = command, output.absolute(), errors.absolute()
        self._supervisor = supervisor
        self._words = words  # given from the first: the process may have ended before anyone sees this job
        self._exit: Exit | None = None
        self._ended = asyncio.Event()
        self._stopping: asyncio.Task[None] | None = None
        self._urgent = asyncio.Event()  # it has ended, or is to be killed without grace
        self._gone = asyncio.Event()  # it and all of its descendants are dead
        self._in = -1
        self._writing = asyncio.Lock()
        self._size = 0
        self._seen, self._grew = (0, 0), time.monotonic()
        self._out = create(self.output)
        try:
            self._err = create(self.errors)
        except StoreError:
            os.close(self._out)
            raise

    @property
    def ended(self) -> bool:
        """Whether the process itself has ended."""
        return self._ended.is_set()

    @property
    def code(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._exit.code if self._exit is not None else None

    @property
    def stopping(self) -> bool:
        """Whether `stop` has been called."""
        return self._stopping is not None

    @property
    def last_output(self) -> float:
        """When standard output or standard error last grew, on the monotonic clock; as exact as it is asked often."""
        if self._out >= 0:
            sizes = os.fstat(self._out).st_size, os.fstat(self._err).st_size
            if sizes != self._seen:
                self._seen, self._grew = sizes, time.monotonic()
        return self._grew

    async def lines(self) -> AsyncIterator[bytes]:
        """Standard output line by line, without line ends, until the process itself has ended.

        Of a line, at most `LINE_LIMIT` bytes are kept. Each call begins at the first line.
        """
        start = offset = 0  # of the line that is being read, and of what has not been looked at
        pause = FAST
        while self._out >= 0:
            ended = self.ended  # asked before reading: what was written before the end is read after it
            size = self._size if ended else os.fstat(self._out).st_size
            if size < offset:
                start = offset = 0  # it was truncated, as by `echo > /dev/stdout` in a script
            chunk = os.pread(self._out, min(self.command.chunk, size - offset), offset)
            if chunk:
                end = chunk.rfind(b"\n")
                if end >= 0:
                    whole = chunk[:end].split(b"\n")
                    if start < offset:  # it began in an earlier chunk: read again, rather than kept in pieces
                        whole[0] = os.pread(self._out, min(offset - start + len(whole[0]), LINE_LIMIT), start)
                    for line in whole:
                        yield line
                    start = offset + end + 1
                    del whole, line  # a long one must not be held while the next is read
                offset += len(chunk)
                pause = FAST
                await asyncio.sleep(0)  # a flood of output must not keep others from running
            elif ended:
                break
            else:
                await within(self._ended, pause)
                pause = min(1.5 * pause, self.command.poll)
        if self._out >= 0 and start < self._size:
            yield os.pread(self._out, min(self._size - start, LINE_LIMIT), start)

    async def write(self, data: bytes) -> None:
        """Write to standard input; see `Process.write`."""
        rest = memoryview(data)
        async with self._writing:
            while rest and self._in >= 0 and not self.ended:
                try:
                    rest = rest[os.write(self._in, rest) :]
                except BlockingIOError:
                    await within(self._ended, FAST)
                except OSError:  # it reads no more
                    self.close_input()

    def close_input(self) -> None:
        """Let it find the end of its standard input."""
        if self._in >= 0:
            os.close(self._in)
            self._in = -1

    async def wait(self) -> Exit:
        """Wait until the process has ended and what it left behind has been killed."""
        await self._gone.wait()
        assert self._exit
        return self._exit

    async def stop(self, *, now: bool = False) -> None:
        """Ask it to end as its `Command.stop` says, then kill it with all of its descendants; `now` kills at once.

        May be called at any time, any number of times; a call with `now` cuts short one without. It goes on even if the
        caller is cancelled.
        """
        await asyncio.shield(self.stopped(now=now))

    def stopped(self, *, now: bool = False) -> asyncio.Task[None]:
        """What `stop` waits for, begun if need be."""
        if now:
            self._urgent.set()
        self._stopping = self._stopping or asyncio.ensure_future(self._stop())
        return self._stopping

    async def _stop(self) -> None:
        if not self._urgent.is_set():
            self._take_leave()
        for number, grace in self.command.stop:
            if not self._urgent.is_set():
                self._supervisor.order("signal", str(int(number)))
                await within(self._urgent, grace)
        if not self.ended:
            self._supervisor.order("kill")
        if not await within(self._gone, KILL_LIMIT):
            self._supervisor.abandon()
            await self._gone.wait()

    def _take_leave(self) -> None:
        if self.farewell and self._in >= 0 and not self._writing.locked():
            try:
                os.write(self._in, self.farewell)
            except OSError:
                pass  # it does not read, or is gone: the signals that follow need no reader

    # --- called by the supervisor ---

    def open_input(self, path: Path) -> int:
        """Make a pipe with this name, and open its end for writing; returns one for reading, to be held until the start."""
        reader = -1
        try:
            path.unlink(missing_ok=True)
            os.mkfifo(path, 0o600)
            reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            self._in = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if reader >= 0:
                os.close(reader)
            raise StoreError(f"can't make the pipe {path}: {error.strerror}") from error
        return reader

    def started(self, pid: int) -> None:
        self.pid, self.identity = pid, process_identity(pid)

    def finish(self, code: int, note: str = "") -> None:
        """The process has ended: what it has written up to now is its output."""
        self._size = os.fstat(self._out).st_size
        size = os.fstat(self._err).st_size
        tail = os.pread(self._err, STDERR_KEPT, max(0, size - STDERR_KEPT)).decode(errors="replace")
        _ = self.last_output
        self._exit = Exit(code, stderr=self._words(tail) + note, output=str(self.output))
        self._ended.set()
        self._urgent.set()

    def end(self, leftovers: int = 0, unkillable: tuple[int, ...] = (), note: str = "") -> None:
        """All of its tree is dead, save what can't be killed."""
        if self._gone.is_set():
            return
        if not self.ended:
            self.finish(-signal.SIGKILL, note)
        self.leftovers, self.unkillable = leftovers, unkillable
        self._gone.set()

    def close(self) -> None:
        """Give back the files."""
        self.close_input()
        for number in {self._out, self._err} - {-1}:
            os.close(number)
        self._out = self._err = -1


async def within(event: asyncio.Event, seconds: float) -> bool:
    """Wait for the event, but not longer. (`asyncio.wait_for` may swallow a cancellation before Python 3.12.)"""
    if not event.is_set():
        waiter = asyncio.ensure_future(event.wait())
        try:
            await asyncio.wait((waiter,), timeout=seconds)
        finally:
            waiter.cancel()
    return event.is_set()


def create(path: Path, content: bytes = b"") -> int:
    """Make a new private file, in place of one that may be there; returns a descriptor for reading it."""
    try:
        number = _new(path)
        try:
            if content:
                with open(number, "wb", closefd=False) as file:
                    file.write(content)
        except BaseException:
            os.close(number)
            raise
        return number
    except OSError as error:
        raise StoreError(f"can't write {path}: {error.strerror}") from error


def _new(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except (FileNotFoundError, FileExistsError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
