"""The Typer application, put together from the commands that are called for."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated

import typer

from ralph_core.errors import PluginFault, StoreError, UserError
from ralph_core.verdicts import ExitCode

from .plugins_commands import add_commands

COMMANDS = {
    **dict.fromkeys(("run", "resume"), "running"),
    **dict.fromkeys(("status", "runs", "logs", "explain", "replay", "trace", "report"), "looking"),
    **dict.fromkeys(("stop", "pause", "steer"), "controlling"),
    "checkpoints": "checkpoints",
    "backup": "backup",
    "config": "config",
    "approvals": "approvals",
    "audit": "audit",
    "plugins": "plugins",
    **dict.fromkeys(("agents", "doctor", "init", "clean"), "preparing"),
}
"""Every command and group of Ralph's own, in the order of the help, and the module of `commands` that has it."""


def application(command: str = "") -> typer.Typer:
    """The app with one command, or without a name that is one, with all of them.

    Typer examines every option of every command that it is given, which takes longer than to load the one that is called.
    """
    app = typer.Typer(
        name="ralph",
        help="Runs a coding agent against a prompt in a loop until the work is provably done or a limit says stop.",
        no_args_is_help=True,
        add_completion=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["--help", "-h"]},
    )
    app.callback(invoke_without_command=True)(_root)
    for name in [command] if command in COMMANDS else COMMANDS:
        module = import_module(f"{__package__}.commands.{COMMANDS[name]}")
        if hasattr(module, "app"):
            app.add_typer(module.app, name=name)
        else:
            app.command(name)(getattr(module, name))
    return app


def run_app(arguments: Sequence[str]) -> int:
    """Run a command and give its exit code; a mistake of the user's is one line on standard error."""
    try:
        app = application(arguments[0] if arguments else "")
        add_commands(app, arguments, COMMANDS)
        result = app(list(arguments), standalone_mode=False, prog_name="ralph")
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


def _root(version: Annotated[bool, typer.Option("--version", "-V", help="Show the version.")] = False) -> None:
    if version:
        from ralph_core import __version__

        print(f"ralph {__version__}")
        raise typer.Exit
