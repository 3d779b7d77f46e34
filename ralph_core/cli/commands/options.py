"""Options that several commands have."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer


def runs_here(incomplete: str) -> list[str]:
    """For a shell's completion: the runs of this directory, the newest first."""
    folder = Path(os.environ.get("RALPH_WORKSPACE", "."), os.environ.get("RALPH_HOME", ".agent"), "runs")
    names = sorted((path.name for path in folder.glob("2*")), reverse=True)
    return [name for name in names if name.startswith(incomplete)]


def agents_here(incomplete: str) -> list[str]:
    """For a shell's completion: the agents that are installed, behind the last comma."""
    from ralph_core.plugins.discovery import PluginChoice, build_manager  # nothing else needs them that early

    before, comma, last = incomplete.rpartition(",")
    names = ["auto", *sorted(build_manager(PluginChoice()).providers["agent"])]
    return [f"{before}{comma}{name}" for name in names if name.startswith(last)]


Agent = Annotated[
    str | None,
    typer.Option(
        "--agent", "-a", help="Agent, or a comma list in fall-back order, or auto.", autocompletion=agents_here
    ),
]
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
Force = Annotated[bool, typer.Option("--force", help="Overwrite files.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing.")]
Json = Annotated[bool, typer.Option("--json", help="For programs.")]
JsonLines = Annotated[bool, typer.Option("--json", help="For programs: a line of JSON each.")]
RunId = Annotated[
    str | None,
    typer.Argument(
        metavar="RUN_ID", help="Run id, or its beginning; the latest run without one.", autocompletion=runs_here
    ),
]


def given(**options: Any) -> dict[str, Any]:
    """The options that were given."""
    return {name: value for name, value in options.items() if value is not None}


def log_options(file: str | None, level: str | None, *, debug: bool) -> dict[str, str | None]:
    return {
        "monitoring.log_file": from_here(file),
        "monitoring.log_level": level or ("debug" if debug else None),
    }


def from_here(path: str | None) -> str | None:
    """A path on the command line is meant from the current directory, whatever the workspace is."""
    return None if path is None else str(Path(path).absolute())
