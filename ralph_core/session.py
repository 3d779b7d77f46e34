"""What can be asked of a workspace, and what can be begun in it: the library behind the command line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from .account.audit import Selected
from .consent import unasked
from .contracts import Agent, AuditSink, Capability, CheckpointStore, Context, LimitPolicy, Probe, Provided, Saved
from .errors import AgentUnavailable, PluginFault, UnknownName, UserError
from .ground import Account, Cast, Ground
from .meter import complaint, overshoot
from .plugins.bounds import to_the_end
from .plugins.guarded import guarded
from .plugins.probes import Probes
from .plugins.registry import KINDS
from .processes.environment import environment_of, withheld
from .prompt import LARGE, read_task, tokens_in
from .records import AuditFilter, AuditRecord
from .sitting import Sitting, changed_files, new_run_id
from .statefile import loads
from .workspace import check_workspace, moved
from .worktrees import FOLDER, Worktree, add, all_of, base_of, remove

AUTO = "auto"
AUTO_ORDER = ("claude", "gemini", "q", "kiro", "codex")
"""What `auto` looks for first; then every other agent, by name. Only an order: an agent that is not named here works too."""

LATER = {"database": "ralph-sql"}
"""Sinks by the names that the deployment documents use, and the packages that bring them."""

ProvidedT = TypeVar("ProvidedT", bound=Provided)


class Session(Ground):
    """Settings and plugins, ready to start or resume runs in one workspace."""

    # --- what can be asked without a run ---

    def agent(self, name: str) -> Agent:
        """Build an agent. Raises `UnknownName`, `SettingsError` or `PluginFault`."""
        return self._built("agent", name, Agent)  # type: ignore[type-abstract]

    def store(self) -> CheckpointStore:
        """Build the checkpoint store that the settings choose."""
        name = self.settings.store
        plugin, _ = self.plugins.provider("store", name)
        store = self._built("store", name, CheckpointStore)  # type: ignore[type-abstract]
        return guarded(store, plugin, name, self.plugins)

    def probe(self, name: str) -> Probe:
        """What an agent says of itself; one that can't even be built is missing for that reason."""
        try:
            return self.plugins.probe(name, self.agent(name))
        except Exception as error:
            return Probe(missing=(str(error),))

    def _seen(self, name: str, agent: Agent | None) -> Probe:
        """The probe for a start, which may be a kept one; `agent` is None for one that need not be there."""
        try:
            built = agent or self.agent(name)
            version = self.plugins.version(self.plugins.provider("agent", name)[0])
            return self._probes.of(name, built, version, lambda: self.plugins.probe(name, built))
        except Exception as error:
            if agent is not None:
                raise
            return Probe(missing=(str(error),))

    @cached_property
    def _probes(self) -> Probes:
        return Probes(self.home, self.settings.capability_cache_ttl)

    def auto_order(self) -> list[str]:
        """All agents in the order in which `auto` tries them."""
        names = self.plugins.providers["agent"]
        return [name for name in AUTO_ORDER if name in names] + sorted(name for name in names if name not in AUTO_ORDER)

    def choose_agents(self) -> tuple[dict[str, Agent], list[str]]:
        """The usable agents in fall-back order, and notes on those that were passed over. Raises `AgentUnavailable`."""
        wanted, notes = self.settings.agent, []
        auto = wanted == (AUTO,)
        for name in wanted:
            if name != AUTO:
                self.plugins.provider("agent", name)  # a misspelt one is an error even when another one would do
        order = [name for entry in wanted for name in (self.auto_order() if entry == AUTO else [entry])]
        agents: dict[str, Agent] = {}
        absent: list[str] = []
        for name in dict.fromkeys(order):
            agent = self.agent(name) if not auto else None
            probe = self._seen(name, agent)
            if not probe.usable:
                if auto and probe.executable is None:  # of most there is no more to say
                    absent.append(name)
                else:
                    notes.append(f"agent {name}: {'; '.join(probe.missing)}")
                continue
            agents[name] = agent or self.agent(name)
            if auto:
                break
        if not agents:
            nowhere = [f"not installed, or not set up: {', '.join(absent)}"] if absent else []
            what = "; ".join([*notes, *nowhere]) or "no agent is installed"
            raise AgentUnavailable(f"no agent can be used: {what}" if auto else what, mend="`ralph doctor` says more")
        return agents, notes

    def cast(self) -> tuple[Cast, list[str]]:
        """All that a run needs, and notes on the agents that were passed over. Raises `UserError` or `PluginFault`."""
        if len(self.settings.mcp.servers) > self.settings.mcp.max_servers:
            raise UserError(
                f"at most {self.settings.mcp.max_servers} MCP servers (mcp.max_servers), not {len(self.settings.mcp.servers)}"
            )
        if self.settings.security.sandbox_enabled and not self.plugins.implement("ralph_prepare_command"):
            what = "security.sandbox_enabled: no plugin is there that puts a sandbox around the agent's process"
            raise UserError(
                what, mend="install one that implements ralph_prepare_command; `ralph plugins -v` shows them"
            )
        agents, notes = self.choose_agents()
        policies = self.policies()
        active = {name for name, _, _ in policies}
        said: list[str | None] = []
        for name, agent in agents.items():
            able = self.plugins.capabilities(name, agent)
            if told := complaint(name, able, active):
                if self.settings.budget.unmetered == "refuse":
                    raise UserError(told, mend="choose another agent, or set budget.unmetered: allow")
                notes.append(told)
            said.append(overshoot(name, able, self.settings.limits, active))
            if self.settings.mcp.servers and Capability.MCP not in able:
                said.append(f"agent {name} can't be handed MCP servers: it has those of its own settings alone")
        bounds = [*filter(None, said), *self._blind(active), *self._withheld(agents)]
        notes += unasked(agents, [name for name, _, _ in policies], self.plugins)
        abilities = {name: self._abilities(name, agent) for name, agent in agents.items()}
        return Cast(agents, self.store(), self._sinks(), policies, bounds, abilities), notes

    def _abilities(self, name: str, agent: Agent) -> dict[str, Any]:
        """What an agent is and can do, for the first record of a run. Raises `UserError` if it would find too many skills."""
        skills, able = self.plugins.skills(name, agent), self.plugins.capabilities(name, agent)
        if len(skills) > (most := self.settings.max_skills_per_agent):
            what = f"agent {name} would find {len(skills)} skills, and max_skills_per_agent is {most}"
            places = sorted({str(path.parents[1]) for path in skills})
            raise UserError(what, mend=f"take some away ({', '.join(places)}), or allow more")
        probe = self._probes.found[name]
        said = {"executable": probe.executable, "version": probe.version}
        return {**said, "capabilities": sorted(able), "skills": sorted({path.parent.name for path in skills})}

    def _blind(self, active: AbstractSet[str]) -> Iterator[str]:
        """What to say of a store that does not see the files, when progress is looked for."""
        _, provider = self.plugins.provider("store", self.settings.store, where="checkpoint_store")
        if (
            "no_progress" in active
            and self.settings.max_no_progress
            and Capability.SNAPSHOTS not in provider.capabilities
        ):
            yield f"store {self.settings.store} does not see the files: max_no_progress goes by the agent's answers alone"

    def _withheld(self, agents: Mapping[str, Agent]) -> Iterator[str]:
        """What to say of keys that are there and that no agent of the run gets."""
        if names := withheld((agent.context.env for agent in agents.values()), self.env):
            yield f"not given to the agent (see environment.allow): {', '.join(names)}"

    def _built(self, kind: str, name: str, base: type[ProvidedT]) -> ProvidedT:
        section = self.settings.section(KINDS[kind][1], name)
        env = self.env
        if kind == "agent":
            _, provider = self.plugins.provider(kind, name)
            wanted = (*provider.environment, *self.settings.environment.allow)
            env = environment_of(wanted, self.env, self.keys, self.settings.environment.set)
        built = self.plugins.build(kind, name, section, Context(self.workspace, self.home, env), base, self.sources)
        assert isinstance(built, base)
        return built

    # --- runs ---

    def start(self, text: str | None = None, *, worktree: bool = False) -> Account:
        """Start a run, or go on with the one that was cut short on the same task. Raises `UserError` before any effect.

        With `worktree` it is always a new one, in a git worktree of its own.
        """
        check_workspace(self.workspace, self.home)
        if worktree:
            read_task(text, self._prompt_path())
            return self._start_apart(text)
        task, words = read_task(text, self._prompt_path())
        cast, notes = self._keeping()
        return self._told(to_the_end(Sitting(self, cast, task, words, [*_size(words), *notes]).sit()))

    def _keeping(self) -> tuple[Cast, list[str]]:
        """The cast; what was asked of programs for it is kept as soon as the run begins."""
        whole, ready = self.cast(), self.ready

        def begin() -> None:
            ready()
            self._probes.keep()

        self.ready = begin
        return whole

    def _start_apart(self, text: str | None) -> Account:
        """Start a run in a worktree; if it can't begin, the worktree goes again."""
        made = add(self.workspace, self.home, new_run_id(), self.env)
        try:
            given = {**self.given, "home": str(made.home)}
            if self.sources.file is not None:  # as it is here, committed or not
                given["config"] = str(self.sources.file.absolute())
            if text is None:
                given["prompt"] = str(self._prompt_in(made))
            there = self._moved(made, prompt=given.get("prompt", self.settings.prompt))
            there.given, there.named = given, made.run
            return there.start(text)
        except (UserError, PluginFault):
            remove(made, self.env)
            raise

    def _prompt_in(self, made: Worktree) -> Path:
        """The prompt that a run in a worktree goes by, where its agent may tick boxes: the committed one, or else a copy."""
        path = self._prompt_path().resolve()
        words = path.read_bytes()
        if path.is_relative_to(self.workspace):
            there = made.workspace / path.relative_to(self.workspace)
            if there.is_file() and there.read_bytes() == words:
                return there
        copy = made.home / "PROMPT.md"
        copy.write_bytes(words)
        return copy

    def _moved(self, there: Worktree, **changes: Any) -> Session:
        """The same session, in a worktree."""
        place = {"workspace": str(there.workspace), "home": str(there.home)}
        return replace(self, settings=self.settings.model_copy(update={**place, **changes}))

    def worktrees(self) -> dict[str, Session]:
        """The runs of this workspace that have a worktree of their own, the newest first, each with its session."""
        return {run: self._moved(there) for run, there in all_of(self.workspace, self.home, self.env).items()}

    def of(self, run: str) -> Session:
        """The session in which that run is: its worktree's, or this one."""
        return self.worktrees().get(run, self)

    def resume(self, run: str, saved: Saved, *, rollback: bool = False) -> Account:
        """Go on with a run; with `rollback`, from the files of its last snapshot. Raises `UserError` if that can't be."""
        check_workspace(self.workspace, self.home)
        state = saved.state
        if state.outcome is not None and not state.outcome.resumable:
            # Asked again, as a service manager does that was killed with us: what is done is done, and costs nothing.
            folder = self.home / "runs" / run
            return Account(state, folder, changed_files(self.store(), run), (), ("it was complete already",))
        prompt = moved(state.task.path or self._prompt_path(), Path(state.workspace), self.workspace)
        task, words = read_task(state.task.text, prompt)
        notes = [saved.note] if saved.note else []
        if task.digest != state.task.digest:
            notes.append("the prompt has changed since the run started: the new one is used")
        cast, more = self._keeping()
        notes = [*notes, *_size(words), *more]
        return self._told(to_the_end(Sitting(self, cast, task, words, notes).sit(state, rollback=rollback)))

    def _told(self, account: Account) -> Account:
        """The account, after the command `on_done` was told of it; with a note if that went wrong."""
        if self.settings.on_done is None:
            return account
        from .monitoring.notice import tell  # where there is such a command

        failure = tell(account.state, account.folder, self.settings.on_done, self.env, self.workspace)
        return replace(account, notes=(*account.notes, failure)) if failure else account

    def preview(self, text: str | None, *, worktree: bool = False) -> dict[str, Any]:
        """What `start` would do, by name, after the same checks and without any effect."""
        check_workspace(self.workspace, self.home)
        apart = {}
        if worktree:
            _, commit = base_of(self.workspace, self.env)
            apart["worktree"] = f"{self.home / FOLDER}/RUN, on a new branch ralph/RUN of commit {commit}"
        task, words = read_task(text, self._prompt_path())
        cast, notes = self.cast()
        notes = [*_size(words), *notes]
        return {
            "workspace": self.workspace,
            **apart,
            "agents": ", ".join(cast.agents),
            "prompt": f"{task.path or 'from the command line'} ({len(words)} characters, about {tokens_in(words)} tokens)",
            "limits": ", ".join(f"{name} {value}" for name, value in asdict(self.settings.limits).items()),
            "policies": ", ".join(name for name, _, _ in cast.policies),
            "store": self.settings.store,
            "audit": ", ".join(self.settings.audit_sinks),
            **({"notes": "; ".join([*cast.bounds, *notes])} if cast.bounds or notes else {}),
        }

    def account_of(self, wanted: AuditFilter) -> list[AuditRecord]:
        """Records of the first chosen sink that can be asked; none if no sink can."""
        return next((list(each.sink.query(wanted)) for each in self._sinks() if each.anchors), [])

    def auditor(self, capability: Capability) -> AuditSink:
        """The first chosen sink that has a capability. Raises `UserError` if none has."""
        for each in self._sinks():
            if capability in self.plugins.provider("sink", each.name)[1].capabilities:
                return each.sink
        raise UserError(
            f"no audit sink is chosen that has the capability {capability.value}", mend="audit_sinks: [file]"
        )

    def find(self, run: str | None) -> tuple[Session, str, Saved]:
        """A run of this workspace or of its worktrees, by id or an unambiguous beginning of it; the latest without one.

        With it comes the session in which it is. Raises `UserError`.
        """
        apart = {name: there for name, there in self.worktrees().items() if loads(there.home / "runs" / name)}
        runs = sorted({*self.store().runs(), *apart}, reverse=True)
        if run is None:
            if not runs:
                raise UserError(f"there is no run in {self.workspace} yet", mend="start one with `ralph run`")
            run = runs[0]
        matching = [known for known in runs if known.startswith(run)] if run else []
        run = matching[0] if len(matching) == 1 else run
        here = apart.get(run, self)
        return here, run, here.store().load(run)

    def _prompt_path(self) -> Path:
        return self.workspace / self.settings.prompt

    def _sinks(self) -> list[Selected]:
        """The chosen sinks; the first that can be asked is the one whose account is anchored."""
        for name in self.settings.audit_required:
            if name not in self.settings.audit_sinks:
                raise UnknownName("sink", name, self.settings.audit_sinks, where="audit_required")
        built: list[Selected] = []
        for name in self.settings.audit_sinks:
            if name in LATER and name not in self.plugins.providers["sink"]:
                raise UserError(f"audit_sinks: {name!r} comes with the package {LATER[name]}, which is not installed")
            plugin, provider = self.plugins.provider("sink", name, where="audit_sinks")
            anchors = "query" in provider.capabilities and not any(each.anchors for each in built)
            sink = self._built("sink", name, AuditSink)  # type: ignore[type-abstract]
            built.append(Selected(name, plugin, sink, name in self.settings.audit_required, anchors))
        return built

    def policies(self) -> list[tuple[str, str, LimitPolicy]]:
        """Build every policy that is not switched off, with its name and its plugin's; those with nothing to judge left out."""
        for name in self.settings.policies:
            self.plugins.provider("policy", name, where="policies")
        built = []
        for name, (plugin, _) in self.plugins.providers["policy"].items():
            if self.settings.policies.get(name) is False:
                continue
            policy = self._built("policy", name, LimitPolicy)  # type: ignore[type-abstract]
            if policy.concerned:
                built.append((name, plugin, policy))
        return built


def _size(words: str) -> Iterator[str]:
    """What to say of a prompt that is large."""
    if (tokens := tokens_in(words)) > LARGE:
        yield (
            f"the prompt is large: about {tokens} tokens (a quarter of its ASCII characters, and each other one), "
            "which every iteration pays for; let it name files for the agent to read instead"
        )
