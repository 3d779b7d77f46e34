"""`ralph plugins`."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from ralph_core.verdicts import ExitCode

from .options import Config, Json, NoPlugin, Workspace, given

app = typer.Typer(
    help="Show every plugin: where it comes from, what it provides, and what is wrong with it.",
    invoke_without_command=True,
)


class PluginKind(str, Enum):
    """What `ralph plugins new` can make."""

    AGENT = "agent"
    STORE = "store"
    SINK = "sink"
    POLICY = "policy"
    COMMANDS = "commands"


@app.callback()
def plugins_list(
    context: typer.Context,
    config: Config = None,
    workspace: Workspace = None,
    no_plugin: NoPlugin = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Hooks and load times, too.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Exit 1 if a plugin is broken.")] = False,
    json_output: Json = False,
) -> int:
    if context.invoked_subcommand is not None:
        return ExitCode.COMPLETED
    from ralph_core.cli import plugins as module

    return module.show(
        given(workspace=workspace),
        config=config,
        no_plugin=tuple(no_plugin or ()),
        verbose=verbose,
        check=check,
        as_json=json_output,
    )


@app.command("verify")
def plugins_verify(
    name: Annotated[str, typer.Argument(help="As `ralph plugins` shows it.")], json_output: Json = False
) -> int:
    """Hold an installed plugin to the rules of the conformance kit; exit 1 if one does not hold. Needs pytest."""
    from ralph_core.cli import plugins_verify as module

    return module.verify(name, as_json=json_output)


@app.command("new")
def plugins_new(
    name: Annotated[str, typer.Argument(help="What users are to type: the name of the plugin.")],
    kind: Annotated[PluginKind, typer.Option("--kind", help="What it brings.")],
    into: Annotated[Path, typer.Option("--into", help="Directory in which the package is made.")] = Path(),
) -> int:
    """Write the package of a plugin to begin with; its tests are those of the conformance kit."""
    from ralph_core.cli import plugins_new as module
    from ralph_core.cli.app import COMMANDS

    return module.write(name, kind.value, into, taken=COMMANDS)
