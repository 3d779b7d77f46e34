"""The state of a run: one frozen value that the loop replaces, stores save, and policies read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import Any

from .events import FailureKind, Tokens
from .verdicts import Outcome

SCHEMA = 1
RECENT = 20
"""How many finished attempts a state carries along; all of them are in the audit records."""


@dataclass(frozen=True)
class Limits:
    """What a run may use. Times in seconds, cost in US dollars.

    `silence` and `attempt` are for one agent process: without any sign of life, and in all. `retries` is how often an
    iteration is tried again after a fault that passes, `retry_delay` the first pause before that.
    `window` is the share of a quota window (0 to 1) at which an agent is left alone, `window_action` what is done then:
    `fallback`, `wait` or `stop`. `unmetered` says whether to go on after an attempt whose cost is not known. None: no limit.
    """

    iterations: int = 100
    runtime: float = 14400.0
    failures: int = 5
    silence: float = 300.0
    attempt: float = 7200.0
    retries: int = 5
    retry_delay: float = 2.0
    tokens: int = 1_000_000
    cost: float = 50.0
    iterations_per_hour: int | None = None
    no_progress: int | None = 10
    window: float = 1.0
    window_action: str = "fallback"
    unmetered: bool = True


@dataclass(frozen=True)
class Task:
    """What the agent is asked to do: `text` as given with -p, or `path` of the prompt file; `digest` is its SHA-256."""

    digest: str
    path: str | None = None
    text: str | None = None


@dataclass(frozen=True)
class Spend:
    """What was used so far. None is unknown, which is not zero.

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
    """The last that was heard of one quota window of an agent's account; `seen` and `resets_at` in seconds since the epoch."""

    agent: str
    window: str
    status: str
    utilization: float | None
    resets_at: float | None
    seen: float


@dataclass(frozen=True)
class Progress:
    """Whether the last iterations came to anything: `idle` is how many of them, in a row, changed no file and said the same.

    `answer` is the end of what the last one said. `tree` names the files after it; it is only looked for when the answer
    repeats itself ("": it was not), and None when the store can't tell: then the answers alone count.
    """

    idle: int = 0
    tree: str | None = ""
    answer: str = ""

    def repeats(self, answer: str) -> bool:
        """Whether this is nearly the same answer: nine words of ten, whatever figures are in them."""
        before, now = _words(self.answer), _words(answer)
        return before == now or SequenceMatcher(None, before, now, autojunk=False).ratio() >= 0.9

    def after(self, tree: str | None, answer: str) -> Progress:
        """What it is after an iteration more."""
        idle = self.idle + 1 if self.repeats(answer) and tree == self.tree != "" else 0
        return Progress(idle, tree, answer)


def _words(answer: str) -> list[str]:
    return re.sub(r"[0-9]+", "0", answer.lower()).split()


@dataclass(frozen=True)
class Attempt:
    """One agent process. An iteration is one attempt, or several when a passing fault made Ralph repeat it.

    `result` is `finished`, `failed` or `abandoned` (Ralph died or stopped meanwhile), None while it runs. Times: seconds.
    `silent` is how long there has been no sign of life, `worked` how long it has been at work, less the waits for a person;
    both are brought up to date about once a second. `retry_after` is what the agent said of a fault that passes.
    """

    iteration: int
    number: int
    agent: str
    started: float
    ended: float | None = None
    result: str | None = None
    failure: FailureKind | None = None
    message: str = ""
    claimed: bool = False
    spend: Spend = field(default_factory=Spend)
    session: str | None = None
    model: str | None = None
    pid: int | None = None
    pid_started: str | None = None
    output: str = ""
    silent: float = 0.0
    worked: float = 0.0
    retry_after: float | None = None


@dataclass(frozen=True)
class GateResult:
    """What a gate came to: `why` in words, the end of its output, and how it was seen that it tests something.

    `checked_by` is `unchecked` when nothing was asked of it but exit code 0.
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

    `now` is when the state was last brought up to date (seconds since the epoch): policies take the time from it, so that
    they can be asked about a recorded run. `iteration` is the number of the iteration in hand (0: none yet), `finished` how many have ended, `attempts` how many
    agent processes were started, `retries` how often the iteration in hand was tried again, `elapsed` the seconds that the run has been worked on, in all its sittings. These, and
    `spend` and `failures`, never go down. `booked` is what the ended attempts were billed (None: as `spend`), which `spend`
    is ahead of when an estimate proves too high, until the next attempts have made up for it. `agents` are those that the run
    may use, in the user's order; `starts` is when the last iterations began, if their rate is limited. `judged` is the last iteration whose claim of completion was checked, `gates`
    what came of it, `confirmations` how many claims in a row have stood. `audit_seq` and `audit_hash` are number and hash of the last audit record that was written by then. `given` is what the command line said, so that a resume needs not repeat it.
    """

    schema: int = SCHEMA
    run: str
    workspace: str
    agent: str
    task: Task
    started: float
    now: float = 0.0
    limits: Limits = field(default_factory=Limits)
    promise: str = "LOOP_COMPLETE"
    given: Mapping[str, Any] = field(default_factory=dict)
    iteration: int = 0
    finished: int = 0
    attempts: int = 0
    elapsed: float = 0.0
    failures: int = 0
    consecutive_failures: int = 0
    retries: int = 0
    sittings: int = 1
    spend: Spend = field(default_factory=Spend)
    booked: Spend | None = None
    agents: tuple[str, ...] = ()
    quotas: tuple[Quota, ...] = ()
    progress: Progress = field(default_factory=Progress)
    starts: tuple[float, ...] = ()
    current: Attempt | None = None
    recent: tuple[Attempt, ...] = ()
    judged: int = 0
    gates: tuple[GateResult, ...] = ()
    confirmations: int = 0
    snapshot: str | None = None
    snapshots: int = 0
    audit_seq: int = 0
    audit_hash: str = ""
    outcome: Outcome | None = None
