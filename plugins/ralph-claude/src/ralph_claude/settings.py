"""The section `agents.claude` of the settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

TAKEN_OPTIONS = frozenset(
    {"-c", "--continue", "-r", "--resume", "--from-pr", "--session-id", "--bg", "--background"}
    | {"--input-format", "--output-format"}
)
"""Options that would make an iteration other than one fresh process whose output can be read to its result."""


class ClaudeSettings(BaseModel):
    """How Claude Code is run. Its own settings files (`~/.claude`, `.claude/`) are read by it as usual."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    executable: Annotated[str, Field(min_length=1)] = "claude"
    """Name on PATH, or path, of the program."""

    model: Annotated[str, Field(min_length=1)] | None = None
    """Model to ask for: an alias (`opus`, `sonnet`, `haiku`) or a full name. Unset: Claude Code's own choice."""

    permission_mode: Literal["acceptEdits", "auto", "bypassPermissions", "default", "dontAsk", "plan"] = (
        "bypassPermissions"
    )
    """What Claude Code may do without asking. Nobody is there to be asked, and what would be asked is denied; hence the
    default, which allows everything that the user who runs Ralph may do. Run it in a container or as a user of its own, or
    choose `acceptEdits` with `allowed_tools`. Each denial is reported as a tool that failed, not as a failed iteration."""

    allowed_tools: tuple[str, ...] = ()
    """Tools, or patterns like `Bash(git:*)`, that are allowed in the modes that would ask."""

    disallowed_tools: tuple[str, ...] = ()
    """Tools, or patterns, that are denied in every mode."""

    append_system_prompt: Annotated[str, Field(min_length=1)] | None = None
    """Text that is added to Claude Code's system prompt."""

    max_turns: Annotated[int, Field(ge=1)] | None = None
    """Model turns in one iteration; an iteration that needs more has failed. Unset: no limit."""

    max_retries: Annotated[int, Field(ge=1)] = 1
    """How often Claude Code itself repeats a request that the API refused. It would do so 10 times, for 3 minutes, with a
    wrong key too; waiting is Ralph's business. Not 0: that it repeats a request tells a busy API from a used-up quota."""

    extra_args: tuple[str, ...] = ()
    """Further options for the command line, at its end. Each iteration is a new session that stays in Claude Code's history,
    where `claude --resume` finds it; `--no-session-persistence` here keeps none."""

    env: Mapping[str, str] = Field(default_factory=dict)
    """Variables for Claude Code's process alone; they win over those that Ralph sets for it."""

    @field_validator("extra_args")
    @classmethod
    def _keep_iterations_fresh(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        taken = [each for each in value if each.split("=")[0] in TAKEN_OPTIONS]
        if taken:
            raise ValueError(f"{taken[0]} can't be used: every iteration is a fresh session whose output Ralph reads")
        return value
