"""What a plugin implements: four base classes, and the values that the core hands to them and takes from them."""

from __future__ import annotations

import signal
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

from .errors import UserError
from .events import Event, Failed, FailureKind, Finished
from .values import dataclass

if TYPE_CHECKING:
    from .records import AuditFilter, AuditRecord
    from .state import RunState
    from .verdicts import Moment, Verdict

T_co = TypeVar("T_co", covariant=True)

LINE_LIMIT = 32 * 1024 * 1024
"""Bytes of one output line that are kept; the rest of a longer line is dropped. Claude Code was seen to write 5 MB lines."""


@dataclass(frozen=True)
class Provider(Generic[T_co]):
    """A named, lazily built thing that a plugin brings.

    `factory` and `settings` are import paths ("package.module:Name"); neither is imported until a run selects the provider.
    """

    name: str
    """What the user types: lower-case letters, digits, - and _, a letter first; unique among all of its kind."""
    summary: str
    """What it does, in one line."""
    factory: str
    """What makes it, called as `factory(settings, context)`: a subclass of the base class, or a function that returns one."""
    settings: str | None = None
    """A pydantic model, frozen, that forbids what it does not know; it validates the section of that name in the settings
    file. None: it has no settings."""
    capabilities: frozenset[str] = frozenset()
    """Promises, in the words of `Capability`."""
    environment: tuple[str, ...] = ()
    """The variables that an agent's process needs of Ralph's environment, `*` standing for anything ("ACME_*"): it is given
    them, what is common (`ralph_core.processes.environment.COMMON`), and what the user allows."""


class Capability(str, Enum):
    """The words that `Provider.capabilities` may hold. What is not declared is not relied on, and the user is told so."""

    TOOLS = "tools"
    """Agents: reports its tool calls as it makes them. Limit policies: wants to judge a tool before it is used."""
    BEFORE = "before"
    """Limit policies with `tools`: judges nothing of a tool that has been used already."""
    SESSION = "session"
    """Agents: names the conversation, so that a person can find it again."""
    USAGE = "usage"
    """Agents: reports the tokens of an attempt, at its end at the latest; without it `max_tokens` can't hold."""
    USAGE_LIVE = "usage-live"
    """Agents: reports the tokens of every model message while it works, so that it can be stopped in the middle."""
    COST = "cost"
    """Agents: says itself what an attempt cost, at its end at the latest; without it the tokens are priced."""
    BUDGET = "budget"
    """Agents: ends by itself when `Request.budget` is used up."""
    SUB_AGENTS = "sub-agents"
    """Agents: starts agents of its own, of whose tokens some are reported only when it ends."""
    ASKS = "asks"
    """Agents: asks Ralph before it uses a tool (`Request.ask`)."""
    QUOTA = "quota"
    """Agents: reports the quota windows of the account."""
    MODEL = "model"
    """Agents: has a setting `model`."""
    MCP = "mcp"
    """Agents: can be handed MCP servers."""
    TRACE = "trace"
    """Agents: exports spans of its own, which hang below the attempt's where `OTEL_*` variables name a collector."""
    SNAPSHOTS = "snapshots"
    """Checkpoint stores: keeps the files, not only the state."""
    QUERY = "query"
    """Audit sinks: can be asked for the records."""
    VERIFY = "verify"
    """Audit sinks: gives its lines to the byte, so that the chain of records can be checked."""
    PRUNE = "prune"
    """Audit sinks: can forget runs that are over."""


@dataclass(frozen=True)
class Context:
    """Where a provider finds itself: `workspace`, Ralph's state directory (`home`), and the environment (`env`).

    The environment is Ralph's own; for an agent, that of the agent's process (`Provider.environment`). Paths are absolute.
    """

    workspace: Path
    home: Path
    env: Mapping[str, str]


class Provided:
    """What every provider's factory returns. `settings` is the validated settings model, or None without one."""

    def __init__(self, settings: Any, context: Context) -> None:
        """Keep both. Nothing is opened or started here: `ralph doctor` and `--dry-run` build providers, too."""
        self.settings = settings
        self.context = context


