"""Standard output is Ralph's alone: what plugins print, and what they run prints, goes to standard error."""

from __future__ import annotations

import os
import sys
from typing import TextIO


class _Output:
    """Ralph's own way to standard output, once others are kept from it. `kept`: what `sys.stdout` was."""

    own: TextIO | None = None
    kept: TextIO | None = None


def stdout() -> TextIO:
    """The stream for what Ralph says."""
    return _Output.own or sys.stdout


def reserve() -> None:
    """From now on nobody but Ralph writes to standard output. Called before the first line of a plugin's code is run."""
    if _Output.own is not None:
        return
    kept = _Output.kept = sys.stdout
    if (
        sys.__stdout__ is None or kept is not sys.__stdout__
    ):  # somebody in this process reads what is said, such as a test
        _Output.own, sys.stdout = kept, sys.stderr
        return
    kept.flush()
    _Output.own = open(os.dup(kept.fileno()), "w", encoding=kept.encoding, errors=kept.errors)  # noqa: SIM115, PTH123
    os.dup2(sys.stderr.fileno(), kept.fileno())  # the descriptor itself: also for the programs that plugins run


def release() -> None:
    """Give it back, for a process that goes on after a command, such as that of a test."""
    own, kept = _Output.own, _Output.kept
    if own is None or kept is None:
        return
    _Output.own = _Output.kept = None
    if own is kept:
        sys.stdout = kept
        return
    kept.flush()
    own.flush()
    os.dup2(own.fileno(), kept.fileno())
    own.close()
