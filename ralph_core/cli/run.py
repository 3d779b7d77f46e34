"""`ralph run` and `ralph resume`."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ralph_core.verdicts import ExitCode

from .common import printable, say, session
from .display import Display, account_lines

if TYPE_CHECKING:
    from ralph_core.session import Session


def start(overrides: Mapping[str, Any], *, text: str | None, config: Path | None, no_plugin: Sequence[str]) -> int:
    """Start a run and show it until its end; the exit code is the outcome's."""
    here = session(overrides, config=config, no_plugin=no_plugin)
    if here.settings.dry_run:
        return _preview(here, text)
    here.observer, here.ready = Display(verbose=here.settings.verbose), _settle
    account = here.start(text)
    for line in account_lines(account):
        say(line)
    return account.outcome.exit_code


def resume(
    run: str | None,
    overrides: Mapping[str, Any],
    *,
    config: Path | None,
    no_plugin: Sequence[str],
    rollback: bool,
) -> int:
    """Go on with a run, as if its command line were given again with `overrides` added."""
    before = session(overrides, config=config, no_plugin=no_plugin)
    run, saved = before.find(run)
    # The workspace as it is found now: the run may have been started from elsewhere.
    given = {**saved.state.given, **overrides, "workspace": str(before.workspace)}
    config = config or (Path(given["config"]) if given.get("config") else None)
    no_plugin = given["no_plugin"] = [*given.get("no_plugin", ()), *no_plugin]
    flags = {name: value for name, value in given.items() if name not in ("config", "no_plugin")}
    here = session(flags, config=config, no_plugin=no_plugin, given=given)
    here.observer, here.ready = Display(verbose=here.settings.verbose), _settle
    account = here.resume(run, saved, rollback=rollback)
    for line in account_lines(account):
        say(line)
    return account.outcome.exit_code


def _settle() -> None:
    """Look for garbage again, but not among what was made for good at the start."""
    gc.freeze()
    gc.enable()


def _preview(here: Session, text: str | None) -> int:
    """What a run would do, without any effect."""
    plan = here.preview(text)
    say("Dry run: nothing is started, nothing is written.")
    for name, value in plan.items():
        say(f"  {name:<12} {printable(str(value))}")
    return ExitCode.COMPLETED
