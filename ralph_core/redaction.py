"""Keeps secrets out of what Ralph writes down and shows.

A secret is known by its value (what secret variables hold), by its form (keys of well-known services, tokens, private
keys), or by the name that it is given under in JSON (`"api_key": "..."`).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

SECRET_NAME = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)(_|$)", re.IGNORECASE)
"""Variables whose values are secrets."""
OWN = ("AUDIT_ENCRYPTION_KEY",)
"""Variables that are Ralph's own, and are not handed on to the processes that it starts."""
SHORTEST = 8
"""A shorter value is no secret worth the name, and would blank out ordinary words."""
MASK = "[redacted]"
LONGEST = 16 * 1024
"""Characters of the longest secret that is known by its form; parts of a text overlap by as much when it is read in parts."""
PHRASE = 100
"""Characters up to which a text is remembered with what it becomes: most names and phrases come again and again."""
NAMES_KEPT = 4096
"""Names of which it is remembered whether a secret stands under them."""
DEEPEST = 200
"""Levels of a JSON value; what lies deeper is replaced."""

KEYS = r"(?:api[_-]?key|access[_-]?key|secret[_-]?key|private[_-]?key|secret|token|passw(?:or)?d|passphrase|authorization|credentials?|cookie)"
"""How a name ends under which a secret stands. Not `tokens`, which are counted."""
KEY = re.compile(rf"{KEYS}$", re.IGNORECASE)
FORMS = (
    r"sk-(?:(?:ant|proj|svcacct|admin)-[A-Za-z0-9_-]{10,300}|[A-Za-z0-9]{32,300})",  # Anthropic, OpenAI
    r"AIza[0-9A-Za-z_-]{30,50}",  # Google
    r"gh[pousr]_[A-Za-z0-9]{30,300}|github_pat_[A-Za-z0-9_]{22,300}",
    r"A[KS]IA[0-9A-Z]{16}",  # Amazon Web Services
    r"xox[abeprs]-[A-Za-z0-9-]{10,300}",  # Slack
    r"(?:Bearer|Basic) [A-Za-z0-9._~+/-]{16,8000}=*",
    r"eyJ[A-Za-z0-9_-]{8,8000}\.[A-Za-z0-9_-]{8,8000}\.[A-Za-z0-9_-]{0,2000}",  # JSON web tokens
    r"-----BEGIN [A-Z ]{0,20}PRIVATE KEY-----.{0,15000}?-----END [A-Z ]{0,20}PRIVATE KEY-----",
)
# In JSON, and in JSON within a string of JSON, where the quotes are escaped; the value alone is the secret.
NAMED = rf'{KEYS}\\*"\s{{0,5}}:\s{{0,5}}\\*"(?P<named>(?:Bearer )?[^"\\\s]{{{SHORTEST},8000}})'


