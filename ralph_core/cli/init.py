"""`ralph init`: files to begin with."""

from __future__ import annotations

from pathlib import Path

from ralph_core.errors import UserError
from ralph_core.verdicts import ExitCode

from .common import say

PROMPT = """\
Say here what is to be done, as you would to a colleague who has never seen this repository:

- what the result should be, and how one can see that it is right;
- what must not be changed;
- which commands build and test it.
"""

SETTINGS = """\
# Settings of Ralph; `ralph run --help` and docs/reference/settings.md name all of them.
agent: auto            # or claude, gemini, q, command; a list is a fall-back order
max_iterations: 100
max_runtime: 14400     # seconds
checkpoint_interval: 5 # snapshot the files every 5 iterations
"""


def write(workspace: Path, *, force: bool) -> int:
    """Write the files that are not there yet; with `force`, also those that are."""
    if not workspace.is_dir():
        raise UserError(f"workspace {workspace} is not a directory", mend="see --workspace")
    for name, words in (("PROMPT.md", PROMPT), ("ralph.yml", SETTINGS)):
        path = workspace / name
        if path.exists() and not force:
            say(f"kept     {path}")
            continue
        try:
            path.write_text(words, encoding="utf-8")
        except OSError as error:
            raise UserError(f"{path} can't be written: {error.strerror}") from None
        say(f"written  {path}")
    say("\nNow describe the task in PROMPT.md, see `ralph doctor`, and start with `ralph run`.")
    return ExitCode.COMPLETED
