"""Reads shell text as far as that is needed to see every command in it: POSIX shell, and what of bash agents use.

It does not check the grammar. Operators, parentheses and keywords end a command; what stands in substitutions, in process
substitutions and in functions is found, too. What it is not sure of raises `Unclear`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import field

from ralph_core.values import dataclass

UNKNOWN = "\0"
"""Stands in a word for what is only known when the command runs."""
LONGEST, DEEPEST = 100_000, 12
KEYWORDS = frozenset(["if", "then", "elif", "else", "fi", "do", "done", "while", "until", "!", "{", "}", "coproc"])
ASSIGNMENT = re.compile(r"[A-Za-z_]\w*(\[[^]]*\])?\+?=")
REDIRECTION = re.compile(r"&>>|&>|<<<|<<-|<<|>>|>\||>&|<&|<>|>|<")
NAME = re.compile(r"\w+|[@*#?$!-]")
BRACES = re.compile(r"\{[^{}\s]{0,1000}(,|\.\.|\{)")
META = " \t\n;&|<>()"


class Unclear(Exception):
    """Shell text of which it can't be said what it does; the message says why."""


@dataclass
class Word:
    """A word of a command, without its quotes. `pattern`: it is one for file names, or braces make several of it."""

    text: str = ""
    pattern: bool = False

    @property
    def known(self) -> bool:
        return UNKNOWN not in self.text and not self.pattern


@dataclass
class Simple:
    """One command: its words without leading assignments, the files that it is redirected to, and its standard input.

    `stdin` is a here-document's text; `piped`: what comes in is another command's output.
    """

    words: list[Word] = field(default_factory=list)
    files: list[Word] = field(default_factory=list)
    assignments: list[Word] = field(default_factory=list)
    stdin: Word | None = None
    piped: bool = False


def simple_commands(text: str, variables: Mapping[str, str] | None = None) -> list[Simple]:
    """Every command in `text`, those in substitutions included. Raises `Unclear`. `variables` are those that are known."""
    if UNKNOWN in text:
        raise Unclear("a NUL character")
    return _Reader(text, variables or {}, 0).read()


