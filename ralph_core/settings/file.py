"""The settings file as a table, and the line of each key in it, whether it is YAML, JSON or TOML."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from ralph_core.errors import SettingsError

Lines = dict[tuple[str, ...], int]
"""By the path of a key in the file: its line."""

TOML_LONG = re.compile(r"(\"{3}|'{3}).*?\1", re.DOTALL)
"""A text of several lines."""
TOML_HEADER = re.compile(r"\s*\[([^\[\]]+)\]\s*(?:#.*)?$")
TOML_KEY = re.compile(r"\s*([\w.\"'-]+)\s*=")


def read_file(path: Path) -> tuple[dict[str, Any], Lines]:
    """The table that a settings file holds, and the line of each key. Raises `SettingsError` with line and column."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: byte {error.start} is not UTF-8", mend="save the file as UTF-8") from None
    except OSError as error:
        raise SettingsError(f"settings file {path} can't be read: {error.strerror}") from None
    reader = {".json": _read_json, ".toml": _read_toml}.get(path.suffix.lower(), _read_yaml)
    table, lines = reader(path, text)
    if not isinstance(table, dict):
        raise SettingsError(f"{path}: the file has to hold a table of settings, not a {type(table).__name__}")
    return table, lines


def _read_yaml(path: Path, text: str) -> tuple[Any, Lines]:
    import yaml  # only a run with a settings file pays for it

    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        table = loader.construct_document(node) if node is not None else {}
        lines = dict(_yaml_lines(node, ()))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f" line {mark.line + 1}, column {mark.column + 1}:" if mark else ""
        raise SettingsError(f"{path}:{place} {error.problem}", mend="the file is not valid YAML") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: as of a date that is none
        raise SettingsError(f"{path}: {' '.join(str(error).split())}", mend="the file is not valid YAML") from None
    except RecursionError:
        raise SettingsError(f"{path}: it is nested too deeply, or within itself") from None
    return table, lines


def _yaml_lines(node: Any, path: tuple[str, ...]) -> list[tuple[tuple[str, ...], int]]:
    found: list[tuple[tuple[str, ...], int]] = []
    if getattr(node, "id", "") == "mapping":
        for key, value in node.value:
            here = (*path, str(key.value))
            found += [(here, key.start_mark.line + 1), *_yaml_lines(value, here)]
    return found


def _read_json(path: Path, text: str) -> tuple[Any, Lines]:
    import yaml  # JSON is YAML, but for tabs, and its reader of JSON knows no lines

    try:
        table = json.loads(text)
    except json.JSONDecodeError as error:
        raise SettingsError(
            f"{path}: line {error.lineno}, column {error.colno}: {error.msg}", mend="the file is not valid JSON"
        ) from None
    try:
        return table, dict(_yaml_lines(yaml.compose(text, yaml.SafeLoader), ()))
    except (yaml.YAMLError, RecursionError):
        return table, {}


def _read_toml(path: Path, text: str) -> tuple[Any, Lines]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path}: {error}", mend="the file is not valid TOML") from None
    return table, _toml_lines(text, table)


def _toml_lines(text: str, table: dict[str, Any]) -> Lines:
    """The line of each key that is in the table."""
    lines: Lines = {}
    section: tuple[str, ...] = ()
    text = TOML_LONG.sub(lambda found: "\n" * found[0].count("\n"), text)  # what looks like a key in there is none
    for number, line in enumerate(text.split("\n"), 1):
        header, key = TOML_HEADER.match(line), TOML_KEY.match(line)
        if header:
            section = _toml_path(header[1])
        path = section if header else (*section, *_toml_path(key[1])) if key else ()
        found: Any = table
        for name in path:
            found = found.get(name, lines) if isinstance(found, dict) else lines
        if path and found is not lines:
            lines.setdefault(path, number)
    return lines


def _toml_path(dotted: str) -> tuple[str, ...]:
    return tuple(name.strip().strip("\"'") for name in dotted.split("."))
