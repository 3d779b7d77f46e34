"""Finds plugins, keeps each one apart from the others, and calls their hooks one implementation at a time."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import field, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

import pluggy

from ralph_core.contracts import Agent, Command, Probe, Provider, Section
from ralph_core.conventions import ANSWER
from ralph_core.errors import PluginFault, SettingsError, UnknownName, UserError
from ralph_core.events import FailureKind
from ralph_core.values import dataclass

from .bounds import Hung, bounded, unrun
from .compatibility import contract_of, hooks_of, made_for_another

if TYPE_CHECKING:
    from pathlib import Path

    from ralph_core.contracts import Context, Failure, Provided
    from ralph_core.settings.sources import Sources
    from ralph_core.state import RunState, Task

T = TypeVar("T")
NAME = re.compile(r"[a-z][a-z0-9_-]*")
DEADLINE = 30.0
"""Seconds that a call of a plugin's code may take, unless the settings say otherwise (`plugins.deadline`)."""

KINDS = {
    "agent": ("ralph_agents", "agents"),
    "store": ("ralph_checkpoint_stores", "stores"),
    "sink": ("ralph_audit_sinks", "sinks"),
    "policy": ("ralph_limit_policies", "policies"),
}
"""Kind of provider: the hook that declares it, and the table of the settings file that holds its sections."""


@dataclass(frozen=True)
class HookCall:
    """One finished call of one implementation. Times are in nanoseconds since the epoch.

    `attributes` say what came of it, by the names of `conventions`; `hook` is `judge` for a policy.
    """

    hook: str
    plugin: str
    version: str
    started: int
    ended: int
    error: BaseException | str | None = None
    attributes: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True)
class PluginRow:
    """A line of `ralph plugins`. `status` is `active`, `disabled` or `error`; `load_ms` what importing it took."""

    name: str
    distribution: str
    version: str
    status: str
    error: str = ""
    provides: tuple[tuple[str, str], ...] = ()
    hooks: tuple[str, ...] = ()
    load_ms: float = 0.0


