"""The policies for tools: what an agent may do with them, judged by their parsed arguments and by real paths.

They judge what a tool was asked to do. What a program does that a shell command starts is its own business: a script, an
interpreter or a build can do whatever the user may. That is for a sandbox to fence in.
"""

from __future__ import annotations

import fnmatch
import glob
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from ralph_core.contracts import Context, LimitPolicy
from ralph_core.events import ToolCall
from ralph_core.prompt import digest_of
from ralph_core.state import RunState, Task
from ralph_core.values import dataclass
from ralph_core.verdicts import Allow, Ask, Deny, Moment, MomentKind, Stop, Verdict

from .calls import NEW_KEYS, OLD_KEYS, alternatives, command_lines, length, path_words, paths
from .commands import Forbidden
from .shell import UNKNOWN, Simple, Unclear

DEVICES = re.compile(r"/dev/(null|zero|u?random|full|tty|std(in|out|err)|fd/\d+)")
"""Where every command may read and write."""
MATCHES = 20_000
"""Files that a pattern may mean before it is too many to look at."""
UNORDERED = re.compile(r"[;|\n(`{]|(?<!&)&(?!&)")
"""What makes a line of commands more than a row, each of which only runs after the one before went well."""


def _listed(value: Any) -> Any:
    if isinstance(value, str):
        return tuple(item.strip() for item in value.split(",") if item.strip())
    return tuple(value) if isinstance(value, list) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_listed)]


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class HighRiskSettings(_Settings):
    """Settings of `high_risk_tools`; usually written at the top of the settings file."""

    high_risk_tools: Names = ()
    """Tools that a person has to agree to each time; `mcp__db__*` names several."""
    require_approval_for_high_risk: bool = True
    """Whether they have to; `false`: their use is only recorded."""