# --- agents -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Probe:
    """What was found of an agent on this machine: the path of its `executable`, and its `version`.

    `missing` says in words what to install or set; empty: usable. `notes` are what else the user should know.
    """

    executable: str | None = None
    version: str | None = None
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def usable(self) -> bool:
        """Whether nothing is missing."""
        return not self.missing


@dataclass(frozen=True)
class Command:
    """One process to run."""

    argv: tuple[str, ...]
    """The program, looked for on the PATH of `env`, and its arguments; no shell is involved."""
    env: Mapping[str, str]
    """Its whole environment."""
    cwd: str
    """The directory that it is started in."""
    stdin: bytes | None = None
    """What is written to its standard input, which is closed then. None: nothing is."""
    stop: tuple[tuple[int, float], ...] = ((signal.SIGTERM, 2.0),)
    """How it is asked to end, in order: signal, and grace in seconds; KILL to all that is left follows. Signal 0 only waits,
    for a process that ends by what it reads."""
    chunk: int = 256 * 1024
    """Bytes of its output that are read at once, at most."""
    poll: float = 0.15
    """Seconds between two looks at its output, after a silence."""
    converses: bool = False
    """For a protocol: standard input stays open, and what `Process.write` is given goes there, until `Process.close_input`;
    `stdin` is not used then."""


@dataclass(frozen=True)
class Exit:
    """How a process ended."""

    code: int
    """Its exit code; negative: it was ended by that signal."""
    stderr: str = ""
    """The end of what it wrote to standard error."""
    output: str = ""
    """Path of the file that holds all of its standard output."""

    @property
    def words(self) -> str:
        """The exit in words, for messages."""
        if self.code >= 0:
            return f"exit code {self.code}"
        try:
            return f"killed by {signal.Signals(-self.code).name}"
        except ValueError:
            return f"killed by signal {-self.code}"


class Process(Protocol):
    """A process that was started by a `ProcessHost`."""

    pid: int
    """Id of the process."""
    farewell: bytes
    """Empty, or what is written to standard input when it is asked to end, before the first signal of `Command.stop`."""

    def lines(self) -> AsyncIterator[bytes]:
        """Standard output line by line, without line ends, until the process has ended (not: until its children have)."""
        ...

    async def write(self, data: bytes) -> None:
        """Write to the standard input of a process that converses, and wait until it is read, save for the last 64 KiB.

        What a process that has ended, or has closed its input, did not read is dropped: its end says what became of it.
        """
        ...

    def close_input(self) -> None:
        """Let a process that converses find the end of its standard input."""
        ...

    async def wait(self) -> Exit:
        """Wait for the end of the process itself."""
        ...

    async def stop(self, *, now: bool = False) -> None:
        """Ask it to end as its `Command.stop` says, then kill it with all of its descendants; `now` kills at once."""
        ...


class ProcessHost(Protocol):
    """Starts processes that can't outlive the run. Agents are handed one with each request."""

    async def start(self, command: Command) -> Process:
        """Start it. Raises `SpawnError` when there is no such program or it may not be executed."""
        ...


class SpawnError(Exception):
    """A process could not be started; the message says which and why."""


@dataclass(frozen=True)
class AskChannel:
    """How an agent's CLI asks Ralph before it uses a tool: by running `argv`, with the name of its dialect added.

    That program (`ralph_core.ask`) reads the CLI's question on standard input, puts it on `socket`, and prints the answer.
    """

    socket: str
    argv: tuple[str, ...]


@dataclass(frozen=True)
class McpServers:
    """MCP servers that an agent is to use: by name, `servers`; and within how many seconds one has to be there
    (`connection_timeout`) and to answer a call (`call_timeout`).

    Each is written as in the table `mcpServers` that the CLIs have in common: `command`, `args` and `env`, or `type`
    (`http`, `sse`), `url` and `headers`.
    """

    servers: Mapping[str, Mapping[str, Any]]
    connection_timeout: float
    call_timeout: float


