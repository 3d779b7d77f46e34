"""`ralph config`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import Config, Force, Json, Workspace, Yes, given

app = typer.Typer(help="The settings: what holds and why, whether it is valid, what may be set.", no_args_is_help=True)


@app.command("show")
def config_show(
    config: Config = None,
    workspace: Workspace = None,
    given_only: Annotated[
        bool, typer.Option("--given", help="Only what is given somewhere, without the defaults.")
    ] = False,
    json_output: Json = False,
) -> int:
    """Show every setting, its value, and where it comes from. Secrets are not shown."""
    from ralph_core.cli import config as module

    return module.show(given(workspace=workspace), config=config, given_only=given_only, as_json=json_output)


@app.command("check")
def config_check(config: Config = None, workspace: Workspace = None) -> int:
    """Check the settings file, the variables, and the sections of all plugins; exit 2 at the first mistake."""
    from ralph_core.cli import config as module

    return module.check(given(workspace=workspace), config=config)


@app.command("schema")
def config_schema(config: Config = None, workspace: Workspace = None) -> int:
    """Print the JSON schema of the settings file, for editors; sections of installed plugins included."""
    from ralph_core.cli import config as module

    return module.schema(given(workspace=workspace), config=config)


@app.command("init")
def config_init(workspace: Workspace = None, force: Force = False, yes: Yes = False) -> int:
    """Write a ralph.yml with the agents and the tests that are found here: what `ralph init` does, without the PROMPT.md."""
    from ralph_core.cli import init as module

    return module.write(Path(workspace or "."), force=force, yes=yes, prompt=False)
