"""Commands around runs: init, doctor, agents, clean."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import Agent, Config, Force, Json, NoPlugin, Workspace, Yes, given


def init(workspace: Workspace = None, force: Force = False, yes: Yes = False) -> int:
    """Write a PROMPT.md, and a ralph.yml with the agents and the tests that are found here."""
    from ralph_core.cli import init as module

    return module.write(Path(workspace or "."), force=force, yes=yes)


def doctor(
    agent: Agent = None,
    mcp: Annotated[bool, typer.Option("--mcp", help="Connect to the MCP servers of the settings, too.")] = False,
    config: Config = None,
    workspace: Workspace = None,
    json_output: Json = False,
) -> int:
    """Say for each agent what was found, which version, and what is missing; exit 1 if none can be used."""
    from ralph_core.cli import doctor as module

    return module.examine(given(agent=agent, workspace=workspace), config=config, as_json=json_output, mcp=mcp)


def agents(
    config: Config = None, workspace: Workspace = None, no_plugin: NoPlugin = None, json_output: Json = False
) -> int:
    """Show what each agent can do: report tokens and cost, ask before it uses a tool, and so on."""
    from ralph_core.cli import agents as module

    chosen = given(workspace=workspace)
    return module.show(chosen, config=config, no_plugin=tuple(no_plugin or ()), as_json=json_output)


def clean(
    keep: Annotated[int, typer.Option("--keep", min=0, help="How many ended runs to keep.")] = 10,
    config: Config = None,
    workspace: Workspace = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and leave it.")] = False,
    json_output: Json = False,
) -> int:
    """Forget all but the last runs that have ended, with their worktrees if no work would be lost, and leftovers."""
    from ralph_core.cli import clean as module

    return module.tidy(keep, given(workspace=workspace), config=config, dry_run=dry_run, as_json=json_output)
