"""The Typer application: options and their words. What a command does is in the module of its name."""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from ralph_core.errors import PluginFault, StoreError, UserError
from ralph_core.verdicts import ExitCode

from .plugins_commands import add_commands, own_commands

app = typer.Typer(
    name="ralph",
    help="Runs a coding agent against a prompt in a loop until the work is provably done or a limit says stop.",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)

Agent = Annotated[str | None, typer.Option("--agent", "-a", help="Agent, or a comma list in fall-back order, or auto.")]
Command = Annotated[str | None, typer.Option("--command", help="Shell command of the agent `command`.")]
Config = Annotated[Path | None, typer.Option("--config", "-c", help="Settings file: YAML, JSON or TOML.")]
Prompt = Annotated[str | None, typer.Option("--prompt", help="File that says what is to be done.")]
PromptText = Annotated[str | None, typer.Option("-p", help="What is to be done, as text.", metavar="TEXT")]
Iterations = Annotated[int | None, typer.Option("--max-iterations", "-i", help="Iterations after which to stop.")]
Runtime = Annotated[float | None, typer.Option("--max-runtime", help="Seconds after which to stop.")]
MaxTokens = Annotated[int | None, typer.Option("--max-tokens", help="Tokens after which to stop, cache included.")]
MaxCost = Annotated[float | None, typer.Option("--max-cost", help="US dollars after which to stop.")]
Promise = Annotated[str | None, typer.Option("--completion-promise", help="The line that ends the last message.")]
Interval = Annotated[int | None, typer.Option("--checkpoint-interval", help="Iterations between two snapshots.")]
Delay = Annotated[float | None, typer.Option("--retry-delay", help="First pause before a retry, in seconds.")]
NoGit = Annotated[bool, typer.Option("--no-git", help="Keep state only, no snapshots of the files.")]
NoArchive = Annotated[bool, typer.Option("--no-archive", help="Keep no copies of the prompt's versions.")]
NoPlugin = Annotated[list[str] | None, typer.Option("--no-plugin", help="Do not load this plugin (repeatable).")]
Workspace = Annotated[str | None, typer.Option("--workspace", "-w", help="Directory that the agent works in.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show what the agent says, too.")]
LogFile = Annotated[str | None, typer.Option("--log-file", help="Log to this file.")]
LogLevel = Annotated[
    str | None, typer.Option("--log-level", help="Log debug, info, warning or error, and what is worse.")
]
Debug = Annotated[bool, typer.Option("--debug", help="Log everything: --log-level debug.")]
PidFile = Annotated[str | None, typer.Option("--pid-file", help="Keep the number of Ralph's process in this file.")]
OnDone = Annotated[str | None, typer.Option("--on-done", metavar="CMD", help="Shell command to run at the end.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show the account at the end, nothing before.")]
Events = Annotated[
    bool, typer.Option("--events", help="For programs: every record as a line of JSON, the account last.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything, start nothing, write nothing.")]
Json = Annotated[bool, typer.Option("--json", help="For programs.")]
RunId = Annotated[str | None, typer.Argument(help="Run id, or its beginning; the latest run without one.")]


class PluginKind(str, Enum):
    """What `ralph plugins new` can make."""

    AGENT = "agent"
    STORE = "store"
    SINK = "sink"
    POLICY = "policy"
    COMMANDS = "commands"


def run_app(arguments: list[str]) -> int:
    """Run a command and give its exit code; a mistake of the user's is one line on standard error."""
    try:
        add_commands(app, arguments)
        result = app(arguments, standalone_mode=False, prog_name="ralph")
    except typer.Exit as end:
        return end.exit_code
    except typer.Abort:
        return ExitCode.INTERRUPTED
    except (UserError, PluginFault, StoreError) as error:
        print(f"ralph: {' '.join(str(error).split())}", file=sys.stderr)
        return ExitCode.FAILED if isinstance(error, StoreError) else ExitCode.USAGE
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except Exception as error:
        return _misused(error)
    return result if isinstance(result, int) else ExitCode.COMPLETED


