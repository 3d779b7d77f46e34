"""How an agent's CLI asks before it uses a tool, and how a person answers: a private socket, and files in the run's folder.

The file of an approval is its truth: whoever decides, the terminal of the run, `ralph approvals` in another one, or the
clock, writes it under one lock, and the first one wins.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, field, replace
from pathlib import Path
from typing import Any

from . import ask
from .contracts import AskChannel
from .errors import StoreError, UserError
from .events import ToolCall
from .statefile import write_atomically
from .values import dataclass

FOLDER = "approvals"
"""Folder of the run's folder that holds its approvals."""
ID = re.compile(r"[0-9a-f]{8}")
POLL = 0.2
"""Seconds between two looks at an approval that is waited for."""
ALIVE = ask.SILENCE / 6
"""Seconds between two signs of life to a CLI that waits for its answer."""
LONGEST = 64 << 20
"""Bytes of one question; a longer one is denied."""
PATH_LIMIT = 100
"""Bytes that the path of a socket may have; the kernel's own limit is 107 (104 on macOS)."""
PENDING, GRANTED, DENIED = "pending", "granted", "denied"


# --- the way in -------------------------------------------------------------------------------------------------------


class Asked:
    """A tool call that its agent holds back until it is answered; the first answer counts."""

    def __init__(self, call: ToolCall) -> None:
        self.call = call
        self.since = time.time_ns()
        self.withdrawn = False
        self.settled: asyncio.Future[tuple[bool, str]] = asyncio.get_running_loop().create_future()

    def answer(self, *, allowed: bool, reason: str = "") -> None:
        if not self.settled.done():
            self.settled.set_result((allowed, reason))


