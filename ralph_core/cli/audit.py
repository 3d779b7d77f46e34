"""`ralph audit`: the account of a run, looked at, checked, handed on, and forgotten when its time is over."""

from __future__ import annotations

import csv
import json
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ralph_core.account.chain import Checked, check
from ralph_core.contracts import Capability
from ralph_core.errors import StoreError, UnknownName, UserError
from ralph_core.records import NAMES, AuditFilter, AuditRecord, Severity, fields_of
from ralph_core.verdicts import ExitCode
from ralph_core.workspace import Holder, WorkspaceLock, is_held

from .common import printable, say, say_json, session
from .output import stdout

if TYPE_CHECKING:
    from ralph_core.session import Session

PAGE = 100
"""Records of one answer, unless `--limit` says otherwise."""
LOOK = 0.5
"""Seconds between two looks for further records."""
RELATIVE = re.compile(r"(\d+)([smhd])")
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


# --- looking ----------------------------------------------------------------------------------------------------------


def query(
    run: str | None,
    wanted: Mapping[str, Any],
    overrides: Mapping[str, Any],
    *,
    config: Path | None,
    form: str,
    all_: bool,
) -> int:
    """Print a page of the records that match; `form` is text, json or csv."""
    here = session(overrides, config=config)
    if all_ and wanted.get("after"):
        raise UserError("--after continues the page of one run", mend="name the run, or narrow it down with --since")
    here, run = _place(here, run, all_=all_)
    page = wanted.get("limit") or PAGE
    asked = replace(_filter(wanted), run=run, limit=page + 1)
    found = list(here.auditor(Capability.QUERY).query(asked))
    records, more = found[:page], found[page:]
    after = records[-1].seq if more else None
    if form == "json":
        say_json({"run": run, "records": [fields_of(record) for record in records], "next": after})
    elif form == "csv":
        _write_csv(records, stdout())
    else:
        for record in records:
            say(_line(record))
        if after is not None:
            say(f"(there are more: --after {after})" if run else "(there are more: --limit, --since)", sys.stderr)
    return ExitCode.COMPLETED


def tail(
    run: str | None, count: int, overrides: Mapping[str, Any], *, config: Path | None, follow: bool, as_json: bool
) -> int:
    """Print the last records of a run and, with `follow`, those that come, until nobody works on it any more.

    `as_json`: each as the line of JSON that it is in the account.
    """
    line = _json_line if as_json else _line
    here = session(overrides, config=config)
    here, run = _run(here, run)
    sink = here.auditor(Capability.QUERY)
    last: list[AuditRecord] = []
    for record in sink.query(AuditFilter(run=run)):
        last = [*last[-count + 1 :], record] if count > 1 else [record]
    seq = last[-1].seq if last else 0
    for record in last if count else ():
        say(line(record))
    while follow:
        live = is_held(here.workspace, here.home, run)  # asked first: what is written until then is still shown
        for record in sink.query(AuditFilter(run=run, after=seq)):
            say(line(record))
            seq = record.seq
        follow = live
        if follow:
            time.sleep(LOOK)
    return ExitCode.COMPLETED


# --- checking ---------------------------------------------------------------------------------------------------------


def verify(run: str | None, overrides: Mapping[str, Any], *, config: Path | None, as_json: bool, all_: bool) -> int:
    """Check the chain of a run's records, or of all runs, against the anchors; exit 1 names the first bad record."""
    here = session(overrides, config=config)
    if all_:  # those in worktrees have accounts of their own
        apart = here.worktrees()
        places = {each: apart.get(each, there) for there in (here, *apart.values()) for each in _all_runs(there)}
        results = [_checked(there, each) for each, there in sorted(places.items())]
    else:
        here, run = _run(here, run)
        results = [_checked(here, run)]
    bad = any(result.problem for result in results)
    if not results and not as_json:
        say("the account holds no run")
    if as_json:
        say_json([asdict(result) for result in results])
    else:
        for result in results:
            for line in _verdict(result):
                say(line)
    return ExitCode.FAILED if bad else ExitCode.COMPLETED


def _checked(here: Session, run: str) -> Checked:
    sink = here.auditor(Capability.VERIFY)
    try:
        anchors = here.store().anchors(run)  # before the records: those of a run that goes on only grow
    except (StoreError, UserError):
        anchors = []
    return check(run, sink.lines(), anchors, sink.dropped(run))


def _verdict(result: Checked) -> Iterator[str]:
    if result.problem:
        yield f"✗ {result.run}: {printable(result.problem)}"
    else:
        vouched = f", anchored up to record {result.anchored}" if result.anchored else ", without an anchor"
        yield f"✓ {result.run}: {result.records} records in order{vouched}"
    for note in result.notes:
        yield f"  {printable(note)}"


# --- handing on -------------------------------------------------------------------------------------------------------


def export(
    run: str | None,
    wanted: Mapping[str, Any],
    overrides: Mapping[str, Any],
    *,
    config: Path | None,
    form: str,
    output: Path | None,
    all_: bool,
) -> int:
    """Write all records that match, as JSON lines or CSV, to a file or standard output."""
    here = session(overrides, config=config)
    here, run = _place(here, run, all_=all_)
    asked = replace(_filter(wanted), run=run)
    records = here.auditor(Capability.QUERY).query(asked)
    with _written(output) as stream:
        if form == "csv":
            _write_csv(records, stream)
        else:
            _write_lines(records, stream)
    return ExitCode.COMPLETED


