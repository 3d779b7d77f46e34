"""Turns values into settings models; the first mistake becomes one line that says what, where, and how to mend it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ValidationError

from ralph_core.errors import SettingsError, UnknownName

if TYPE_CHECKING:
    from .sources import Sources

ModelT = TypeVar("ModelT", bound=BaseModel)


def validated(
    model: type[ModelT], values: Mapping[str, Any], sources: Sources, section: tuple[str, ...] = ()
) -> ModelT:
    """`values`, which stand in `section` of the settings, as `model`. Raises `SettingsError` for the first mistake."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        mistakes = error.errors(include_url=False)
    # A misspelt name comes first: that another one is missing may be its consequence.
    first = next((mistake for mistake in mistakes if mistake["type"] in MISSPELT), mistakes[0])
    path = _written(values, first["loc"])
    place, name = sources.origin((*section, *path)), ".".join((*section, *path))
    if first["type"] in MISSPELT:
        hint = UnknownName("setting", path[-1], _known(model, path[:-1]))
        raise SettingsError(f"{place}: unknown setting {name!r}", mend=hint.mend)
    if first["type"] == "invalid_key":
        raise SettingsError(f"{place}: unknown setting {first['input']!r}", mend="names of settings are words")
    if first["type"] == "missing":
        raise SettingsError(f"{place}: {name} is missing")
    message = PHRASE.sub("should ", first["msg"])
    raise SettingsError(f"{place}: {name}: {first['input']!r} is not valid", mend=f"it {message}")


MISSPELT = ("extra_forbidden", "unexpected_keyword_argument")
"""What pydantic calls a name that it does not know, in a model and in a dataclass."""
PHRASE = re.compile(r"^(Value error, |[A-Z][a-z]+ should )")
"""How pydantic begins its messages."""


def _written(values: Any, path: Sequence[int | str]) -> tuple[str, ...]:
    """The part of pydantic's path that the user has written: without positions, and the names of alternatives tried."""
    found: list[str] = []
    for part in path:
        if isinstance(values, (list, tuple)) and isinstance(part, int):
            values = values[part]
        elif isinstance(values, Mapping) and part in values:
            found.append(str(part))
            values = values[part]
        elif isinstance(values, Mapping) and part == path[-1]:  # what is missing
            found.append(str(part))
    return tuple(found)


def _known(model: type[Any], path: Sequence[str]) -> list[str]:
    """The names of the settings in the table at `path`."""
    for part in path:
        if get_origin(model) is dict:  # names of the user's own
            model = get_args(model)[1]
            continue
        annotation = get_type_hints(model)[part]
        alternatives = [annotation, *get_args(annotation)]
        model = next(
            kind
            for kind in alternatives
            if is_dataclass(kind) or hasattr(kind, "model_fields") or get_origin(kind) is dict
        )
    return list(get_type_hints(model) if is_dataclass(model) else model.model_fields)
