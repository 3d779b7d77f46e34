"""What a plugin does wrong while it is at work, in every place where its code is called: each cell of the table, by its effect."""

import inspect
import json
import re
import runpy
from functools import cache
from pathlib import Path

import pytest

from ralph_core.contracts import AuditSink, CheckpointStore, LimitPolicy
from ralph_core.hookspecs import RalphSpec
from ralph_core.plugins.guarded import ANSWERS

FOLDER = Path(__file__).parent / "faults"
CODE = (FOLDER / "faulty_plugin.py").read_text()
CELLS, EFFECTS, FAULTS, TABLE = map(
    runpy.run_path(str(FOLDER / "table.py")).get, ("CELLS", "EFFECTS", "FAULTS", "TABLE")
)
DEADLINE = 3
"""Seconds that a hang is given here; only where something hangs, so that a slow machine is no hang."""
FLAGS = ("-a", "good", "-p", "x")
WORDS = {
    "raises": "raised ValueError: boom",
    "exits": "raised SystemExit: 7",
    "hangs": f"did not come back within {DEADLINE} s",
    "wrong": "42",
    "unrun": "coroutine",
}
"""Fault: how it is said."""
OTHER_WORDS = {
    ("LimitPolicy.judge", "hangs"): f"gave no answer within {DEADLINE} s",
    **{(f"AuditSink.{method}", "hangs"): "did not end within 5 s" for method in ("write", "flush", "close")},
    **{(f"AuditSink.{method}", "raises"): "ValueError: boom" for method in ("write", "flush", "close")},
    **{(f"AuditSink.{method}", "exits"): "SystemExit: 7" for method in ("write", "flush", "close")},
}


def words(place, fault):
    return OTHER_WORDS.get((place, fault), WORDS[fault])


def short(place, fault):
    """The name of the agent, store or sink that does this."""
    return f"{place.partition('.')[2]}-{fault}"


def bounds(fault="hangs"):
    return f"plugins: {{deadline: {DEADLINE}}}\n" if fault == "hangs" else ""


def equip(ralph, fault="hangs"):
    """Install the plugin that does wrong."""
    ralph.plugin("faulty", CODE, distribution="acme-faulty")
    ralph.env |= {"FAULTS_FOLDER": str(ralph.root), "RALPH_PLUGINS": "faulty"}
    if fault == "hangs":
        ralph.env["FAULTS_DEADLINE"] = str(DEADLINE)
    return ralph


@pytest.fixture(scope="module")
def told(lasting_ralphs):
    """What is to be seen of the runs that are shared; each is made once, by the first test that asks for it."""

    @cache
    def rows():
        """Every fault of every hook that declares something, a plugin each, in one `ralph plugins`."""
        ralph = equip(lasting_ralphs("rows"))
        for place, fault, effect in CELLS:
            if effect == "row":
                name = f"{place.removeprefix('ralph_').replace('_', '-')}-{fault}"
                planned = CODE.replace('os.environ.get("FAULTS", "")', repr(f"{place}={fault}"))
                ralph.plugin(name, planned, distribution=f"acme-{name}")
                ralph.env["RALPH_PLUGINS"] += f",{name}"
        ralph.settings(bounds())
        done = ralph("plugins", "--json")
        assert (done.returncode, done.stderr) == (0, "")
        return {row["name"]: row for row in json.loads(done.stdout)}

    @cache
    def attempts():
        """Every agent that does wrong makes an attempt; then one that does right."""
        ralph = equip(lasting_ralphs("attempts"))
        (ralph.root / "again").touch()
        ralph.settings(f"{bounds()}max_failures: 99\n")
        agents = [short(place, fault) for place, fault, effect in CELLS if effect == "attempt"]
        done = ralph("run", "-a", ",".join([*agents, "good"]), "-p", "x")
        assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
        return {record["actor"]: record for record in ralph.records() if record["type"] == "agent.failed"}

    @cache
    def sinks():
        """Every sink that does wrong, beside one that does right, in one run."""
        ralph = equip(lasting_ralphs("sinks"))
        (ralph.root / "again").touch()
        names = [short(place, fault) for place, fault, _ in CELLS if place.startswith("AuditSink.") and fault in WORDS]
        ralph.settings(f"audit_sinks: [{', '.join(['file', *names])}]\n")
        done = ralph("run", *FLAGS, "--events")
        assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
        assert ralph.types()[-1] == "run.finished"
        return {sink["sink"]: sink for sink in json.loads(done.stdout.splitlines()[-1])["sinks"]}

    @cache
    def stopped():
        """A run that a limit has stopped."""
        ralph = equip(lasting_ralphs("stopped"))
        ralph.settings("checkpoint_store: good\n")
        assert ralph("run", *FLAGS, "-i", "1").returncode == 3
        return ralph

    @cache
    def harmless(fault):
        """A run that is stopped by a limit and goes on to its end, with the fault in every place."""
        ralph = equip(lasting_ralphs(fault), fault)
        ralph.settings("checkpoint_store: good\naudit_sinks: [file, good]\n")
        env = {"FAULTS": f"*={fault}"}
        done = [ralph("run", *FLAGS, "-i", "1", "--events", env=env)]
        done.append(ralph("resume", "--rollback", "-i", "3", "--events", env=env))
        assert [each.returncode for each in done] == [3, 0], done
        return ralph, done, set((ralph.root / "calls").read_text().split())

    return {"rows": rows, "attempts": attempts, "sinks": sinks, "stopped": stopped, "harmless": harmless}


