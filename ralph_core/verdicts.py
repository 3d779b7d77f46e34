"""The points at which policies are asked, what they may answer, and how a run may end."""

from __future__ import annotations

from enum import Enum, IntEnum

from .events import Event
from .values import dataclass


class MomentKind(str, Enum):
    """When a policy is asked."""

    RUN = "run"
    """Before a run starts or resumes."""
    ITERATION = "iteration"
    """Before an iteration starts, and before it is tried again."""
    USAGE = "usage"
    """A `Usage` event was metered."""
    TOOL = "tool"
    """A `ToolCall` event came, or the agent asks whether it may use a tool."""
    WINDOW = "window"
    """A `UsageWindow` event came."""
    TICK = "tick"
    """About once a second while an agent works, so that time limits hold when nothing is said."""
    FINISHED = "finished"
    """After an iteration that did not complete the run."""


@dataclass(frozen=True)
class Moment:
    """A point at which policies are asked: its `kind`, and `event`, what the agent reported, for the kinds that follow an event."""

    kind: MomentKind
    event: Event | None = None


@dataclass(frozen=True)
class Allow:
    """Go on. An answer has to be given: silence is not permission."""

    @property
    def severity(self) -> int:
        """Its rank: of several verdicts, the highest wins."""
        return 0


@dataclass(frozen=True)
class Ask:
    """A person has to agree first; `reason` is what they are asked. With nobody to ask it means `Deny`."""

    reason: str

    @property
    def severity(self) -> int:
        """Its rank: of several verdicts, the highest wins."""
        return 1


@dataclass(frozen=True)
class Deny:
    """Not this one thing, and for what `reason`; the run goes on. For a moment with nothing to deny it means `Stop`.

    What can be denied is a tool call (`TOOL`), and more time to the agent process at work (`TICK`), which then has failed.
    """

    reason: str

    @property
    def severity(self) -> int:
        """Its rank: of several verdicts, the highest wins."""
        return 2


@dataclass(frozen=True)
class Pause:
    """Wait until `until` (seconds since the epoch, UTC), and for what `reason`; then ask again."""

    until: float
    reason: str

    @property
    def severity(self) -> int:
        """Its rank: of several verdicts, the highest wins."""
        return 3


@dataclass(frozen=True)
class Stop:
    """End the run, for that `reason`; a working agent is killed. `failed` tells a failure (exit 1) from a limit (exit 3)."""

    reason: str
    failed: bool = False

    @property
    def severity(self) -> int:
        """Its rank: of several verdicts, the highest wins."""
        return 4


Verdict = Allow | Ask | Deny | Pause | Stop
"""What `LimitPolicy.judge` answers. All policies are asked, and the most severe answer wins: the last of these."""


def name_of(verdict: Verdict) -> str:
    """The verdict's name; a policy may answer with a class of its own that is one."""
    return next(kind.__name__.lower() for kind in (Allow, Ask, Deny, Pause, Stop) if isinstance(verdict, kind))


class ExitCode(IntEnum):
    """Exit codes of `ralph`."""

    COMPLETED = 0
    """The run is completed, or the command has done what it was asked to do."""
    FAILED = 1
    """The run has failed."""
    USAGE = 2
    """A mistake of the user's; nothing was started."""
    STOPPED = 3
    """A limit has stopped the run."""
    WAITING = 4
    """The run waits for a person."""
    INTERRUPTED = 130
    """The run was ended by SIGINT."""
    TERMINATED = 143
    """The run was ended by SIGTERM."""


class OutcomeKind(str, Enum):
    """How a run ended."""

    COMPLETED = "completed"
    """The agent claimed so, and what was to be checked has been."""
    FAILED = "failed"
    """By the agent, a plugin, or a store that can't keep the state."""
    STOPPED = "stopped"
    """By a limit."""
    WAITING = "waiting"
    """For a person."""
    INTERRUPTED = "interrupted"
    """By SIGINT."""
    TERMINATED = "terminated"
    """By SIGTERM."""


@dataclass(frozen=True)
class Outcome:
    """Why a run ended: `kind`, a sentence (`reason`), and who decided it (`by`: a policy, a signal, the agent's claim)."""

    kind: OutcomeKind
    reason: str
    by: str = ""

    @property
    def exit_code(self) -> ExitCode:
        """What `ralph run` ends with."""
        return ExitCode[self.kind.name]

    @property
    def resumable(self) -> bool:
        """Whether `ralph resume` may go on from here."""
        return self.kind is not OutcomeKind.COMPLETED
