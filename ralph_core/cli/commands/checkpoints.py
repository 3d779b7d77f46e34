"""`ralph checkpoints`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import Config, Json, RunId, Workspace, given

app = typer.Typer(help="The snapshots of runs: look at them, compare them, put them back.", no_args_is_help=True)

Ref = Annotated[str, typer.Argument(help="A snapshot: its number (of the latest run), RUN/NUMBER, or its full ref.")]


@app.command("list")
def checkpoints_list(
    run_id: RunId = None, workspace: Workspace = None, config: Config = None, json_output: Json = False
) -> int:
    """Show the snapshots of a run."""
    from ralph_core.cli import checkpoints as module

    return module.show_list(run_id, given(workspace=workspace), config=config, as_json=json_output)


@app.command("show")
def checkpoints_show(ref: Ref, workspace: Workspace = None, config: Config = None) -> int:
    """Show what a snapshot is, and which files it changed."""
    from ralph_core.cli import checkpoints as module

    return module.show(ref, given(workspace=workspace), config=config)


@app.command("diff")
def checkpoints_diff(
    ref: Ref,
    other: Annotated[str | None, typer.Argument(help="The snapshot to compare with.")] = None,
    workspace: Workspace = None,
    config: Config = None,
) -> int:
    """Show the changes from one snapshot to another, or those that one brought."""
    from ralph_core.cli import checkpoints as module

    return module.diff(ref, other, given(workspace=workspace), config=config)


@app.command("restore")
def checkpoints_restore(
    ref: Ref,
    into: Annotated[Path | None, typer.Option("--into", help="An empty directory to fill instead.")] = None,
    workspace: Workspace = None,
    config: Config = None,
) -> int:
    """Put the files of a snapshot back; what was there is snapshotted first, so that it can be undone."""
    from ralph_core.cli import checkpoints as module

    return module.restore(ref, into, given(workspace=workspace), config=config)


@app.command("prune")
def checkpoints_prune(
    keep: Annotated[int, typer.Option("--keep", min=0, help="How many ended runs to keep.")] = 10,
    workspace: Workspace = None,
    config: Config = None,
) -> int:
    """Forget the state and the snapshots of all but the last runs that have ended."""
    from ralph_core.cli import checkpoints as module

    return module.prune(keep, given(workspace=workspace), config=config)
