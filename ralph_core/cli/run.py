"""`ralph run` and `ralph resume`."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ralph_core.errors import UserError
from ralph_core.verdicts import ExitCode
from ralph_core.workspace import moved

from .common import printable, say, session
from .display import Display, account_lines

if TYPE_CHECKING:
    from ralph_core.ground import Account
    from ralph_core.session import Session


@dataclass(frozen=True)
class Shown:
    """What is printed: `quiet`, the account alone; `events`, every record and the account as JSON, and nothing else."""

    quiet: bool = False
    events: bool = False


def start(
    overrides: Mapping[str, Any],
    *,
    text: str | None,
    config: Path | None,
    no_plugin: Sequence[str],
    shown: Shown,
    worktree: bool = False,
) -> int:
    """Start a run and show it until its end; the exit code is the outcome's."""
    if worktree and "stores.git.commit" in overrides:
        raise UserError("--worktree and --commit both make the branch ralph/RUN", mend="choose one of them")
    here = session(overrides, config=config, no_plugin=no_plugin)
    if here.settings.dry_run:
        return _preview(here, text, worktree=worktree)
    with _observed(here, shown):
        account = here.start(text, worktree=worktree)
    return _tell(account, shown)


def resume(
    run: str | None,
    overrides: Mapping[str, Any],
    *,
    config: Path | None,
    no_plugin: Sequence[str],
    rollback: bool,
    shown: Shown,
) -> int:
    """Go on with a run, as if its command line were given again with `overrides` added."""
    before = session(overrides, config=config, no_plugin=no_plugin)
    before, run, saved = before.find(run)
    # The workspace as it is found now: the run may have been started from elsewhere.
    old, now = Path(saved.state.workspace), before.workspace
    given = {**saved.state.given, **overrides, "workspace": str(now)}
    given |= {name: str(moved(given[name], old, now)) for name in ("config", "prompt") if given.get(name)}
    config = config or (Path(given["config"]) if given.get("config") else None)
    no_plugin = given["no_plugin"] = [*given.get("no_plugin", ()), *no_plugin]
    flags = {name: value for name, value in given.items() if name not in ("config", "no_plugin")}
    here = session(flags, config=config, no_plugin=no_plugin, given=given, like=before)
    with _observed(here, shown):
        account = here.resume(run, saved, rollback=rollback)
    return _tell(account, shown)


@contextmanager
def _observed(here: Session, shown: Shown) -> Iterator[None]:
    """While the block runs a run, show what is to be seen of it, and say by a file which process does it."""
    here.ready = _settle
    display = None
    if shown.events:
        from .machine import tell  # for programs alone

        here.observer = tell
    elif not shown.quiet and not here.settings.monitoring.log_on_stderr:
        display = here.observer = _display(here)
    try:
        with _pid_file(here):
            yield
    finally:
        if display is not None:
            display.close()


def _pid_file(here: Session) -> AbstractContextManager[None]:
    if here.settings.pid_file is None:
        return nullcontext()
    from .pidfile import held  # where it is asked for

    return held(here.workspace / here.settings.pid_file)


def _display(here: Session) -> Display:
    """The live view on a terminal that can show it; lines elsewhere."""
    if not sys.stderr.isatty() or os.environ.get("TERM", "dumb") in ("dumb", "unknown", ""):
        return Display(verbose=here.settings.verbose)
    from .live import LiveDisplay  # with rich, which is heavy

    return LiveDisplay(verbose=here.settings.verbose)


def _tell(account: Account, shown: Shown) -> int:
    if shown.events:
        from .machine import tell_account

        tell_account(account)
        return account.outcome.exit_code
    for line in account_lines(account):
        say(line)
    return account.outcome.exit_code


def _settle() -> None:
    """Look for garbage again, but not among what was made for good at the start."""
    gc.freeze()
    gc.enable()


def _preview(here: Session, text: str | None, *, worktree: bool) -> int:
    """What a run would do, without any effect."""
    plan = here.preview(text, worktree=worktree)
    say("Dry run: nothing is started, nothing is written.")
    for name, value in plan.items():
        say(f"  {name:<12} {printable(str(value))}")
    return ExitCode.COMPLETED
