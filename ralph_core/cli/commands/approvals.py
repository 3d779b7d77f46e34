"""`ralph approvals`."""

from __future__ import annotations

from typing import Annotated

import typer

from .options import Config, Json, RunId, Workspace, given

app = typer.Typer(help="Tool calls that wait for a person: see them, and answer.", no_args_is_help=True)

ApprovalId = Annotated[str, typer.Argument(metavar="ID", help="As `ralph approvals list` shows it.")]


@app.command("list")
def approvals_list(
    run_id: RunId = None, workspace: Workspace = None, config: Config = None, json_output: Json = False
) -> int:
    """Show the approvals of a run, those that wait for an answer first."""
    from ralph_core.cli import approvals as module

    return module.show_list(run_id, given(workspace=workspace), config=config, as_json=json_output)


@app.command("grant")
def approvals_grant(
    approval: ApprovalId,
    always: Annotated[
        bool, typer.Option("--always", help="This tool with these same arguments, for the rest of the run.")
    ] = False,
    workspace: Workspace = None,
    config: Config = None,
) -> int:
    """Let a tool run: this one call, and nothing else."""
    from ralph_core.cli import approvals as module

    return module.answer(approval, given(workspace=workspace), config=config, grant=True, always=always)


@app.command("deny")
def approvals_deny(approval: ApprovalId, workspace: Workspace = None, config: Config = None) -> int:
    """Keep a tool from running; the agent is told, and the run goes on."""
    from ralph_core.cli import approvals as module

    return module.answer(approval, given(workspace=workspace), config=config, grant=False)
