"""Encrypts the lines of the file sink: AES-256-GCM, each record with a nonce of its own, under a key that has an id.

A line is `{"key": ..., "nonce": ..., "run": ..., "sealed": ..., "seq": ...}`: run and number stay readable, and are
authenticated with the rest. Several keys may be given; the first one encrypts, all of them decrypt.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from ralph_core.contracts import Context
from ralph_core.errors import UserError
from ralph_core.records import AuditRecord

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

VARIABLE = "AUDIT_ENCRYPTION_KEY"
SEALED = b'{"key":"'
"""How a sealed line begins; a plain one begins with the field `actor`."""
MAKE_ONE = "make one with `openssl rand -hex 32`"


class EncryptionSettings(BaseModel):
    """Encryption of the account. The keys themselves are no settings: see `docs/audit.md`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = False
    """Whether records are written encrypted; those that are can be read whatever is said here."""
    key_file: str | None = None
    """A file with the keys, one a line, that only its owner can read; relative to the workspace."""
    keyring: str | None = None
    """Where the system's keyring has them: `SERVICE/NAME`."""


class Cipher:
    """Seals and opens lines. The keys are looked up at once if they are needed for writing, else when a sealed line comes."""

    def __init__(self, settings: EncryptionSettings, context: Context) -> None:
        self._settings, self._context = settings, context
        self._known: dict[str, AESGCM] = {}
        self._first = ""
        if settings.enabled:
            self._load()

    def sealed(self, record: AuditRecord) -> bytes:
        """The line to be kept of a record."""
        nonce = os.urandom(12)
        public = f"{self._first}\n{record.run}\n{record.seq}".encode()
        sealed = self._known[self._first].encrypt(nonce, record.line, public)
        return _line(self._first, nonce, record.run, sealed, record.seq)

    def opened(self, line: bytes) -> bytes:
        """The line as it was before it was sealed; one that was changed since comes back as nothing but a line end.

        Raises `UserError` when its key is not there.
        """
        if not line.startswith(SEALED):
            return line
        parts = _parts(line)
        if parts is None:
            return line if not line.endswith(b"\n") else b"\n"
        key, nonce, run, sealed, seq = parts
        if not self._known:
            self._load()
        if key not in self._known:
            known = ", ".join(self._known)
            raise UserError(f"the account was encrypted with key {key}, which is not given", mend=f"given are: {known}")
        from cryptography.exceptions import InvalidTag

        try:
            return self._known[key].decrypt(nonce, sealed, f"{key}\n{run}\n{seq}".encode())
        except InvalidTag:
            return b"\n"

    def _load(self) -> None:
        try:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError:
            raise UserError(
                "encryption of the account needs the package cryptography", mend="pip install 'ralph-core[encryption]'"
            ) from None
        for name, key in self._keys():
            self._first = self._first or name
            self._known.setdefault(name, AESGCM(key))
        if not self._known:
            raise UserError(
                "the account is encrypted, and there is no key for it",
                mend=f"set {VARIABLE}, sinks.file.encryption.key_file or .keyring; {MAKE_ONE}",
            )

    def _keys(self) -> Iterator[tuple[str, bytes]]:
        """All keys with their ids, from everywhere that is named."""
        if written := self._context.env.get(VARIABLE):
            yield from (_key(each, f"variable {VARIABLE}") for each in written.split(",") if each.strip())
        if self._settings.key_file is not None:
            path = Path(self._context.workspace, self._settings.key_file)
            yield from (_key(each, str(path)) for each in _words(path).splitlines() if each.strip())
        if self._settings.keyring is not None:
            found = _from_keyring(self._settings.keyring)
            yield from (_key(each, "the keyring") for each in found.split(",") if each.strip())


def _key(written: str, where: str) -> tuple[str, bytes]:
    """A key as it is written, `[ID:]KEY` in hexadecimal or base64, and its id. Raises `UserError`, which does not show it."""
    name, _, text = written.strip().rpartition(":")
    try:
        key = (
            bytes.fromhex(text)
            if len(text) == 64
            else base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True)
        )
    except (ValueError, binascii.Error):
        key = b""
    if len(key) != 32:
        raise UserError(f"{where}: a key of the account has to be 32 bytes in hexadecimal or base64", mend=MAKE_ONE)
    return name or sha256(key).hexdigest()[:8], key


def _words(path: Path) -> str:
    try:
        if path.stat().st_mode & 0o077:
            raise UserError(f"others than you can read the keys in {path}", mend=f"chmod 600 {path}")
        return path.read_text("ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the keys in {path} can't be read: {getattr(error, 'strerror', None) or error}") from None


def _from_keyring(place: str) -> str:
    service, _, name = place.partition("/")
    try:
        import keyring
    except ImportError:
        raise UserError("the package keyring is not installed", mend="pip install keyring") from None
    try:
        found = keyring.get_password(service, name)
    except Exception as error:
        raise UserError(f"the keyring does not give {place!r}: {type(error).__name__}: {error}") from None
    if not found:
        raise UserError(f"the keyring has no entry {place!r}", mend=f"keyring set {service} {name}")
    return str(found)


def _line(key: str, nonce: bytes, run: str, sealed: bytes, seq: int) -> bytes:
    text = base64.b64encode(sealed)
    head = json.dumps({"key": key, "nonce": nonce.hex(), "run": run}, separators=(",", ":")).encode()
    return b'%b,"sealed":"%b","seq":%d}\n' % (head[:-1], text, seq)


def _parts(line: bytes) -> tuple[str, bytes, str, bytes, int] | None:
    """What a sealed line is made of; None if it is not, to the byte, as it would be written."""
    try:
        found = json.loads(line)
        parts = (
            str(found["key"]),
            bytes.fromhex(found["nonce"]),
            str(found["run"]),
            base64.b64decode(found["sealed"]),
            int(found["seq"]),
        )
    except (ValueError, KeyError, TypeError):
        return None
    return parts if _line(*parts) == line else None
