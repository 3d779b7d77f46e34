"""The settings of a run: one model, validated once, every field read somewhere."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from .errors import SettingsError, UnknownName
from .job import ProcessLimits
from .sources import Sources
from .state import Limits

ModelT = TypeVar("ModelT", bound=BaseModel)


def _listed(value: Any) -> Any:
    """A comma list, as it is written in a variable or a flag, for a list."""
    if isinstance(value, str):
        return tuple(item.strip() for item in value.split(",") if item.strip())
    return tuple(value) if isinstance(value, list) else value


def _process_limits(value: Any) -> Any:
    """The limits that the deployment documents name, for a plain `true`."""
    if value is True:
        return ProcessLimits(memory_bytes=4 << 30, cpu_seconds=3600, file_bytes=100 << 20, processes=100)
    return None if value is False else value


def _lower(value: Any) -> Any:
    """A word that may be written in capitals, as levels of a log often are."""
    return value.lower() if isinstance(value, str) else value


def _gates(value: Any) -> Any:
    """A gate may be written as its command alone."""
    gates = [value] if isinstance(value, (str, dict)) else value
    return tuple({"command": gate} if isinstance(gate, str) else gate for gate in gates or ())


def _alone(value: Any) -> Any:
    """A single one may be written without a list; commas mean nothing in a regular expression."""
    return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value


LEVELS = Literal["debug", "info", "warning", "error", "critical"]
FORMATS = Literal["text", "json"]
Names = Annotated[tuple[str, ...], BeforeValidator(_listed, json_schema_input_type=tuple[str, ...] | str)]
FilePath = Annotated[str, Field(pattern=r"^[^\x00]+$")]
Section = dict[str, Any]


class PluginSettings(BaseModel):
    """Which plugins take part."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    disable: Names = ()
    """Plugins that are not to be loaded."""
    require: Names = ()
    """Plugins without which a run must not start."""
    deadline: float = Field(default=30.0, gt=0)
    """Seconds that a plugin may take to be loaded, to build something, to probe an agent, to answer a hook, or to read on
    in an agent's output."""


class GateSettings(BaseModel):
    """A command that Ralph runs itself when the agent claims completion; all of them have to pass."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    command: str = Field(min_length=1)
    """The shell command; exit code 0 means passed."""
    timeout: float = Field(600.0, gt=0)
    """Seconds after which it has failed."""
    cwd: str | None = None
    """Where it runs, relative to the workspace."""
    env: dict[str, str] = {}
    """Variables that are added to its environment."""
    must_match: str | None = None
    """A regular expression that its output has to match: a gate that tests nothing does not count."""
    min_tests: int | None = Field(None, ge=1)
    """How many tests it has to run at least, as counted in the summary lines of well-known test runners."""
    must_fail_after: str = ""
    """A shell command that breaks the tree: the gate has to fail on a copy of the workspace after it."""

    @field_validator("must_match")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                re.compile(value)
            except re.error as error:
                raise ValueError(f"a regular expression ({error})") from None
        return value


class SecuritySettings(BaseModel):
    """What the agent's tools may do; enforced before a tool runs by the agents that can be asked, see `docs/tool-policies.md`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    allowed_directories: Names = ()
    """Directories, relative to the workspace, that tools may touch; with none named, all."""
    forbidden_commands: Names = ()
    """Shell commands that must not run: a name (`sudo`), or one with options and words (`rm -rf`, `git push`)."""
    max_file_size: int | None = Field(default=None, ge=1)
    """Bytes of the largest file that a tool may write."""
    sandbox_enabled: bool = False
    """Whether the agent's processes have to run in a sandbox, which a plugin puts around them (`ralph_prepare_command`): without
    such a plugin no run begins, and no process is started that it left as it was."""
    blocked_prompt_patterns: Annotated[
        tuple[str, ...], BeforeValidator(_alone, json_schema_input_type=tuple[str, ...] | str)
    ] = ()
    """Regular expressions; a prompt in which one is found, in upper or lower case, is not given to an agent."""


class CompletionSettings(BaseModel):
    """What makes a claim of completion stand."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    confirmations: int = Field(default=1, ge=1)
    """How many iterations in a row have to claim completion, and pass the gates, before the run is complete."""


class BudgetSettings(BaseModel):
    """What is done when a limit can't be enforced."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    unmetered: Literal["allow", "refuse"] = "allow"
    """Whether a run may use an agent of which tokens or cost stay unknown, so that `max_tokens` or `max_cost` can't hold."""


