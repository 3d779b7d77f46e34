"""The sections `agents.acp` and `agents.acp-*` of the settings."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _words(value: Any) -> Any:
    return shlex.split(value) if isinstance(value, str) else value


class AcpSettings(BaseModel):
    """How an agent is run that speaks the Agent Client Protocol. Its own settings files are read by it as usual."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    command: Annotated[tuple[str, ...], BeforeValidator(_words)] = ()
    """The program and its arguments, as a list or as one line. Of a known agent, instead of what is known; `acp` needs it."""

    mode: Annotated[str, Field(min_length=1)] | None = None
    """Session mode to set, one of those that the agent offers. Unset: the agent's own default, in which most ask for
    permission before they change something."""

    model: Annotated[str, Field(min_length=1)] | None = None
    """Model to ask for, one of those that the agent offers. Unset: the agent's own choice."""

    options: Mapping[str, bool | str] = Field(default_factory=dict)
    """Further options of the session to set, of those that the agent offers."""

    permissions: Literal["allow", "deny"] = "allow"
    """What the agent is answered that asks for permission, where no policy of Ralph's objects. Nobody is there to be asked;
    run it in a container or as a user of its own, or choose a `mode` in which it may do less and deny the rest."""

    asks: bool | None = None
    """Whether the agent, as it is set up, asks for permission before it uses a tool that policies judge. Unset: what is known
    of it; of an unknown one, yes. What is used without a question is judged all the same, afterwards."""

    auth: Annotated[str, Field(min_length=1)] | None = None
    """Method by which the agent is told to log in, one of those that it offers. Unset: it has to be logged in."""

    files: bool = False
    """Whether the agent may have Ralph read and write text files for it, in the workspace alone. Agents have tools of their
    own for that, and some behave differently if this is offered."""

    env: Mapping[str, str] = Field(default_factory=dict)
    """Variables for the agent's process alone; they win over those that Ralph sets for it."""