def decrypt(
    run: str | None, overrides: Mapping[str, Any], *, config: Path | None, output: Path | None, all_: bool
) -> int:
    """Write the lines of the account as they were before they were encrypted, to the byte."""
    here = session(overrides, config=config)
    here, run = _place(here, run, all_=all_)
    marker = (run or "").encode()
    with _written(output) as stream:
        for place, line in here.auditor(Capability.VERIFY).lines():
            if line == b"\n":
                raise UserError(f"{place}: the line was changed, or encrypted with another key of the same id")
            if marker in line:
                stream.write(line.decode("utf-8", "replace"))
    return ExitCode.COMPLETED


@contextmanager
def _written(output: Path | None) -> Iterator[IO[str]]:
    """The stream to write to: standard output, or a new file that only its owner can read."""
    if output is None:
        try:
            yield stdout()
            stdout().flush()
        except BrokenPipeError:  # `| head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), stdout().fileno())
        return
    try:
        with open(output, "w", encoding="utf-8", newline="", opener=_private) as stream:
            yield stream
    except OSError as error:
        raise UserError(f"{output} can't be written: {error.strerror or error}") from None


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _write_lines(records: Iterable[AuditRecord], stream: IO[str]) -> None:
    for record in records:
        stream.write(record.line.decode("utf-8", "replace"))


def _write_csv(records: Iterable[AuditRecord], stream: IO[str]) -> None:
    rows = csv.writer(stream, lineterminator="\n")
    rows.writerow(NAMES)
    for record in records:
        rows.writerow([_cell(value) for value in fields_of(record).values()])


def _cell(value: Any) -> str:
    """A value as text; what a spreadsheet would take for a formula is marked as none."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = text.replace("\0", "\ufffd")
    return f"'{text}" if isinstance(value, str) and text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


# --- forgetting -------------------------------------------------------------------------------------------------------


def prune(days: float | None, overrides: Mapping[str, Any], *, config: Path | None) -> int:
    """Forget the runs whose last record is older than the retention allows."""
    here = session(overrides, config=config)
    days = here.settings.audit_retention_days if days is None else days
    before = datetime.now(timezone.utc) - timedelta(days=days)
    lock = WorkspaceLock(here.workspace, here.home)
    lock.acquire(Holder(os.getpid(), "(ralph audit prune)", time.time()))
    try:
        count = here.auditor(Capability.PRUNE).prune(_iso(before))
    except OSError as error:
        raise StoreError(f"the account could not be pruned: {error}") from error
    finally:
        lock.release()
    say(f"{count} runs forgotten whose last record is from before {before:%Y-%m-%d %H:%M} UTC")
    return ExitCode.COMPLETED


# --- what they share --------------------------------------------------------------------------------------------------


def _place(here: Session, run: str | None, *, all_: bool) -> tuple[Session, str | None]:
    """Where the account is that is asked for, and the run; None for all that are in it."""
    return (here, None) if all_ else _run(here, run)


def _run(here: Session, run: str | None) -> tuple[Session, str]:
    """The id of a run, and its session: of one that there is, or of one of which only the account is left."""
    try:
        there, run, _ = here.find(run)
        return there, run
    except (UserError, StoreError):
        known = [each for each in _all_runs(here) if run is None or each.startswith(run)]
        if not known or (run is not None and len(known) > 1):
            raise
        return here, known[-1]


def _all_runs(here: Session) -> list[str]:
    """The ids of all runs in the account, the oldest first."""
    return sorted({record.run for record in here.auditor(Capability.QUERY).query(AuditFilter())})


def _filter(wanted: Mapping[str, Any]) -> AuditFilter:
    """What the options ask for. Raises `UserError`."""
    given = {name: value for name, value in wanted.items() if value is not None and name != "limit"}
    if "severity" in given:
        level = str(given["severity"]).upper()
        if level not in Severity.__members__:
            raise UnknownName("severity", level.lower(), [each.name.lower() for each in Severity], where="--severity")
        given["severity"] = Severity[level]
    for name in ("since", "until"):
        if name in given:
            given[name] = _iso(_moment(str(given[name]), f"--{name}"))
    return AuditFilter(**given)


def _moment(words: str, option: str) -> datetime:
    """A time as it is given: ISO 8601 (UTC unless it says otherwise), or how long ago."""
    if match := RELATIVE.fullmatch(words):
        return datetime.now(timezone.utc) - timedelta(**{UNITS[match[2]]: int(match[1])})
    try:
        moment = datetime.fromisoformat(words.replace("Z", "+00:00"))
    except (ValueError, OverflowError):
        raise UserError(
            f"{option}: {words!r} is no time", mend="write 2026-11-21T08:00, or 90m, 12h, 7d for so long ago"
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)


def _iso(moment: datetime) -> str:
    """As the records have it."""
    return moment.astimezone(timezone.utc).isoformat(timespec="milliseconds")[:-6] + "Z"


def _json_line(record: AuditRecord) -> str:
    return record.line.decode("utf-8", "replace").rstrip("\n")


def _line(record: AuditRecord) -> str:
    """A record in one line."""
    took = f"  ({record.duration_ms:.0f} ms)" if record.duration_ms is not None else ""
    what = f"{record.capability} " if record.capability.startswith("tool:") else ""
    who = f"{record.severity.name.lower():<7}  {record.type:<20}  {record.actor:<12}"
    return printable(
        f"{record.seq:>6}  {record.time}  {record.iteration:>3}  {who}  {what}{record.message}{took}"
    ).rstrip()