def _misused(error: Exception) -> int:
    """Options that Typer could not understand: its own words, on one line. Anything else is our fault, and is raised."""
    words = getattr(error, "format_message", None)
    if words is None:
        raise error
    if type(error).__name__ == "NoArgsIsHelpError":  # a group without a command; Typer does not export the class
        print(words(), file=sys.stderr)
        return ExitCode.USAGE
    print(f"ralph: {' '.join(str(words()).split())} (see `ralph --help`)", file=sys.stderr)
    return ExitCode.USAGE


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", "-V", help="Show the version.")] = False) -> None:
    if version:
        from ralph_core import __version__

        print(f"ralph {__version__}")
        raise typer.Exit


@app.command()
def run(
    agent: Agent = None,
    prompt: Prompt = None,
    text: PromptText = None,
    command: Command = None,
    config: Config = None,
    workspace: Workspace = None,
    max_iterations: Iterations = None,
    max_runtime: Runtime = None,
    max_tokens: MaxTokens = None,
    max_cost: MaxCost = None,
    completion_promise: Promise = None,
    checkpoint_interval: Interval = None,
    retry_delay: Delay = None,
    no_git: NoGit = False,
    commit: Annotated[
        bool, typer.Option("--commit", help="Also commit each good iteration on a branch ralph/RUN, for review.")
    ] = False,
    no_archive: NoArchive = False,
    metrics_port: Annotated[
        int | None, typer.Option("--metrics-port", help="Serve /metrics and /health on this port.")
    ] = None,
    metrics_interval: Annotated[
        float | None, typer.Option("--metrics-interval", help="Seconds between two writes of the state file.")
    ] = None,
    no_metrics: Annotated[bool, typer.Option("--no-metrics", help="Serve no metrics, whatever else is said.")] = False,
    no_plugin: NoPlugin = None,
    record: Annotated[
        bool, typer.Option("--record", help="Keep a recording of every attempt, to be played again.")
    ] = False,
    from_: Annotated[
        str | None, typer.Option("--from", metavar="RUN", help="Play a recorded run again (agent `replay`).")
    ] = None,
    log_file: LogFile = None,
    log_level: LogLevel = None,
    debug: Debug = False,
    pid_file: PidFile = None,
    on_done: OnDone = None,
    quiet: Quiet = False,
    events: Events = False,
    worktree: Annotated[
        bool, typer.Option("--worktree", help="In a git worktree of its own, on a branch ralph/RUN.")
    ] = False,
    verbose: Verbose = False,
    dry_run: DryRun = False,
) -> int:
    """Run an agent against the prompt until the work is done or a limit says stop."""
    from . import run as module

    overrides = _given(
        agent=agent or ("replay" if from_ else None),
        prompt=_from_here(prompt),
        completion_promise=completion_promise,
        max_iterations=max_iterations,
        max_runtime=max_runtime,
        max_tokens=max_tokens,
        max_cost=max_cost,
        checkpoint_interval=checkpoint_interval,
        retry_delay=retry_delay,
        workspace=workspace,
        record=record or None,
        git_enabled=False if no_git else None,
        archive_enabled=False if no_archive else None,
        **{
            "monitoring.enabled": False if no_metrics else metrics_port is not None or None,
            "monitoring.metrics_port": metrics_port,
            "monitoring.metrics_interval": metrics_interval,
        },
        **{"stores.git.commit": commit or None},
        **_logging(log_file, log_level, debug=debug),
        pid_file=_from_here(pid_file),
        on_done=on_done,
        verbose=verbose or None,
        dry_run=dry_run or None,
        **{"agents.command.command": command, "agents.replay.run": from_},
    )
    shown, without = module.Shown(quiet=quiet, events=events), tuple(no_plugin or ())
    return module.start(overrides, text=text, config=config, no_plugin=without, shown=shown, worktree=worktree)


