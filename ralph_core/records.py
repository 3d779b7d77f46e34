"""The audit record, how it is written down, and how records are asked for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import field, fields
from enum import IntEnum
from functools import cached_property, lru_cache
from typing import Any

from .values import dataclass

SCHEMA = 1
ENDINGS = ("finished", "failed", "abandoned")
"""How a pair of records that was begun by `*.started` may end."""
FIRST = "0" * 64
"""What stands for the hash of the record before the first one."""


class Severity(IntEnum):
    """How much a record matters to someone who reads the account in the morning."""

    DEBUG = 10
    """For who looks for the reason of something."""
    INFO = 20
    """What was done."""
    WARNING = 30
    """Something went otherwise than it should, and the run goes on."""
    ERROR = 40
    """Worse than that; what Ralph records itself is a warning at most."""


@dataclass(frozen=True, kw_only=True)
class AuditRecord:
    """One line of the account. Each `*.started` is followed by exactly one `*.finished`, `*.failed` or `*.abandoned` of its stem."""

    schema: int = SCHEMA
    """Version of the layout."""
    seq: int
    """Number within the run: from 1 on, without gaps."""
    id: str
    """Unique over all runs."""
    time: str
    """When it was made: ISO 8601, in UTC."""
    run: str
    """Id of the run."""
    iteration: int
    """Number of the iteration in hand; 0: none yet."""
    type: str
    """What happened, in dotted words: `iteration.started`, `tool.finished`."""
    severity: Severity
    """How much it matters."""
    actor: str
    """Who did it: an agent, a policy, a tool, `ralph`, or a `person`."""
    plugin: str = ""
    """Name of the plugin that brought the actor."""
    capability: str = ""
    """What was used: `agent`, `gate`, `store`, `tool:Bash`."""
    result: str = ""
    """What came of it: `success`, `failure`, `abandoned`, or a verdict (`allow`, `deny`, ...); empty for what has none."""
    message: str = ""
    """For a person, in a sentence or less."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """More of it, by the type of the record; values as JSON has them."""
    approval: str = ""
    """Id of a person's approval."""
    usage: Mapping[str, Any] | None = None
    """What was spent: `cost_usd` in US dollars, and tokens."""
    trace_id: str = ""
    """The trace of the run, in hexadecimal."""
    span_id: str = ""
    """The span that it happened in."""
    duration_ms: float | None = None
    """Milliseconds since the record that began the pair."""
    prev_hash: str = ""
    """The `hash` of the run's record before; of the first one, zeros."""
    hash: str = ""
    """SHA-256 of the record in canonical JSON, without itself."""

    @cached_property
    def line(self) -> bytes:
        """The record as it is kept: canonical JSON (sorted keys, no blanks, UTF-8) with its hash last, and a line end."""
        return _sealed(_body(fields_of(self)), self.hash)


NAMES = tuple(each.name for each in fields(AuditRecord))


LEVELS = {severity: severity.name.lower() for severity in Severity}


def fields_of(record: AuditRecord) -> dict[str, Any]:
    """The fields of a record as JSON has them."""
    known = {**vars(record), "severity": LEVELS[record.severity]}
    known.pop("line", None)
    return known


def made(fields: dict[str, Any]) -> AuditRecord:
    """A record of all of its fields. In a third of the time that its class takes, which counts: this is done for every one."""
    record = object.__new__(AuditRecord)
    record.__dict__.update(fields)
    return record


def chained(record: AuditRecord, before: str) -> AuditRecord:
    """The record with its place in the chain: `before` is the hash of the one before."""
    fields = vars(record).copy()
    fields["prev_hash"], fields["severity"] = before, LEVELS[record.severity]
    fields.pop("line", None)
    body = _body(fields)
    digest = hashlib.sha256(body).hexdigest()
    fields["severity"], fields["hash"], fields["line"] = record.severity, digest, _sealed(body, digest)
    return made(fields)


