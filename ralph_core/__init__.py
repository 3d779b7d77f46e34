"""Ralph runs a coding agent against a prompt in a loop until the work is provably done or a limit says stop.

These are the names that a plugin author imports. They are loaded on first use, so that `import ralph_core` (and with it
`ralph --version`) costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"
"""The version of ralph-core."""

_HOME = {
    "events": (
        "Event", "Failed", "FailureKind", "Finished", "Started", "Text", "Tokens", "ToolCall", "ToolResult",
        "Usage", "UsageWindow",
    ),
    "verdicts": ("Allow", "Ask", "Deny", "ExitCode", "Moment", "MomentKind", "Outcome", "OutcomeKind", "Pause",
                 "Stop", "Verdict"),
    "statefile": ("dump_state", "parse_state"),
    "state": ("Attempt", "GateResult", "Limits", "Progress", "Quota", "RunState", "Spend", "Task"),
    "records": ("AuditFilter", "AuditRecord", "Severity", "record_of"),
    "errors": ("AgentUnavailable", "LeaseLost", "PluginFault", "RalphError", "SettingsError", "StoreError",
               "UnknownName", "UserError", "WorkspaceBusy"),
    "contracts": ("Agent", "Anchor", "AskChannel", "AuditSink", "Capability", "CheckpointStore", "Command", "CommandAgent",
                  "Context", "Exit", "Failure", "Lease", "LimitPolicy", "McpServers", "Probe", "Process", "ProcessHost",
                  "Provider", "Request", "Saved", "Section", "Snapshot", "SpawnError", "tail_of"),
    "programs": ("ask_program", "find_program"),
    "hookspecs": ("CONTRACT_VERSION", "RalphSpec", "hookimpl"),
}  # fmt: skip
_GOING: dict[str, str] = {}
"""Names that go away with the next minor version: when, and what takes their place, as in "goes away in 0.3: use Probe"."""
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = ["__version__", *sorted(_MODULE_OF)]  # noqa: PLE0604 - every entry is a string

# isort: off
if TYPE_CHECKING:  # each under its own name: so they count as exported for type checkers, too
    from .contracts import (
        Agent as Agent,
        Anchor as Anchor,
        AskChannel as AskChannel,
        AuditSink as AuditSink,
        Capability as Capability,
        CheckpointStore as CheckpointStore,
        Command as Command,
        CommandAgent as CommandAgent,
        Context as Context,
        Exit as Exit,
        Failure as Failure,
        Lease as Lease,
        LimitPolicy as LimitPolicy,
        McpServers as McpServers,
        Probe as Probe,
        Process as Process,
        ProcessHost as ProcessHost,
        Provider as Provider,
        Request as Request,
        Saved as Saved,
        Section as Section,
        Snapshot as Snapshot,
        SpawnError as SpawnError,
        tail_of as tail_of,
    )
    from .errors import (
        AgentUnavailable as AgentUnavailable,
        LeaseLost as LeaseLost,
        PluginFault as PluginFault,
        RalphError as RalphError,
        SettingsError as SettingsError,
        StoreError as StoreError,
        UnknownName as UnknownName,
        UserError as UserError,
        WorkspaceBusy as WorkspaceBusy,
    )
    from .events import (
        Event as Event,
        Failed as Failed,
        FailureKind as FailureKind,
        Finished as Finished,
        Started as Started,
        Text as Text,
        Tokens as Tokens,
        ToolCall as ToolCall,
        ToolResult as ToolResult,
        Usage as Usage,
        UsageWindow as UsageWindow,
    )
    from .hookspecs import CONTRACT_VERSION as CONTRACT_VERSION, RalphSpec as RalphSpec, hookimpl as hookimpl
    from .programs import ask_program as ask_program, find_program as find_program
    from .records import (
        AuditFilter as AuditFilter,
        AuditRecord as AuditRecord,
        Severity as Severity,
        record_of as record_of,
    )
    from .state import (
        Attempt as Attempt,
        GateResult as GateResult,
        Limits as Limits,
        Progress as Progress,
        Quota as Quota,
        RunState as RunState,
        Spend as Spend,
        Task as Task,
    )
    from .statefile import dump_state as dump_state, parse_state as parse_state
    from .verdicts import (
        Allow as Allow,
        Ask as Ask,
        Deny as Deny,
        ExitCode as ExitCode,
        Moment as Moment,
        MomentKind as MomentKind,
        Outcome as Outcome,
        OutcomeKind as OutcomeKind,
        Pause as Pause,
        Stop as Stop,
        Verdict as Verdict,
    )


def __getattr__(name: str) -> object:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{module}"), name)
    if name in _GOING:  # said each time, at the line that asks for it
        import warnings

        warnings.warn(f"ralph_core.{name} {_GOING[name]}", DeprecationWarning, stacklevel=2)
    else:
        globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
