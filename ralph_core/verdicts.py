"""The points at which policies are asked, what they may answer, and how a run may end."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum

from .events import Event


class MomentKind(str, Enum):
    """When a policy is asked."""

    RUN = "run"  # before a run starts or resumes
    ITERATION = "iteration"  # before an iteration starts
    USAGE = "usage"  # a `Usage` event was metered
    TOOL = "tool"  # a `ToolCall` event came
    WINDOW = "window"  # a `UsageWindow` event came
    TICK = "tick"  # about once a second while an agent works, so that time limits hold when nothing is said
    FINISHED = "finished"  # after an iteration that did not complete the run


@dataclass(frozen=True)
class Moment:
    """A point at which policies are asked; `event` is what the agent reported, for the kinds that follow an event."""

    kind: MomentKind
    event: Event | None = None


@dataclass(frozen=True)
class Allow:
    """Go on. An answer has to be given: silence is not permission."""

    @property
    def severity(self) -> int:
        return 0


@dataclass(frozen=True)
class Ask:
    """A person has to agree first. With nobody to ask it means `Deny`."""

    reason: str

    @property
    def severity(self) -> int:
        return 1


@dataclass(frozen=True)
class Deny:
    """Not this one thing; the run goes on. For a moment with nothing to deny it means `Stop`.

    What can be denied is a tool call (`TOOL`), and more time to the agent process at work (`TICK`), which then has failed.
    """

    reason: str

    @property
    def severity(self) -> int:
        return 2


@dataclass(frozen=True)
class Pause:
    """Wait until `until` (seconds since the epoch, UTC), then ask again."""

    until: float
    reason: str

    @property
    def severity(self) -> int:
        return 3


@dataclass(frozen=True)
class Stop:
    """End the run; a working agent is killed. `failed` tells a failure (exit 1) from a limit (exit 3)."""

    reason: str
    failed: bool = False

    @property
    def severity(self) -> int:
        return 4


Verdict = Allow | Ask | Deny | Pause | Stop


def name_of(verdict: Verdict) -> str:
    """The verdict's name; a policy may answer with a class of its own that is one."""
    return next(kind.__name__.lower() for kind in (Allow, Ask, Deny, Pause, Stop) if isinstance(verdict, kind))


class ExitCode(IntEnum):
    """Exit codes of `ralph`."""

    COMPLETED = 0
    FAILED = 1
    USAGE = 2
    STOPPED = 3
    WAITING = 4
    INTERRUPTED = 130
    TERMINATED = 143


class OutcomeKind(str, Enum):
    """How a run ended."""

    COMPLETED = "completed"
    FAILED = "failed"
    STOPPED = "stopped"  # by a limit
    WAITING = "waiting"  # for a person
    INTERRUPTED = "interrupted"  # SIGINT
    TERMINATED = "terminated"  # SIGTERM


@dataclass(frozen=True)
class Outcome:
    """Why a run ended: the kind, a sentence, and who decided it (a policy, a signal, the agent's claim)."""

    kind: OutcomeKind
    reason: str
    by: str = ""

    @property
    def exit_code(self) -> ExitCode:
        return ExitCode[self.kind.name]

    @property
    def resumable(self) -> bool:
        """Whether `ralph resume` may go on from here."""
        return self.kind is not OutcomeKind.COMPLETED
