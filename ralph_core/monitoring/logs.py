"""The log of a run, for those who collect logs: the records of its account, and what libraries say, by `logging`."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler, SysLogHandler
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from ralph_core.errors import UserError
from ralph_core.records import AuditRecord

if TYPE_CHECKING:
    from ralph_core.redaction import Redactor
    from ralph_core.settings.model import Settings

BETWEEN = (__name__, "ralph_core.account.audit", "contextlib")
"""Modules that lie between the code that makes a record and this one,"""
CARRYING = ("observe", "_record")
"""and functions that do."""
LONGEST = 8000
"""Characters of a message to syslog, whose datagrams hold no more than some kilobytes."""


class Log:
    """Writes the log of one run. Raises `UserError` if its file, or syslog, can't be had.

    Handlers are given records one by one, and what they can't write is counted: a log must not end the run it tells of.
    """

    def __init__(self, settings: Settings, workspace: Path) -> None:
        self._settings = settings
        self._run, self._iteration = "", 0
        self._redactor: Redactor | None = None
        self._ids: Callable[[], tuple[str, str]] = lambda: ("", "")
        self._lost, self._reason = 0, ""
        self._level = getattr(logging, settings.monitoring.log_level.upper())
        self._handlers = list(self._open(workspace))
        self._root_level = logging.root.level

    def _open(self, workspace: Path) -> Iterator[logging.Handler]:
        how = self._settings.monitoring
        if self._settings.monitoring.log_file is not None:
            yield self._handler(_file(self._settings, workspace))
        if self._settings.monitoring.log_syslog:
            yield self._handler(_syslog(how.syslog_address), longest=LONGEST)
        if how.log_on_stderr:
            yield self._handler(logging.StreamHandler())

    def _handler(self, handler: logging.Handler, longest: int | None = None) -> logging.Handler:
        handler.setLevel(self._level)
        handler.setFormatter(_Lines(self.fields, self._settings.monitoring.log_format == "json", longest))
        handler.handleError = self._failed  # type: ignore[method-assign] # else it prints a traceback for each line
        return handler

    def begin(self, run: str, redactor: Redactor, ids: Callable[[], tuple[str, str]]) -> None:
        """The run begins: what libraries log from now on is of it."""
        self._run, self._redactor, self._ids = run, redactor, ids
        for handler in self._handlers:
            logging.root.addHandler(handler)
        logging.root.setLevel(min(self._level, self._root_level))

    def heed(self, record: AuditRecord) -> None:
        """Write a record of the account, as of the logger `ralph.TYPE`, with the place in the code that made it."""
        self._iteration = record.iteration
        if record.severity < self._level:
            return
        frame = _maker()
        error = sys.exc_info()
        faulty = record.type.endswith((".failed", ".abandoned")) and isinstance(error[1], Exception)
        line = logging.LogRecord(
            f"ralph.{record.type}",
            int(record.severity),
            frame.f_code.co_filename,
            frame.f_lineno,
            record.message or record.type.replace(".", " "),
            None,
            error if faulty and not getattr(error[1], "ordinary", False) else None,
            frame.f_code.co_name,
        )
        line.__dict__["record"] = record
        for handler in self._handlers:
            handler.handle(line)

    def fields(self, line: logging.LogRecord) -> dict[str, Any]:
        """What a line says, by name. Secrets are taken out here: a record has none, a library's message may."""
        record: AuditRecord | None = line.__dict__.get("record")
        ids = (record.trace_id, record.span_id) if record is not None else self._ids()
        found: dict[str, Any] = {
            "timestamp": record.time if record is not None else _utc(line.created),
            "level": line.levelname,
            "logger": line.name,
            "message": self._redacted(line.getMessage()),
            "module": line.module,
            "function": line.funcName,
            "line": line.lineno,
            "run": self._run,
            "iteration": self._iteration,
            "trace_id": ids[0],
            "span_id": ids[1],
        }
        if line.exc_info:
            found["exception"] = self._redacted(logging.Formatter().formatException(line.exc_info))
        if record is not None:
            found |= {"actor": record.actor, "capability": record.capability, "result": record.result}
            found |= {"seq": record.seq, "duration_ms": record.duration_ms}
            if self._level <= logging.DEBUG:
                found["data"] = record.data
        return found

    def _redacted(self, text: str) -> str:
        return self._redactor.text(text) if self._redactor is not None else text

    def _failed(self, record: logging.LogRecord) -> None:
        if (
            self._settings.monitoring.log_on_stderr
        ):  # nobody reads it any more: what Ralph does and how it ends is the same
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stderr.fileno())
            os.close(nowhere)
            return
        self._lost += 1
        self._reason = self._reason or str(sys.exc_info()[1])

    @property
    def notes(self) -> list[str]:
        """What has gone wrong, in words."""
        return [f"{self._lost} lines of the log could not be written: {self._reason}"] if self._lost else []

    def close(self) -> None:
        for handler in self._handlers:
            logging.root.removeHandler(handler)
            try:
                handler.close()
            except OSError as error:
                self._reason = self._reason or str(error)
        logging.root.setLevel(self._root_level)


