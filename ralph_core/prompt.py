"""Reads the task, and composes the prompt of an attempt around it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from .contracts import Section
from .errors import UserError
from .state import RunState, Task
from .values import dataclass

BOX = re.compile(r"^((?:\s|>)*(?:[-*+]|\d{1,9}[.)])\s+\[)([ xX])(?=\]\s)")
"""The beginning of a line of a task list, as GitHub's Markdown has it, up to the box and what is in it."""
FENCE = re.compile(r"^\s*(`{3,}|~{3,})")
LARGE = 20_000
"""Tokens of a prompt above which it is said what it costs: every iteration pays for it again."""


@dataclass(frozen=True)
class Checklist:
    """The boxes of the task list in a prompt: `- [x]` is done, `- [ ]` is not."""

    done: int
    total: int

    @property
    def left(self) -> int:
        return self.total - self.done

    def __str__(self) -> str:
        return f"{self.done} of {self.total} done, {self.left} left"


def read_task(text: str | None, path: Path) -> tuple[Task, str]:
    """The task and its words: `text` if given, else the file's. Raises `UserError` if there is none, or it can't be read."""
    if text is not None:
        if not text.strip():
            raise UserError("the prompt is empty", mend="say what is to be done: -p 'TEXT' or --prompt FILE")
        if any("\ud800" <= char <= "\udfff" for char in text):  # how Python shows bytes of argv that are not UTF-8
            raise UserError("the prompt given with -p is not UTF-8", mend="put it into a file, saved as UTF-8")
        return Task(digest=digest_of(text), text=text), text
    try:
        words = path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise UserError(
            f"no prompt: {path} does not exist", mend="write one, or use -p 'TEXT', --prompt FILE or `ralph init`"
        ) from None
    except UnicodeDecodeError as error:
        raise UserError(f"prompt {path}: byte {error.start} is not UTF-8", mend="save the file as UTF-8") from None
    except OSError as error:
        raise UserError(f"prompt {path} can't be read: {error.strerror}") from None
    if not words.strip():
        raise UserError(f"the prompt {path} is empty", mend="write into it what is to be done")
    return Task(digest=digest_of(words), path=str(path)), words


def digest_of(words: str) -> str:
    """The SHA-256 of the words, in hexadecimal. It is the same task when a box in it has been ticked."""
    unticked = "".join(line[:at] + " " + line[at + 1 :] if at else line for line, at in _lines(words))
    return hashlib.sha256(unticked.encode()).hexdigest()


def as_ticked(task: Task, words: str) -> str:
    """The words of the task with its boxes as they are in the file now; what else is changed there counts for the next sitting."""
    now = _in_file(task)
    return now if now is not None and digest_of(now) == task.digest else words


def checklist_of(task: Task) -> Checklist | None:
    """The task list as it stands in the prompt now; None if there is none."""
    words = task.text if task.text is not None else _in_file(task)
    return None if words is None else checklist(words)


def checklist(words: str) -> Checklist | None:
    """The task list in these words; None if there is none."""
    boxes = [line[at] for line, at in _lines(words) if at]
    return Checklist(sum(box != " " for box in boxes), len(boxes)) if boxes else None


def tokens_in(words: str) -> int:
    """About how many tokens that is: a quarter of its ASCII characters, and each other character. Models differ."""
    plain = sum(char.isascii() for char in words) if not words.isascii() else len(words)
    return -(-plain // 4) + len(words) - plain


def _in_file(task: Task) -> str | None:
    try:
        return Path(task.path).read_bytes().decode() if task.path is not None else None
    except (OSError, UnicodeDecodeError):  # the agent's doing; the words that were read at the start are kept
        return None


def _lines(words: str) -> Iterator[tuple[str, int]]:
    """Each line with the place of what is in its box; 0 if it has none, or is in a block of code."""
    fence = ""
    for line in words.splitlines(keepends=True):
        mark = FENCE.match(line)
        if mark is not None and (not fence or mark[1].startswith(fence)):
            fence = "" if fence else mark[1]
        box = BOX.match(line) if not fence else None
        yield line, box.start(2) if box is not None else 0


def compose(
    words: str, state: RunState, scratchpad: Path, sections: Sequence[Section], said: Sequence[str] = ()
) -> str:
    """The prompt of an attempt: the task word for word, what plugins add, what was `said` since, and the run's context.

    The task is not first, because some CLIs take a leading "/word" for a command of their own; and the context is last
    and does not end in the completion line, so that an agent that echoes its prompt completes nothing.
    """
    parts = [f"# Task\n\n{words}"]
    parts += [f"# {section.title}\n\n{section.body}" for section in sections]
    if said:
        parts.append("\n\n".join(["# Said meanwhile by the person who started you", *said]))
    parts.append(_context(state, scratchpad, checklist(words)))
    return "\n\n".join(parts) + "\n"


def _context(state: RunState, scratchpad: Path, tasks: Checklist | None) -> str:
    last = state.recent[-1] if state.recent else None
    lines = [
        "# How this works",
        "",
        f"You are called again and again, each time as a fresh process without memory, in {state.workspace}.",
        f"This is iteration {state.iteration} of at most {state.limits.iterations}.",
        f"Your notes from one iteration to the next are in {scratchpad}: read them first if they are there, and leave there",
        "what the next iteration has to know. Do one sensible piece of the task, check that it works, and end.",
    ]
    if tasks is not None and state.task.path is not None:
        lines.append(
            f"The task has a list with boxes, {tasks}: tick in {state.task.path} what you have done and checked."
        )
    if last is not None and last.result != "finished":
        lines.append(f"The iteration before this one did not end well: {last.message or last.result}.")
    failed = [gate for gate in state.gates if not gate.passed]
    if failed:
        lines += ["", "You said that the task is done, but these checks, which Ralph ran itself, say that it is not:"]
        for gate in failed:
            lines += [
                "",
                f"$ {gate.command}",
                f"{gate.why} (exit code {gate.code}). The end of its output:",
                "",
                gate.tail,
            ]
        lines.append("")
    elif state.confirmations:
        lines.append("You said that the task is done. Check that with fresh eyes before you say so again.")
    lines += [
        f"When, and only when, the whole task is done, the last line of your final message is exactly {state.promise}",
        "with nothing else on that line. Otherwise, leave that line out.",
    ]
    return "\n".join(lines)


def claims_completion(final_message: str, promise: str) -> bool:
    """Whether the last line that is not blank is the completion line, exactly."""
    return final_message.rstrip().rpartition("\n")[2] == promise
