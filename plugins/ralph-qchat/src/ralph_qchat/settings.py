"""The sections `agents.q`, `agents.qchat` and `agents.kiro` of the settings: each name has its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

TAKEN_OPTIONS = frozenset({"-r", "--resume", "--resume-id", "--resume-picker"})
"""Options that would make an iteration go on with an earlier conversation."""


class LoggingSettings(BaseModel):
    """The log of the adapter: the logger `ralph.qchat`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = "INFO"
    """What goes into the log: at `INFO` each request with its end, at `DEBUG` also the command and the end of standard error."""

    format: str = "%(asctime)s - %(name)s - %(levelname)s - %(message)s"
    """Of a line of the log, as in Python's `logging`."""

    file: str | None = None
    """File to write the log to, relative to the workspace; rotated at 10 MiB, five are kept. Unset: there is none."""


class MonitoringSettings(BaseModel):
    """Figures of all requests of the process: the package `prometheus-client`, default registry."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    metrics_enabled: bool = False
    """Whether requests are counted and timed (`qchat_requests_total`, …)."""

    metrics_interval: Annotated[float, Field(gt=0)] = 60.0
    """Seconds after which the figures are written anew into `.agent/metrics/qchat.prom`, in the text format of Prometheus."""

    health_check_port: Annotated[int, Field(ge=0, le=65535)] | None = None
    """Port of 127.0.0.1 that serves `/health` and `/metrics` from the first request on, if `metrics_enabled`. 0: any."""


class ChatSettings(BaseModel):
    """How `q chat`, or `kiro-cli chat`, is run.

    Most have a variable `QCHAT_…`, which wins over the section; what stands in `config/qchat.yaml` lies below both.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    executable: Annotated[str, Field(min_length=1)] | None = None
    """Name on PATH, or path, of the program. Unset: the first that is there of those that the agent knows."""

    model: Annotated[str, Field(min_length=1)] | None = None
    """Model to ask for. Unset: the program's own choice."""

    trust_all_tools: bool = True
    """Whether tools may be used without asking. Nobody is there to be asked: without it, the first tool that writes or runs
    something ends the iteration as a failure, unless it is one of `trust_tools`."""

    trust_tools: tuple[str, ...] = ()
    """Tools that may be used without asking; then no others may, whatever `trust_all_tools` says."""

    extra_args: tuple[str, ...] = ()
    """Further options for the command line, at its end."""

    env: Mapping[str, str] = Field(default_factory=dict)
    """Variables for the program's process alone."""

    name: Literal["q", "qchat", "kiro"] | None = None
    """What the adapter calls itself in its log and on `/health` (`adapter.name` in the file). Unset: the agent's own name."""

    timeout: Annotated[float, Field(gt=0)] = 120.0
    """Seconds for a request, which is an iteration (`QCHAT_TIMEOUT`): all its work. A longer one has failed."""

    max_retries: Annotated[int, Field(ge=0)] = 3
    """How often in a row a request is repeated that the service would not or could not serve (`QCHAT_MAX_RETRIES`); after
    that the iteration has failed. `retry_max` of the run holds as well."""

    retry_delay: Annotated[float, Field(ge=0)] = 1.0
    """Seconds before the first repetition, at least (`QCHAT_RETRY_DELAY`); doubled each time. The `retry_delay` of the run,
    where it is longer, wins."""

    verbose: bool = False
    """Write the log to standard error, too (`QCHAT_VERBOSE`)."""

    debug: bool = False
    """Write the log to standard error, at the level DEBUG (`QCHAT_DEBUG`)."""

    buffer_size: Annotated[int, Field(ge=1)] = 4096
    """Bytes that are read of the program's output at once (`QCHAT_BUFFER_SIZE`)."""

    poll_interval: Annotated[float, Field(gt=0, le=60)] = 0.1
    """Seconds between two looks at the output of a silent program, and at whether a request may begin that waits for its turn
    (`QCHAT_POLL_INTERVAL`)."""

    max_concurrent: Annotated[int, Field(ge=1)] = 5
    """Requests at once, over all runs of one process (`QCHAT_MAX_CONCURRENT`); the others wait."""

    max_memory_mb: Annotated[int, Field(ge=1)] | None = None
    """MiB of address space that each process of a request may have (`QCHAT_MAX_MEMORY_MB`). Unset: no limit."""

    max_output_size: Annotated[int, Field(ge=1)] = 10 * 1024 * 1024
    """Bytes that a request may write (`QCHAT_MAX_OUTPUT_SIZE`); one that writes more is ended, and has failed."""

    max_prompt_length: Annotated[int, Field(ge=1)] = 10 * 1024 * 1024
    """Characters of a prompt; a longer one is refused before the program starts."""

    blocked_patterns: tuple[str, ...] = ()
    """Texts that must not be in a prompt; one that has them is refused before the program starts."""

    logging: LoggingSettings = LoggingSettings()
    """See below."""

    monitoring: MonitoringSettings = MonitoringSettings()
    """See below."""

    @field_validator("extra_args")
    @classmethod
    def _keep_iterations_fresh(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        taken = [each for each in value if each.split("=")[0] in TAKEN_OPTIONS]
        if taken:
            raise ValueError(f"{taken[0]} can't be used: every iteration is a fresh conversation")
        return value