class _Reader:
    """Reads `text` from `at` on; below another reader (`depth`), up to the parenthesis that closes the substitution."""

    def __init__(self, text: str, variables: Mapping[str, str], depth: int, at: int = 0) -> None:
        if len(text) > LONGEST or depth > DEEPEST:
            raise Unclear("too long, or nested too deeply")
        self._text, self._variables, self._depth, self._at = text, variables, depth, at
        self._parentheses, self._closed, self._case = 0, False, False
        self._now = Simple()
        self.found: list[Simple] = []
        self._waiting: list[tuple[Simple, str, bool, bool]] = []  # here-documents whose text comes after the line

    def read(self) -> list[Simple]:
        """The commands of all of the text."""
        while self._at < len(self._text):
            self._step()
        self._end()
        if self._parentheses or self._closed:
            raise Unclear("parentheses that do not match")
        return self.found

    def substitution(self) -> int:
        """The commands up to the closing parenthesis, into `found`; where the text goes on behind it."""
        while not self._closed:
            if self._at >= len(self._text):
                raise Unclear("a substitution that is not closed")
            self._step()
        return self._at

    # --- commands ---

    def _step(self) -> None:
        text, char = self._text, self._text[self._at]
        if char in " \t":
            self._at += 1
        elif char == "\n":
            self._end()
            self._at += 1
            self._here_documents()
        elif text.startswith("\\\n", self._at):
            self._at += 2
        elif char == "#":
            self._at = self._line_end()
        elif text.startswith(("<(", ">("), self._at):
            self._word()
        elif char in "<>" or text.startswith("&>", self._at):
            self._redirection()
        elif char == "(" and not self._now.words and self._arithmetic(self._at):
            return
        elif char in ";&|()":
            self._operator(char)
        else:
            self._word()

    def _operator(self, char: str) -> None:
        pipe = char == "|" and not self._text.startswith("||", self._at)
        width = 2 if self._text[self._at : self._at + 2] in ("&&", "||", ";;", "|&", ";&") else 1
        self._end()
        self._now.piped = pipe
        self._parentheses += (char == "(") - (char == ")")
        if self._parentheses < 0:
            self._closed, self._parentheses = not self._case, 0
            if self._closed and self._depth == 0:
                raise Unclear("a parenthesis that was not opened")
        self._at += width

    def _end(self) -> None:
        now = self._now
        if now.words or now.files or now.assignments:
            self.found.append(now)
        self._now = Simple()

    def _word(self) -> None:
        match = re.compile(r"\d+(?=[<>])").match(self._text, self._at)
        if match:
            self._at = match.end()
            self._redirection()
            return
        quoted = self._text[self._at] in "'\"\\"
        word = self._read_word()
        words = self._now.words
        if not words and not quoted:
            if word.text in KEYWORDS:
                return
            if word.text == "function":
                self._skip_blanks()
                self._read_word()
                return
            if word.text == "case":
                if self._depth:
                    raise Unclear("`case` in a substitution")
                self._case = True
            if word.text == "[[":
                self._test()
                return
            if ASSIGNMENT.match(word.text):
                self._now.assignments.append(word)
                return
        words.append(word)

    def _test(self) -> None:
        """What stands between [[ and ]]: no commands but in substitutions."""
        while self._at < len(self._text):
            if self._text[self._at] in META:
                self._at += 1
            elif self._read_word().text == "]]":
                return
        raise Unclear("[[ without ]]")

    def _arithmetic(self, at: int) -> bool:
        """Pass over ((...)) at `at`; false if it is none, or one that is read as commands to be on the safe side."""
        depth = 0
        for end in range(at + 2, len(self._text) if self._text.startswith("((", at) else 0):
            char = self._text[end]
            if char in ";'\"\n":
                return False
            if char == ")" and not depth:
                if not self._text.startswith("))", end):
                    return False
                self._expansions(self._text[at + 2 : end])
                self._at = end + 2
                return True
            depth += (char == "(") - (char == ")")
        return False

    def _redirection(self) -> None:
        match = REDIRECTION.match(self._text, self._at)
        if match is None:
            raise Unclear("a redirection of an unknown kind")
        sign, self._at = match.group(), match.end()
        self._skip_blanks()
        start = self._at
        if start >= len(self._text) or (
            self._text[start] in META and self._text[start : start + 2] not in ("<(", ">(")
        ):
            raise Unclear("a redirection to nothing")
        target = self._read_word()
        if sign in ("<<", "<<-"):
            quoted = any(char in self._text[start : self._at] for char in "'\"\\")
            self._waiting.append((self._now, target.text, quoted, sign == "<<-"))
        elif sign == "<<<":
            self._now.stdin = target
        elif sign not in (">&", "<&") or not re.fullmatch(r"\d*-?", target.text):
            self._now.files.append(target)

    def _here_documents(self) -> None:
        waiting, self._waiting = self._waiting, []
        for simple, delimiter, quoted, tabs in waiting:
            body, whole = "", True  # whole: the line before did not go on in this one
            while self._at < len(self._text):
                line = self._text[self._at : self._line_end()]
                self._at = min(self._at + len(line) + 1, len(self._text))
                line = line.lstrip("\t") if tabs else line
                if whole and line == delimiter:
                    break
                body += line + "\n"
                whole = quoted or not re.search(r"(?<!\\)(\\\\)*\\$", line)
            simple.stdin = Word(body) if quoted else self._expansions(body)

    def _line_end(self) -> int:
        end = self._text.find("\n", self._at)
        return end if end >= 0 else len(self._text)

    # --- words ---

    def _skip_blanks(self) -> None:
        while self._at < len(self._text) and self._text[self._at] in " \t":
            self._at += 1

    def _read_word(self) -> Word:
        text, word = self._text, Word()
        while self._at < len(text):
            char = text[self._at]
            if text.startswith(("<(", ">("), self._at):
                self._at += 1
                self._substitution()
                word.text += UNKNOWN
            elif char in META:
                break
            elif char == "\\":
                word.text += text[self._at + 1 : self._at + 2].replace("\n", "")
                self._at += 2
            elif char == "'":
                word.text += self._until("'")
            elif char == '"':
                self._at += 1
                self._quoted(word)
            elif char in "$`":
                word.text += self._expansion(quoted=False)
            else:
                word.pattern |= char in "*?[" or (char == "{" and BRACES.match(text, self._at) is not None)
                word.text += char
                self._at += 1
        return word

    def _until(self, quote: str) -> str:
        end = self._text.find(quote, self._at + 1)
        if end < 0:
            raise Unclear("a quote that is not closed")
        found, self._at = self._text[self._at + 1 : end], end + 1
        return found

    def _quoted(self, word: Word, *, closing: str = '"') -> None:
        """What stands between double quotes, the first of which has been read; without `closing`, all there is."""
        while self._at < len(self._text):
            char = self._text[self._at]
            if char == closing:
                self._at += 1
                return
            if char == "\\":
                after = self._text[self._at + 1 : self._at + 2]
                word.text += "" if after == "\n" else after if after in '$`"\\' else f"\\{after}"
                self._at += 2
            elif char in "$`":
                word.text += self._expansion(quoted=True)
            else:
                word.text += char
                self._at += 1
        if closing:
            raise Unclear("a quote that is not closed")

    def _expansions(self, text: str) -> Word:
        """Text as between double quotes: what is known of it. The commands in its substitutions are found."""
        reader, word = _Reader(text, self._variables, self._depth + 1), Word()
        reader._quoted(word, closing="")
        self.found += reader.found
        return word

    def _expansion(self, *, quoted: bool) -> str:
        """Read what begins with $ or a backtick; the text that it stands for, or `UNKNOWN`."""
        text, at = self._text, self._at
        if text[at] == "`":
            match = re.compile(r"`((?:[^`\\]|\\.)*)`", re.DOTALL).match(text, at)
            if match is None:
                raise Unclear("a backtick that is not closed")
            self._at = match.end()
            self.found += _Reader(re.sub(r"\\([\\`$])", r"\1", match.group(1)), self._variables, self._depth + 1).read()
            return UNKNOWN
        if text.startswith("$((", at) and self._arithmetic(at + 1):
            return UNKNOWN
        if text.startswith("$(", at):
            self._at += 1
            self._substitution()
            return UNKNOWN
        if text.startswith("${", at):
            return self._braced()
        if text.startswith("$'", at) and not quoted:
            match = re.compile(r"\$'((?:[^'\\]|\\.)*)'", re.DOTALL).match(text, at)
            if match is None:
                raise Unclear("a quote that is not closed")
            self._at = match.end()
            return match.group(1) if "\\" not in match.group(1) else UNKNOWN
        name = NAME.match(text, at + 1)
        if name is None:  # a plain dollar sign, or $"..."
            self._at += 1
            return "" if text.startswith('$"', at) and not quoted else "$"
        found = name.group() if not name.group()[0].isdigit() else name.group()[0]
        self._at += 1 + len(found)
        return self._variables.get(found, UNKNOWN)

    def _braced(self) -> str:
        depth, at = 0, self._at + 1
        for at in range(self._at + 1, len(self._text)):
            depth += (self._text[at] == "{") - (self._text[at] == "}")
            if not depth:
                break
        else:
            raise Unclear("${ that is not closed")
        inner, self._at = self._text[self._at + 2 : at], at + 1
        if any(char in inner for char in "$`"):
            self._expansions(inner)
        return self._variables.get(inner, UNKNOWN)

    def _substitution(self) -> None:
        """Read a substitution from its opening parenthesis on, and find its commands."""
        reader = _Reader(self._text, self._variables, self._depth + 1, self._at + 1)
        self._at = reader.substitution()
        self.found += reader.found