@app.command()
def resume(
    run_id: RunId = None,
    agent: Agent = None,
    command: Command = None,
    config: Config = None,
    workspace: Workspace = None,
    max_iterations: Iterations = None,
    max_runtime: Runtime = None,
    max_tokens: MaxTokens = None,
    max_cost: MaxCost = None,
    no_plugin: NoPlugin = None,
    rollback: Annotated[
        bool, typer.Option("--rollback", help="Put the files of the last snapshot back first.")
    ] = False,
    log_file: LogFile = None,
    log_level: LogLevel = None,
    debug: Debug = False,
    pid_file: PidFile = None,
    on_done: OnDone = None,
    quiet: Quiet = False,
    events: Events = False,
    verbose: Verbose = False,
) -> int:
    """Go on with a run that was stopped or killed; options given now win over those it was started with."""
    from . import run as module

    overrides = _given(
        agent=agent,
        max_iterations=max_iterations,
        max_runtime=max_runtime,
        max_tokens=max_tokens,
        max_cost=max_cost,
        workspace=workspace,
        **_logging(log_file, log_level, debug=debug),
        pid_file=_from_here(pid_file),
        on_done=on_done,
        verbose=verbose or None,
        **{"agents.command.command": command},
    )
    return module.resume(
        run_id,
        overrides,
        config=config,
        no_plugin=tuple(no_plugin or ()),
        rollback=rollback,
        shown=module.Shown(quiet=quiet, events=events),
    )


@app.command()
def status(run_id: RunId = None, workspace: Workspace = None, config: Config = None, json_output: Json = False) -> int:
    """Show a run of this workspace: how far it is, what it used, how it ended."""
    from . import status as module

    return module.show(run_id, _given(workspace=workspace), config=config, as_json=json_output)


@app.command()
def explain(run_id: RunId = None, workspace: Workspace = None, config: Config = None, json_output: Json = False) -> int:
    """Say why a run went as it did: every verdict, with its time, policy, figures and reason."""
    from . import explain as module

    return module.explain(run_id, _given(workspace=workspace), config=config, as_json=json_output)


@app.command()
def replay(
    run_id: RunId = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A setting to change, NAME=VALUE (repeatable).")
    ] = None,
    workspace: Workspace = None,
    config: Config = None,
) -> int:
    """Ask the policies about a recorded run, under other settings; exit 3 if they would have stopped it."""
    from . import explain as module

    return module.replay(run_id, settings or (), _given(workspace=workspace), config=config)


@app.command()
def trace(
    run_id: RunId = None,
    everything: Annotated[bool, typer.Option("--all", help="Every call of a plugin, and every tool.")] = False,
    html: Annotated[Path | None, typer.Option("--html", help="Write a page to this file instead.")] = None,
    workspace: Workspace = None,
    config: Config = None,
    json_output: Json = False,
) -> int:
    """Show where the time of a run went: every piece of work, and every call of a plugin."""
    from . import trace as module

    return module.show(
        run_id, _given(workspace=workspace), config=config, everything=everything, html=html, as_json=json_output
    )


@app.command()
def report(
    run_id: RunId = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where the page goes.")] = None,
    workspace: Workspace = None,
    config: Config = None,
) -> int:
    """Make a page of a run: how it ended, what it cost, gates, verdicts, and what changed in the files."""
    from . import report as module

    return module.write(run_id, _given(workspace=workspace), config=config, output=output)


checkpoints = typer.Typer(
    help="The snapshots of runs: look at them, compare them, put them back.", no_args_is_help=True
)
app.add_typer(checkpoints, name="checkpoints")

Ref = Annotated[str, typer.Argument(help="A snapshot: its number (of the latest run), RUN/NUMBER, or its full ref.")]


@checkpoints.command("list")
def checkpoints_list(
    run_id: RunId = None, workspace: Workspace = None, config: Config = None, json_output: Json = False
) -> int:
    """Show the snapshots of a run."""
    from . import checkpoints as module

    return module.show_list(run_id, _given(workspace=workspace), config=config, as_json=json_output)


@checkpoints.command("show")
def checkpoints_show(ref: Ref, workspace: Workspace = None, config: Config = None) -> int:
    """Show what a snapshot is, and which files it changed."""
    from . import checkpoints as module

    return module.show(ref, _given(workspace=workspace), config=config)


@checkpoints.command("diff")
def checkpoints_diff(
    ref: Ref,
    other: Annotated[str | None, typer.Argument(help="The snapshot to compare with.")] = None,
    workspace: Workspace = None,
    config: Config = None,
) -> int:
    """Show the changes from one snapshot to another, or those that one brought."""
    from . import checkpoints as module

    return module.diff(ref, other, _given(workspace=workspace), config=config)


