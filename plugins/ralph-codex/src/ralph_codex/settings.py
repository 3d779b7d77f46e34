"""The section `agents.codex` of the settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class CodexSettings(BaseModel):
    """How Codex is run. Its own settings (`~/.codex`, or `CODEX_HOME`) are read by it as usual."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    executable: Annotated[str, Field(min_length=1)] = "codex"
    """Name on PATH, or path, of the program."""

    model: Annotated[str, Field(min_length=1)] | None = None
    """Model to ask for. Unset: Codex's own choice."""

    sandbox: Literal["danger-full-access", "read-only", "workspace-write"] = "danger-full-access"
    """Codex's sandbox for shell commands. Nobody is there to be asked; hence the default, which allows everything that the
    user who runs Ralph may do. Run it in a container or as a user of its own, or choose `workspace-write`. What a sandbox
    refuses is not always reported."""

    extra_args: tuple[str, ...] = ()
    """Further options of `codex exec`, such as `-c key=value`."""

    env: Mapping[str, str] = Field(default_factory=dict)
    """Variables for Codex's process alone; they win over those that Ralph sets for it."""