# --- what comes of it -------------------------------------------------------------------------------------------------


def row(told, _ralph, place, fault):
    found = told["rows"]()
    broken = found[f"{place.removeprefix('ralph_').replace('_', '-')}-{fault}"]
    assert (broken["status"], broken["provides"]) == ("error", [])
    assert place in broken["error"]
    assert words(place, fault) in broken["error"]
    assert found["faulty"]["status"] == "active"


def refused(told, _ralph, place, fault):
    ralph = told["stopped"]()
    before = ralph.state()
    settings = ralph.root / f"{short(place, fault)}.yml"
    store = short(place, fault) if place.startswith("CheckpointStore.") else "good"
    settings.write_text(f"{bounds(fault)}checkpoint_store: {store}\n")
    agent = short(place, fault) if place.startswith("Agent.") else "good"
    begun = place in ("Agent.probe", "CheckpointStore.claim")
    done = ralph(*(["run", "-a", agent, "-p", "y"] if begun else ["resume", "--rollback"]), "--config", settings)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("ralph: plugin 'faulty' (acme-faulty 1.2.3): ")
    assert done.stderr.count("\n") == 1
    assert short(place, fault) in done.stderr
    assert words(place, fault) in done.stderr
    assert ralph.state() == before


def run(_told, ralph, place, fault):
    equip(ralph, fault)
    store = short(place, fault) if place.startswith("CheckpointStore.") else "good"
    ralph.settings(f"{bounds(fault)}checkpoint_store: {store}\n")
    done = ralph("run", *FLAGS, env={"FAULTS": f"{place}={fault}"})
    assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
    reason = next(line for line in done.stdout.splitlines() if line.startswith("✗ failed: "))
    assert "plugin 'faulty' (acme-faulty 1.2.3): " in reason
    assert words(place, fault) in reason
    assert (place if place.startswith("ralph_") else store if store != "good" else "policy 'faulty'") in reason
    assert reason.endswith("(by faulty)")
    assert f"go on with  ralph resume {ralph.folder.name}" in done.stdout
    assert ralph.types()[-1] == "run.finished"
    if place != "CheckpointStore.save":
        assert ralph.state()["outcome"]["by"] == "faulty"
    if fault == "raises":  # from there on all faults are one
        (ralph.root / "again").touch()
        ralph.settings("checkpoint_store: good\n")
        assert ralph("resume").returncode == 0


def attempt(told, _ralph, place, fault):
    record = told["attempts"]()[short(place, fault)]
    assert record["plugin"] == "faulty"
    assert record["message"].startswith("invalid_output: the adapter")
    assert words(place, fault) in record["message"]


def account(told, _ralph, place, fault):
    sinks = told["sinks"]()
    sink = sinks[short(place, fault)]
    assert sink["plugin"] == "faulty"
    assert words(place, fault) in sink["error"]
    written = sinks["file"]["written"]
    assert (sink["written"], sink["waiting"]) == ((0, written) if place == "AuditSink.write" else (written, 0))
    assert sinks["file"]["error"] == ""


