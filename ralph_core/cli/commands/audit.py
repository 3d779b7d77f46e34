"""`ralph audit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import Config, Json, JsonLines, RunId, Workspace, given

app = typer.Typer(
    help="The account of a run: look at it, check it, hand it on, forget it in time.", no_args_is_help=True
)

AllRuns = Annotated[bool, typer.Option("--all", help="Of all runs in the account.")]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="File to write to; standard output without it.")]
OfType = Annotated[str | None, typer.Option("--type", help="Type of record, as `gate.failed`, or `tool.*`.")]
AtLeast = Annotated[str | None, typer.Option("--severity", help="At least debug, info, warning or error.")]
Since = Annotated[str | None, typer.Option("--since", help="From this time on: ISO 8601 in UTC, or 90m, 12h, 7d ago.")]
Until = Annotated[str | None, typer.Option("--until", help="Before this time.")]
OfTool = Annotated[str | None, typer.Option("--tool", help="About this tool.")]
Success = Annotated[bool | None, typer.Option("--success/--failure", help="What went well, or what did not.")]
Csv = Annotated[bool, typer.Option("--csv", help="For spreadsheets.")]


@app.command("query")
def audit_query(
    run_id: RunId = None,
    of_type: OfType = None,
    severity: AtLeast = None,
    since: Since = None,
    until: Until = None,
    tool: OfTool = None,
    success: Success = None,
    after: Annotated[int | None, typer.Option("--after", min=0, help="Go on after the record of this number.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Records at once; 100 without it.")] = None,
    all_runs: AllRuns = False,
    workspace: Workspace = None,
    config: Config = None,
    json_output: Json = False,
    csv_output: Csv = False,
) -> int:
    """Show the records of a run that match all that is asked for."""
    from ralph_core.cli import audit as module

    wanted = {"type": of_type, "severity": severity, "since": since, "until": until, "tool": tool, "success": success}
    form = "json" if json_output else "csv" if csv_output else "text"
    paging = {"after": after, "limit": limit}
    return module.query(run_id, wanted | paging, given(workspace=workspace), config=config, form=form, all_=all_runs)


@app.command("tail")
def audit_tail(
    run_id: RunId = None,
    count: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many records.")] = 20,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run ends.")] = False,
    workspace: Workspace = None,
    config: Config = None,
    json_output: JsonLines = False,
) -> int:
    """Show the last records of a run, and those that come."""
    from ralph_core.cli import audit as module

    return module.tail(run_id, count, given(workspace=workspace), config=config, follow=follow, as_json=json_output)


@app.command("verify")
def audit_verify(
    run_id: RunId = None,
    all_runs: AllRuns = False,
    workspace: Workspace = None,
    config: Config = None,
    json_output: Json = False,
) -> int:
    """Check that no record was changed, added, moved or taken away; exit 1 names the first bad one."""
    from ralph_core.cli import audit as module

    return module.verify(run_id, given(workspace=workspace), config=config, as_json=json_output, all_=all_runs)


@app.command("export")
def audit_export(
    run_id: RunId = None,
    of_type: OfType = None,
    severity: AtLeast = None,
    since: Since = None,
    until: Until = None,
    tool: OfTool = None,
    success: Success = None,
    all_runs: AllRuns = False,
    output: Output = None,
    workspace: Workspace = None,
    config: Config = None,
    csv_output: Csv = False,
) -> int:
    """Write all records that match: JSON lines, or CSV."""
    from ralph_core.cli import audit as module

    wanted = {"type": of_type, "severity": severity, "since": since, "until": until, "tool": tool, "success": success}
    form = "csv" if csv_output else "jsonl"
    return module.export(
        run_id, wanted, given(workspace=workspace), config=config, form=form, output=output, all_=all_runs
    )


@app.command("prune")
def audit_prune(
    days: Annotated[float | None, typer.Option("--days", min=0, help="Instead of audit_retention_days.")] = None,
    workspace: Workspace = None,
    config: Config = None,
) -> int:
    """Forget the runs whose last record is older than audit_retention_days."""
    from ralph_core.cli import audit as module

    return module.prune(days, given(workspace=workspace), config=config)


@app.command("decrypt")
def audit_decrypt(
    run_id: RunId = None,
    all_runs: AllRuns = False,
    output: Output = None,
    workspace: Workspace = None,
    config: Config = None,
) -> int:
    """Write the account as it was before it was encrypted."""
    from ralph_core.cli import audit as module

    return module.decrypt(run_id, given(workspace=workspace), config=config, output=output, all_=all_runs)