class CommandSettings(_Settings):
    """Settings of `forbidden_commands`; usually written under `security`."""

    forbidden_commands: Names = ()
    """Shell commands that must not run."""

    @field_validator("forbidden_commands")
    @classmethod
    def _are_commands(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            Forbidden.read(text)
        return value


class DirectorySettings(_Settings):
    """Settings of `allowed_directories`; usually written under `security`."""

    allowed_directories: Names = ()
    """Directories, relative to the workspace, that tools may touch."""


class SizeSettings(_Settings):
    """Settings of `max_file_size`; usually written under `security`."""

    max_file_size: int | None = Field(default=None, ge=1)
    """Bytes of the largest file that a tool may write."""


class ConcurrencySettings(_Settings):
    """Settings of `concurrent_actions`; usually written at the top of the settings file, or in a table `runtime`."""

    max_concurrent_actions: int | None = Field(default=None, ge=1)
    """Tools that an agent may have at work at once."""


class PromptSettings(_Settings):
    """Settings of `blocked_prompt_patterns`; usually written under `security`."""

    blocked_prompt_patterns: tuple[str, ...] = ()
    """Regular expressions that must not be found in a prompt."""

    @field_validator("blocked_prompt_patterns")
    @classmethod
    def _compile(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            try:
                re.compile(text)
            except re.error as error:
                raise ValueError(f"regular expressions; {text!r} is none ({error})") from None
        return value


@dataclass(frozen=True)
class AllowNoted(Allow):
    """Allowed, and worth a record."""

    reason: str = ""


class ToolPolicy(LimitPolicy):
    """A policy that judges nothing but uses of tools."""

    def judge(self, moment: Moment, state: RunState) -> Verdict:
        call = moment.event
        if moment.kind is not MomentKind.TOOL or not isinstance(call, ToolCall):
            return Allow()
        return self.judge_tool(call)

    def judge_tool(self, call: ToolCall) -> Verdict:
        raise NotImplementedError


class HighRiskTools(ToolPolicy):
    """A person has to agree to the tools that are named."""

    def __init__(self, settings: Any, context: Context) -> None:
        super().__init__(settings or HighRiskSettings(), context)
        self._names = tuple(name.lower() for name in self.settings.high_risk_tools)
        self.concerned = bool(self._names)

    def judge_tool(self, call: ToolCall) -> Verdict:
        if not any(fnmatch.fnmatchcase(call.name.lower(), name) for name in self._names):
            return Allow()
        reason = f"{call.name} is a high-risk tool"
        return Ask(reason) if self.settings.require_approval_for_high_risk else AllowNoted(reason)


class ForbiddenCommands(ToolPolicy):
    """Commands that must not run, wherever in a line for the shell they stand."""

    def __init__(self, settings: Any, context: Context) -> None:
        super().__init__(settings or CommandSettings(), context)
        self._forbidden = [Forbidden.read(text) for text in self.settings.forbidden_commands]
        self.concerned = bool(self._forbidden)

    def judge_tool(self, call: ToolCall) -> Verdict:
        try:
            for _, commands in command_lines(call, self.context):
                for forbidden in self._forbidden:
                    if any(map(forbidden.matches, commands)):
                        return Deny(f"the command `{forbidden.text}` is forbidden")
        except Unclear as unclear:
            names = ", ".join(forbidden.text for forbidden in self._forbidden)
            return Deny(f"it can't be said which commands this runs ({unclear}), and some are forbidden: {names}")
        return Allow()


class AllowedDirectories(ToolPolicy):
    """Tools touch only what is really in one of the directories, and never the records of Ralph's own runs."""

    def __init__(self, settings: Any, context: Context) -> None:
        super().__init__(settings or DirectorySettings(), context)
        named = self.settings.allowed_directories
        self._workspace = str(context.workspace)
        self._home = context.env.get("HOME", "/")
        self._allowed = [self._real(name, self._workspace) for name in named]
        self._records = os.path.realpath(context.home / "runs")
        self.concerned = bool(named)

    def judge_tool(self, call: ToolCall) -> Verdict:
        try:
            outside = next(self._outside(call), None)
        except Unclear as unclear:
            return Deny(f"it can't be said which files this touches ({unclear}), and not all are allowed")
        return (
            Allow()
            if outside is None
            else Deny(f"{outside} is not in an allowed directory ({', '.join(self._allowed)})")
        )

    def _outside(self, call: ToolCall) -> Iterator[str]:
        """The paths in this call that are not allowed."""
        yield from (path for path in paths(call.input) if not self._inside(path, self._workspace))
        for line, commands in command_lines(call, self.context, strict=False):
            bases, in_turn = [self._workspace], not UNORDERED.search(line)
            for simple in commands:
                for path in self._touched(simple):
                    yield from (path for base in bases if not self._inside(path, base))
                    yield from (
                        found for base in bases for found in _matching(path, base) if not self._inside(found, base)
                    )
                if simple.words and simple.words[0].text in ("cd", "pushd"):
                    place = next((word.text for word in simple.words[1:] if not word.text.startswith("-")), "~")
                    moved = [self._real(place, base) for base in bases]
                    bases = moved if in_turn else list(dict.fromkeys([*bases, *moved]))[:50]

    def _touched(self, simple: Simple) -> Iterator[str]:
        moves = bool(simple.words) and simple.words[0].text in ("cd", "pushd")
        for word in (*simple.files, *(simple.words if moves else ())):
            if UNKNOWN in word.text:
                raise Unclear("where it goes is only worked out then")
        if moves and len(simple.words) == 1:
            yield "~"
        for word in (*simple.files, *path_words(simple)):
            yield from alternatives(word)

    def _real(self, path: str, base: str) -> str:
        expanded = self._home + path[1:] if path == "~" or path.startswith("~/") else path
        return os.path.realpath(os.path.join(base, expanded))  # noqa: PTH118 - plain strings, a thousand times

    def _inside(self, path: str, base: str) -> bool:
        if DEVICES.fullmatch(path):
            return True
        if "\0" in path or (path.startswith("~") and path.strip("~")[:1] not in ("", "/")):  # the home of somebody else
            return False
        real = self._real(path, base)
        return any(_below(real, place) for place in self._allowed) and not _below(real, self._records)


class MaxFileSize(ToolPolicy):
    """Files that tools write stay below a size."""

    def __init__(self, settings: Any, context: Context) -> None:
        super().__init__(settings or SizeSettings(), context)
        self.concerned = self.settings.max_file_size is not None

    def judge_tool(self, call: ToolCall) -> Verdict:
        limit = self.settings.max_file_size
        new, old = length(call.input, NEW_KEYS), length(call.input, OLD_KEYS)
        size = new
        if old and new > old:  # a piece of a file is replaced: what counts is the file
            for path in paths(call.input):
                size = max(size, self._grown(path, call.input, new - old))
        if size > limit:
            return Deny(f"a file of {size} bytes is larger than {limit} (max_file_size)")
        return Allow()

    def _grown(self, path: str, arguments: Mapping[str, Any], more: int) -> int:
        try:
            data = Path(self.context.workspace, path).read_bytes()
        except OSError:
            return 0
        old = str(next((arguments[key] for key in OLD_KEYS if arguments.get(key)), "")).encode()
        times = max(1, data.count(old)) if old and arguments.get("replace_all") else 1
        return len(data) + more * times


class ConcurrentActions(LimitPolicy):
    """No more than so many tools of an agent at work at once, of one that asks before it uses a tool."""

    def __init__(self, settings: Any, context: Context) -> None:
        super().__init__(settings or ConcurrencySettings(), context)
        self.concerned = self.settings.max_concurrent_actions is not None

    def judge(self, moment: Moment, state: RunState) -> Verdict:
        most, current = state.limits.actions, state.current
        if moment.kind is not MomentKind.TOOL or most is None or current is None or current.actions is None:
            return Allow()
        if current.actions >= most:
            return Deny(
                f"{current.actions} tools are at work already, and at most {most} may be (max_concurrent_actions)"
            )
        return Allow()


class BlockedPrompts(LimitPolicy):
    """A prompt in which a pattern is found is not given to an agent."""

    def __init__(self, settings: Any, context: Context) -> None:
        super().__init__(settings or PromptSettings(), context)
        self._patterns = [re.compile(text, re.IGNORECASE) for text in self.settings.blocked_prompt_patterns]
        self.concerned = bool(self._patterns)
        self._fine = ""

    def judge(self, moment: Moment, state: RunState) -> Verdict:
        if moment.kind not in (MomentKind.RUN, MomentKind.ITERATION) or state.task.digest == self._fine:
            return Allow()
        words = _words(state.task)
        if words is None or digest_of(words) != state.task.digest:
            return Stop("the prompt has changed since it was read, and can't be checked for blocked patterns")
        for pattern in self._patterns:
            if pattern.search(words):
                return Stop(f"the prompt has what is blocked by the pattern {pattern.pattern!r}")
        self._fine = state.task.digest
        return Allow()


def _matching(pattern: str, base: str) -> Iterator[str]:
    """The files that a pattern means right now. Raises `Unclear` if they are too many to look at."""
    if not set(pattern) & set("*?[") or "\0" in pattern:
        return
    for count, found in enumerate(glob.iglob(os.path.join(glob.escape(base), pattern))):  # noqa: PTH118, PTH207 - plain strings
        if count > MATCHES:
            raise Unclear("a pattern means too many files")
        yield found


def _below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _words(task: Task) -> str | None:
    if task.text is not None:
        return task.text
    try:
        return Path(task.path or "").read_bytes().decode()
    except (OSError, ValueError):
        return None
