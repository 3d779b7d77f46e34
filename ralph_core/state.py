"""The state of a run: one frozen value that the loop replaces, stores save, and policies read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import field, replace
from difflib import SequenceMatcher
from typing import Any

from .events import FailureKind, Tokens
from .values import dataclass
from .verdicts import Outcome

SCHEMA = 1
RECENT = 20
"""How many finished attempts a state carries along; all of them are in the audit records."""


@dataclass(frozen=True)
class Limits:
    """What a run may use. None: no limit."""

    iterations: int = 100
    """Iterations."""
    runtime: float = 14400.0
    """Seconds of work, in all sittings together."""
    failures: int = 5
    """Iterations in a row that may fail by the agent's own fault."""
    silence: float = 300.0
    """Seconds that one agent process may give no sign of life."""
    attempt: float = 7200.0
    """Seconds that one agent process may work."""
    retries: int = 5
    """How often an iteration is tried again after a fault that passes."""
    retry_delay: float = 2.0
    """Seconds before the first of these tries; each later pause is twice as long."""
    tokens: int = 1_000_000
    """Tokens, those of caches included."""
    cost: float = 50.0
    """US dollars."""
    iterations_per_hour: int | None = None
    """Iterations that may begin within an hour."""
    no_progress: int | None = 10
    """Iterations in a row that may come to nothing (see `Progress.idle`)."""
    window: float = 1.0
    """The share of a quota window (0 to 1) at which an agent is left alone."""
    window_action: str = "fallback"
    """What is done then: `fallback` (go on with another agent), `wait` or `stop`."""
    unmetered: bool = True
    """Whether to go on after an attempt whose cost or tokens are not known."""
    actions: int | None = None
    """Tools of one attempt that may be at work at once."""


@dataclass(frozen=True)
class Task:
    """What the agent is asked to do: `text` as given with -p, or `path` of the prompt file; `digest` is its SHA-256."""

    digest: str
    path: str | None = None
    text: str | None = None


@dataclass(frozen=True)
class Spend:
    """What was used so far: `tokens`, and `cost` in US dollars. None is unknown, which is not zero.

    `unmetered` counts attempts of which the cost is not known, or not all of it; `estimated` is the part of `cost` that Ralph
    worked out from the tokens, since the agent gave none.
    """

    tokens: Tokens | None = None
    cost: float | None = None
    unmetered: int = 0
    estimated: float = 0.0

    def __add__(self, other: Spend) -> Spend:
        tokens = self.tokens if other.tokens is None else (self.tokens or Tokens()) + other.tokens
        cost = self.cost if other.cost is None else (self.cost or 0.0) + other.cost
        return Spend(tokens, cost, self.unmetered + other.unmetered, self.estimated + other.estimated)

    def at_least(self, other: Spend) -> Spend:
        """The larger of each figure: a total that has been shown and saved is not taken back."""
        tokens = self.tokens if other.tokens is None else (self.tokens or Tokens()).at_least(other.tokens)
        ahead = self.cost is not None and (other.cost is None or self.cost > other.cost)
        cost, estimated = (self.cost, self.estimated) if ahead else (other.cost, other.estimated)
        return Spend(tokens, cost, other.unmetered, estimated)


@dataclass(frozen=True)
class Quota:
    """The last that was heard, at `seen`, of one quota `window` of the account of `agent`.

    `status`, `utilization` and `resets_at` are those of `UsageWindow`; times are in seconds since the epoch (UTC).
    """

    agent: str
    window: str
    status: str
    utilization: float | None
    resets_at: float | None
    seen: float


ANSWER_KEPT = 500
"""Characters of the end of an answer by which it is told from the next one."""


@dataclass(frozen=True)
class Progress:
    """Whether the last iterations came to anything.

    To look at the files takes a while, so that is done when the answer begins to repeat itself, when a snapshot shows them
    anyway, and when a limit would be reached if nothing had changed since.
    """

    idle: int = 0
    """How many iterations in a row changed no file and said the same, up to the last look at the files."""
    tree: str | None = ""
    """What the files were at that look; "": there was none, None: the store can't tell, and the answers alone count."""
    answer: str = ""
    """The end of what the last iteration said."""
    unseen: int = 0
    """Iterations since that look, which said the same."""

    def repeats(self, answer: str) -> bool:
        """Whether this is nearly the same answer: nine words of ten, whatever figures are in them."""
        before, now = _words(self.answer), _words(answer)
        return before == now or SequenceMatcher(None, before, now, autojunk=False).ratio() >= 0.9

    def is_due(self, limit: int) -> bool:
        """Whether the files have to be looked at now; one iteration before the limit, it warns."""
        return self.unseen > 0 and (self.tree == "" or self.idle + self.unseen >= limit - 1)

    def after(self, answer: str) -> Progress:
        """What it is after an iteration more, before anyone has looked at the files."""
        answer = answer[-ANSWER_KEPT:]
        return replace(self, answer=answer, unseen=self.unseen + 1) if self.repeats(answer) else Progress(answer=answer)

    def seen(self, tree: str | None) -> Progress:
        """What it is after a look at the files. Before an answer is repeated, they say nothing."""
        if not self.unseen:
            return self
        return replace(self, idle=self.idle + self.unseen if tree == self.tree != "" else 0, tree=tree, unseen=0)