class AskServer:
    """The socket of one attempt, as an asynchronous context. Each question is handed to `deliver`."""

    def __init__(self, folder: Path) -> None:
        self._folder = _private_folder(folder)
        self._path = self._folder / "s"
        self._open: set[Asked] = set()
        self._talks: set[asyncio.Task[None]] = set()
        self.deliver: Callable[[Asked], None] = lambda asked: asked.answer(allowed=False, reason="Ralph is not ready")
        program = (sys.executable, "-I", "-S", str(Path(ask.__file__).absolute()))
        self.channel = AskChannel(str(self._path), (*program, str(self._path)))

    async def __aenter__(self) -> AskServer:
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._talk, str(self._path), limit=LONGEST)
        self._path.chmod(0o600)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.refuse("the attempt is over")
        self._server.close()
        if self._talks:
            waited = await asyncio.wait(self._talks, timeout=1.0)
            for talk in waited[1]:
                talk.cancel()
        shutil.rmtree(self._folder, ignore_errors=True)

    def refuse(self, reason: str) -> None:
        """Deny whatever has not been answered, and whatever is still asked."""
        self.deliver = lambda asked: asked.answer(allowed=False, reason=reason)
        for asked in self._open:
            asked.answer(allowed=False, reason=reason)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talk = asyncio.current_task()
        assert talk is not None
        self._talks.add(talk)
        try:
            asked = Asked(_question(await reader.readuntil(b"\n")))
            self._open.add(asked)
            try:
                self.deliver(asked)
                await self._answer(asked, reader, writer)
            finally:
                self._open.discard(asked)
        except (OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # no question, or nobody there to be answered: who asked finds the line cut, and denies
        finally:
            self._talks.discard(talk)
            writer.close()

    async def _answer(self, asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        gone = asyncio.ensure_future(reader.read(1))
        try:
            while not asked.settled.done():
                await asyncio.wait((asked.settled, gone), timeout=ALIVE, return_when=asyncio.FIRST_COMPLETED)
                if gone.done():
                    asked.withdrawn = True
                    asked.answer(allowed=False, reason="the agent no longer waits for the answer")
                    return
                writer.write(b"\n")
            allowed, reason = asked.settled.result()
            writer.write(json.dumps({"verdict": "allow" if allowed else "deny", "reason": reason}).encode() + b"\n")
            await writer.drain()
        finally:
            gone.cancel()


def _question(line: bytes) -> ToolCall:
    asked = json.loads(line)
    if (
        not isinstance(asked, dict)
        or not isinstance(asked.get("name"), str)
        or not isinstance(asked.get("input"), dict)
    ):
        raise ValueError("no question")  # noqa: TRY004 - the question is wrong, not our types
    return ToolCall(str(asked.get("id", "")), asked["name"], asked["input"])


def _private_folder(folder: Path) -> Path:
    """An empty folder that only this user can enter, below `folder` unless a socket's path would be too long there."""
    folder.mkdir(mode=0o700, exist_ok=True)
    for place in (folder, Path(tempfile.gettempdir())):
        if len(os.fsencode(place)) + 20 <= PATH_LIMIT:
            return Path(tempfile.mkdtemp(prefix="ask-", dir=place))
    return Path(tempfile.mkdtemp(prefix="ask-", dir="/tmp"))


# --- what a person is asked -------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Approval:
    """A tool call that a person has to agree to. `until` and other times: seconds since the epoch.

    A grant holds for this one call; with `always`, for this tool with these same arguments for the rest of the run.
    """

    id: str
    run: str
    iteration: int
    agent: str
    tool: str
    arguments: Mapping[str, Any]
    digest: str
    reason: str
    policy: str
    opened: float
    until: float
    state: str = PENDING
    always: bool = False
    by: str = ""
    decided: float | None = None
    path: Path = field(default=Path(), compare=False)

    @property
    def open(self) -> bool:
        return self.state == PENDING and time.time() < self.until


class NotPending(UserError):
    """There is no approval of that id that waits for an answer."""


class Book:
    """The approvals of one run, as files that other processes read and write, too."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / FOLDER

    def all(self) -> list[Approval]:
        """All approvals, the oldest first; a file that is none is passed over."""
        return sorted(filter(None, map(_read, self.folder.glob("*.json"))), key=lambda approval: approval.opened)

    def open(self, call: ToolCall, **fields: Any) -> Approval:
        """Write down a new one."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = os.urandom(4).hex()
        path = self.folder / f"{name}.json"
        approval = Approval(id=name, tool=call.name, digest=digest_of(call), opened=time.time(), path=path, **fields)
        _write(approval)
        return approval

    def always(self) -> set[str]:
        """Digests of the calls that were granted for the rest of the run."""
        return {approval.digest for approval in self.all() if approval.state == GRANTED and approval.always}

    async def decision(self, approval: Approval, withdrawn: Callable[[], bool]) -> Approval:
        """The approval once it is decided: by a person, or by the clock."""
        while True:
            now = _read(approval.path)
            if now is None:
                return replace(approval, state=DENIED, by="its file is gone or was spoilt")
            if now.state != PENDING:
                return now
            if withdrawn():
                return self.lapse(approval, "the agent no longer waits")
            if not now.open:
                return self.lapse(approval, "nobody answered in time")
            await asyncio.sleep(POLL)

    def lapse(self, approval: Approval, why: str) -> Approval:
        """Deny it because nobody did anything."""
        try:
            return decide(approval.path, DENIED, by=why, late=True)
        except NotPending:
            return _read(approval.path) or replace(approval, state=DENIED, by=why)


def decide(path: Path, state: str, *, by: str, always: bool = False, late: bool = False) -> Approval:
    """Grant or deny an approval that is pending. Raises `NotPending`; `late` allows it when its time is over, too."""
    with _locked(path.parent):
        approval = _read(path)
        if approval is None or approval.state != PENDING or not (late or approval.open):
            now = "unknown" if approval is None else "too late" if approval.state == PENDING else approval.state
            raise NotPending(f"approval {path.stem} is not pending ({now})", mend="see `ralph approvals list`")
        approval = replace(approval, state=state, always=always, by=by, decided=time.time())
        _write(approval)
    return approval


def approval_path(home: Path, name: str) -> Path:
    """The file of an approval, in whichever run of this state directory it is. Raises `NotPending`."""
    found = sorted((home / "runs").glob(f"*/{FOLDER}/{name}.json")) if ID.fullmatch(name) else []
    if not found:
        raise NotPending(f"there is no approval {name!r}", mend="see `ralph approvals list`")
    return found[0]


def digest_of(call: ToolCall) -> str:
    """What makes two calls the same: the tool and all of its arguments."""
    return hashlib.sha256(json.dumps([call.name, call.input], sort_keys=True).encode()).hexdigest()


def _write(approval: Approval) -> None:
    content = {name: value for name, value in asdict(approval).items() if name != "path"}
    write_atomically(approval.path, json.dumps(content, indent=1).encode() + b"\n")


def _read(path: Path) -> Approval | None:
    try:
        approval = Approval(**json.loads(path.read_bytes()), path=path)
        return approval if approval.id == path.stem and max(approval.opened, approval.until) > 0 else None
    except (OSError, ValueError, TypeError):
        return None


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One decision at a time, over all processes."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise StoreError(f"can't read {folder}: {error.strerror}") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def brief(arguments: Mapping[str, Any], *, limit: int = 200) -> str:
    """The arguments of a call on one line."""
    words: Sequence[str] = [f"{name}={value!r}" for name, value in arguments.items()]
    line = ", ".join(words)
    return line if len(line) <= limit else f"{line[:limit]}…"


def is_terminal(*handles: int) -> bool:
    """Whether a person can be asked there: each is a terminal."""
    return all(os.isatty(handle) for handle in handles)
