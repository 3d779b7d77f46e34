"""What the probe of an agent asks of this machine: where a program is, and what it says of itself."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence


def find_program(name: str, env: Mapping[str, str]) -> str | None:
    """The path of a program by its name on the PATH of `env`, or by its path (`~` is the home directory); None: not there."""
    return shutil.which(os.path.expanduser(name), path=env.get("PATH"))  # noqa: PTH111 - a bare name stays one


def ask_program(argv: Sequence[str], env: Mapping[str, str], *, timeout: float = 10.0) -> tuple[str, str]:
    """What a program prints that answers at once (`--version`, say), and what is wrong, in words; empty if nothing is.

    `env` is all of its environment, `timeout` in seconds. Never raises.
    """
    asked = " ".join(argv)
    try:
        done = subprocess.run(
            argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        return "", f"{asked} did not answer within {timeout:g} s"
    except OSError as error:
        return "", f"{argv[0]} can't be run: {error.strerror or error}"
    answer = done.stdout.decode(errors="replace").strip()
    if done.returncode == 0 and answer:
        return answer, ""
    complaint = " ".join(done.stderr.decode(errors="replace").split())[-200:]
    return answer, f"{asked} failed (exit code {done.returncode}): {complaint or 'no output'}"
