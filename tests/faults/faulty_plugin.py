"""A plugin that does wrong wherever it is told to. Installed as it is by `tests/test_faults.py`.

It brings everything, and all of it is right, save for what is planned. A plan is a comma list of faults. For hooks and the
policy it is in the variable FAULTS, as `PLACE=FAULT,FAULT;PLACE=...`, with `*` for every place; agents, stores and sinks are
told by their name: the sink `write-raises` raises in `write`, the agent `good` does what `*` says. Every call is noted in the
file `calls` of the folder FAULTS_FOLDER, which is also where agents leave what they were given.
"""

import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from ralph_core import (
    Agent,
    Allow,
    AuditSink,
    CheckpointStore,
    Command,
    CommandAgent,
    Failed,
    FailureKind,
    Finished,
    LimitPolicy,
    Probe,
    Provider,
    Section,
    hookimpl,
)
from ralph_core.builtin.git import GitStore

FOLDER = Path(os.environ["FAULTS_FOLDER"])
PLANS = dict(plan.split("=") for plan in os.environ.get("FAULTS", "").split(";") if plan)
HANGS = 3600.0
FATAL = ("raises", "exits", "hangs", "wrong", "unrun")
METHODS = {
    "agent": (Agent, ("probe", "run", "command", "parse")),
    "store": (CheckpointStore, ("claim", "save", "look", "snapshot", "load", "restore")),
    "sink": (AuditSink, ("write", "flush", "close")),
}
SCRIPT = f"""
env -0 > {FOLDER}/env; pwd > {FOLDER}/pwd; cat > /dev/null
[ -e {FOLDER}/again ] && echo LOOP_COMPLETE && exit
touch {FOLDER}/again; echo FAILED
"""
_done = set()


def at(place, good, plan=None):
    """Come by a place: do what is planned there, else what is right."""
    with (FOLDER / "calls").open("a") as calls:
        calls.write(place + "\n")
    plan = PLANS.get(place, PLANS.get("*", "")) if plan is None else plan
    faults = plan.split(",") if plan else []
    if place not in _done:  # each once: a policy is asked often
        _done.add(place)
        if "prints" in faults:
            print("PRINTED by print", place)
            os.write(1, b"PRINTED by a write\n")
            subprocess.run(["/bin/echo", "PRINTED by a program"], check=False)
        if "environment" in faults:
            os.environ.update(LEAKED=place, LC_LEAKED=place, PATH="/nowhere", HOME="/nowhere", GIT_DIR="/nowhere")
            with tempfile.TemporaryDirectory() as gone:
                os.chdir(gone)
        if "thread" in faults:
            threading.Thread(target=time.sleep, args=(HANGS,), name=f"left by {place}", daemon=False).start()
    if "raises" in faults:
        raise ValueError("boom")
    if "exits" in faults:
        sys.exit(7)
    if "hangs" in faults:
        time.sleep(HANGS)
    if "wrong" in faults:
        return 42
    if "unrun" in faults:
        return unrun()
    return good()


async def unrun():
    """What an `async def` gives to somebody who does not await it."""


# --- hooks ------------------------------------------------------------------------------------------------------------


def named(kind):
    """The providers of a kind: a good one, and one for each fault of each of its methods."""
    _, methods = METHODS[kind]
    faults = [f"{method}-{fault}" for method in methods for fault in FATAL]
    settings = "ralph_core.builtin.gitreview:GitSettings" if kind == "store" else None
    return [Provider(name, "does wrong", f"{__name__}:{kind}-{name}", settings) for name in ("good", *faults)]


@hookimpl
def ralph_agents():
    return at("ralph_agents", lambda: named("agent"))


@hookimpl
def ralph_checkpoint_stores():
    return at("ralph_checkpoint_stores", lambda: named("store"))


@hookimpl
def ralph_audit_sinks():
    return at("ralph_audit_sinks", lambda: named("sink"))


@hookimpl
def ralph_limit_policies():
    return at("ralph_limit_policies", lambda: [Provider("faulty", "does wrong", f"{__name__}:Policy")])


@hookimpl
def ralph_choose_agent(state, candidates):
    return at("ralph_choose_agent", lambda: None)


@hookimpl
def ralph_prompt_sections(state, task):
    return at("ralph_prompt_sections", lambda: [Section("Be kind", "Always.")])


@hookimpl
def ralph_prepare_command(command, state):
    return at("ralph_prepare_command", lambda: None)


@hookimpl
def ralph_classify_failure(failure, state):
    return at("ralph_classify_failure", lambda: None)


# --- the four named kinds ---------------------------------------------------------------------------------------------


class FaultyAgent(CommandAgent):
    def probe(self):
        return at("Agent.probe", lambda: Probe("/bin/sh"), self.plans.get("probe"))

    def run(self, request):
        if self.plans.get("run") in ("wrong", "unrun"):
            return at("Agent.run", list, self.plans["run"])
        return self._run(request)

    async def _run(self, request):
        at("Agent.run", list, self.plans.get("run"))
        async for event in super().run(request):
            yield event

    def command(self, request):
        good = Command(("/bin/sh", "-c", SCRIPT), request.env, str(request.workspace), request.prompt.encode())
        return at("Agent.command", lambda: good, self.plans.get("command"))

    def parse(self, line):
        good = [Finished("LOOP_COMPLETE")] if line == b"LOOP_COMPLETE" else [Failed(FailureKind.AGENT, "flaky")]
        return at("Agent.parse", lambda: good, self.plans.get("parse"))


class FaultyStore(GitStore):
    deadline = files_deadline = float(os.environ.get("FAULTS_DEADLINE", "60"))

    def claim(self, run):
        return at("CheckpointStore.claim", lambda: GitStore.claim(self, run), self.plans.get("claim"))

    def save(self, state, lease, *, durable=True):
        plan = (
            "" if self.plans.get("save") and not state.attempts else self.plans.get("save")
        )  # not before there is a run
        return at("CheckpointStore.save", lambda: GitStore.save(self, state, lease, durable=durable), plan)

    def look(self, state, lease):
        return at("CheckpointStore.look", lambda: GitStore.look(self, state, lease), self.plans.get("look"))

    def snapshot(self, state, lease):
        return at("CheckpointStore.snapshot", lambda: GitStore.snapshot(self, state, lease), self.plans.get("snapshot"))

    def load(self, run):
        return at("CheckpointStore.load", lambda: GitStore.load(self, run), self.plans.get("load"))

    def restore(self, ref, into):
        return at("CheckpointStore.restore", lambda: GitStore.restore(self, ref, into), self.plans.get("restore"))


class FaultySink(AuditSink):
    def write(self, batch):
        return at("AuditSink.write", lambda: None, self.plans.get("write"))

    def flush(self):
        return at("AuditSink.flush", lambda: None, self.plans.get("flush"))

    def close(self):
        return at("AuditSink.close", lambda: None, self.plans.get("close"))


class Policy(LimitPolicy):
    deadline = float(os.environ.get("FAULTS_DEADLINE", "60"))

    def judge(self, moment, state):
        return at("LimitPolicy.judge", Allow)


def __getattr__(name):
    """The class of `agent-parse-raises` and its like."""
    kind, _, rest = name.partition("-")
    if kind not in METHODS:
        raise AttributeError(name)
    base = {"agent": FaultyAgent, "store": FaultyStore, "sink": FaultySink}[kind]
    method, _, fault = rest.partition("-")
    return type(name, (base,), {"plans": {method: fault} if fault else {}})
