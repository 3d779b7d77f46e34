"""What a tool call is about: the commands, the paths and the contents in its arguments, whatever the tool is called."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ralph_core.contracts import Context
from ralph_core.events import ToolCall

from .commands import commands_in
from .shell import UNKNOWN, Simple, Word

COMMAND_KEYS = frozenset({"command", "cmd", "script", "commandline", "command_line"})
"""Arguments of tools that are a line for the shell, or a list of words to execute."""
PATH_KEYS = frozenset(
    {"file_path", "filepath", "path", "paths", "absolute_path", "relative_path", "notebook_path", "file", "files"}
    | {"filename", "file_name", "directory", "dir", "dir_path", "folder", "source", "destination", "target_file"}
    | {"old_path", "new_path", "cwd", "workdir", "working_directory", "target", "uri", "absolutepath", "dirpath"}
)
"""Arguments of tools that are paths."""
NEW_KEYS = frozenset({"content", "contents", "new_string", "new_str", "new_source", "file_text", "text", "insert_text"})
OLD_KEYS = frozenset({"old_string", "old_str"})
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def command_lines(call: ToolCall, context: Context, *, strict: bool = True) -> Iterator[tuple[str, list[Simple]]]:
    """The lines for the shell in a call's arguments, each with its commands. Raises `Unclear`; not `strict`: less often."""
    for value in values(call.input, COMMAND_KEYS):
        if isinstance(value, str):
            yield value, commands_in(value, _known(value, context), strict=strict)
        else:
            quoted = " ".join("'" + str(word).replace("'", "'\\''") + "'" for word in value)
            yield quoted, commands_in(quoted, {}, strict=strict)


def _known(text: str, context: Context) -> dict[str, str]:
    """The variables of which the value is known in this text."""
    known = {"PWD": str(context.workspace), "HOME": context.env.get("HOME", "")}
    if re.search(r"\b(cd|pushd|popd)\b", text):
        del known["PWD"]
    return {
        name: value for name, value in known.items() if value and not re.search(rf"(?<!\$)(?<!\${{)\b{name}\b", text)
    }


def paths(arguments: Any) -> Iterator[str]:
    """The paths in a call's arguments."""
    for value in values(arguments, PATH_KEYS):
        for path in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(path, str) and path and (path.startswith("file:") or not URL.match(path)):
                yield path.removeprefix("file://")


def path_words(simple: Simple) -> Iterator[Word]:
    """The words after the command that may be paths: whole, behind `=`, and behind a one-letter option."""
    for word in (*simple.words[1:], *simple.assignments):
        for text in {word.text, word.text.partition("=")[2], re.sub(r"^-\w", "", word.text)}:
            if text and not text.startswith(("-", UNKNOWN)) and not URL.match(text):
                yield Word(text.partition(UNKNOWN)[0], word.pattern)


def alternatives(word: Word) -> Iterator[str]:
    """The paths that a word may stand for: itself, and what its braces and its pattern may make of it."""
    yield word.text
    if word.pattern:
        yield from (piece for piece in re.split(r"[{},]", word.text) if piece.startswith(("/", "~", "..")))
        if re.search(r"(^|/)\.[*?\[]", word.text):
            yield ".."


def length(arguments: Any, keys: frozenset[str]) -> int:
    """Bytes of all texts under the names together."""
    return sum(len(value.encode(errors="replace")) for value in values(arguments, keys) if isinstance(value, str))


def values(arguments: Any, keys: frozenset[str]) -> Iterator[Any]:
    """What stands under one of the names, at any depth."""
    if isinstance(arguments, Mapping):
        for name, value in arguments.items():
            if str(name).lower() in keys and isinstance(value, (str, list, tuple)):
                yield value
            if not isinstance(value, str):
                yield from values(value, keys)
    elif isinstance(arguments, (list, tuple)):
        for value in arguments:
            yield from values(value, keys)
