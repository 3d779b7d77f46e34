"""The command line: one module a command group. This module is imported at every start, and imports next to nothing."""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
from collections.abc import Sequence

GRACE = 2.0
"""Seconds that what plugins have left at work has to end, once Ralph is through."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `ralph` and of `python -m ralph_core`. Ends the process with one of the codes in `ExitCode`."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments in (["--version"], ["-V"]):  # before anything heavy is imported
        from ralph_core import __version__

        print(f"ralph {__version__}")
        return
    _open_streams()
    # Starting makes half a million objects and no garbage: looking for it takes 50 ms. A run looks again (`run.py`).
    gc.disable()
    from .app import run_app

    code = 1
    try:
        code = run_app(with_command(arguments))
    finally:
        _cut_off_later(code)
    sys.exit(code)


def _cut_off_later(code: int) -> None:
    """Let what plugins leave behind, threads and functions for the end, not keep the process from ending with its code."""
    threading.Thread(target=_cut_off, args=(code,), daemon=True).start()


def _cut_off(code: int) -> None:
    time.sleep(GRACE)
    left = [each.name for each in threading.enumerate() if not each.daemon and each is not threading.main_thread()]
    words = f"threads of plugins: {', '.join(left)}" if left else "what plugins do at the end"
    sys.stderr.write(f"ralph: cut off after {GRACE:g} s: {words}\n")
    sys.stderr.flush()
    os._exit(code)


def _open_streams() -> None:
    """Put the null device where a standard stream was closed: else the next file that is opened takes its place."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.open(os.devnull, os.O_RDWR), "w" if number else "r"))  # noqa: PTH123, SIM115


def with_command(arguments: list[str]) -> list[str]:
    """The arguments with `run` put first when they begin with an option that is not the program's own.

    So `ralph --agent auto --prompt P` means `ralph run --agent auto --prompt P`.
    """
    first = arguments[0] if arguments else ""
    own = ("--help", "-h", "--version", "-V", "--install-completion", "--show-completion")
    return ["run", *arguments] if first.startswith("-") and first not in own else arguments