@dataclass(frozen=True)
class Request:
    """One attempt that an agent is asked to make."""

    run: str
    """Id of the run."""
    iteration: int
    """Number of the iteration."""
    attempt: int
    """Number of the attempt, counted over the whole run."""
    prompt: str
    """What the agent is to be told, to the byte."""
    workspace: Path
    """The directory to work in, an absolute path."""
    env: Mapping[str, str]
    """The environment to give to its process."""
    host: ProcessHost = field(repr=False)
    """What starts processes; nothing else may."""
    ask: AskChannel | None = None
    """There when a policy wants to see tools before they run, and the agent declares the capability `asks`."""
    budget: float | None = None
    """What may still be spent, in US dollars (None: no limit), for an agent that can see to it itself, too."""
    mcp: McpServers | None = None
    """There when servers are set, and the agent declares the capability `mcp`."""


class Agent(Provided, ABC):
    """An adapter to a coding agent. One instance serves one run; `run` is called once per attempt, never concurrently."""

    @abstractmethod
    def probe(self) -> Probe:
        """Look for the program, its version and its credentials. Quick (≤ 10 s), spends nothing, never raises.

        One that takes longer than `plugins.deadline` is not usable.
        """

    def capabilities(self, declared: AbstractSet[str]) -> AbstractSet[str]:
        """What it can do as it is set up; `declared` is what its provider says. To be overridden where settings decide."""
        return declared

    def skills(self) -> Sequence[Path]:
        """The `SKILL.md` files that its program would find, in the workspace and wherever else it looks; quick, reads none."""
        return ()

    @abstractmethod
    def run(self, request: Request) -> AsyncIterator[Event]:
        """Do the work and report it. The last event is `Finished` or `Failed`; without one the attempt has crashed.

        What goes wrong is a `Failed` event; what is raised fails the attempt, too (`invalid_output`).
        """


class CommandAgent(Agent):
    """An agent that is a program: say how to start it, and what a line of its output means."""

    def begin(self, request: Request) -> None:
        """Called before each attempt: forget what was gathered in the one before."""

    @abstractmethod
    def command(self, request: Request) -> Command:
        """The process to start for this request. Raises `SpawnError` if the request can't be handed over."""

    @abstractmethod
    def parse(self, line: bytes) -> Iterable[Event]:
        """What one line of standard output means, without its line end. A line that means nothing yields nothing.

        What it raises fails the attempt (`invalid_output`): a program prints more than it should.
        """

    def finish(self, end: Exit) -> Iterable[Event]:
        """Called when the process has ended; yields the final event when `parse` had none to give."""
        return ()

    async def run(self, request: Request) -> AsyncIterator[Event]:
        self.begin(request)
        try:
            process = await request.host.start(self.command(request))
        except SpawnError as error:
            yield Failed(FailureKind.SPAWN, str(error))
            return
        final = False
        async for line in process.lines():
            for event in _several(self.parse(line), "parse"):
                if not final:  # the first final event is the last word, whatever else is printed
                    yield event
                final = final or isinstance(event, (Finished, Failed))
        end = await process.wait()
        for event in _several(self.finish(end), "finish"):
            if not final:
                yield event
            final = final or isinstance(event, (Finished, Failed))
        if not final:
            yield Failed(FailureKind.CRASH, f"no final event, {end.words}{tail_of(end.stderr)}")


def _several(answer: Iterable[Event], method: str) -> Iterable[Event]:
    if not isinstance(answer, Iterable):
        raise TypeError(f"{method} answered {answer!r:.80}, not an Iterable of events")
    return answer


def tail_of(stderr: str, *, limit: int = 300) -> str:
    """The last lines of `stderr` in one line of at most `limit` characters, with a leading colon; empty if there is nothing."""
    words = " ".join(stderr.split())
    return f": {words[-limit:]}" if words else ""


