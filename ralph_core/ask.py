"""The asking program: a coding agent's CLI runs it before it uses a tool, and it asks Ralph over a private socket.

    python -I -S ask.py SOCKET DIALECT < question > answer

It imports nothing of Ralph and denies whatever goes wrong: no socket, no answer, half an answer, a Ralph that is dead or
hangs. A dialect is how one CLI asks and is answered; the words of Claude Code 2.1.197 (npm, November 2026):

- question: an object with `tool_name`, `tool_input`, `tool_use_id`, `cwd`, `session_id`
- answer: `hookSpecificOutput` with `permissionDecision`; no answer at all leaves it to the CLI's own permission rules

`claude` allows in so many words; `claude-defer` denies in so many words and leaves the rest to the CLI.
"""

from __future__ import annotations

import json
import os
import socket
import sys

SILENCE = 60.0
"""Seconds without a sign of life after which Ralph is taken for dead; while it thinks, it sends one every few seconds."""
LONGEST = 1 << 20
"""Bytes of an answer."""
DIALECTS = ("claude", "claude-defer")
REFUSED = 2
"""Exit code by which Claude Code is told "no" when nothing can be printed; any other is "yes" to it."""


def main(arguments: list[str]) -> int:
    """Ask, and print the decision in the CLI's words."""
    try:
        path, dialect = arguments
        if dialect not in DIALECTS:
            raise ValueError(f"no such dialect: {dialect}")
        allowed, reason = ask(path, sys.stdin.buffer.read())
    except Exception as error:
        allowed, reason = False, f"Ralph could not be asked, so this is denied ({type(error).__name__}: {error})"
        dialect = DIALECTS[0]
    if allowed and dialect == "claude-defer":
        return 0
    decision = {
        "hookEventName": "PreToolUse",
        "permissionDecision": "allow" if allowed else "deny",
        "permissionDecisionReason": reason,
    }
    words = json.dumps({"hookSpecificOutput": decision}).encode() + b"\n"
    while words:  # not through a buffer, that would be written when nothing can be done about it any more
        words = words[os.write(1, words) :]
    return 0


def ask(path: str, question: bytes) -> tuple[bool, str]:
    """Put the question, wait as long as Ralph shows that it lives, and give its answer. Raises for anything else."""
    asked = json.loads(question)
    message = {"id": asked["tool_use_id"], "name": asked["tool_name"], "input": asked["tool_input"]}
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
        line.settimeout(SILENCE)
        line.connect(path)
        line.sendall(json.dumps(message).encode() + b"\n")
        answer = json.loads(_answer(line))
    if answer["verdict"] not in ("allow", "deny"):
        raise ValueError("an answer that is none")
    return answer["verdict"] == "allow", str(answer["reason"])


def _answer(line: socket.socket) -> bytes:
    """The first line that is not empty; an empty one is a sign of life."""
    heard = b""
    while True:
        piece = line.recv(65536)
        if not piece:
            raise EOFError("Ralph hung up without an answer")
        heard = (heard + piece).lstrip(b"\n")
        if b"\n" in heard:
            return heard.partition(b"\n")[0]
        if len(heard) > LONGEST:
            raise ValueError("an answer without end")


if __name__ == "__main__":
    try:
        CODE = main(sys.argv[1:])
    except BaseException as error:  # nothing could be printed, or it was interrupted
        sys.stderr.write(f"Ralph could not be asked, so this is denied ({error!r})\n")
        CODE = REFUSED
    sys.exit(CODE)
