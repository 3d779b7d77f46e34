"""`ralph config`: the settings as they hold here, with where each comes from; a check of them; and their schema."""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ralph_core.plugins.registry import KINDS
from ralph_core.redaction import KEY, MASK, SECRET_NAME, Redactor
from ralph_core.settings.sources import GUIDE_TABLES, PROFILES, RUNTIME_DEFAULTS
from ralph_core.verdicts import ExitCode

from .common import printable, say, say_json, session, table

if TYPE_CHECKING:
    from pydantic import BaseModel

    from ralph_core.session import Session

DRAFT = "https://json-schema.org/draft/2020-12/schema"
"""What pydantic writes schemas in."""


def show(overrides: Mapping[str, Any], *, config: Path | None, given_only: bool, as_json: bool) -> int:
    """Print every setting with its value and its origin; `given_only` leaves out the defaults."""
    here = session(overrides, config=config)
    redactor = Redactor(here.env)
    rows = []
    for path, value in _leaves(_values(here)):
        origin = _origin(here, path)
        if origin is not None or not given_only:
            rows.append((".".join(path), _safe(path, value, redactor), origin or "default"))
    if as_json:
        say_json({name: {"value": value, "from": origin} for name, value, origin in rows})
        return ExitCode.COMPLETED
    for line in table([("SETTING", "VALUE", "FROM"), *((name, _words(value), origin) for name, value, origin in rows)]):
        say(printable(line))
    return ExitCode.COMPLETED


def check(overrides: Mapping[str, Any], *, config: Path | None) -> int:
    """Validate all settings, the sections of providers too, selected or not. Raises `SettingsError` for the first mistake."""
    here = session(overrides, config=config)
    _values(here)
    count = sum(1 for _ in _leaves(here.sources.values)) if here.sources.values else 0
    say(f"{here.sources.file or 'no settings file'}: all {count} settings that are given are valid")
    return ExitCode.COMPLETED


def schema(overrides: Mapping[str, Any], *, config: Path | None) -> int:
    """Print the JSON schema of the settings file, with the sections of the plugins that are installed."""
    here = session(overrides, config=config)
    found = _schema_of(type(here.settings))
    for kind, (section, _) in {kind: (entry[1], entry[0]) for kind, entry in KINDS.items()}.items():
        tables = {}
        for name in here.plugins.providers[kind]:
            model = here.plugins.settings_model(kind, name)
            tables[name] = {"type": "object", "additionalProperties": False} if model is None else _schema_of(model)
            if kind == "policy":
                tables[name] = {"anyOf": [tables[name], {"const": False}]}
        found["properties"][section] |= {"properties": tables, "additionalProperties": False}
    found["properties"] |= {table: _guide_table(names, found) for table, names in GUIDE_TABLES.items()}
    profile = {name: part for name, part in found.items() if name in ("type", "properties", "additionalProperties")}
    found["properties"] = {
        **profile["properties"],
        **{name: {"$ref": "#/$defs/profile"} for name in PROFILES},
        "profiles": {"type": "object", "additionalProperties": {"$ref": "#/$defs/profile"}},
    }
    found["$defs"] = {**found.get("$defs", {}), "profile": profile}
    say(json.dumps({"$schema": DRAFT, "title": "Ralph", **found}, indent=2))
    return ExitCode.COMPLETED


def _guide_table(names: Mapping[str, str], schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of a table whose names the deployment documents use: each as that of the setting that it means."""
    properties = {}
    for name, key in names.items():
        part: Mapping[str, Any] = schema
        for step in key.split("."):
            part = part["properties"][step]
        told = f"The same as `{key}`, which goes before it. {part.get('description', '')}".strip()
        properties[name] = {**{word: item for word, item in part.items() if word != "default"}, "description": told}
        if name in RUNTIME_DEFAULTS:
            properties[name]["default"] = RUNTIME_DEFAULTS[name]
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _values(here: Session) -> dict[str, Any]:
    """All settings as plain values, with the sections of providers as their models complete them."""
    values = here.settings.model_dump(mode="json")
    for kind, (_, section) in KINDS.items():
        for name, given in getattr(here.settings, section).items():
            if given is not False:
                model = here.plugins.settings(kind, name, given, here.sources)
                values[section][name] = model.model_dump(mode="json") if model is not None else {}
    return values


def _leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, dict) and (value or not path):
        for name, item in value.items():
            yield from _leaves(item, (*path, str(name)))
    else:
        yield path, value


def _origin(here: Session, path: tuple[str, ...]) -> str | None:
    """Where the value was given; None for a default."""
    for end in range(len(path), 0, -1):
        if (found := here.sources.origins.get(".".join(path[:end]))) is not None:
            return found if end == len(path) or _given(here.sources.values, path) else None
    return str(here.sources.file) if here.sources.file and _given(here.sources.values, path) else None


def _given(values: Any, path: tuple[str, ...]) -> bool:
    for name in path:
        if not isinstance(values, Mapping):
            return True  # written in a short form, as a list or a word
        if name not in values:
            return False
        values = values[name]
    return True


def _safe(path: tuple[str, ...], value: Any, redactor: Redactor) -> Any:
    """The value as it may be shown: what stands under the name of a secret may not."""
    secret = isinstance(value, str) and value and (SECRET_NAME.search(path[-1]) or KEY.search(path[-1]))
    return MASK if secret and path[0] != "keys" else redactor.value(value)


def _words(value: Any) -> str:
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


def _schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """The model's schema, with its definitions in place: schemas of several plugins share one document."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})
    _describe(schema, model)

    def inlined(part: Any) -> Any:
        if isinstance(part, dict) and str(part.get("$ref", "")).startswith("#/$defs/"):
            rest = {name: item for name, item in part.items() if name != "$ref"}
            return inlined({**definitions[part["$ref"].rpartition("/")[2]], **rest})
        if isinstance(part, dict):
            return {name: inlined(item) for name, item in part.items()}
        return [inlined(item) for item in part] if isinstance(part, list) else part

    found: dict[str, Any] = inlined(schema)
    return found


def _describe(schema: dict[str, Any], model: type[BaseModel]) -> None:
    """Give every setting in the schema the words below its field."""
    for name, words in docstrings(model).items():
        if name in schema.get("properties", {}):
            schema["properties"][name]["description"] = words


def docstrings(model: type[BaseModel]) -> dict[str, str]:
    """The string below each field of a settings model, on one line.

    Read in the source: to have pydantic do it would cost every start of Ralph's some milliseconds.
    """
    from pydantic import BaseModel

    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if not issubclass(base, BaseModel) or base is BaseModel:
            continue
        try:
            (node,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        except OSError:  # a plugin without its source
            continue
        for field, words in zip(getattr(node, "body", ()), getattr(node, "body", ())[1:], strict=False):
            described = isinstance(words, ast.Expr) and isinstance(words.value, ast.Constant)
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and described:
                found[field.target.id] = " ".join(str(words.value.value).split())
    return found
