"""The plugin that Ralph brings itself. An index: everything it names is imported when a run selects it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ralph_core.contracts import Agent, AuditSink, CheckpointStore, LimitPolicy, Provider
from ralph_core.hookspecs import hookimpl

if TYPE_CHECKING:
    from ralph_core.state import RunState

PROMISES = {"blocked_prompt_patterns": (), "concurrent_actions": ("tools", "before")}
"""Capabilities of the policies that are not like the other tool policies."""
TOOL_POLICIES = (
    ("high_risk_tools", "a person has to agree to them", "HighRiskTools", "HighRiskSettings"),
    ("forbidden_commands", "shell commands that must not run", "ForbiddenCommands", "CommandSettings"),
    ("allowed_directories", "where tools may read and write", "AllowedDirectories", "DirectorySettings"),
    ("max_file_size", "how large a file a tool may write", "MaxFileSize", "SizeSettings"),
    ("concurrent_actions", "how many tools may be at work at once", "ConcurrentActions", "ConcurrencySettings"),
    ("blocked_prompt_patterns", "prompts that no agent is given", "BlockedPrompts", "PromptSettings"),
)


@hookimpl
def ralph_agents() -> Sequence[Provider[Agent]]:
    return [
        Provider(
            "command",
            "any program: the prompt on its standard input, its final message on its standard output",
            "ralph_core.builtin.command:ShellAgent",
            "ralph_core.builtin.command:ShellAgentSettings",
        ),
        Provider(
            "replay",
            "plays a recorded run again, without a model",
            "ralph_core.builtin.replay:ReplayAgent",
            "ralph_core.builtin.replay:ReplaySettings",
            capabilities=frozenset({"tools", "session", "usage", "usage-live", "cost", "quota"}),
        ),
    ]


@hookimpl
def ralph_checkpoint_stores() -> Sequence[Provider[CheckpointStore]]:
    return [
        Provider(
            "git",
            "state in the state directory, snapshots as commits under refs/ralph",
            "ralph_core.builtin.git:GitStore",
            "ralph_core.builtin.gitreview:GitSettings",
            capabilities=frozenset({"snapshots"}),
        ),
        Provider("local", "state in the state directory, no snapshots", "ralph_core.builtin.local:LocalStore"),
    ]


@hookimpl
def ralph_audit_sinks() -> Sequence[Provider[AuditSink]]:
    return [
        Provider(
            "file",
            "JSON lines, rotated by size, encrypted if asked to",
            "ralph_core.builtin.sinks:FileSink",
            "ralph_core.builtin.sinks:FileSinkSettings",
            capabilities=frozenset({"query", "verify", "prune"}),
        ),
        Provider(
            "memory",
            "kept in the process, for tests and embedding",
            "ralph_core.builtin.sinks:MemorySink",
            capabilities=frozenset({"query"}),
        ),
    ]


@hookimpl
def ralph_limit_policies() -> Sequence[Provider[LimitPolicy]]:
    return [
        Provider("iterations", "stops after max_iterations", "ralph_core.builtin.limits:IterationLimit"),
        Provider("runtime", "stops after max_runtime seconds", "ralph_core.builtin.limits:RuntimeLimit"),
        Provider("failures", "fails after max_failures in a row", "ralph_core.builtin.limits:FailureLimit"),
        Provider("silence", "fails an iteration without a sign of life", "ralph_core.builtin.limits:SilenceLimit"),
        Provider(
            "attempt_time", "fails an iteration that takes too long", "ralph_core.builtin.limits:AttemptTimeLimit"
        ),
        Provider("retry", "waits before a retry, fails after retry_max", "ralph_core.builtin.limits:RetryLimit"),
        Provider("tokens", "stops after max_tokens", "ralph_core.builtin.limits:TokenLimit"),
        Provider("cost", "stops after max_cost dollars", "ralph_core.builtin.limits:CostLimit"),
        Provider("rate", "waits after max_iterations_per_hour", "ralph_core.builtin.limits:RateLimit"),
        Provider("no_progress", "stops after max_no_progress idle ones", "ralph_core.builtin.limits:NoProgressLimit"),
        Provider("usage_window", "heeds the account's quota windows", "ralph_core.builtin.limits:UsageWindowLimit"),
        *(
            Provider(
                name,
                summary,
                f"ralph_core.builtin.tools:{factory}",
                f"ralph_core.builtin.tools:{settings}",
                capabilities=frozenset(PROMISES.get(name, ("tools",))),
            )
            for name, summary, factory, settings in TOOL_POLICIES
        ),
    ]


@hookimpl(trylast=True)
def ralph_choose_agent(state: RunState, candidates: Sequence[str]) -> str | None:
    """The first one, in the user's order, whose quota is not used up; the first one if that is so of all of them."""
    if state.limits.window_action != "fallback" or not state.quotas:
        return candidates[0]
    from .limits import spent_until  # not before there is a quota to look at

    return next((name for name in candidates if spent_until(state, name) is None), candidates[0])