@checkpoints.command("restore")
def checkpoints_restore(
    ref: Ref,
    into: Annotated[Path | None, typer.Option("--into", help="An empty directory to fill instead.")] = None,
    workspace: Workspace = None,
    config: Config = None,
) -> int:
    """Put the files of a snapshot back; what was there is snapshotted first, so that it can be undone."""
    from . import checkpoints as module

    return module.restore(ref, into, _given(workspace=workspace), config=config)


@checkpoints.command("prune")
def checkpoints_prune(
    keep: Annotated[int, typer.Option("--keep", min=0, help="How many ended runs to keep.")] = 10,
    workspace: Workspace = None,
    config: Config = None,
) -> int:
    """Forget the state and the snapshots of all but the last runs that have ended."""
    from . import checkpoints as module

    return module.prune(keep, _given(workspace=workspace), config=config)


backup = typer.Typer(
    help="Backups: the state of all runs and their snapshots in one file, to be put back in any clone.",
    no_args_is_help=True,
)
app.add_typer(backup, name="backup")

BackupFile = Annotated[Path, typer.Argument(help="A file that `ralph backup create` has written.")]


@backup.command("create")
def backup_create(
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File; ralph-TIME.tar.gz without it.")] = None,
    workspace: Workspace = None,
    config: Config = None,
) -> int:
    """Write the state directory and the snapshots of this workspace to one file; also while a run works."""
    from . import backup as module

    return module.create(_given(workspace=workspace), config=config, output=output)


@backup.command("verify")
def backup_verify(file: BackupFile) -> int:
    """Check every file in a backup against its checksum; exit 1 if it is damaged."""
    from . import backup as module

    return module.verify(file)


@backup.command("restore")
def backup_restore(file: BackupFile, workspace: Workspace = None, config: Config = None) -> int:
    """Put a backup back, into a workspace without runs; then `ralph resume` goes on there."""
    from . import backup as module

    return module.restore(file, _given(workspace=workspace), config=config)


config = typer.Typer(
    help="The settings: what holds and why, whether it is valid, what may be set.", no_args_is_help=True
)
app.add_typer(config, name="config")


@config.command("show")
def config_show(
    config: Config = None,
    workspace: Workspace = None,
    given: Annotated[bool, typer.Option("--given", help="Only what is given somewhere, without the defaults.")] = False,
    json_output: Json = False,
) -> int:
    """Show every setting, its value, and where it comes from. Secrets are not shown."""
    from . import config as module

    return module.show(_given(workspace=workspace), config=config, given_only=given, as_json=json_output)


@config.command("check")
def config_check(config: Config = None, workspace: Workspace = None) -> int:
    """Check the settings file, the variables, and the sections of all plugins; exit 2 at the first mistake."""
    from . import config as module

    return module.check(_given(workspace=workspace), config=config)


@config.command("schema")
def config_schema(config: Config = None, workspace: Workspace = None) -> int:
    """Print the JSON schema of the settings file, for editors; sections of installed plugins included."""
    from . import config as module

    return module.schema(_given(workspace=workspace), config=config)


approvals = typer.Typer(help="Tool calls that wait for a person: see them, and answer.", no_args_is_help=True)
app.add_typer(approvals, name="approvals")

ApprovalId = Annotated[str, typer.Argument(metavar="ID", help="As `ralph approvals list` shows it.")]


@approvals.command("list")
def approvals_list(
    run_id: RunId = None, workspace: Workspace = None, config: Config = None, json_output: Json = False
) -> int:
    """Show the approvals of a run, those that wait for an answer first."""
    from . import approvals as module

    return module.show_list(run_id, _given(workspace=workspace), config=config, as_json=json_output)


@approvals.command("grant")
def approvals_grant(
    approval: ApprovalId,
    always: Annotated[
        bool, typer.Option("--always", help="This tool with these same arguments, for the rest of the run.")
    ] = False,
    workspace: Workspace = None,
    config: Config = None,
) -> int:
    """Let a tool run: this one call, and nothing else."""
    from . import approvals as module

    return module.answer(approval, _given(workspace=workspace), config=config, grant=True, always=always)


@approvals.command("deny")
def approvals_deny(approval: ApprovalId, workspace: Workspace = None, config: Config = None) -> int:
    """Keep a tool from running; the agent is told, and the run goes on."""
    from . import approvals as module

    return module.answer(approval, _given(workspace=workspace), config=config, grant=False)


