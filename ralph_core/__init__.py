"""Ralph runs a coding agent against a prompt in a loop until the work is provably done or a limit says stop.

These are the names that a plugin author imports. They are loaded on first use, so that `import ralph_core` (and with it
`ralph --version`) costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

_HOME = {
    "events": (
        "Event", "Failed", "FailureKind", "Finished", "Started", "Text", "Tokens", "ToolCall", "ToolResult",
        "Usage", "UsageWindow",
    ),
    "verdicts": ("Allow", "Ask", "Deny", "ExitCode", "Moment", "MomentKind", "Outcome", "OutcomeKind", "Pause",
                 "Stop", "Verdict"),
    "statefile": ("dump_state", "parse_state"),
    "state": ("Attempt", "Limits", "RunState", "Spend", "Task"),
    "records": ("AuditFilter", "AuditRecord", "Severity"),
    "errors": ("AgentUnavailable", "LeaseLost", "PluginFault", "RalphError", "SettingsError", "StoreError",
               "UnknownName", "UserError", "WorkspaceBusy"),
    "contracts": ("Agent", "AuditSink", "Capability", "CheckpointStore", "Command", "CommandAgent", "Context", "Exit", "Failure",
                  "Lease", "LimitPolicy", "Probe", "Process", "ProcessHost", "Provider", "Request", "Saved", "Section",
                  "Snapshot", "SpawnError", "tail_of"),
    "hookspecs": ("CONTRACT_VERSION", "RalphSpec", "hookimpl"),
}  # fmt: skip
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = ["__version__", *sorted(_MODULE_OF)]  # noqa: PLE0604 - every entry is a string

if TYPE_CHECKING:  # each under its own name: so they count as exported for type checkers, too
    from .contracts import (
        Agent as Agent,
    )  # fmt: skip
    from .contracts import (
        AuditSink as AuditSink,
    )
    from .contracts import (
        Capability as Capability,
    )
    from .contracts import (
        CheckpointStore as CheckpointStore,
    )
    from .contracts import (
        Command as Command,
    )
    from .contracts import (
        CommandAgent as CommandAgent,
    )
    from .contracts import (
        Context as Context,
    )
    from .contracts import (
        Exit as Exit,
    )
    from .contracts import (
        Failure as Failure,
    )
    from .contracts import (
        Lease as Lease,
    )
    from .contracts import (
        LimitPolicy as LimitPolicy,
    )
    from .contracts import (
        Probe as Probe,
    )
    from .contracts import (
        Process as Process,
    )
    from .contracts import (
        ProcessHost as ProcessHost,
    )
    from .contracts import (
        Provider as Provider,
    )
    from .contracts import (
        Request as Request,
    )
    from .contracts import (
        Saved as Saved,
    )
    from .contracts import (
        Section as Section,
    )
    from .contracts import (
        Snapshot as Snapshot,
    )
    from .contracts import (
        SpawnError as SpawnError,
    )
    from .contracts import (
        tail_of as tail_of,
    )
    from .errors import (
        AgentUnavailable as AgentUnavailable,
    )  # fmt: skip
    from .errors import (
        LeaseLost as LeaseLost,
    )
    from .errors import (
        PluginFault as PluginFault,
    )
    from .errors import (
        RalphError as RalphError,
    )
    from .errors import (
        SettingsError as SettingsError,
    )
    from .errors import (
        StoreError as StoreError,
    )
    from .errors import (
        UnknownName as UnknownName,
    )
    from .errors import (
        UserError as UserError,
    )
    from .errors import (
        WorkspaceBusy as WorkspaceBusy,
    )
    from .events import (
        Event as Event,
    )  # fmt: skip
    from .events import (
        Failed as Failed,
    )
    from .events import (
        FailureKind as FailureKind,
    )
    from .events import (
        Finished as Finished,
    )
    from .events import (
        Started as Started,
    )
    from .events import (
        Text as Text,
    )
    from .events import (
        Tokens as Tokens,
    )
    from .events import (
        ToolCall as ToolCall,
    )
    from .events import (
        ToolResult as ToolResult,
    )
    from .events import (
        Usage as Usage,
    )
    from .events import (
        UsageWindow as UsageWindow,
    )
    from .hookspecs import CONTRACT_VERSION as CONTRACT_VERSION
    from .hookspecs import RalphSpec as RalphSpec
    from .hookspecs import hookimpl as hookimpl
    from .records import AuditFilter as AuditFilter
    from .records import AuditRecord as AuditRecord
    from .records import Severity as Severity
    from .state import Attempt as Attempt
    from .state import Limits as Limits
    from .state import RunState as RunState
    from .state import Spend as Spend
    from .state import Task as Task
    from .verdicts import (
        Allow as Allow,
    )  # fmt: skip
    from .verdicts import (
        Ask as Ask,
    )
    from .verdicts import (
        Deny as Deny,
    )
    from .verdicts import (
        ExitCode as ExitCode,
    )
    from .verdicts import (
        Moment as Moment,
    )
    from .verdicts import (
        MomentKind as MomentKind,
    )
    from .verdicts import (
        Outcome as Outcome,
    )
    from .verdicts import (
        OutcomeKind as OutcomeKind,
    )
    from .verdicts import (
        Pause as Pause,
    )
    from .verdicts import (
        Stop as Stop,
    )
    from .verdicts import (
        Verdict as Verdict,
    )


def __getattr__(name: str) -> object:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
