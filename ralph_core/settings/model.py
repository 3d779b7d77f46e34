"""The settings of a run: one model, validated once, every field read somewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from ralph_core.state import Limits

from .sources import Sources
from .tables import (
    BudgetSettings,
    CompletionSettings,
    EnvironmentSettings,
    FilePath,
    GateSettings,
    KeySettings,
    McpSettings,
    MonitoringSettings,
    Names,
    PluginSettings,
    ProcessSettings,
    Section,
    SecuritySettings,
    gates_of,
)
from .validation import validated


class Settings(BaseModel):
    """Everything that a user can set. Times are in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    agent: Names = Field(("auto",), min_length=1)
    """Agents in fall-back order; `auto` is the first that its probe finds usable."""
    prompt: FilePath = "PROMPT.md"
    """The file that says what is to be done, relative to the workspace."""
    completion_promise: str = Field("LOOP_COMPLETE", min_length=1, pattern=r"^\S(.*\S)?$")
    """The line with which the agent ends its final message when the whole task is done."""

    max_iterations: int = Field(100, ge=1)
    """Iterations after which a run stops."""
    max_runtime: float = Field(14400.0, gt=0)
    """Seconds after which a run stops, counted over all its sittings."""
    max_tokens: int = Field(1_000_000, ge=1)
    """Tokens after which a run stops, in the middle of an iteration too; those of prompt caches count."""
    max_cost: float = Field(50.0, gt=0)
    """US dollars after which a run stops, in the middle of an iteration too."""
    max_iterations_per_hour: int | None = Field(None, ge=1, le=3600)
    """Iterations that may begin within an hour; the next one waits."""
    max_no_progress: int | None = Field(10, ge=1)
    """Iterations in a row that change no file and end with nearly the same words, after which a run stops; null: any number."""
    usage_window_stop: float = Field(1.0, gt=0, le=1)
    """Share of a quota window (of five hours, of a week) at which an agent is left alone; 1: when it is used up."""
    usage_window_action: Literal["fallback", "wait", "stop"] = "fallback"
    """What is done then: use the next agent in the list, or wait if there is none; wait until the window resets; or stop."""
    budget: BudgetSettings = BudgetSettings()
    """What is done when a limit can't be enforced."""
    max_failures: int = Field(5, ge=1)
    """Consecutive failures of the agent itself after which a run fails."""
    timeout_per_iteration: float = Field(300.0, gt=0)
    """Seconds of silence (no output at all) after which an agent is taken for dead."""
    timeout_hard: float = Field(7200.0, gt=0)
    """Seconds after which an agent is ended however busy it is."""
    retry_delay: float = Field(2.0, ge=0)
    """First pause before a failed iteration is tried again; it doubles each time, with jitter."""
    retry_max: int = Field(5, ge=0)
    """How often an iteration is tried again after a fault that is not the agent's (network, overload)."""

    gates: Annotated[
        tuple[GateSettings, ...], BeforeValidator(gates_of, json_schema_input_type=tuple[GateSettings | str, ...] | str)
    ] = ()
    """Commands that check a claim of completion; a plain string is a command with the defaults."""
    completion: CompletionSettings = CompletionSettings()
    """What makes a claim of completion stand."""

    security: SecuritySettings = SecuritySettings()
    """What the agent's tools may do."""
    high_risk_tools: Names = ()
    """Tools that a person has to agree to each time; `mcp__db__*` names several."""
    require_approval_for_high_risk: bool = True
    """Whether they have to; `false`: their use is only recorded."""
    max_concurrent_actions: int | None = Field(None, ge=1)
    """Tools that an agent may have at work at once: one more is denied before it runs, by the agents that can be asked. Unset,
    any number; in a table `runtime` 5."""
    max_skills_per_agent: int = Field(50, ge=0)
    """Skills (folders with a `SKILL.md`) that an agent's program may find: with more, no run begins."""
    capability_cache_ttl: float = Field(300.0, ge=0)
    """Seconds for which what an agent's program said of itself (`--version`) is kept in the state directory, so that the next
    start need not ask; 0: always ask. `ralph doctor` does."""
    approvals: Literal["deny", "wait"] = "deny"
    """What is done about a tool that a person has to agree to when none is at the terminal: deny it at once, or wait for
    `ralph approvals grant`."""
    approval_timeout: float = Field(300.0, gt=0)
    """Seconds after which it means no that nobody has answered."""

    workspace: FilePath = "."
    """The directory that the agent works in."""
    home: FilePath = ".agent"
    """Ralph's state directory, relative to the workspace."""
    checkpoint_store: str = "git"
    """Where state and snapshots are kept."""
    checkpoint_interval: int = Field(5, ge=1)
    """Iterations between two snapshots of the files; state is saved in every iteration."""
    git_enabled: bool = True
    """Whether git is used at all: without it, the `local` store keeps state and no snapshots."""
    archive_enabled: bool = True
    """Whether each version of the prompt is kept in the state directory."""
    audit_sinks: Names = ("file",)
    """Where the account goes."""
    audit_batch_size: int = Field(1000, ge=1)
    """Most records that a sink is given at once."""
    audit_flush_interval: float = Field(10.0, gt=0)
    """Seconds between two flushes of a sink; records are written as they come."""
    audit_retention_days: float = Field(90, gt=0)
    """Days after which `ralph audit prune` forgets a run."""
    audit_queue: int = Field(10_000, ge=1)
    """Records that may wait in memory for a sink that is slow."""
    audit_overflow: Literal["spill", "block", "drop"] = "spill"
    """What is done with more: they wait on disk; the run waits for the sink; or the oldest are dropped, and counted."""
    audit_required: Names = ()
    """Sinks that a run must not do without: it ends as failed when one of them does not take the account."""
    audit_deadline: float = Field(30.0, gt=0)
    """Seconds that a required sink may take for a batch."""

    record: bool = False
    """Keep a recording of every attempt, which the agent `replay` can play again."""
    dry_run: bool = False
    """Do everything but start the agent, and write nothing."""
    verbose: bool = False
    """Show what the agent says, not only what it does."""

    pid_file: FilePath | None = None
    """A file that holds the number of Ralph's process while it works on a run, relative to the workspace."""
    on_done: str | None = Field(None, min_length=1)
    """A shell command that is run when a run has ended, with `RALPH_OUTCOME` and more in its environment; see
    `docs/unattended.md`."""

    environment: EnvironmentSettings = EnvironmentSettings()
    """What the agent finds in its environment."""
    keys: dict[str, KeySettings] = {}
    """Keys that are kept elsewhere, by the variable in which the agents that need it get them."""
    mcp: McpSettings = McpSettings()
    """MCP servers for the agents that can use them."""
    monitoring: MonitoringSettings = MonitoringSettings()
    """How a run can be watched."""
    process: ProcessSettings = ProcessSettings()
    """How the agent's process is limited."""
    plugins: PluginSettings = PluginSettings()
    """Which plugins take part."""
    agents: dict[str, Section] = {}
    """Settings of agents, by name; the agent's own model validates them."""
    stores: dict[str, Section] = {}
    """Settings of checkpoint stores, by name."""
    sinks: dict[str, Section] = {}
    """Settings of audit sinks, by name."""
    policies: dict[str, Section | Literal[False]] = {}
    """Settings of limit policies, by name; `false` switches one off."""

    @property
    def limits(self) -> Limits:
        """The limits of a run."""
        return Limits(
            iterations=self.max_iterations,
            runtime=self.max_runtime,
            failures=self.max_failures,
            silence=self.timeout_per_iteration,
            attempt=self.timeout_hard,
            retries=self.retry_max,
            retry_delay=self.retry_delay,
            tokens=self.max_tokens,
            cost=self.max_cost,
            iterations_per_hour=self.max_iterations_per_hour,
            no_progress=self.max_no_progress,
            window=self.usage_window_stop,
            window_action=self.usage_window_action,
            unmetered=self.budget.unmetered == "allow",
            actions=self.section("policies", "concurrent_actions").get("max_concurrent_actions"),
        )

    @property
    def store(self) -> str:
        """The checkpoint store to use."""
        return "local" if self.checkpoint_store == "git" and not self.git_enabled else self.checkpoint_store

    def section(self, table: str, name: str) -> Section:
        """The section of a provider; empty if there is none."""
        section: Section = getattr(self, table).get(name) or {}
        if table != "policies":
            return section
        # What is said outside of the section, by the names that the deployment documents use, holds for these policies.
        shared: dict[str, Section] = {
            setting: {setting: value} for setting, value in self.security.model_dump(exclude_defaults=True).items()
        }
        if self.high_risk_tools:
            approval = {"require_approval_for_high_risk": self.require_approval_for_high_risk}
            shared["high_risk_tools"] = {"high_risk_tools": self.high_risk_tools, **approval}
        if self.max_concurrent_actions is not None:
            shared["concurrent_actions"] = {"max_concurrent_actions": self.max_concurrent_actions}
        return {**shared.get(name, {}), **section}

    def workspace_path(self, cwd: Path) -> Path:
        return Path(cwd, self.workspace).resolve()

    def home_path(self, cwd: Path) -> Path:
        return Path(self.workspace_path(cwd), self.home)


def settings_from(sources: Sources) -> Settings:
    """Validate what was gathered. Raises `SettingsError` that says which setting, where it was made, and what it may be."""
    return validated(Settings, sources.values, sources)