audit = typer.Typer(
    help="The account of a run: look at it, check it, hand it on, forget it in time.", no_args_is_help=True
)
app.add_typer(audit, name="audit")

AllRuns = Annotated[bool, typer.Option("--all", help="Of all runs in the account.")]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="File to write to; standard output without it.")]
OfType = Annotated[str | None, typer.Option("--type", help="Type of record, as `gate.failed`, or `tool.*`.")]
AtLeast = Annotated[str | None, typer.Option("--severity", help="At least debug, info, warning or error.")]
Since = Annotated[str | None, typer.Option("--since", help="From this time on: ISO 8601 in UTC, or 90m, 12h, 7d ago.")]
Until = Annotated[str | None, typer.Option("--until", help="Before this time.")]
OfTool = Annotated[str | None, typer.Option("--tool", help="About this tool.")]
Success = Annotated[bool | None, typer.Option("--success/--failure", help="What went well, or what did not.")]
Csv = Annotated[bool, typer.Option("--csv", help="For spreadsheets.")]


@audit.command("query")
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
    from . import audit as module

    wanted = {"type": of_type, "severity": severity, "since": since, "until": until, "tool": tool, "success": success}
    form = "json" if json_output else "csv" if csv_output else "text"
    paging = {"after": after, "limit": limit}
    return module.query(run_id, wanted | paging, _given(workspace=workspace), config=config, form=form, all_=all_runs)


@audit.command("tail")
def audit_tail(
    run_id: RunId = None,
    count: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many records.")] = 20,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run ends.")] = False,
    workspace: Workspace = None,
    config: Config = None,
) -> int:
    """Show the last records of a run, and those that come."""
    from . import audit as module

    return module.tail(run_id, count, _given(workspace=workspace), config=config, follow=follow)


@audit.command("verify")
def audit_verify(
    run_id: RunId = None,
    all_runs: AllRuns = False,
    workspace: Workspace = None,
    config: Config = None,
    json_output: Json = False,
) -> int:
    """Check that no record was changed, added, moved or taken away; exit 1 names the first bad one."""
    from . import audit as module

    return module.verify(run_id, _given(workspace=workspace), config=config, as_json=json_output, all_=all_runs)


@audit.command("export")
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
    from . import audit as module

    wanted = {"type": of_type, "severity": severity, "since": since, "until": until, "tool": tool, "success": success}
    form = "csv" if csv_output else "jsonl"
    return module.export(
        run_id, wanted, _given(workspace=workspace), config=config, form=form, output=output, all_=all_runs
    )


@audit.command("prune")
def audit_prune(
    days: Annotated[float | None, typer.Option("--days", min=0, help="Instead of audit_retention_days.")] = None,
    workspace: Workspace = None,
    config: Config = None,
) -> int:
    """Forget the runs whose last record is older than audit_retention_days."""
    from . import audit as module

    return module.prune(days, _given(workspace=workspace), config=config)


@audit.command("decrypt")
def audit_decrypt(
    run_id: RunId = None,
    all_runs: AllRuns = False,
    output: Output = None,
    workspace: Workspace = None,
    config: Config = None,
) -> int:
    """Write the account as it was before it was encrypted."""
    from . import audit as module

    return module.decrypt(run_id, _given(workspace=workspace), config=config, output=output, all_=all_runs)


@app.command()
def runs(config: Config = None, workspace: Workspace = None, json_output: Json = False) -> int:
    """List the runs of this workspace, the newest first."""
    from . import runs as module

    return module.show(_given(workspace=workspace), config=config, as_json=json_output)


@app.command()
def clean(
    keep: Annotated[int, typer.Option("--keep", min=0, help="How many ended runs to keep.")] = 10,
    config: Config = None,
    workspace: Workspace = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and leave it.")] = False,
) -> int:
    """Forget all but the last runs that have ended, with their worktrees if no work would be lost, and leftovers."""
    from . import clean as module

    return module.tidy(keep, _given(workspace=workspace), config=config, dry_run=dry_run)


@app.command()
def stop(
    now: Annotated[bool, typer.Option("--now", help="Not after the iteration in hand.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Come back when it has ended.")] = False,
    config: Config = None,
    workspace: Workspace = None,
) -> int:
    """Ask the run that is at work here to end; `ralph resume` goes on with it."""
    from . import control

    return control.stop(_given(workspace=workspace), config=config, now=now, wait=wait)