class ProcessSettings(BaseModel):
    """Limits of the operating system for the agent's process and its children; Ralph itself is never limited."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    limits: Annotated[
        ProcessLimits | None, BeforeValidator(_process_limits, json_schema_input_type=ProcessLimits | bool | None)
    ] = None
    """Off; `true` for 4 GiB of memory, 3600 s of CPU time, files of 100 MiB and 100 processes; or any of
    `memory_bytes`, `cpu_seconds`, `file_bytes`, `processes`."""


class McpServerSettings(BaseModel):
    """An MCP server: a program that is started, or an address."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    command: str | None = Field(None, min_length=1)
    """The program, for a server that speaks on its standard input and output."""
    args: tuple[str, ...] = ()
    """Its arguments."""
    env: dict[str, str] = {}
    """Variables that are set for it."""
    type: Literal["http", "sse"] | None = None
    """How a server at an address speaks."""
    url: str | None = Field(None, pattern=r"^https?://")
    """Its address."""
    headers: dict[str, str] = {}
    """What is sent with each request to it."""

    @model_validator(mode="after")
    def _one(self) -> McpServerSettings:
        if (self.command is None) == (self.url is None):
            raise ValueError("either `command` or `url`")
        return self

    @property
    def written(self) -> dict[str, Any]:
        """As it stands in the table `mcpServers` of a CLI."""
        if self.command is not None:
            return {"command": self.command, "args": list(self.args), "env": self.env}
        return {"type": self.type or "http", "url": self.url, "headers": self.headers}


class McpSettings(BaseModel):
    """MCP servers for the agents that can use them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    servers: dict[str, McpServerSettings] = {}
    """The servers, by name."""
    connection_timeout: float = Field(default=10.0, gt=0)
    """Seconds that a server may take to be there."""
    call_timeout: float = Field(default=30.0, gt=0)
    """Seconds that a call of one of its tools may take."""
    max_servers: int = Field(default=20, ge=1)
    """How many there may be."""
    max_retries: int = Field(default=3, ge=0)
    """How often `ralph doctor --mcp` tries again to reach one."""
    reconnect_delay: float = Field(default=5.0, ge=0)
    """Seconds that it waits before it does."""


class EnvironmentSettings(BaseModel):
    """What an agent's process finds in its environment, besides what is common and what its adapter needs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    allow: Names = ()
    """Variables of Ralph's own environment that it is given, too, such as `DATABASE_URL`, `ACME_*`, or `*` for all."""
    set: dict[str, str] = {}
    """Variables that are set for it."""


class KeySettings(BaseModel):
    """Where a key is kept that is not in Ralph's environment; one of the two."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: FilePath | None = None
    """A file that holds the key and nothing else, relative to the workspace."""
    keyring: str | None = Field(None, min_length=1)
    """The service under which the system's keyring has it, with the variable, in capitals or not, as the name of the user."""

    @model_validator(mode="after")
    def _one(self) -> KeySettings:
        if (self.file is None) == (self.keyring is None):
            raise ValueError("either `file` or `keyring`")
        return self


