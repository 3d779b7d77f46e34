"""Commands that a live run heeds: stop, pause, steer."""

from __future__ import annotations

from typing import Annotated

import typer

from .options import Config, Json, Workspace, given


def stop(
    now: Annotated[bool, typer.Option("--now", help="Not after the iteration in hand.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Come back when it has ended.")] = False,
    config: Config = None,
    workspace: Workspace = None,
    json_output: Json = False,
) -> int:
    """Ask the run that is at work here to end; `ralph resume` goes on with it."""
    from ralph_core.cli import control

    return control.stop(given(workspace=workspace), config=config, now=now, wait=wait, as_json=json_output)


def pause(
    off: Annotated[bool, typer.Option("--off", help="Let it go on.")] = False,
    config: Config = None,
    workspace: Workspace = None,
    json_output: Json = False,
) -> int:
    """Have the run that is at work here pause after the iteration in hand; its limits wait, too."""
    from ralph_core.cli import control

    return control.pause(given(workspace=workspace), config=config, off=off, as_json=json_output)


def steer(
    text: Annotated[str, typer.Argument(help="What to say; - reads it from standard input.")],
    run_id: Annotated[str | None, typer.Option("--run", metavar="RUN", help="Not the live or the latest one.")] = None,
    config: Config = None,
    workspace: Workspace = None,
    json_output: Json = False,
) -> int:
    """Say something to a run: it stands in its next prompt."""
    from ralph_core.cli import control

    return control.steer(text, run_id, given(workspace=workspace), config=config, as_json=json_output)
