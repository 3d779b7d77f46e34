"""Which commands shell text runs in the end, behind `sudo`, `env`, `sh -c` and the like; and whether one is forbidden."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from ralph_core.values import dataclass

from .shell import ASSIGNMENT, DEEPEST, UNKNOWN, Simple, Unclear, Word, simple_commands

SHELLS = frozenset({"sh", "bash", "dash", "zsh", "ksh", "mksh", "ash", "rbash", "fish"})

WRAPPERS: dict[str, tuple[str, int]] = {
    "busybox": ("", 0),
    "builtin": ("", 0),
    "chroot": ("--userspec --groups", 1),
    "chrt": ("-T -P -D", 1),
    "command": ("", 0),
    "doas": ("-u -C", 0),
    "env": ("-u -C --unset --chdir", 0),
    "exec": ("-a", 0),
    "flock": ("-w -E --timeout --conflict-exit-code", 1),
    "ionice": ("-c -n -p --class --classdata", 0),
    "nice": ("-n --adjustment", 0),
    "nohup": ("", 0),
    "nsenter": ("-t -S -G --target", 0),
    "parallel": ("-j -a -n -L -N -S --jobs --arg-file --colsep --delay --results --joblog", 0),
    "pkexec": ("-u --user", 0),
    "runuser": ("-u -g -G --user --group", 0),
    "setpriv": ("--reuid --regid --groups", 0),
    "setsid": ("", 0),
    "stdbuf": ("-i -o -e --input --output --error", 0),
    "strace": ("-e -o -p -s -u -E -a -P", 0),
    "sudo": ("-u -g -h -p -C -r -t -T -U -D -R --user --group --host --prompt --chdir --chroot", 0),
    "systemd-run": ("-p -u -M -H -E --unit --property --setenv --slice", 0),
    "taskset": ("", 1),
    "time": ("-f -o --format --output", 0),
    "timeout": ("-s -k --signal --kill-after", 1),
    "toybox": ("", 0),
    "unshare": ("-S -G --setuid --setgid", 0),
    "xargs": ("-I -i -n -P -L -d -E -a -s --replace --max-args --max-procs --delimiter --arg-file --max-lines", 0),
}
"""Programs that run the command in their arguments: their options that take a word, and how many words come before it."""

SCRIPT_OPTION = frozenset({"su", "script", "flock", "runuser"})
"""Programs whose option -c is a line for the shell, as with the shells themselves."""
APPENDING = frozenset({"xargs", "parallel"})
"""Those that add words of which nothing is known."""
LONG = {"recursive": "r", "force": "f", "all": "a", "interactive": "i", "verbose": "v", "delete": "d", "hard": "h"}
"""Long options that are the same as a short one wherever both exist."""


def commands_in(text: str, variables: Mapping[str, str], *, strict: bool = True) -> list[Simple]:
    """Every command that `text` runs, also by way of another one.

    Raises `Unclear` for what can't be read, and, if `strict`, for a command that is only worked out when it runs.
    """
    return list(_all(simple_commands(text, variables), variables, 0, strict=strict))


def _all(found: Sequence[Simple], variables: Mapping[str, str], depth: int, *, strict: bool) -> Iterator[Simple]:
    if depth > DEEPEST:
        raise Unclear("nested too deeply")
    for simple in found:
        yield simple
        inner: list[Simple] = []
        try:
            inner = list(_inner(simple, variables)) if simple.words else []
        except Unclear:
            if strict:
                raise
        yield from _all(inner, variables, depth + 1, strict=strict)


def _inner(simple: Simple, variables: Mapping[str, str]) -> Iterator[Simple]:
    """The commands that this one runs."""
    if not simple.words[0].known:
        raise Unclear("the name of a command is only worked out when it runs")
    name, rest = name_of(simple), simple.words[1:]
    if name in SHELLS or name in SCRIPT_OPTION:
        yield from _shell(name, simple, variables)
    if name in ("eval", "watch", "trap"):
        words = [word for word in rest if name == "eval" or not word.text.startswith("-")]
        yield from simple_commands(_text(words[:1] if name == "trap" else words), variables)
    elif name == "find":
        yield from _find(rest)
    elif name in WRAPPERS and not (name == "command" and rest and rest[0].text in ("-v", "-V")):
        yield from _wrapped(name, simple, variables)


def _shell(name: str, simple: Simple, variables: Mapping[str, str]) -> Iterator[Simple]:
    script, operands, taking = None, [], False
    for word in simple.words[1:]:
        if taking:
            script, taking = word, False
        elif re.fullmatch(r"[-+][A-Za-z]*", word.text) and word.known and word.text != "-":
            taking = "c" in word.text[1:] and word.text[0] == "-"
        elif word.text in ("--command", "--session-command"):
            taking = True
        elif word.text.startswith("--command="):
            script = Word(word.text.partition("=")[2])
        else:
            operands.append(word)
    if script is not None:
        yield from simple_commands(_text([script]), variables)
    elif name in SHELLS and not [word for word in operands if word.text != "-"]:
        if simple.stdin is not None:
            yield from simple_commands(_text([simple.stdin]), variables)
        elif simple.piped:
            raise Unclear("a shell runs what another command gives out")


def _text(words: Sequence[Word]) -> str:
    if any(UNKNOWN in word.text for word in words):
        raise Unclear("a shell runs words that are only worked out then")
    return " ".join(word.text for word in words)


def _find(words: Sequence[Word]) -> Iterator[Simple]:
    for start, word in enumerate(words):
        if word.text in ("-exec", "-execdir", "-ok", "-okdir"):
            ends = [at for at in range(start + 1, len(words)) if words[at].text in (";", "+")]
            yield Simple(list(words[start + 1 : ends[0] if ends else None]))


def _wrapped(name: str, simple: Simple, variables: Mapping[str, str]) -> Iterator[Simple]:
    takes, skip = frozenset(WRAPPERS[name][0].split()), WRAPPERS[name][1]
    rest = list(simple.words[1:])
    while rest:
        text = rest[0].text
        if text == "--":
            rest.pop(0)
            break
        if name == "env" and (match := re.match(r"(-S|--split-string=?)(.*)", text, re.DOTALL)):
            rest.pop(0)
            split = Word(match.group(2)) if match.group(2) else rest.pop(0) if rest else Word()
            yield from simple_commands(_text([Word("env"), split, *rest]), variables)
            return
        if text.startswith("-") and len(text) > 1:
            rest.pop(0)
            if _takes_next(text, takes) and rest:
                rest.pop(0)
        elif name in ("env", "sudo", "doas") and ASSIGNMENT.match(text):
            rest.pop(0)
        elif text.startswith(UNKNOWN):
            raise Unclear(f"what {name} runs is only worked out then")
        else:
            break
    rest = rest[skip:]
    if name in APPENDING:
        rest = [*rest, Word(UNKNOWN)] if rest else []
    if rest:
        yield replace(simple, words=rest, files=[])


def _takes_next(option: str, takes: frozenset[str]) -> bool:
    """Whether the word after `option` belongs to it."""
    if option.startswith("--"):
        return option in takes
    for at, letter in enumerate(option[1:], 1):
        if f"-{letter}" in takes:
            return at == len(option) - 1
    return False


def name_of(simple: Simple) -> str:
    """The name of the program, without its folder."""
    return PurePosixPath(simple.words[0].text).name


# --- what is forbidden ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Forbidden:
    """A command that must not run: a name, and the options and words that it must have to be meant."""

    text: str
    name: str
    options: frozenset[str]
    words: tuple[str, ...]

    @classmethod
    def read(cls, text: str) -> Forbidden:
        """From one command as it is written in a shell. Raises ValueError if it is none."""
        try:
            found = simple_commands(text)
        except Unclear as error:
            raise ValueError(f"one plain command, such as `rm -rf`; this is {error}") from None
        if len(found) != 1 or not found[0].words or found[0].files or not all(word.known for word in found[0].words):
            raise ValueError("one plain command, such as `rm -rf`, without operators, variables or patterns")
        rest = [word.text for word in found[0].words[1:]]
        options = frozenset(option for word in rest if _is_option(word) for option in _options(word))
        return cls(text, name_of(found[0]), options, tuple(word for word in rest if not _is_option(word)))

    def matches(self, simple: Simple) -> bool:
        """Whether this command is meant; a word of which nothing is known is whatever would make it so."""
        if not simple.words or name_of(simple) != self.name:
            return False
        rest = [word.text for word in simple.words[1:]]
        end = rest.index("--") if "--" in rest else len(rest)
        unknown = any(word.startswith(UNKNOWN) or (_is_option(word) and UNKNOWN in word) for word in rest[:end])
        had = {option for word in rest[:end] if _is_option(word) for option in _options(word, self.options)}
        return (unknown or self.options <= had) and self._words_in(rest, self.words)

    def _words_in(self, rest: Sequence[str], wanted: Sequence[str]) -> bool:
        """Whether the words are the first ones, options and what may belong to them left out; a path may stand anywhere."""
        paths = [word for word in wanted if "/" in word]
        if not {_path(word) for word in paths} <= {_path(word) for word in rest}:
            return any(UNKNOWN in word for word in rest) and not [word for word in wanted if "/" not in word]
        return _first(rest, [word for word in wanted if "/" not in word], after_option=False)


def _first(rest: Sequence[str], wanted: Sequence[str], *, after_option: bool) -> bool:
    if not wanted:
        return True
    if not rest:
        return False
    word, more = rest[0], rest[1:]
    if _is_option(word):
        return _first(more, wanted, after_option=word != "--" and "=" not in word)
    if after_option and _first(more, wanted, after_option=False):
        return True
    last = not [other for other in more if not _is_option(other)]
    if word == wanted[0] or (word.startswith(UNKNOWN) and (not after_option or last)):
        return _first(more, wanted[1:], after_option=False) or word.startswith(UNKNOWN)
    return False


def _is_option(word: str) -> bool:
    return word.startswith("-") and word != "-"


def _options(word: str, known: frozenset[str] = frozenset()) -> Iterator[str]:
    """The options in a word, each by its letter where it has one; a long one may be cut short."""
    if not word.startswith("--"):
        yield from (letter.lower() if letter == "R" else letter for letter in word[1:])
        return
    given = word[2:].partition("=")[0]
    names = [name for name in (*LONG, *known) if len(name) > 1 and name.startswith(given)] if given else []
    yield from (LONG.get(name, name) for name in (given, *names))


def _path(word: str) -> str:
    """A path in one form: `//`, `/.` and `/*` are all of `/`."""
    plain = re.sub(r"(/\.?)+(?=/|$)", "/", word) if "/" in word else word
    plain = re.sub(r"/+\*?$", "", plain) or "/"
    return re.sub(r"/+", "/", plain)
