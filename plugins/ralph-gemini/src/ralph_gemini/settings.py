"""The section `agents.gemini` of the settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class GeminiSettings(BaseModel):
    """How Gemini CLI is run. Its own settings files (`~/.gemini`, `.gemini/`) are read by it as usual; Ralph writes none."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    executable: Annotated[str, Field(min_length=1)] = "gemini"
    """Name on PATH, or path, of the program."""

    model: Annotated[str, Field(min_length=1)] | None = None
    """Model to ask for. Unset: Gemini CLI chooses, with a further model call in each iteration to do so."""

    approval_mode: Literal["default", "auto_edit", "yolo"] = "yolo"
    """What it may do without asking. Nobody is there to be asked: in `default` it has no tools that write, in `auto_edit` no
    shell; hence the default, which allows everything that the user who runs Ralph may do."""

    env: Mapping[str, str] = Field(default_factory=dict)
    """Variables for Gemini CLI's process alone; they win over those that Ralph sets for it."""
