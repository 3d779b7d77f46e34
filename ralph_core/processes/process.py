"""Processes that can't outlive the run: what they write is on disk, is read as it grows, and nothing of them is left.

A `Supervisor` stands for one small helper process (`supervisor.py`), which starts the jobs of a run one after another.
Each `Job` writes to regular files, because several agents lose output on a pipe; memory stays bounded however much it is.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ralph_core.contracts import Command, Exit, SpawnError
from ralph_core.errors import StoreError

from . import supervisor as helper
from .job import KILL_LIMIT, START_LIMIT, Job, ProcessLimits, create, within
from .survivors import MARKER, kill_survivors

if TYPE_CHECKING:
    from typing_extensions import Self


class Supervisor:
    """Starts the processes of one run, one at a time; closed, or dead with Ralph, it leaves none of them alive.

    `async with await Supervisor.open(run_id) as supervisor: job = await supervisor.start(command, output=path)`.
    Should the helper process die, the job that it had ends as killed, and the next `start` brings a new helper.
    """

    def __init__(self, run: str) -> None:
        self.run = run
        self._helper: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._inbox = b""
        self._answer: asyncio.Future[list[str]] | None = None
        self._lost = asyncio.Event()
        self._job: Job | None = None
        self._closed = False

    @classmethod
    async def open(cls, run: str) -> Supervisor:
        """Start the helper for the run with this id. Raises `SpawnError` if it can't be."""
        self = cls(run)
        try:
            await self._launch()
        except BaseException:
            self._drop()
            raise
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def pid(self) -> int | None:
        """The helper's process id."""
        return self._helper.pid if self._helper else None

    async def start(
        self,
        command: Command,
        *,
        output: Path,
        errors: Path | None = None,
        limits: ProcessLimits | None = None,
        words: Callable[[str], str] = str,
    ) -> Job:
        """Start a process; it writes to `output` and `errors` (default: `output` with `.err` added), made anew.

        `words` is done to the end of standard error before anyone quotes it.

        Raises `SpawnError` if it can't be started, `StoreError` if the files can't be made, and `RuntimeError` if the job
        before is still running; one that has ended, or is being stopped, is waited for.
        """
        while (job := self._job) and (job.ended or job.stopping):
            await job.wait()
            self._release(job)
        if job or self._closed:
            raise RuntimeError("this supervisor is closed" if self._closed else "the job before is still running")
        self._job = job = Job(self, command, output, errors or output.with_name(output.name + ".err"), words=words)
        beginning = asyncio.ensure_future(self._begin(job, limits))
        try:
            await asyncio.shield(beginning)
        except asyncio.CancelledError:  # half a request must not be sent: it is, and what it starts is killed
            beginning.add_done_callback(lambda done: done.cancelled() or done.exception() or job.stopped(now=True))
            raise
        return job

    async def _begin(self, job: Job, limits: ProcessLimits | None) -> None:
        command = job.command
        given = command.converses or command.stdin is not None
        stdin = job.output.with_name(job.output.name + ".in") if given else Path(os.devnull)
        made, reader = False, -1
        try:
            if self._socket is None:
                await self._launch()
            if command.converses:
                reader = job.open_input(stdin)
            elif command.stdin is not None:
                os.close(create(stdin, command.stdin))
            made = given
            paths = map(str, (Path(command.cwd).absolute(), stdin, job.output, job.errors))
            env = {**command.env, MARKER: self.run}
            fields = (*paths, str(limits or ""), str(len(command.argv)), *command.argv, *map("=".join, env.items()))
            if any("\0" in text for text in fields):
                raise SpawnError(f"can't start {command.argv[0]!r}: an argument or variable contains a NUL character")
            verb, *words = await self._ask("start", *fields)
            if verb == "failed":
                raise _explain(command, *words)
        except BaseException:
            self._release(job)
            raise
        finally:
            if reader >= 0:
                os.close(reader)
            if made:
                stdin.unlink(missing_ok=True)

    async def close(self) -> None:
        """Kill everything that is left, and end the helper. Further calls do nothing."""
        self._closed = True
        try:
            if self._socket:
                self._socket.shutdown(socket.SHUT_WR)
                await within(self._lost, KILL_LIMIT)
        except OSError:
            pass  # it is dead already
        finally:
            self._drop()

    def _drop(self) -> None:
        """What `close` does without waiting, should it be cancelled."""
        self.abandon()
        self._lose()
        if self._job:
            self._release(self._job)

    # --- the conversation with the helper ---

    async def _launch(self) -> None:
        try:
            self._socket = self._spawn()
        except OSError as error:
            raise SpawnError(f"can't start the supervisor process {sys.executable}: {error}") from error
        self._inbox = b""
        self._lost.clear()
        asyncio.get_running_loop().add_reader(self._socket, self._hear)
        await self._ask()

    def _spawn(self) -> socket.socket:
        """Start the helper; returns our end of the line to it."""
        ours, theirs = socket.socketpair()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 -- open as long as the helper is there
        try:
            with theirs:
                self._helper = subprocess.Popen(
                    [sys.executable, "-I", "-S", helper.__file__, str(theirs.fileno())],
                    env={**os.environ, MARKER: self.run},
                    cwd="/",
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=self._log,
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                )
        except BaseException:
            ours.close()
            self._log.close()
            raise
        ours.setblocking(False)
        return ours

    async def _ask(self, *fields: str) -> list[str]:
        """Send a request and wait for the answer; without `fields`, for the helper to be ready."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[str]] = loop.create_future()
        self._answer = answer
        patience = loop.call_later(START_LIMIT, self.abandon)
        try:
            if fields and self._socket:
                await loop.sock_sendall(self._socket, _frame(fields))
        except OSError:
            self.abandon()  # it is dead; the answer says so
        try:
            return await answer
        finally:
            patience.cancel()

    def order(self, *fields: str) -> None:
        """Send a request that has no answer of its own."""
        try:
            if self._socket and self._socket.send(frame := _frame(fields)) < len(frame):
                self.abandon()
        except OSError:
            self.abandon()

    def _hear(self) -> None:
        try:
            more = self._socket.recv(65536) if self._socket else b""
        except BlockingIOError:
            return
        except OSError:
            more = b""
        *lines, self._inbox = (self._inbox + more).split(b"\n")
        for line in lines:
            self._take(line.decode(errors="replace").split(" ", 3))
        if not more:
            self._lose()

    def _take(self, words: list[str]) -> None:
        verb, job = words[0], self._job
        if verb == "started" and job:
            job.started(int(words[1]))
        elif verb == "exited" and job:
            job.finish(int(words[1]))
        elif verb == "gone" and job:
            count, *stuck = map(int, " ".join(words[1:]).split())
            job.end(count, tuple(stuck))
        if verb in {"ready", "started", "failed"} and self._answer and not self._answer.done():
            self._answer.set_result(words)

    def abandon(self) -> None:
        """Kill a helper that does not answer; the kernel kills its job, and the rest is found by the marker."""
        if self._helper:
            self._helper.kill()

    def _lose(self) -> None:
        """The helper is gone, by order or not: see that nothing else is left, and tell whoever waits for it."""
        if not (self._helper and self._socket):
            return
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()
        self._socket = None
        code = self._helper.wait()
        self._helper = None
        with self._log as log:
            log.seek(0)
            words = " ".join(log.read().decode(errors="replace").split())
        note = f"the supervisor process ended unexpectedly ({Exit(code).words}) {words[-500:]}".rstrip()
        left = kill_survivors(self.run) if code else 0
        if self._job:
            self._job.end(left, note=note)
        if self._answer and not self._answer.done():
            self._answer.set_exception(SpawnError(note))
        self._lost.set()

    def _release(self, job: Job) -> None:
        """Make room for another job."""
        job.close()
        if self._job is job:
            self._job = None


def _frame(fields: tuple[str, ...]) -> bytes:
    body = os.fsencode("\0".join(fields))
    return len(body).to_bytes(4, "big") + body


def _explain(command: Command, stage: str, number: str, text: str) -> Exception:
    """The error for a start that failed at `stage` with this errno, in words that say what to mend."""
    name, code = command.argv[0] if command.argv else "", int(number)
    found = _located(command)
    why = os.strerror(code) if code else text
    if stage == "files":
        return StoreError(f"can't open the files of {name!r}: {text}")
    if stage == "cwd":
        why = f"its working directory {command.cwd!r}: {why}"
    elif stage != "exec":
        why = f"{stage}: {why}"
    elif code == errno.ENOENT and found:
        with found.open("rb") as file:
            first = file.readline(200)
        missing = first[2:].decode(errors="replace").strip() if first.startswith(b"#!") else "its loader"
        why = f"{found} needs an interpreter that is missing: {missing}"
    elif code == errno.ENOENT:
        why = "no such file" if "/" in name else f"not found on PATH ({command.env.get('PATH', os.defpath)})"
    elif code == errno.EACCES:
        why = f"{found or name} is not executable"
    elif code == errno.ENOEXEC:
        why = f"{found or name} is not a program that this system can run (a script without a #! line?)"
    elif code == errno.E2BIG:
        why = "an argument (128 KiB at most), or all of them with the environment, are too long"
    return SpawnError(f"can't start {name!r}: {why}")


def _located(command: Command) -> Path | None:
    """The file that the command's name stands for, executable or not."""
    name = command.argv[0] if command.argv else ""
    folders = [""] if "/" in name else command.env.get("PATH", os.defpath).split(":")
    paths = (Path(command.cwd, folder, name) for folder in folders)
    return next((path for path in paths if name and path.is_file()), None)
