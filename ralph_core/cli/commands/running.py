"""`ralph run` and `ralph resume`."""

from __future__ import annotations

from typing import Annotated

import typer

from .options import (
    Agent,
    Command,
    Config,
    Debug,
    Delay,
    DryRun,
    Events,
    Interval,
    Iterations,
    LogFile,
    LogLevel,
    MaxCost,
    MaxTokens,
    NoArchive,
    NoGit,
    NoPlugin,
    OnDone,
    PidFile,
    Promise,
    Prompt,
    PromptText,
    Quiet,
    RunId,
    Runtime,
    Verbose,
    Workspace,
    from_here,
    given,
    log_options,
)


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
    from ralph_core.cli import run as module

    overrides = given(
        agent=agent or ("replay" if from_ else None),
        prompt=from_here(prompt),
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
        **log_options(log_file, log_level, debug=debug),
        pid_file=from_here(pid_file),
        on_done=on_done,
        verbose=verbose or None,
        dry_run=dry_run or None,
        **{"agents.command.command": command, "agents.replay.run": from_},
    )
    shown, without = module.Shown(quiet=quiet, events=events), tuple(no_plugin or ())
    return module.start(overrides, text=text, config=config, no_plugin=without, shown=shown, worktree=worktree)


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
    from ralph_core.cli import run as module

    overrides = given(
        agent=agent,
        max_iterations=max_iterations,
        max_runtime=max_runtime,
        max_tokens=max_tokens,
        max_cost=max_cost,
        workspace=workspace,
        **log_options(log_file, log_level, debug=debug),
        pid_file=from_here(pid_file),
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
