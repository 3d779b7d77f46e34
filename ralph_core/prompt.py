"""Reads the task, and composes the prompt of an attempt around it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from .contracts import Section
from .errors import UserError
from .state import RunState, Task


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
    """The SHA-256 of the words, in hexadecimal."""
    return hashlib.sha256(words.encode()).hexdigest()


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
    parts.append(_context(state, scratchpad))
    return "\n\n".join(parts) + "\n"


def _context(state: RunState, scratchpad: Path) -> str:
    last = state.recent[-1] if state.recent else None
    lines = [
        "# How this works",
        "",
        f"You are called again and again, each time as a fresh process without memory, in {state.workspace}.",
        f"This is iteration {state.iteration} of at most {state.limits.iterations}.",
        f"Your notes from one iteration to the next are in {scratchpad}: read them first if they are there, and leave there",
        "what the next iteration has to know. Do one sensible piece of the task, check that it works, and end.",
    ]
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
