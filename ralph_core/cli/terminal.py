"""Asks a person at the terminal of a run, while others may answer by `ralph approvals`."""

from __future__ import annotations

import os
import queue
import select
import sys
import termios
import threading
from pathlib import Path

from ralph_core.approvals import DENIED, GRANTED, Approval, Book, decide
from ralph_core.errors import UserError

AT_TERMINAL = "at the terminal"
QUESTION = "    allow it? [y]es, [n]o, [a]lways this same call in this run: "
ANSWERS = {
    "y": (GRANTED, False),
    "yes": (GRANTED, False),
    "a": (GRANTED, True),
    "always": (GRANTED, True),
} | dict.fromkeys(("n", "no"), (DENIED, False))


class Terminal:
    """Asks the person at the terminal of the run, one question at a time, while others may answer elsewhere."""

    def __init__(self) -> None:
        self._questions: queue.SimpleQueue[Path] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def ask(self, path: Path) -> None:
        """Ask about the approval in this file, in the background."""
        self._questions.put(path)
        if self._thread is None:
            # A daemon: a question that nobody answers must not keep Ralph from ending.
            self._thread = threading.Thread(target=self._work, name="ralph-terminal", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        while True:
            path = self._questions.get()
            try:
                self._ask(path)
            except (OSError, UserError, ValueError, termios.error):
                pass  # answered elsewhere in the same moment, or the terminal is gone; the time limit decides

    def _ask(self, path: Path) -> None:
        termios.tcflush(sys.stdin, termios.TCIFLUSH)  # what was typed before it was asked is no answer to it
        asked = False
        while (approval := _pending(path)) is not None:
            if os.tcgetpgrp(sys.stdin.fileno()) != os.getpgrp():  # in the background, reading would stop Ralph
                threading.Event().wait(0.5)
                continue
            if not asked:
                print(QUESTION, end="", file=sys.stderr, flush=True)
                asked = True
            if not select.select([sys.stdin], [], [], 0.2)[0]:
                continue
            line = os.read(sys.stdin.fileno(), 1000).decode(errors="replace")
            if not line:
                return
            if line.strip().lower() in ANSWERS:
                state, always = ANSWERS[line.strip().lower()]
                decide(approval.path, state, always=always, by=AT_TERMINAL)
                return
            asked = False
        print("\n    answered elsewhere, or too late", file=sys.stderr, flush=True)


def _pending(path: Path) -> Approval | None:
    return next((each for each in Book(path.parent.parent).all() if each.path == path and each.open), None)
