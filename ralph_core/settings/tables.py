"""The tables of the settings file, and how their values may be written."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from ralph_core.processes.job import ProcessLimits


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


def gates_of(value: Any) -> Any:
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
