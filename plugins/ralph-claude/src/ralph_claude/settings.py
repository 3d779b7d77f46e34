"""The section `agents.claude` of the settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

TAKEN_OPTIONS = frozenset(
    {"-c", "--continue", "-r", "--resume", "--from-pr", "--session-id", "--bg", "--background"}
    | {"--input-format", "--output-format"}
    | {"--setting-sources"}  # a setting of its own, which the probe has to know
)
"""Options that would make an iteration other than one fresh process whose output can be read to its result, or that
have a setting of their own."""


class ClaudeSettings(BaseModel):
    """How Claude Code is run."""

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

    system_prompt: Annotated[str, Field(min_length=1)] | None = None
    """Text that takes the place of Claude Code's system prompt."""

    setting_sources: tuple[Literal["user", "project", "local"], ...] = ("project", "local")
    """Which of its own settings files Claude Code reads: the user's (`~/.claude`, with hooks, plugins and permissions that
    were made for someone at a keyboard), the project's (`.claude/settings.json`) and `.claude/settings.local.json`. A login
    is found in any case; an `apiKeyHelper` in the user's settings only with `user`."""

    keep_sessions: bool = True
    """Whether each iteration stays in Claude Code's history, where `claude --resume` finds it."""

    max_turns: Annotated[int, Field(ge=1)] | None = None
    """Model turns in one iteration; an iteration that needs more has failed. Unset: no limit."""

    max_retries: Annotated[int, Field(ge=1)] = 1
    """How often Claude Code itself repeats a request that the API refused. It would do so 10 times, for 3 minutes, with a
    wrong key too; waiting is Ralph's business. Not 0: that it repeats a request tells a busy API from a used-up quota."""

    extra_args: tuple[str, ...] = ()
    """Further options for the command line, at its end."""

    env: Mapping[str, str] = Field(default_factory=dict)
    """Variables for Claude Code's process alone; they win over those that Ralph sets for it."""

    @field_validator("extra_args")
    @classmethod
    def _keep_iterations_fresh(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        taken = [each for each in value if each.split("=")[0] in TAKEN_OPTIONS]
        if taken:
            raise ValueError(
                f"{taken[0]} can't be used: every iteration is a fresh session that Ralph sets up and reads"
            )
        return value
