"""The `dataclass` of the core: the standard one, made in two thirds of the time.

The standard library writes and compiles code for each method of each class. A start of Ralph makes some eighty of them, which is
a tenth of the time until the agent is spawned; methods that are the same for all need not be compiled for each.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass  # noqa: PLC0414 - it is exported
else:
    import dataclasses

    def dataclass(cls: type | None = None, /, *, frozen: bool = False, kw_only: bool = False) -> Any:
        """As `dataclasses.dataclass`, for the options that the core uses."""

        def made(cls: type) -> type:
            for name, method in (("__repr__", _repr), ("__eq__", _eq), ("__hash__", _hash if frozen else None)):
                if name not in vars(cls):
                    setattr(cls, name, method)
            return dataclasses.dataclass(cls, frozen=frozen, kw_only=kw_only, repr=False, eq=False)

        return made if cls is None else made(cls)

    @cache
    def _names(cls: type, use: str) -> tuple[str, ...]:
        return tuple(each.name for each in dataclasses.fields(cls) if getattr(each, use))

    def _repr(self: Any) -> str:
        said = ", ".join(f"{name}={getattr(self, name)!r}" for name in _names(type(self), "repr"))
        return f"{type(self).__qualname__}({said})"

    def _eq(self: Any, other: Any) -> Any:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in _names(type(self), "compare"))

    def _hash(self: Any) -> int:
        return hash(tuple(getattr(self, name) for name in _names(type(self), "compare")))
