"""Puts every agent into a bubblewrap sandbox: the workspace writable, the home hidden, the network by choice."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ralph_core import Command, RunState, SpawnError, hookimpl


@hookimpl
def ralph_prepare_command(command: Command, state: RunState) -> Command:
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        raise SpawnError("bubblewrap is not installed: no `bwrap` on PATH")
    return replace(command, argv=(bwrap, *_options(command, Path(state.workspace)), "--", *command.argv))


def _options(command: Command, workspace: Path) -> Iterator[str]:
    home = Path(command.env.get("HOME", "/root"))
    yield from ("--die-with-parent", "--new-session", "--unshare-pid", "--unshare-ipc", "--unshare-uts")
    yield from ("--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp", "--tmpfs", str(home))
    for name in filter(None, os.environ.get("RALPH_SANDBOX_HOME", "").split(":")):
        yield from ("--ro-bind-try", str(home / name), str(home / name))
    program = shutil.which(command.argv[0], path=command.env.get("PATH"))
    if program is not None and Path(program).is_relative_to(home):  # as of npm and pip in a user's home
        yield from ("--ro-bind", str(Path(program).parent), str(Path(program).parent))
    # Last, since it may lie below the home, or below /tmp.
    yield from ("--bind", str(workspace), str(workspace), "--chdir", command.cwd)
    if os.environ.get("RALPH_SANDBOX_NETWORK") == "0":
        yield "--unshare-net"