def unheeded(told, ralph, place, fault):
    if place.startswith("AuditSink."):
        sink = told["sinks"]()[short(place, fault)]
        assert (sink["error"], sink["lost"], sink["waiting"]) == ("", 0, 0)
        return
    equip(ralph, fault)
    (ralph.root / "again").touch()
    ralph.settings(f"checkpoint_store: {short(place, fault)}\n")
    assert "✗" not in ralph("run", *FLAGS).stdout


def stderr(told, _ralph, place, _fault):
    _, done, came = told["harmless"]("prints")
    assert place in came
    assert all(json.loads(line)["type"] for each in done for line in each.stdout.splitlines())
    printed = done[0].stderr + done[1].stderr
    assert f"PRINTED by print {place}\n" in printed
    assert printed.count("PRINTED by a write\n") == printed.count("PRINTED by a program\n") >= len(TABLE)


def kept(told, _ralph, place, _fault):
    ralph, done, came = told["harmless"]("environment")
    assert place in came
    assert all(each.stderr == "" for each in done)
    given = dict(entry.split("=", 1) for entry in (ralph.root / "env").read_text().split("\0") if entry)
    assert (given["PATH"], given["HOME"]) == (ralph.env["PATH"], ralph.env["HOME"])
    assert not {"LEAKED", "LC_LEAKED", "GIT_DIR"} & set(given)
    assert (ralph.root / "pwd").read_text() == f"{ralph.workspace}\n"
    assert len(ralph.snapshots()) > 1
    assert ralph.state()["outcome"]["kind"] == "completed"


def cut(told, _ralph, place, _fault):
    _, done, came = told["harmless"]("thread")
    assert place in came
    assert all(re.fullmatch(r"ralph: cut off after 2 s: threads of plugins: .*\n", each.stderr) for each in done)
    assert f"left by {place}" in done[0].stderr + done[1].stderr


SHOWN = {shown.__name__: shown for shown in (row, refused, run, attempt, account, unheeded, stderr, kept, cut)}


@pytest.mark.parametrize(("place", "fault", "effect"), CELLS, ids=[f"{place}-{fault}" for place, fault, _ in CELLS])
def test_comes_to_what_the_table_says(told, ralph, place, fault, effect):
    SHOWN[effect](told, ralph, place, fault)


class TestTheTable:
    """It is whole, so that the page that is made of it says everything."""

    def test_has_every_hook(self):
        hooks = {name for name in vars(RalphSpec) if name.startswith("ralph_")}
        assert hooks == {place for place in TABLE if place.startswith("ralph_")}

    def test_has_every_method_that_plugins_have_to_write(self):
        for kind in (CheckpointStore, AuditSink, LimitPolicy):
            methods = kind.__abstractmethods__ - {"runs"}  # which no run calls, `ralph runs` does
            assert {f"{kind.__name__}.{method}" for method in methods} <= set(TABLE)
        assert {"Agent.probe", "Agent.run", "Agent.command", "Agent.parse"} <= set(TABLE)

    def test_has_every_fault_in_every_place(self):
        assert all(set(effects) == set(FAULTS) for effects in TABLE.values())

    def test_has_a_test_for_every_effect(self):
        assert set(SHOWN) == set(EFFECTS) == {effect for _, _, effect in CELLS}

    def test_every_method_of_a_store_is_guarded(self):
        methods = {name for name, _ in inspect.getmembers(CheckpointStore, inspect.isfunction) if name[0] != "_"}
        assert methods == set(ANSWERS)


REPORTED = {
    "words": ("'words'", "'words', not an Event"),
    "text": ("Text(42)", "a Text whose text is 42"),
    "call": ("ToolCall('1', 'x', None)", "a ToolCall whose input is None"),
    "usage": ("Usage('m', 42)", "a Usage whose tokens is 42"),
    "tokens": ("Usage('m', Tokens('many'))", "a Usage with Tokens whose input is 'many'"),
    "final": ("Finished(None)", "a Finished whose text is None"),
    "kind": ("Failed('odd')", "a Failed whose kind is 'odd'"),
    "busy": ("spin()", f"did not come back within {DEADLINE} s"),
    "cancelled": ("cancel()", "raised CancelledError"),
}
"""Agent: what it reports, and what is said of that."""

