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

if TYPE_CHECKING:
    from .contracts import (
        Agent,
        AuditSink,
        Capability,
        CheckpointStore,
        Command,
        CommandAgent,
        Context,
        Exit,
        Failure,
        Lease,
        LimitPolicy,
        Probe,
        Process,
        ProcessHost,
        Provider,
        Request,
        Saved,
        Section,
        Snapshot,
        SpawnError,
        tail_of,
    )  # fmt: skip
    from .errors import (
        AgentUnavailable,
        LeaseLost,
        PluginFault,
        RalphError,
        SettingsError,
        StoreError,
        UnknownName,
        UserError,
        WorkspaceBusy,
    )  # fmt: skip
    from .events import (
        Event,
        Failed,
        FailureKind,
        Finished,
        Started,
        Text,
        Tokens,
        ToolCall,
        ToolResult,
        Usage,
        UsageWindow,
    )  # fmt: skip
    from .hookspecs import CONTRACT_VERSION, RalphSpec, hookimpl
    from .records import AuditFilter, AuditRecord, Severity
    from .state import Attempt, Limits, RunState, Spend, Task
    from .statefile import dump_state, parse_state
    from .verdicts import (
        Allow,
        Ask,
        Deny,
        ExitCode,
        Moment,
        MomentKind,
        Outcome,
        OutcomeKind,
        Pause,
        Stop,
        Verdict,
    )  # fmt: skip


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