@app.command()
def pause(
    off: Annotated[bool, typer.Option("--off", help="Let it go on.")] = False,
    config: Config = None,
    workspace: Workspace = None,
) -> int:
    """Have the run that is at work here pause after the iteration in hand; its limits wait, too."""
    from . import control

    return control.pause(_given(workspace=workspace), config=config, off=off)


@app.command()
def steer(
    text: Annotated[str, typer.Argument(help="What to say; - reads it from standard input.")],
    run_id: Annotated[str | None, typer.Option("--run", metavar="RUN", help="Not the live or the latest one.")] = None,
    config: Config = None,
    workspace: Workspace = None,
) -> int:
    """Say something to a run: it stands in its next prompt."""
    from . import control

    return control.steer(text, run_id, _given(workspace=workspace), config=config)


@app.command()
def logs(
    run_id: RunId = None,
    count: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many lines.")] = 100,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run ends.")] = False,
    config: Config = None,
    workspace: Workspace = None,
) -> int:
    """Show what happened last in a run, and what happens; the same as `ralph audit tail`, with more lines."""
    from . import audit as module

    return module.tail(run_id, count, _given(workspace=workspace), config=config, follow=follow)


plugins = typer.Typer(
    help="Show every plugin: where it comes from, what it provides, and what is wrong with it.",
    invoke_without_command=True,
)
app.add_typer(plugins, name="plugins")


@plugins.callback()
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
    from . import plugins as module

    return module.show(
        _given(workspace=workspace),
        config=config,
        no_plugin=tuple(no_plugin or ()),
        verbose=verbose,
        check=check,
        as_json=json_output,
    )


@plugins.command("verify")
def plugins_verify(
    name: Annotated[str, typer.Argument(help="As `ralph plugins` shows it.")], json_output: Json = False
) -> int:
    """Hold an installed plugin to the rules of the conformance kit; exit 1 if one does not hold. Needs pytest."""
    from . import plugins_verify as module

    return module.verify(name, as_json=json_output)


@plugins.command("new")
def plugins_new(
    name: Annotated[str, typer.Argument(help="What users are to type: the name of the plugin.")],
    kind: Annotated[PluginKind, typer.Option("--kind", help="What it brings.")],
    into: Annotated[Path, typer.Option("--into", help="Directory in which the package is made.")] = Path(),
) -> int:
    """Write the package of a plugin to begin with; its tests are those of the conformance kit."""
    from . import plugins_new as module

    return module.write(name, kind.value, into, taken=own_commands(app))


@app.command()
def agents(
    config: Config = None, workspace: Workspace = None, no_plugin: NoPlugin = None, json_output: Json = False
) -> int:
    """Show what each agent can do: report tokens and cost, ask before it uses a tool, and so on."""
    from . import agents as module

    given = _given(workspace=workspace)
    return module.show(given, config=config, no_plugin=tuple(no_plugin or ()), as_json=json_output)


@app.command()
def doctor(
    agent: Agent = None,
    mcp: Annotated[bool, typer.Option("--mcp", help="Connect to the MCP servers of the settings, too.")] = False,
    config: Config = None,
    workspace: Workspace = None,
    json_output: Json = False,
) -> int:
    """Say for each agent what was found, which version, and what is missing; exit 1 if none can be used."""
    from . import doctor as module

    return module.examine(_given(agent=agent, workspace=workspace), config=config, as_json=json_output, mcp=mcp)


@app.command()
def init(
    workspace: Workspace = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing.")] = False,
) -> int:
    """Write a PROMPT.md, and a ralph.yml with the agents and the tests that are found here."""
    from . import init as module

    return module.write(Path(workspace or "."), force=force, yes=yes)


def _given(**options: Any) -> dict[str, Any]:
    """The options that were given."""
    return {name: value for name, value in options.items() if value is not None}


def _logging(file: str | None, level: str | None, *, debug: bool) -> dict[str, str | None]:
    return {
        "monitoring.log_file": _from_here(file),
        "monitoring.log_level": level or ("debug" if debug else None),
    }


def _from_here(path: str | None) -> str | None:
    """A path on the command line is meant from the current directory, whatever the workspace is."""
    return None if path is None else str(Path(path).absolute())