@dataclass
class Plugins:
    """The plugins of one process: a row for each, what the good ones provide, and typed calls of their hooks."""

    manager: pluggy.PluginManager
    rows: list[PluginRow] = field(default_factory=list)
    providers: dict[str, dict[str, tuple[str, Provider[Any]]]] = field(
        default_factory=lambda: {kind: {} for kind in KINDS}
    )
    watch: Callable[[Sequence[HookCall]], None] = lambda _calls: None
    """Told of every call of a hook: one entry for each implementation that was asked."""
    deadline: float = DEADLINE
    """Seconds that a call of a plugin's code may take."""

    # --- calls ---

    def choose_agent(self, state: RunState, candidates: Sequence[str]) -> str:
        """The agent of the next attempt: the first answer that is one of `candidates`."""
        with self._asking("ralph_choose_agent") as ask:
            for impl in self._implementations("ralph_choose_agent"):
                name = ask(impl, {"state": state, "candidates": candidates})
                if name is None:
                    continue
                if name not in candidates:
                    raise self.fault(
                        impl.plugin_name, f"ralph_choose_agent answered {_shown(name)}, not one of {candidates}"
                    )
                return str(name)
        return candidates[0]

    def prompt_sections(self, state: RunState, task: Task) -> list[Section]:
        """All sections, in the order of `Section.order`, then of the plugins' names."""
        sections: list[Section] = []
        with self._asking("ralph_prompt_sections") as ask:
            for impl in self._implementations("ralph_prompt_sections"):
                answer = ask(impl, {"state": state, "task": task})
                sections += self._checked(impl.plugin_name, "ralph_prompt_sections", answer, Section)
        return sorted(sections, key=lambda section: section.order)

    def prepare_command(self, command: Command, state: RunState, *, wrap: bool = False) -> Command:
        """The command as the chain of implementations leaves it; `wrap`: they have to put another program around it."""
        bare, implementations = command, self._implementations("ralph_prepare_command")
        with self._asking("ralph_prepare_command") as ask:
            for impl in implementations:
                answer = ask(impl, {"command": command, "state": state})
                if answer is not None and not isinstance(answer, Command):
                    what = f"ralph_prepare_command answered {_shown(answer)}, not a Command or None"
                    raise self.fault(impl.plugin_name, what)
                command = answer or command
        if wrap and implementations and command.argv == bare.argv:
            what = "ralph_prepare_command has put no sandbox around the command (security.sandbox_enabled)"
            raise self.fault(implementations[-1].plugin_name, what)
        return command

    def classify_failure(self, failure: Failure, state: RunState) -> FailureKind:
        """The kind that the first answering implementation gives, else the adapter's own."""
        with self._asking("ralph_classify_failure") as ask:
            for impl in self._implementations("ralph_classify_failure"):
                kind = ask(impl, {"failure": failure, "state": state})
                if kind is not None:
                    try:
                        return FailureKind(kind)
                    except ValueError:
                        what = f"ralph_classify_failure answered {_shown(kind)}, not a FailureKind or None"
                        raise self.fault(impl.plugin_name, what) from None
        return failure.kind

    # --- providers ---

    def provider(self, kind: str, name: str, *, where: str = "") -> tuple[str, Provider[Any]]:
        """The plugin and the provider that go by `name`. Raises `UnknownName`, or `PluginFault` when it broke on loading."""
        found = self.providers[kind].get(name)
        if found is None:
            for row in self.rows:
                if row.status == "error" and row.name == name:
                    raise PluginFault(name, row.error, distribution=row.distribution)
            raise UnknownName(kind, name, self.providers[kind], where=where)
        return found

    def build(
        self, kind: str, name: str, section: Any, context: Context, base: type[Provided], sources: Sources
    ) -> Provided:
        """Import, validate and build a provider. Raises `UserError` for its section, `PluginFault` for its code."""
        plugin, provider = self.provider(kind, name)
        settings = self.settings(kind, name, section, sources)
        try:
            built = bounded(lambda: _imported(provider.factory)(settings, context), self.deadline)
        except (KeyboardInterrupt, UserError):
            raise
        except BaseException as error:
            raise self.fault(plugin, f"{kind} {name!r} could not be built: {words_of(error)}") from error
        if not isinstance(built, base):
            raise self.fault(plugin, f"{provider.factory} made a {type(built).__name__}, not a {base.__name__}")
        return built

    def probe(self, name: str, agent: Agent) -> Probe:
        """What an agent finds of its program. Raises `PluginFault`."""
        return self._of_agent(name, agent.probe, "probe", Probe)

    def capabilities(self, name: str, agent: Agent) -> AbstractSet[str]:
        """What an agent can do as it is set up. Raises `PluginFault`."""
        _, provider = self.provider("agent", name)
        return self._of_agent(name, lambda: agent.capabilities(provider.capabilities), "capabilities", AbstractSet)

    def skills(self, name: str, agent: Agent) -> Sequence[Path]:
        """The skills that an agent would find. Raises `PluginFault`."""
        return self._of_agent(name, agent.skills, "skills", Sequence)

    def _of_agent(self, name: str, ask: Callable[[], T], method: str, wanted: type) -> T:
        plugin, _ = self.provider("agent", name)
        try:
            answer = bounded(ask, self.deadline)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # also SystemExit: an agent that can't be asked is no end of Ralph
            raise self.fault(plugin, f"the {method} of agent {name!r} {_did(error)}") from error
        if not isinstance(answer, wanted):
            what = f"the {method} of agent {name!r} answered {_shown(answer)}, not a {wanted.__name__}"
            raise self.fault(plugin, what)
        return answer

    def settings_model(self, kind: str, name: str) -> Any:
        """The pydantic model of a provider's section, or None. Raises `PluginFault` if it can't be loaded."""
        plugin, provider = self.provider(kind, name)
        if provider.settings is None:
            return None
        try:
            path = provider.settings
            return bounded(lambda: _imported(path), self.deadline)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise self.fault(plugin, f"settings {provider.settings} could not be loaded: {words_of(error)}") from error

    def settings(self, kind: str, name: str, section: Any, sources: Sources) -> Any:
        """A provider's section as its model, or None if it has none. Raises `SettingsError` or `PluginFault`."""
        model, path = self.settings_model(kind, name), (KINDS[kind][1], name)
        if model is None:
            if section:
                place = sources.origin(path)
                raise SettingsError(f"{place}: {kind} {name!r} has no settings", mend="remove the section")
            return None
        from ralph_core.settings.validation import validated

        return validated(model, section or {}, sources, path)

    def require(self, names: Iterable[str]) -> None:
        """Raise `PluginFault` for the first of these plugins that is not active."""
        rows = {row.name: row for row in self.rows}
        for name in names:
            row = rows[name]
            if row.status != "active":
                raise PluginFault(name, f"is required, but {row.error or row.status}", distribution=row.distribution)

    def fault(self, plugin: str, what: str) -> PluginFault:
        """A `PluginFault` that knows the plugin's distribution."""
        row = next((row for row in self.rows if row.name == plugin), None)
        distribution = f"{row.distribution} {row.version}".strip() if row else ""
        return PluginFault(plugin, what, distribution=distribution)

    # --- how ---

    def implement(self, hook: str) -> bool:
        """Whether any plugin implements a hook."""
        return bool(self._implementations(hook))

    def _implementations(self, hook: str) -> list[pluggy.HookImpl]:
        caller: pluggy.HookCaller = getattr(self.manager.hook, hook)
        return sorted(caller.get_hookimpls(), key=lambda impl: (not impl.tryfirst, impl.trylast, impl.plugin_name))

    @contextmanager
    def _asking(self, hook: str) -> Iterator[Callable[[pluggy.HookImpl, dict[str, Any]], Any]]:
        """Calls of one hook, one implementation at a time: gives what makes such a call, and reports them all at the end."""
        calls: list[HookCall] = []
        try:
            yield lambda impl, arguments: self._call(hook, impl, arguments, calls)
        except PluginFault as fault:  # also for an answer that is none
            calls[-1:] = [replace(call, error=call.error or fault) for call in calls[-1:]]
            raise
        finally:
            if calls:
                self.watch(calls)

    def _call(self, hook: str, impl: pluggy.HookImpl, arguments: dict[str, Any], calls: list[HookCall]) -> Any:
        """Call one implementation, enter the call, and turn what it raises into a `PluginFault`."""
        failure: BaseException | None = None
        answer: Any = None
        started = time.time_ns()
        try:
            answer = bounded(lambda: impl.function(*(arguments[name] for name in impl.argnames)), self.deadline)
            return answer
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            failure = error
            raise self.fault(impl.plugin_name, f"{hook} {_did(error)}") from error
        finally:
            ended, version = time.time_ns(), self.version(impl.plugin_name)
            said = {ANSWER: None if failure else _brief(answer)}
            calls.append(HookCall(hook, impl.plugin_name, version, started, ended, failure, said))

    def version(self, plugin: str) -> str:
        """The version of a plugin's distribution."""
        return next((row.version for row in self.rows if row.name == plugin), "")

    def _checked(self, plugin: str, hook: str, answer: Any, wanted: type[Any]) -> list[Any]:
        if isinstance(answer, Sequence) and all(isinstance(item, wanted) for item in answer):
            return list(answer)
        raise self.fault(plugin, f"{hook} answered {_shown(answer)}, not a sequence of {wanted.__name__}")

    def adopt(self, row: PluginRow, plugin: object) -> PluginRow:
        """Register a loaded plugin and take in what it declares; raises whatever is wrong with it, leaving no trace."""
        mismatch = made_for_another(contract_of(plugin), row.distribution)
        if mismatch:
            raise UserError(mismatch)
        hooks = hooks_of(self.manager, plugin)
        self.manager.register(plugin, name=row.name)
        self.rows.append(row)
        try:
            declared = [(kind, provider) for kind in KINDS for provider in self._declared(kind, row.name)]
            taken = {(kind, name) for kind, table in self.providers.items() for name in table}
            for kind, provider in declared:
                if not NAME.fullmatch(provider.name):
                    raise ValueError(f"{kind} name {provider.name!r} is not lower-case letters, digits, - and _")
                if (kind, provider.name) in taken:
                    owner = self.providers[kind].get(provider.name, (row.name,))[0]
                    raise ValueError(f"{kind} {provider.name!r} is taken by plugin {owner!r}")
                taken.add((kind, provider.name))
        except BaseException:
            self.manager.unregister(plugin)
            raise
        finally:
            self.rows.remove(row)
        for kind, provider in declared:
            self.providers[kind][provider.name] = (row.name, provider)
        return replace(row, hooks=hooks, provides=tuple((kind, provider.name) for kind, provider in declared))

    def _declared(self, kind: str, plugin: str) -> list[Provider[Any]]:
        hook = KINDS[kind][0]
        found: list[Provider[Any]] = []
        with self._asking(hook) as ask:
            for impl in self._implementations(hook):
                if impl.plugin_name == plugin:
                    found += self._checked(plugin, hook, ask(impl, {}), Provider)
        return found


def _imported(path: str) -> Any:
    """The object that "package.module:Name" names."""
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


def _brief(answer: Any) -> str:
    """What an implementation answered, in few words."""
    if answer is None:
        return "none"
    if isinstance(answer, str):
        return str(getattr(answer, "value", answer))[:100]
    return str(len(answer)) if isinstance(answer, Sequence) else type(answer).__name__


def _shown(answer: Any) -> str:
    """A wrong answer, for a message."""
    return unrun(answer) or f"{answer!r:.80}"


def _did(error: BaseException) -> str:
    return str(error) if isinstance(error, Hung) else f"raised {words_of(error)}"


def words_of(error: BaseException) -> str:
    if isinstance(error, Hung):
        return str(error)
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