def _words(answer: str) -> list[str]:
    return re.sub(r"[0-9]+", "0", answer.lower()).split()


@dataclass(frozen=True)
class Attempt:
    """One agent process. An iteration is one attempt, or several when a passing fault made Ralph repeat it."""

    iteration: int
    """Number of the iteration that it belongs to."""
    number: int
    """Which attempt of the run it is, counted from 1."""
    agent: str
    """Name of the agent."""
    started: float
    """When it began, in seconds since the epoch (UTC)."""
    ended: float | None = None
    """When it ended, the same way; None while it runs."""
    result: str | None = None
    """`finished`, `failed` or `abandoned` (Ralph died or stopped meanwhile); None while it runs."""
    failure: FailureKind | None = None
    """Why it failed; None if it did not."""
    message: str = ""
    """The first line of the agent's last message, or the kind and the words of its failure; without secrets."""
    claimed: bool = False
    """Whether the agent claimed that the task is done: its last line is the run's `promise`."""
    spend: Spend = field(default_factory=Spend)
    """What it has used."""
    session: str | None = None
    """The agent's own name for the conversation."""
    model: str | None = None
    """The model, as the agent says."""
    pid: int | None = None
    """Id of its process, once that is started."""
    pid_started: str | None = None
    """When that process began, in the kernel's own figures: another process with this id is not it."""
    output: str = ""
    """The file with what the process printed, relative to the run's folder; empty: there is none."""
    silent: float = 0.0
    """Seconds without a sign of life; brought up to date about once a second."""
    worked: float = 0.0
    """Seconds at work, less the waits for a person; brought up to date about once a second."""
    retry_after: float | None = None
    """Seconds that the agent said to wait after a fault that passes."""
    actions: int | None = None
    """How many of its tools are at work, of an agent that asks before it uses one; None for any other."""


@dataclass(frozen=True)
class GateResult:
    """What a gate came to: whether `command` has `passed`, its exit `code`, `why` in words, and `tail`, the end of its output.

    `checked_by` is how it was seen that it tests something; `unchecked` when nothing was asked of it but exit code 0.
    """

    command: str
    passed: bool
    code: int
    why: str
    tail: str = ""
    checked_by: str = ""


@dataclass(frozen=True, kw_only=True)
class RunState:
    """All that is needed to go on with a run.

    Counts of what was done, and what was spent, never go down.
    """

    schema: int = SCHEMA
    """Version of the layout in which it is saved."""
    run: str
    """Id of the run; ids sort by time."""
    workspace: str
    """Absolute path of the directory that the agent works in."""
    agent: str
    """Name of the agent that is at work, or was last; empty: none was yet."""
    task: Task
    """What the agent is asked to do."""
    started: float
    """When the run began, in seconds since the epoch (UTC)."""
    now: float = 0.0
    """When this state was last brought up to date, in seconds since the epoch (UTC): policies take the time from it, so that
    they can be asked about a recorded run."""
    limits: Limits = field(default_factory=Limits)
    """What the run may use."""
    promise: str = "LOOP_COMPLETE"
    """The line by which an agent claims that the task is done."""
    given: Mapping[str, Any] = field(default_factory=dict)
    """What the command line said, so that a resume need not repeat it."""
    iteration: int = 0
    """Number of the iteration in hand; 0: none yet."""
    finished: int = 0
    """Iterations that have ended."""
    attempts: int = 0
    """Agent processes that were started."""
    elapsed: float = 0.0
    """Seconds that the run has been worked on, in all its sittings."""
    failures: int = 0
    """Iterations that failed by the agent's own fault."""
    consecutive_failures: int = 0
    """How many of them are the last ones, in a row."""
    retries: int = 0
    """How often the iteration in hand was tried again."""
    sittings: int = 1
    """Processes of Ralph's that have worked on the run, this one included."""
    spend: Spend = field(default_factory=Spend)
    """What was used so far; the figures that limits are judged by."""
    booked: Spend | None = None
    """What the ended attempts were billed; None: as `spend`, which is ahead of it when an estimate proves too high, until the
    next attempts have made up for it."""
    agents: tuple[str, ...] = ()
    """Names of the agents that the run may use, in the user's order."""
    quotas: tuple[Quota, ...] = ()
    """The last that was heard of each quota window."""
    progress: Progress = field(default_factory=Progress)
    """Whether the last iterations came to anything."""
    starts: tuple[float, ...] = ()
    """When the last iterations began, in seconds since the epoch (UTC), if their rate is limited."""
    current: Attempt | None = None
    """The attempt at work; None between attempts."""
    recent: tuple[Attempt, ...] = ()
    """The last attempts that have ended, the newest last; all of them are in the account."""
    judged: int = 0
    """The last iteration whose claim of completion was checked; 0: none."""
    gates: tuple[GateResult, ...] = ()
    """What came of the gates that were asked then."""
    confirmations: int = 0
    """How many claims in a row have stood."""
    snapshot: str | None = None
    """The `ref` of the last snapshot of the files; None: there is none."""
    snapshots: int = 0
    """How many were taken."""
    audit_seq: int = 0
    """Number of the last audit record that was written by then."""
    audit_hash: str = ""
    """Hash of that record."""
    outcome: Outcome | None = None
    """Why the run ended; None while it goes on."""
