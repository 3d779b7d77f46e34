"""The command that is told how a run has ended: a message to somebody, the next step of a pipeline."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

from ralph_core.state import RunState

STDERR = 2
PATIENCE = 60.0
"""Seconds that the command may take."""


def tell(state: RunState, folder: Path, command: str, env: Mapping[str, str], workspace: Path) -> str:
    """Run the shell command with what the run came to in its environment; what went wrong, or nothing.

    What the command prints goes to standard error: standard output is the account's.
    """
    failure = _run(command, {**env, **words(state, folder)}, workspace)
    return f"on_done: {failure}" if failure else ""


def words(state: RunState, folder: Path) -> dict[str, str]:
    """What the command finds in its environment; what is not known is empty."""
    outcome, cost, tokens = state.outcome, state.spend.cost, state.spend.tokens
    assert outcome is not None
    return {
        "RALPH_RUN_ID": state.run,
        "RALPH_OUTCOME": outcome.kind.value,
        "RALPH_REASON": outcome.reason.replace("\0", " "),
        "RALPH_EXIT_CODE": str(int(outcome.exit_code)),
        "RALPH_ITERATIONS": str(state.finished),
        "RALPH_SECONDS": f"{state.elapsed:.1f}",
        "RALPH_COST": "" if cost is None else f"{cost:.6f}",
        "RALPH_TOKENS": "" if tokens is None else str(tokens.total),
        "RALPH_RUN_FOLDER": str(folder),
    }


def _run(command: str, env: Mapping[str, str], workspace: Path) -> str:
    """Run it; what went wrong, or nothing. It is in a session of its own, and ended with all that it started in it."""
    try:
        process = subprocess.Popen(
            ["/bin/sh", "-c", command],
            cwd=workspace,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=STDERR,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        return str(error)
    try:
        code = process.wait(PATIENCE)
    except (subprocess.TimeoutExpired, KeyboardInterrupt) as error:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return f"interrupted: {command}" if isinstance(error, KeyboardInterrupt) else f"ended after {PATIENCE:.0f} s"
    return f"exit code {code}: {command}" if code else ""