# --- checkpoint stores ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Lease:
    """The right to write the state of `run`. `token` grows with each claim; a lower one has lost."""

    run: str
    token: int


@dataclass(frozen=True)
class Snapshot:
    """The workspace's files at one instant."""

    ref: str
    """What the user types to name it, unique in the store."""
    run: str
    """Id of the run."""
    number: int
    """Which of the run's it is; the first one, of the files as the run found them, is 0."""
    iteration: int
    """The iteration in hand when it was taken."""
    time: float
    """When it was taken, in seconds since the epoch (UTC)."""
    changed: int | None = None
    """Files that differ from the snapshot before; None: not known."""
    notes: tuple[str, ...] = ()
    """What the user should know of it, such as files that were left out."""
    fingerprint: str | None = None
    """What the store's method of that name answers for these files; None: not known, or no longer."""


@dataclass(frozen=True)
class Saved:
    """A loaded `state`; `note` says so when it is not the newest that was written (that one was torn or edited)."""

    state: RunState
    note: str = ""


@dataclass(frozen=True)
class Anchor:
    """Number (`seq`) and `hash` of a record, noted elsewhere than in the account: `where`, in words."""

    seq: int
    hash: str
    where: str = ""


class CheckpointStore(Provided, ABC):
    """Keeps the state of runs, and snapshots of the workspace. All methods raise `StoreError` when they can't."""

    deadline: ClassVar[float] = 60.0
    """Seconds within which a method has to answer; what takes longer fails the run, by name."""
    files_deadline: ClassVar[float] = 3600.0
    """The same for methods that work with the workspace's files, or with many runs: `snapshot`, `restore`, `prune`, ..."""

    @abstractmethod
    def claim(self, run: str) -> Lease:
        """Take over the writing of a run; whoever had it before is fenced off. Raises `UserError` for what is no id of a run."""

    @abstractmethod
    def save(self, state: RunState, lease: Lease, *, durable: bool = True) -> None:
        """Save atomically: after a crash at any instant, this state or the one before loads.

        `durable`: also after a power cut. False for what a power cut makes void or another record holds: such a state has
        to survive the death of Ralph alone. Raises `LeaseLost` if a newer claim exists; then nothing was written.
        """

    @abstractmethod
    def load(self, run: str) -> Saved:
        """The newest state that is whole. Raises `UnknownName` for a run that was never saved."""

    @abstractmethod
    def runs(self) -> Sequence[str]:
        """Ids of the runs that can be loaded, newest first."""

    def latest(self) -> str | None:
        """The id of the newest run that can be loaded; to be overridden where that is quicker to tell than all of them."""
        return next(iter(self.runs()), None)

    def look(self, state: RunState, lease: Lease) -> None:
        """Look at the workspace's files: they are at rest, and `snapshot` is called next, before anything changes them.

        Optional, and done in a thread while the run keeps its books: `save` may be called meanwhile. What is found out now
        need not be found out then. A `StoreError` is not heeded: the snapshot has to do without.
        """

    def snapshot(self, state: RunState, lease: Lease) -> Snapshot | None:
        """Record the workspace's files. None: this store keeps state only."""
        return None

    def fingerprint(self, state: RunState, lease: Lease) -> str | None:
        """A name for what is in the workspace's files: the same as long as they are. None: this store can't tell."""
        return None

    def history(self, run: str) -> Sequence[Snapshot]:
        """The snapshots of a run, oldest first."""
        return ()

    def changed_files(self, run: str) -> Sequence[str] | None:
        """Paths that differ between the first and the last snapshot of a run; None: not known."""
        return None

    def diff(self, ref: str, other: str | None = None) -> bytes:
        """The changes from snapshot `ref` to `other` as a unified diff; without `other`, those that `ref` brought."""
        raise UserError("this checkpoint store keeps no files", mend="choose one that does: checkpoint_store: git")

    def restore(self, ref: str, into: Path) -> Snapshot | None:
        """Put the files of a snapshot into `into`, after a snapshot of what is there; that one is returned."""
        raise UserError("this checkpoint store keeps no files", mend="choose one that does: checkpoint_store: git")

    def anchor(self, state: RunState, lease: Lease) -> None:
        """Called at the end of a sitting, when the account is complete: keep `state`, whose head is that of the account."""
        self.save(state, lease)

    def anchors(self, run: str) -> Sequence[Anchor]:
        """The heads of the account that were kept with states and snapshots of a run."""
        state = self.load(run).state
        return [Anchor(state.audit_seq, state.audit_hash, "the saved state")] if state.audit_hash else []

    def prune(self, keep: int) -> int:
        """Forget all but the last `keep` runs that have ended; returns how many were forgotten."""
        return 0

    def pack(self, folder: Path) -> None:
        """For a backup: write what is kept outside of the state directory as files into the empty `folder`.

        The files of the state directory are in the backup anyway. One of its top that would be torn if it were copied while a
        run writes (a database) is packed, too: written under its own name, it takes the place of that copy.
        """

    def unpack(self, folder: Path) -> None:
        """Take in what `pack` has written, perhaps on another machine; what is here already is left as it is.

        Raises `UserError`, before any effect, if what is here contradicts it. A restore that was cut short is repeated.
        """


