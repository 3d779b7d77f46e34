"""The section `agents.gemini` of the settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

TAKEN_OPTIONS = frozenset(
    {"-r", "--resume", "--session-id", "--session-file", "--list-sessions", "--delete-session"}
    | {"-o", "--output-format", "-p", "--prompt", "-i", "--prompt-interactive", "--acp", "--experimental-acp"}
    | {"--allowed-mcp-server-names"}  # those of the settings, where there are some
)
"""Options that would make an iteration other than one fresh process whose output can be read to its result."""


class GeminiSettings(BaseModel):
    """How Gemini CLI is run. Its own settings files (`~/.gemini`, `.gemini/`) are read as usual, and never written."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    executable: Annotated[str, Field(min_length=1)] = "gemini"
    """Name on PATH, or path, of the program."""

    model: Annotated[str, Field(min_length=1)] | None = None
    """Model to ask for. Unset: Gemini CLI chooses, with a further model call in each iteration to do so."""

    approval_mode: Literal["default", "auto_edit", "plan", "yolo"] = "yolo"
    """What it may do without asking. Nobody is there to be asked: in `default` it has no tools that write, in `auto_edit` no
    shell, in `plan` it writes plans alone; hence the default, which allows everything that the user who runs Ralph may do."""

    trust_workspace: bool = True
    """Whether the workspace is a trusted folder, without which Gemini CLI does not run unattended. With `false` it is trusted
    only if the user's own `~/.gemini/trustedFolders.json` says so."""

    max_turns: Annotated[int, Field(ge=1)] | None = None
    """Model turns in one iteration; an iteration that needs more has failed. Unset: no limit."""

    max_retries: Annotated[int, Field(ge=0)] = 0
    """How often Gemini CLI itself repeats a request that was refused or broke off. It would do so 9 times, for 4 minutes;
    waiting is Ralph's business. What it had said before a break is in the answer twice then."""

    extra_args: tuple[str, ...] = ()
    """Further options for the command line, at its end."""

    env: Mapping[str, str] = Field(default_factory=dict)
    """Variables for Gemini CLI's process alone; they win over those that Ralph sets for it."""

    @field_validator("extra_args")
    @classmethod
    def _keep_iterations_fresh(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        taken = [each for each in value if each.split("=")[0] in TAKEN_OPTIONS]
        if taken:
            raise ValueError(f"{taken[0]} can't be used: every iteration is a fresh session whose output Ralph reads")
        return value