class _Lines(logging.Formatter):
    """One line for each record, whatever is in its message: what an agent says can't look like a line of its own."""

    def __init__(
        self, fields: Callable[[logging.LogRecord], dict[str, Any]], as_json: bool, longest: int | None
    ) -> None:
        super().__init__()
        self._fields, self._as_json, self._longest = fields, as_json, longest

    def format(self, record: logging.LogRecord) -> str:
        found = self._fields(record)
        if self._as_json:
            if self._longest is not None:
                found |= {name: found[name][: self._longest // 2] for name in ("message", "exception") if name in found}
                found.pop("data", None)
            return json.dumps(found, ensure_ascii=False, default=str)
        place = f"[{found['run']} {found['iteration']}]"
        line = f"{found['timestamp']} {found['level']:<7} {found['logger']} {place} {_flat(found['message'])}"
        if data := found.get("data"):
            line += " " + _flat(json.dumps(data, ensure_ascii=False, default=str))
        if exception := found.get("exception"):
            line += "".join(f"\n  {_flat(each)}" for each in exception.splitlines())
        return line[: self._longest]


class _PrivateFile(RotatingFileHandler):
    """A log that nobody else may read: it has what the agent says and does."""

    def _open(self) -> TextIOWrapper:
        fd = os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        return os.fdopen(fd, "a", encoding="utf-8", errors="backslashreplace")


def _file(settings: Settings, workspace: Path) -> logging.Handler:
    path = Path(workspace, str(settings.monitoring.log_file))
    size, files = settings.monitoring.log_max_size, settings.monitoring.log_max_files
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return _PrivateFile(path, maxBytes=size, backupCount=files - 1)
    except OSError as error:
        raise UserError(f"the log {path} can't be written: {error.strerror}", mend="see --log-file") from None


def _syslog(address: str | tuple[str, int]) -> logging.Handler:
    try:
        if isinstance(address, str):
            Path(address).stat()  # the handler would wait for it to come, in silence
        handler = SysLogHandler(address)
    except (OSError, OverflowError) as error:
        shown = address if isinstance(address, str) else ":".join(map(str, address))
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"monitoring.log_syslog: {shown} can't be had: {reason}") from None
    handler.ident = f"ralph[{os.getpid()}]: "
    return handler


def _maker() -> FrameType:
    """The frame that made the record which is being observed."""
    frame = sys._getframe(1)  # noqa: SLF001 - as `logging` itself finds out who calls it
    while frame.f_back is not None and (frame.f_globals.get("__name__") in BETWEEN or frame.f_code.co_name in CARRYING):
        frame = frame.f_back
    return frame


def _utc(seconds: float) -> str:
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{int(seconds % 1 * 1000):03d}Z"


def _flat(text: str) -> str:
    """`text` on one line, with escapes for all that is not printable."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
