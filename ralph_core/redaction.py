"""Keeps secrets out of what Ralph writes down: the values of secret variables, wherever they turn up."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

SECRET_NAME = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)(_|$)", re.IGNORECASE)
SHORTEST = 8
"""A shorter value is no secret worth the name, and would blank out ordinary words."""
MASK = "[redacted]"


class Redactor:
    """Replaces the values of variables with secret names by a mask, in strings and in all strings of a JSON value."""

    def __init__(self, env: Mapping[str, str]) -> None:
        values = {value for name, value in env.items() if SECRET_NAME.search(name) and len(value) >= SHORTEST}
        ordered = sorted(values, key=len, reverse=True)  # a secret that holds another one goes first
        self._pattern = re.compile("|".join(re.escape(value) for value in ordered)) if ordered else None

    def text(self, text: str) -> str:
        return self._pattern.sub(MASK, text) if self._pattern else text

    def value(self, value: Any) -> Any:
        """`value` with every string in it redacted; keys too."""
        if self._pattern is None:
            return value
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.text(str(key)): self.value(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.value(item) for item in value]
        return value
