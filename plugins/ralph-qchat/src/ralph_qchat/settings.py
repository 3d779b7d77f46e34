"""The sections `agents.q`, `agents.qchat` and `agents.kiro` of the settings: each name has its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class ChatSettings(BaseModel):
    """How `q chat`, or `kiro-cli chat`, is run."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    executable: Annotated[str, Field(min_length=1)] | None = None
    """Name on PATH, or path, of the program. Unset: the first that is there of those that the agent knows."""

    model: Annotated[str, Field(min_length=1)] | None = None
    """Model to ask for. Unset: the program's own choice."""

    trust_all_tools: bool = True
    """Whether tools may be used without asking. Nobody is there to be asked: without it, the first tool that writes or runs
    something ends the iteration as a failure."""

    env: Mapping[str, str] = Field(default_factory=dict)
    """Variables for the program's process alone."""
