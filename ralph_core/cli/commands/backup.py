"""`ralph backup`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import Config, Json, Workspace, given

app = typer.Typer(
    help="Backups: the state of all runs and their snapshots in one file, to be put back in any clone.",
    no_args_is_help=True,
)

BackupFile = Annotated[Path, typer.Argument(help="A file that `ralph backup create` has written.")]


@app.command("create")
def backup_create(
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File; ralph-TIME.tar.gz without it.")] = None,
    workspace: Workspace = None,
    config: Config = None,
    json_output: Json = False,
) -> int:
    """Write the state directory and the snapshots of this workspace to one file; also while a run works."""
    from ralph_core.cli import backup as module

    return module.create(given(workspace=workspace), config=config, output=output, as_json=json_output)


@app.command("verify")
def backup_verify(file: BackupFile, json_output: Json = False) -> int:
    """Check every file in a backup against its checksum; exit 1 if it is damaged."""
    from ralph_core.cli import backup as module

    return module.verify(file, as_json=json_output)


@app.command("restore")
def backup_restore(
    file: BackupFile, workspace: Workspace = None, config: Config = None, json_output: Json = False
) -> int:
    """Put a backup back, into a workspace without runs; then `ralph resume` goes on there."""
    from ralph_core.cli import backup as module

    return module.restore(file, given(workspace=workspace), config=config, as_json=json_output)