# --- audit sinks ------------------------------------------------------------------------------------------------------


class AuditSink(Provided, ABC):
    """Takes audit records. Called from one thread of its own, never concurrently; may block, may raise: the core copes.

    `AuditRecord.line` is a record as it has to be kept by a sink with the capability `verify`, to the byte.
    """

    def recover(self) -> Sequence[str]:
        """Called before the first `write` of a sitting: mend what a kill has left behind; returns what was done, in words."""
        return ()

    @abstractmethod
    def write(self, batch: Sequence[AuditRecord]) -> None:
        """Take the records, in order. If this raises, the same batch comes again."""

    def flush(self) -> None:
        """Make what was written durable."""

    def close(self) -> None:
        """Called once, after the last batch."""

    def query(self, wanted: AuditFilter) -> Iterable[AuditRecord]:
        """The records that match, oldest first; only for a sink that declares the capability `query`."""
        raise NotImplementedError

    def lines(self) -> Iterable[tuple[str, bytes]]:
        """All that is kept, line by line with its line end, each with its place in words; for the capability `verify`."""
        raise NotImplementedError

    def dropped(self, run: str) -> Anchor | None:
        """The last record of a run up to which the sink has dropped all, and why; None: it has dropped nothing."""
        return None

    def prune(self, before: str) -> int:
        """Forget the runs whose last record is older than `before` (ISO 8601, UTC); returns how many; for `prune`."""
        raise NotImplementedError


# --- limit policies ---------------------------------------------------------------------------------------------------


class LimitPolicy(Provided, ABC):
    """Answers whether the run may go on. One instance serves one run, called from one thread, never concurrently.

    With the capability `tools`, agents that can are made to ask before each use of a tool (`MomentKind.TOOL`).
    """

    deadline: ClassVar[float] = 5.0
    """Seconds within which `judge` has to answer; a policy that takes longer stops the run, by name."""
    concerned: bool = True
    """False, set when it is built, for a policy that as it is set up has nothing to judge: it takes no part in the run."""

    @abstractmethod
    def judge(self, moment: Moment, state: RunState) -> Verdict:
        """The answer for this moment. Raising, hanging or answering anything but a verdict stops the run."""


# --- values of the hooks ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Section:
    """A titled piece of the prompt: `title` and `body`. Sections stand in the order of `order`, then of the plugin's name."""

    title: str
    body: str
    order: int = 50


@dataclass(frozen=True)
class Failure:
    """A failed attempt, for `ralph_classify_failure`: which `agent`, and `kind` and `message` as the adapter gave them."""

    agent: str
    kind: FailureKind
    message: str