ADAPTERS = f"""
import asyncio, time
from ralph_core import *

def spin():
    while True:
        pass

def cancel():
    raise asyncio.CancelledError

class Reports(Agent):
    def probe(self): return Probe()
    async def run(self, request):
        yield eval(self.what, globals())

WHAT = { ({name: code for name, (code, _) in REPORTED.items()} | {"good": "Finished('LOOP_COMPLETE')"})!r}
globals().update({{name: type(name, (Reports,), {{"what": what}}) for name, what in WHAT.items()}})

@hookimpl
def ralph_agents():
    return [Provider(name, "", __name__ + ":" + name) for name in WHAT]
"""

CLINGS = """
import asyncio, time
from ralph_core import *

class Clings(Agent):
    def probe(self): return Probe()
    async def run(self, request):
        asyncio.get_running_loop().run_in_executor(None, time.sleep, 3600)
        yield Finished("LOOP_COMPLETE")
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                pass

@hookimpl
def ralph_agents(): return [Provider("clings", "", __name__ + ":Clings")]
"""

UNABLE = """
from ralph_core import *

class Unable(Agent):
    def probe(self): return Probe()
    def METHOD(self, *_): raise SystemExit(7)
    async def run(self, request): yield Finished("LOOP_COMPLETE")

@hookimpl
def ralph_agents(): return [Provider("unable", "", __name__ + ":Unable")]
"""


class TestMoreOfIt:
    """What is in no cell of the table."""

    def test_an_adapter_that_reports_nonsense_has_failed(self, ralph):
        ralph.plugin("odd", ADAPTERS)
        ralph.settings(f"{bounds()}max_failures: 99\n")
        done = ralph("run", "-a", ",".join([*REPORTED, "good"]), "-p", "x", env={"RALPH_PLUGINS": "odd"})
        assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
        said = {record["actor"]: record["message"] for record in ralph.records() if record["type"] == "agent.failed"}
        assert {name: words in said[name] for name, (_, words) in REPORTED.items()} == dict.fromkeys(REPORTED, True)

    def test_an_adapter_that_clings_to_its_work_is_left_behind(self, ralph):
        ralph.plugin("clings", CLINGS)
        done = ralph("run", "-a", "clings", "-p", "x", env={"RALPH_PLUGINS": "clings"}, limit=120)
        assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
        assert "✓ completed" in done.stdout
        assert "ralph: cut off after 2 s: threads of plugins: asyncio_" in done.stderr

    def test_what_is_to_be_done_at_the_end_does_not_keep_it_from_ending(self, ralph):
        ralph.plugin("late", "import atexit, time\natexit.register(time.sleep, 3600)")
        done = ralph("plugins", "--json", env={"RALPH_PLUGINS": "late"})
        status = {row["name"]: row["status"] for row in json.loads(done.stdout)}
        assert (done.returncode, status["late"]) == (0, "active")
        assert done.stderr == "ralph: cut off after 2 s: what plugins do at the end\n"

    def test_one_that_hangs_at_import_is_a_row(self, ralph):
        ralph.plugin("slow", "import time; time.sleep(3600)")
        ralph.settings(bounds())
        rows = json.loads(ralph("plugins", "--json", env={"RALPH_PLUGINS": "slow"}).stdout)
        assert [(row["status"], row["error"]) for row in rows if row["name"] == "slow"] == [
            ("error", f"did not come back within {DEADLINE} s")
        ]

    @pytest.mark.parametrize("method", ["capabilities", "skills", "__init__"])
    def test_an_agent_that_can_not_be_asked_is_refused(self, ralph, method):
        ralph.plugin("unable", UNABLE.replace("METHOD", method))
        env = {"RALPH_PLUGINS": "unable"}
        ralph.refuses("run", "-a", "unable", "-p", "x", env=env, says=["plugin 'unable' (ralph-unable 1.2.3)", "SystemExit: 7"])  # fmt: skip

    @pytest.mark.parametrize("value", ["0", "-1", "soon", "true", ".inf"])
    def test_the_deadline_is_a_number(self, ralph, value):
        ralph.settings(f"plugins: {{deadline: {value}}}\n")
        ralph.refuses("plugins", says="plugins.deadline")