class Redactor:
    """Replaces secrets by a mask: in texts, in all strings of a JSON value, and in files."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._values: frozenset[str] = frozenset()
        self._compile()
        self.learn(env)

    def learn(self, env: Mapping[str, str]) -> None:
        """Take the values of variables, and of headers, with secret names for secrets from now on, in all forms in which they are echoed."""
        named = [value for name, value in env.items() if SECRET_NAME.search(name) or KEY.search(name)]
        values = {value for value in (text.removeprefix("Bearer ") for text in named) if len(value) >= SHORTEST}
        if not values <= self._values:
            self._values |= values
            self._compile()

    def _compile(self) -> None:
        spelt = {form for value in self._values for form in _spellings(value)}
        ordered = sorted(spelt, key=len, reverse=True)  # a secret that holds another one goes first
        self._forms = re.compile("|".join([*map(re.escape, ordered), *FORMS]), re.DOTALL)
        binary = [re.escape(form.encode("utf-8", "surrogateescape")) for form in ordered]
        self._bytes = re.compile(b"|".join([*binary, *(form.encode() for form in FORMS)]), re.DOTALL)
        self._names: dict[Any, tuple[str, bool]] = {}
        self._overlap = max([LONGEST, *(4 * len(form) for form in ordered)])
        self._texts: dict[str, str] = {}  # the last: who finds it new finds all of the above new, too

    def text(self, text: str) -> str:
        """`text` with every secret in it replaced."""
        if len(text) < SHORTEST:
            return text
        texts = self._texts
        if (known := texts.get(text)) is not None:
            return known
        shown = self._forms.sub(MASK, text)
        if '"' in shown:
            shown = _NAMED.sub(_keep_the_name, shown)
        if len(text) <= PHRASE:
            if len(texts) >= NAMES_KEPT:
                texts.clear()
            texts[text] = shown
        return shown

    def cut(self, text: str, length: int) -> str:
        """The beginning of `text`, redacted before it is cut: half a secret would not be known for one."""
        return self.text(text[: length + self._overlap])[:length]

    def tail(self, text: str, length: int) -> str:
        """The end of `text`, redacted before it is cut."""
        return self.text(text[-length - self._overlap :])[-length:]

    def value(self, value: Any, depth: int = 0) -> Any:
        """`value` with every string in it redacted; keys too, and all that stands under a name of a secret."""
        kind = type(value)
        if kind is str:
            return value if len(value) < SHORTEST else self.text(value)
        if value is None or kind is int or kind is float or kind is bool:
            return value
        if depth > DEEPEST:
            return MASK
        if kind is dict or isinstance(value, Mapping):
            found = {}
            for name, item in value.items():
                shown, secret = self._names.get(name) or self._name(name)
                kind = type(item)
                if item is None or kind is int or kind is float or kind is bool:  # most are, or are plain text
                    found[shown] = item
                elif secret and item:
                    found[shown] = MASK
                else:
                    found[shown] = self.text(item) if kind is str else self.value(item, depth + 1)
            return found
        if isinstance(value, (list, tuple, set, frozenset)):
            return [self.value(item, depth + 1) for item in value]
        return self.text(str(value))

    def _name(self, name: Any) -> tuple[str, bool]:
        """A key as it is shown, and whether a secret stands under it."""
        known = self.text(str(name)), KEY.search(str(name)) is not None
        if len(self._names) < NAMES_KEPT:
            self._names[name] = known
        return known

    # --- files ---

    def file(self, path: Path, late: Callable[[], bool] = lambda: False) -> int:
        """Overwrite every secret in a file that nobody writes any more, in place; returns how many there were.

        Memory is bounded, however large the file and its lines are; no further room on the disk is needed. Raises OSError,
        and `TimeoutError` when it gets `late`, which is asked a few hundred times a second; to begin anew does no harm.
        """
        found, handle = 0, os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            for start, end in self._places(handle, late):
                os.pwrite(handle, _mask(end - start), start)
                found += 1
            if found:
                os.fsync(handle)
        finally:
            os.close(handle)
        return found

    def _places(self, handle: int, late: Callable[[], bool]) -> Iterator[tuple[int, int]]:
        """Where secrets are in an open file: first and last byte, the last one not included."""
        size, offset, done = os.fstat(handle).st_size, 0, 0
        while offset < size:
            if late():
                raise TimeoutError
            # What begins in the first part of a piece is whole in it, and is found there; the rest comes again.
            piece = os.pread(handle, PIECE + self._overlap, offset)
            if not piece:
                return
            last = offset + len(piece) >= size
            whole = len(piece) if last else PIECE
            for start, end in sorted(_spans(self._bytes, piece, whole) + _named_spans(piece, whole)):
                if offset + end > done:
                    done = offset + end
                    yield offset + start, done
            offset += whole


PIECE = 256 * 1024
"""Bytes of a file that are looked through at once: short enough that the rest of Ralph is not held up."""
_NAMED = re.compile(NAMED, re.IGNORECASE)
_NAMED_IN_LOWER_CASE = re.compile(NAMED.replace("Bearer", "bearer").encode())


def _spans(pattern: re.Pattern[bytes], piece: bytes, whole: int) -> list[tuple[int, int]]:
    return [match.span() for match in pattern.finditer(piece) if match.start() < whole]


def _named_spans(piece: bytes, whole: int) -> list[tuple[int, int]]:
    # In lower case: to look for words in either case takes five times as long. ASCII alone changes, and no length.
    found = _NAMED_IN_LOWER_CASE.finditer(piece.lower())
    return [match.span("named") for match in found if match.start() < whole]


def _mask(length: int) -> bytes:
    return (MASK if length >= len(MASK) else "").encode().ljust(length, b"*")


def _keep_the_name(match: re.Match[str]) -> str:
    start = match.start("named") - match.start()
    return match[0][:start] + MASK


def _spellings(value: str) -> Iterator[str]:
    """A secret as it is, and as it stands in JSON and in an address."""
    yield value
    yield json.dumps(value)[1:-1]
    yield json.dumps(value, ensure_ascii=False)[1:-1]
    yield quote(value, safe="")