def record_of(line: bytes) -> AuditRecord | None:
    """The record that a line holds; None for a torn one. Fields of later versions of Ralph are left out."""
    try:
        found = json.loads(line)
        known = {name: found[name] for name in NAMES if name in found}
        record = AuditRecord(**known | {"severity": Severity[found["severity"].upper()]})
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    record.__dict__["line"] = line  # as it was, whatever this version of Ralph would write
    return record


def taken_apart(line: bytes) -> tuple[bytes, str] | None:
    """What was hashed of a line, and the hash that it claims, to the byte; None if it is no line of an account."""
    if len(line) < 80 or not line.endswith(b'"}\n') or line[-76:-67] != b',"hash":"':
        return None
    return line[:-76] + b"}", line[-67:-3].decode("ascii", "replace")


def _sealed(body: bytes, digest: str) -> bytes:
    return b'%b,"hash":"%b"}\n' % (body[:-1], digest.encode("ascii"))


_encode = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"), default=str).encode


@lru_cache(maxsize=1)
def _writer() -> Callable[[dict[str, Any]], bytes]:
    """What writes JSON: orjson, an extra that is five times as fast, if it is there.

    The hash is over the bytes as they are, so a check does not depend on who wrote them.
    """
    try:
        import orjson  # not before there is a record to be written
    except ImportError:
        return lambda found: _encode(found).encode()

    def fast(found: dict[str, Any]) -> bytes:
        try:
            return orjson.dumps(found, str, orjson.OPT_SORT_KEYS)
        except (
            TypeError
        ):  # what it does not take: integers over 64 bits, half surrogate pairs, names that are no strings
            return _encode(found).encode()

    return fast


def _body(found: dict[str, Any]) -> bytes:
    del found["hash"]
    try:
        return _writer()(found)
    except UnicodeEncodeError:  # half a surrogate pair, as in file names that are not UTF-8: only escapes can say that
        return json.dumps(found, sort_keys=True, separators=(",", ":"), default=str).encode()


@dataclass(frozen=True, kw_only=True)
class AuditFilter:
    """Which records are wanted: all that match every given field."""

    run: str | None = None
    """Id of their run."""
    type: str | None = None
    """Their type; `tool.*` is every type that begins so."""
    severity: Severity = Severity.DEBUG
    """The least that matters."""
    limit: int | None = None
    """How many at most, the oldest first."""
    since: str | None = None
    """Not made before that time: ISO 8601, in UTC, as in the records."""
    until: str | None = None
    """Made before that time."""
    tool: str | None = None
    """Name of a tool that was used."""
    success: bool | None = None
    """Whether it went well, of records that say so."""
    after: int = 0
    """The `seq` after which to begin: the next page of one run is asked for with the last `seq` of the page before."""

    def lets_through(self, record: AuditRecord) -> bool:
        """Whether the record matches, `limit` apart."""
        return (
            (self.run is None or record.run == self.run)
            and record.seq > self.after
            and record.severity >= self.severity
            and (self.type is None or _is_of_type(record.type, self.type))
            and (self.since is None or record.time >= self.since)
            and (self.until is None or record.time < self.until)
            and (self.tool is None or record.capability == f"tool:{self.tool}")
            and (self.success is None or (record.result in GOOD if self.success else record.result in BAD))
        )

    def of(self, records: Iterable[AuditRecord]) -> Iterator[AuditRecord]:
        """The records that are let through, at most `limit` of them."""
        count = 0
        for record in records:
            if self.limit is not None and count >= self.limit:
                return
            if self.lets_through(record):
                count += 1
                yield record


GOOD, BAD = ("success", "allow"), ("failure", "abandoned", "deny", "ask", "pause", "stop")


def _is_of_type(type_: str, wanted: str) -> bool:
    return type_.startswith(wanted[:-1]) if wanted.endswith(".*") else type_ == wanted
