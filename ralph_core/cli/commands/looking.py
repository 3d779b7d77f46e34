"""Commands that look at runs: status, explain, replay, trace, report, runs, logs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import Config, Json, JsonLines, RunId, Workspace, given


def status(run_id: RunId = None, workspace: Workspace = None, config: Config = None, json_output: Json = False) -> int:
    """Show a run of this workspace, how far it is, what it used, how it ended; without a run, all of them in a line, too."""
    from ralph_core.cli import status as module

    return module.show(run_id, given(workspace=workspace), config=config, as_json=json_output)


def explain(run_id: RunId = None, workspace: Workspace = None, config: Config = None, json_output: Json = False) -> int:
    """Say why a run went as it did: every verdict, with its time, policy, figures and reason."""
    from ralph_core.cli import explain as module

    return module.explain(run_id, given(workspace=workspace), config=config, as_json=json_output)


def replay(
    run_id: RunId = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A setting to change, NAME=VALUE (repeatable).")
    ] = None,
    workspace: Workspace = None,
    config: Config = None,
) -> int:
    """Ask the policies about a recorded run, under other settings; exit 3 if they would have stopped it."""
    from ralph_core.cli import explain as module

    return module.replay(run_id, settings or (), given(workspace=workspace), config=config)


def trace(
    run_id: RunId = None,
    everything: Annotated[bool, typer.Option("--all", help="Every call of a plugin, and every tool.")] = False,
    html: Annotated[Path | None, typer.Option("--html", help="Write a page to this file instead.")] = None,
    workspace: Workspace = None,
    config: Config = None,
    json_output: Json = False,
) -> int:
    """Show where the time of a run went: every piece of work, and every call of a plugin."""
    from ralph_core.cli import trace as module

    return module.show(
        run_id, given(workspace=workspace), config=config, everything=everything, html=html, as_json=json_output
    )


def report(
    run_id: RunId = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where the page goes.")] = None,
    workspace: Workspace = None,
    config: Config = None,
) -> int:
    """Make a page of a run: how it ended, what it cost, gates, verdicts, and what changed in the files."""
    from ralph_core.cli import report as module

    return module.write(run_id, given(workspace=workspace), config=config, output=output)


def runs(config: Config = None, workspace: Workspace = None, json_output: Json = False) -> int:
    """List the runs of this workspace, the newest first."""
    from ralph_core.cli import runs as module

    return module.show(given(workspace=workspace), config=config, as_json=json_output)


def logs(
    run_id: RunId = None,
    count: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many lines.")] = 100,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run ends.")] = False,
    config: Config = None,
    workspace: Workspace = None,
    json_output: JsonLines = False,
) -> int:
    """Show what happened last in a run, and what happens; the same as `ralph audit tail`, with more lines."""
    from ralph_core.cli import audit as module

    return module.tail(run_id, count, given(workspace=workspace), config=config, follow=follow, as_json=json_output)
