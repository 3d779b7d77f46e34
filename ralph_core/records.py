"""The audit record, and how records are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

SCHEMA = 1


class Severity(IntEnum):
    """How much a record matters to someone who reads the account in the morning."""

    DEBUG = 10
    INFO = 20
    WARNING = 30
    ERROR = 40


@dataclass(frozen=True, kw_only=True)
class AuditRecord:
    """One line of the account.

    `time` is ISO 8601 in UTC; `seq` counts from 1 within a run, without gaps; `id` is unique. `type` is dotted, and each
    `*.started` is followed by exactly one `*.finished`, `*.failed` or `*.abandoned` of the same stem.
    """

    schema: int = SCHEMA
    seq: int
    id: str
    time: str
    run: str
    iteration: int
    type: str
    severity: Severity
    actor: str
    plugin: str = ""
    message: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    trace_id: str = ""
    span_id: str = ""
    duration_ms: float | None = None


@dataclass(frozen=True, kw_only=True)
class AuditFilter:
    """Which records are wanted: all that match every given field."""

    run: str | None = None
    type: str | None = None
    severity: Severity = Severity.DEBUG
    limit: int | None = None
