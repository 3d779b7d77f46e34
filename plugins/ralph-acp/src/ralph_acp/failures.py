"""What an error of the protocol means for Ralph. Errors alone are looked into, never what the model said.

Seen in November 2026: Gemini CLI gives the HTTP status as the error's code; claude-agent-acp and codex-acp say
"Internal error" (-32603), the former with `errorKind` in `data`, and the status in the message.
"""

from __future__ import annotations

import re
from typing import Any

from ralph_core.events import Failed, FailureKind

AUTH_REQUIRED = -32000
STATUS = re.compile(r"\b(?:status|error|http|code)\b\D{0,12}\b([45]\d\d)\b", re.IGNORECASE)
UNREACHABLE = re.compile(
    r"ECONNREFUSED|ECONNRESET|ENOTFOUND|ETIMEDOUT|ConnectionRefused|fetch failed|unable to connect", re.IGNORECASE
)
WORDS = {
    "authentication_failed": FailureKind.AUTH,
    "oauth_org_not_allowed": FailureKind.AUTH,
    "billing_error": FailureKind.AUTH,
    "rate_limit": FailureKind.USAGE_LIMIT,
    "overloaded": FailureKind.OVERLOADED,
}
"""`errorKind` of claude-agent-acp 0.49.0."""


def failure(code: int, message: str, data: Any) -> Failed:
    """The failure that an error answer stands for."""
    said = _said(message, data)
    if code == AUTH_REQUIRED:
        return Failed(FailureKind.AUTH, said)
    word = data.get("errorKind") if isinstance(data, dict) else None
    kind = WORDS.get(word) if isinstance(word, str) else None
    return Failed(kind or of_status(_status(code, said, data), said), said)


def of_status(status: int | None, said: str) -> FailureKind:
    """The kind of failure for an HTTP status, if there was one."""
    if status in (401, 403):
        return FailureKind.AUTH
    if status == 429:
        return FailureKind.USAGE_LIMIT
    if status is not None and status >= 500:
        return FailureKind.OVERLOADED
    return FailureKind.NETWORK if UNREACHABLE.search(said) else FailureKind.AGENT


def status_in(text: str) -> int | None:
    """The HTTP status that an error's message names."""
    found = STATUS.search(text)
    return int(found[1]) if found else None


def _status(code: int, said: str, data: Any) -> int | None:
    told = [code, *(data.get(name) for name in ("status", "statusCode", "code"))] if isinstance(data, dict) else [code]
    return next((each for each in told if isinstance(each, int) and 400 <= each < 600), None) or status_in(said)


def _said(message: str, data: Any) -> str:
    """The message, with what `data` adds to it."""
    detail = (
        next((data[name] for name in ("message", "details", "detail") if data.get(name)), "")
        if isinstance(data, dict)
        else ""
    )
    text = f"{message}: {detail}" if detail and str(detail) not in message else message
    return " ".join(text.split())[:1000]