class MonitoringSettings(BaseModel):
    """How a run can be watched; see `docs/tracing.md`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = False
    """Whether a run serves its figures at `/metrics`, as text for Prometheus, and `/health`."""
    metrics_port: int = Field(default=8080, ge=0, le=65535)
    """The port of both; 0: any that is free."""
    metrics_host: str = "127.0.0.1"
    """The address that they are served on; `0.0.0.0` for all of this machine's."""
    metrics_interval: float = Field(default=10.0, gt=0)
    """Seconds after which `metrics/state_RUN.json` is written again; also after every iteration."""
    metrics_endpoint: str | None = Field(default=None, pattern=r"^https?://[^\s/]+")
    """A collector that metrics are sent to by OTLP over HTTP; more is said by the standard `OTEL_*` variables."""
    health_check_enabled: bool = False
    """Whether a run serves `/health` although `enabled` is not set."""
    health_check_interval: float = Field(default=30.0, gt=0)
    """Seconds without a sign of life after which `/health` says that the run is not healthy."""
    log_level: Annotated[LEVELS, BeforeValidator(_lower, json_schema_input_type=LEVELS)] = "info"
    """The least that is logged. Nothing is unless one of the settings `log_*` is made; without a file or syslog, the log goes to
    standard error, in the place of the display."""
    log_format: Annotated[FORMATS, BeforeValidator(_lower, json_schema_input_type=FORMATS)] = "text"
    """How a line of the log looks: words, or an object with run, iteration and trace ids."""
    log_file: FilePath | None = None
    """The file that the log goes to, relative to the workspace."""
    log_max_size: int = Field(default=104_857_600, ge=1)
    """Bytes after which that file is rotated."""
    log_max_files: int = Field(default=10, ge=2)
    """How many of these files are kept, with the one that is written."""
    log_syslog: bool | Annotated[str, Field(pattern=r"^(/.+|[^/\s]+:\d{1,5})$")] = False
    """Whether the log goes to syslog: `true` for the socket `/dev/log`, the path of another one, or `HOST:PORT` by UDP."""

    @property
    def log_on_stderr(self) -> bool:
        """Whether the log takes the place of the display."""
        asked = self.model_fields_set & {"log_level", "log_format"}
        return bool(asked) and self.log_file is None and not self.log_syslog

    @property
    def logs(self) -> bool:
        """Whether there is a log at all."""
        return self.log_on_stderr or self.log_file is not None or bool(self.log_syslog)

    @property
    def syslog_address(self) -> str | tuple[str, int]:
        """The socket of syslog, or host and port."""
        if not isinstance(self.log_syslog, str):
            return "/dev/log"
        host, _, port = self.log_syslog.rpartition(":")
        return self.log_syslog if self.log_syslog.startswith("/") else (host, int(port))


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
        tuple[GateSettings, ...], BeforeValidator(_gates, json_schema_input_type=tuple[GateSettings | str, ...] | str)
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


def validated(
    model: type[ModelT], values: Mapping[str, Any], sources: Sources, section: tuple[str, ...] = ()
) -> ModelT:
    """`values`, which stand in `section` of the settings, as `model`. Raises `SettingsError` for the first mistake."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        mistakes = error.errors(include_url=False)
    # A misspelt name comes first: that another one is missing may be its consequence.
    first = next((mistake for mistake in mistakes if mistake["type"] in MISSPELT), mistakes[0])
    path = _written(values, first["loc"])
    place, name = sources.origin((*section, *path)), ".".join((*section, *path))
    if first["type"] in MISSPELT:
        hint = UnknownName("setting", path[-1], _known(model, path[:-1]))
        raise SettingsError(f"{place}: unknown setting {name!r}", mend=hint.mend)
    if first["type"] == "invalid_key":
        raise SettingsError(f"{place}: unknown setting {first['input']!r}", mend="names of settings are words")
    if first["type"] == "missing":
        raise SettingsError(f"{place}: {name} is missing")
    message = PHRASE.sub("should ", first["msg"])
    raise SettingsError(f"{place}: {name}: {first['input']!r} is not valid", mend=f"it {message}")


MISSPELT = ("extra_forbidden", "unexpected_keyword_argument")
"""What pydantic calls a name that it does not know, in a model and in a dataclass."""
PHRASE = re.compile(r"^(Value error, |[A-Z][a-z]+ should )")
"""How pydantic begins its messages."""


def _written(values: Any, path: Sequence[int | str]) -> tuple[str, ...]:
    """The part of pydantic's path that the user has written: without positions, and the names of alternatives tried."""
    found: list[str] = []
    for part in path:
        if isinstance(values, (list, tuple)) and isinstance(part, int):
            values = values[part]
        elif isinstance(values, Mapping) and part in values:
            found.append(str(part))
            values = values[part]
        elif isinstance(values, Mapping) and part == path[-1]:  # what is missing
            found.append(str(part))
    return tuple(found)


def _known(model: type[Any], path: Sequence[str]) -> list[str]:
    """The names of the settings in the table at `path`."""
    for part in path:
        if get_origin(model) is dict:  # names of the user's own
            model = get_args(model)[1]
            continue
        annotation = get_type_hints(model)[part]
        alternatives = [annotation, *get_args(annotation)]
        model = next(
            kind
            for kind in alternatives
            if is_dataclass(kind) or hasattr(kind, "model_fields") or get_origin(kind) is dict
        )
    return list(get_type_hints(model) if is_dataclass(model) else model.model_fields)
