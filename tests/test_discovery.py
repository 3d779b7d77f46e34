"""Plugins as real installed distributions: good ones take part, broken ones are named and harm nobody."""

import json

import pytest

from ralph_core.hookspecs import RalphSpec

HOOKS = [name for name in vars(RalphSpec) if name.startswith("ralph_")]
TOP = "from ralph_core import *\n"
DONE = "cat > /dev/null; echo LOOP_COMPLETE"

BROKEN = {
    "raises-at-import": ("raise RuntimeError('no such luck')", "RuntimeError: no such luck"),
    "exits-at-import": ("raise SystemExit(3)", "SystemExit: 3"),
    "lacks-a-module": ("import no_such_module", "No module named 'no_such_module'"),
    "is-no-python": ("def (", "SyntaxError"),
    "unknown-hook": ("@hookimpl\ndef ralph_agent(): return []", "unknown hook 'ralph_agent' (did you mean 'ralph_agents'?)"),
    "unknown-argument": ("@hookimpl\ndef ralph_agents(colour): return []", "colour"),
    "takes-a-name": ("@hookimpl\ndef ralph_agents(): return [Provider('command', '', 'a:B')]", "agent 'command' is taken by plugin 'builtin'"),
    "same-name-twice": ("@hookimpl\ndef ralph_audit_sinks(): return [Provider('x', '', 'a:B')] * 2", "sink 'x' is taken by plugin 'same-name-twice'"),
    "bad-name": ("@hookimpl\ndef ralph_agents(): return [Provider('My Agent', '', 'a:B')]", "'My Agent' is not lower-case letters"),
    "wraps": ("@hookimpl(wrapper=True)\ndef ralph_agents(): return (yield)", "ralph_agents: wrappers are not part of the contract"),
    "wraps-the-old-way": ("@hookimpl(hookwrapper=True)\ndef ralph_agents(): yield", "ralph_agents: wrappers are not part of the contract"),
    "answers-none": ("@hookimpl\ndef ralph_agents(): return None", "ralph_agents answered None, not a sequence of Provider"),
    "answers-strings": ("@hookimpl\ndef ralph_limit_policies(): return ['strict']", "ralph_limit_policies answered ['strict'], not a sequence of Provider"),
    "raises-in-hook": ("@hookimpl\ndef ralph_checkpoint_stores(): raise ValueError('boom')", "ralph_checkpoint_stores raised ValueError: boom"),
    "exits-in-hook": ("@hookimpl\ndef ralph_audit_sinks(): raise SystemExit('bye')", "ralph_audit_sinks raised SystemExit: bye"),
    "cannot-be-made": ("class Plugin:\n    def __init__(self): raise OSError('no disk')", "OSError: no disk"),
    "is-not-there": ("", "has no attribute 'Plugin'"),
    "builtin": ("", "the name is taken by ralph-core"),
}  # fmt: skip
"""Plugin: its code, and what `ralph plugins` says of it."""

ENTRIES = {"cannot-be-made": ":Plugin", "is-not-there": ":Plugin"}


def install(ralph, *names):
    for name in names:
        ralph.plugin(name, TOP + BROKEN[name][0], entry=ENTRIES.get(name), distribution=f"acme-{name}")


def rows(ralph, *flags, **options):
    done = ralph("plugins", "--json", *flags, **options)
    assert done.returncode == 0, done.stderr
    return {row["distribution"]: row for row in json.loads(done.stdout)}


ACME = (
    TOP
    + """
import os, pickle, time
from pathlib import Path

DOES = os.environ.get("ACME", "").split(",")


class Plugin(RalphSpec):
    @hookimpl
    def ralph_agents(self):
        return [Provider("acme", "says it is done", f"{__name__}:AcmeAgent")]

    @hookimpl
    def ralph_checkpoint_stores(self):
        return [Provider("pickles", "one file a run", f"{__name__}:Pickles")]

    @hookimpl
    def ralph_audit_sinks(self):
        return [Provider("types", "the types alone", f"{__name__}:Types")]

    @hookimpl
    def ralph_limit_policies(self):
        return [Provider("acme", "does what ACME says", f"{__name__}:Policy")]

    @hookimpl
    def ralph_choose_agent(self, state, candidates):
        if "choose-raises" in DOES:
            raise ValueError("boom")
        if "choose-nonsense" in DOES:
            return "nobody"
        return candidates[-1] if "choose-last" in DOES else None

    @hookimpl
    def ralph_prompt_sections(self, state, task):
        if "sections-raise" in DOES:
            raise ValueError("boom")
        if "sections-nonsense" in DOES:
            return ["words"]
        words = f"iteration {state.iteration}, task {task.text}"
        return [Section("Second", words, order=60), Section("First", words, order=10)]

    @hookimpl
    def ralph_prepare_command(self, command, state):
        if "prepare-raises" in DOES:
            raise ValueError("boom")
        if "prepare-nonsense" in DOES:
            return list(command.argv)
        if "prepare-wraps" in DOES:
            env = {**command.env, "WRAPPED": "yes"}
            return Command(("/bin/sh", "-c", 'echo wrapped; exec "$@"', "sh", *command.argv), env, command.cwd, command.stdin)

    @hookimpl
    def ralph_classify_failure(self, failure, state):
        if "classify-raises" in DOES:
            raise ValueError("boom")
        if "classify-nonsense" in DOES:
            return "bad luck"
        return FailureKind.NETWORK if "classify-network" in DOES and "flaky" in failure.message else None


class AcmeAgent(Agent):
    def probe(self):
        if "probe-raises" in DOES:
            raise ValueError("boom")
        return Probe("/opt/acme", "9.1", missing=("a licence",) if "probe-missing" in DOES else ())

    async def run(self, request):
        yield Started(session="s1", model="acme-large")
        if "agent-raises" in DOES:
            raise ValueError("boom")
        yield ToolCall("t1", "polish", {"path": "chrome"})
        yield ToolResult("t1")
        yield Usage("m1", Tokens(input=100, output=20, cache_read=3), cost=0.25)
        if "agent-ends-early" in DOES:
            return
        yield Finished("LOOP_COMPLETE")


class Pickles(CheckpointStore):
    def _path(self, run):
        return self.context.home / "pickles" / run

    def claim(self, run):
        self._path(run).parent.mkdir(exist_ok=True)
        return Lease(run, 1)

    def save(self, state, lease, *, durable=True):
        if "store-fails" in DOES and state.attempts:
            raise StoreError("the jar is full")
        self._path(state.run).write_bytes(pickle.dumps(state))

    def load(self, run):
        from ralph_core.contracts import Saved
        return Saved(pickle.loads(self._path(run).read_bytes()))

    def runs(self):
        return sorted((path.name for path in self._path("x").parent.glob("*")), reverse=True)


class Types(AuditSink):
    def write(self, batch):
        if "sink-raises" in DOES:
            raise OSError("no paper")
        with (self.context.home / "types").open("a") as stream:
            stream.writelines(f"{record.type}\\n" for record in batch)

    def close(self):
        (self.context.home / "closed").touch()


class Policy(LimitPolicy):
    deadline = 1.0

    def judge(self, moment, state):
        when = "tick" if "tick" in DOES else "finished"
        if moment.kind.value == when:
            if "policy-stops" in DOES:
                return Stop("enough")
            if "policy-fails" in DOES:
                return Stop("too bad", failed=True)
            if "policy-denies" in DOES:
                return Deny("not that")
            if "policy-asks" in DOES:
                return Ask("may I?")
            if "policy-raises" in DOES:
                raise ValueError("boom")
            if "policy-exits" in DOES:
                raise SystemExit(0)
            if "policy-hangs" in DOES:
                time.sleep(60)
            if "policy-nonsense" in DOES:
                return True
            if "policy-silent" in DOES:
                return None
            if "policy-pauses" in DOES and state.finished == 1 and not hasattr(self, "paused"):
                self.paused = True
                return Pause(time.time() + 0.3, "a breath")
        return Allow()
"""
)


@pytest.fixture
def acme(ralph):
    """`ralph` with a plugin that has it all; the variable ACME says what it does."""
    ralph.plugin("acme", ACME, entry=":Plugin")
    return ralph


class TestBrokenPlugins:
    """A plugin that is broken becomes a row of `ralph plugins`, and nothing else."""

    def test_a_run_goes_on_beside_all_of_them(self, ralph):
        install(ralph, *BROKEN)
        done = ralph.run(DONE)
        assert done.returncode == 0, done.stderr
        (record,) = [record for record in ralph.records() if record["type"] == "plugins"]
        frozen = {row["distribution"]: row for row in record["data"]["plugins"]}
        for name, (_, words) in BROKEN.items():
            assert frozen[f"acme-{name}"]["status"] == "error"
            assert words in frozen[f"acme-{name}"]["error"]

    def test_each_has_a_row_with_its_error_and_brings_nothing(self, ralph):
        install(ralph, *BROKEN)
        found = rows(ralph)
        for name, (_, words) in BROKEN.items():
            row = found[f"acme-{name}"]
            assert (row["name"], row["version"], row["status"]) == (name, "1.2.3", "error")
            assert words in row["error"]
            assert row["provides"] == []
        assert found["ralph-core"]["status"] == "active"
        assert "agent command" in found["ralph-core"]["provides"]

    @pytest.mark.parametrize("name", BROKEN)
    def test_check_exits_1_and_says_why(self, ralph, name):
        install(ralph, name)
        done = ralph("plugins", "--check", env={"RALPH_PLUGINS": name})
        assert done.returncode == 1
        row = next(line for line in done.stdout.splitlines() if f"acme-{name} 1.2.3" in line)
        assert " error " in row
        assert BROKEN[name][1] in row

    @pytest.mark.parametrize("name", ["raises-at-import", "exits-at-import", "unknown-hook", "takes-a-name"])
    def test_it_says_so_in_doctor_too(self, ralph, name):
        install(ralph, name)
        done = ralph("doctor", env={"RALPH_PLUGINS": name})
        assert f"✗ plugin {name} (acme-{name}): " in done.stdout
        assert BROKEN[name][1] in done.stdout

    def test_of_two_distributions_with_one_name_the_first_is_used(self, acme):
        acme.plugin("acme", "raise RuntimeError('never imported')", distribution="zz-acme")
        found = rows(acme)
        assert found["ralph-acme"]["status"] == "active"
        assert (found["zz-acme"]["status"], found["zz-acme"]["error"]) == ("error", "the name is taken by ralph-acme")

    def test_a_taken_provider_leaves_the_first_one_and_all_else_of_the_second_out(self, acme):
        code = "@hookimpl\ndef ralph_audit_sinks(): return [Provider('fresh', '', 'a:B'), Provider('types', '', 'a:B')]"
        acme.plugin("bold", TOP + code)
        found = rows(acme)
        assert "sink types" in found["ralph-acme"]["provides"]
        assert found["ralph-bold"]["error"].endswith("sink 'types' is taken by plugin 'acme'")
        acme.settings("audit_sinks: [fresh]")
        acme.refuses("run", "-a", "command", "--command", "true", "-p", "x", says="unknown sink 'fresh'")

    def test_a_plugin_that_writes_to_the_terminal_does_not_reach_the_json(self, ralph):
        ralph.plugin("loud", "raise RuntimeError('\\x1b[31mred\\x07\\n[/x]')")
        done = ralph("plugins", env={"RALPH_PLUGINS": "loud"})
        assert "\x1b" not in done.stdout
        assert "\x07" not in done.stdout
        assert "[/x]" in done.stdout

    def test_strict_raises_what_the_plugin_raised(self, ralph):
        install(ralph, "raises-at-import")
        done = ralph.run(DONE, env={"RALPH_STRICT_PLUGINS": "1"})
        assert done.returncode == 1
        assert "Traceback" in done.stderr
        assert "RuntimeError: no such luck" in done.stderr
        assert not ralph.home.exists()

    def test_strict_lets_good_ones_pass(self, acme):
        assert acme.run(DONE, env={"RALPH_STRICT_PLUGINS": "1", "RALPH_PLUGINS": "acme"}).returncode == 0


class TestTheTable:
    """`ralph plugins` shows every plugin."""

    def test_it_names_distribution_version_status_and_what_is_provided(self, acme):
        done = acme("plugins", env={"RALPH_PLUGINS": "acme"})
        assert done.returncode == 0
        lines = done.stdout.splitlines()
        assert lines[0].split() == ["PLUGIN", "DISTRIBUTION", "STATUS", "PROVIDES"]
        row = next(line for line in lines if line.startswith("acme "))
        assert row.split(maxsplit=4) == ["acme", "ralph-acme", "1.2.3", "active", "agent acme, store pickles, sink types, policy acme"]  # fmt: skip

    def test_verbose_adds_hooks_and_load_times(self, acme):
        done = acme("plugins", "-v", env={"RALPH_PLUGINS": "acme"})
        line = next(line for line in done.stdout.splitlines() if line.startswith("acme: loaded in "))
        assert all(hook in line for hook in HOOKS)

    def test_json_has_it_all(self, acme):
        row = rows(acme)["ralph-acme"]
        assert row["status"] == "active"
        assert sorted(row["hooks"]) == sorted(HOOKS)
        assert row["provides"] == ["agent acme", "store pickles", "sink types", "policy acme"]
        assert row["load_ms"] > 0

    def test_check_exits_0_when_all_are_in_order(self, acme):
        assert acme("plugins", "--check", env={"RALPH_PLUGINS": "acme"}).returncode == 0
        assert acme("plugins", "--check", "--json", env={"RALPH_PLUGINS": ""}).returncode == 0

    def test_listing_imports_nothing_that_a_provider_names(self, ralph):
        ralph.plugin("lazy", TOP + "@hookimpl\ndef ralph_agents(): return [Provider('lazy', '', 'not.there:X', settings='not.there:Y')]")  # fmt: skip
        assert rows(ralph)["ralph-lazy"]["status"] == "active"
        assert ralph.run(DONE).returncode == 0

    def test_a_class_is_made_an_instance_and_a_module_will_do(self, ralph):
        ralph.plugin("module", TOP + "@hookimpl\ndef ralph_agents(): return [Provider('m', '', 'a:B')]")
        ralph.plugin("object", TOP + "class P:\n  @hookimpl\n  def ralph_agents(self): return [Provider('o', '', 'a:B')]\np = P()", entry=":p")  # fmt: skip
        ralph.plugin("klass", TOP + "class P:\n  @hookimpl\n  def ralph_agents(self): return [Provider('k', '', 'a:B')]", entry=":P")  # fmt: skip
        found = rows(ralph)
        assert [found[f"ralph-{name}"]["provides"] for name in ("module", "object", "klass")] == [["agent m"], ["agent o"], ["agent k"]]  # fmt: skip


class TestChoosing:
    """The user says which plugins take part, and is told about names that are none."""

    ACME_AGENT = ("run", "-a", "acme", "-p", "x")

    def test_all_take_part_unless_told_otherwise(self, acme):
        assert acme(*self.ACME_AGENT).returncode == 0

    @pytest.mark.parametrize(
        ("flags", "env", "settings"),
        [
            (["--no-plugin", "acme"], {}, ""),
            ([], {"RALPH_PLUGINS": ""}, ""),
            ([], {"RALPH_PLUGINS": "other"}, ""),
            ([], {}, "plugins: {disable: [acme]}"),
            ([], {}, "plugins:\n  disable:\n  - acme\n"),
        ],
    )
    def test_one_that_is_left_out_is_not_even_imported(self, acme, flags, env, settings):
        acme.plugin("acme", "raise RuntimeError('imported')")
        acme.plugin("other", "")
        if settings:
            acme.settings(settings)
        assert rows(acme, *flags, env=env)["ralph-acme"]["status"] == "disabled"
        acme.refuses(*self.ACME_AGENT, *flags, env=env, says="unknown agent 'acme'")

    def test_an_allow_list_lets_those_in_that_it_names(self, acme):
        acme.plugin("other", "")
        found = rows(acme, env={"RALPH_PLUGINS": " other , acme"})
        assert [found[name]["status"] for name in ("ralph-acme", "ralph-other", "ralph-core")] == ["active"] * 3
        assert {row["status"] for name, row in found.items() if name not in ("ralph-acme", "ralph-other", "ralph-core")} <= {"disabled"}  # fmt: skip

    @pytest.mark.parametrize(
        ("flags", "env", "settings"),
        [
            (["--no-plugin", "acne"], {}, ""),
            ([], {"RALPH_PLUGINS": "acne"}, ""),
            ([], {}, "plugins: {disable: [acne]}"),
            ([], {}, "plugins: {require: [acne]}"),
        ],
    )
    @pytest.mark.parametrize("command", [("plugins",), (*ACME_AGENT,), ("doctor",)])
    def test_an_unknown_name_is_an_error_with_a_suggestion(self, acme, command, flags, env, settings):
        if settings:
            acme.settings(settings)
        flags = [] if command == ("doctor",) else flags
        if flags or env or settings:
            acme.refuses(*command, *flags, env=env, says=["unknown plugin 'acne'", "did you mean 'acme'?"])

    @pytest.mark.parametrize("settings", ["plugins: {disable: acme}", "plugins: [acme]", "plugins: {require: [1]}"])
    def test_names_come_as_a_list(self, acme, settings):
        acme.settings(settings)
        acme.refuses("plugins", says="has to be a list of plugin names")

    def test_a_required_plugin_that_is_broken_stops_the_run_before_it_starts(self, ralph):
        install(ralph, "exits-at-import")
        ralph.settings("plugins: {require: [exits-at-import]}")
        ralph.refuses(*ralph.flags(DONE), says=["'exits-at-import' (acme-exits-at-import)", "SystemExit: 3"])

    def test_a_required_plugin_that_is_switched_off_does_too(self, acme):
        acme.settings("plugins: {require: [acme]}")
        acme.refuses(*acme.flags(DONE), "--no-plugin", "acme", says=["'acme'", "is required, but disabled"])
        assert acme.run(DONE).returncode == 0

    @pytest.mark.parametrize(
        ("flags", "settings"),
        [
            (["-a", "exits-at-import"], ""),
            ([], "checkpoint_store: exits-at-import"),
            ([], "audit_sinks: [file, exits-at-import]"),
            ([], "policies: {exits-at-import: {}}"),
        ],
    )
    def test_a_run_that_needs_a_broken_plugin_refuses(self, ralph, flags, settings):
        install(ralph, "exits-at-import")
        if settings:
            ralph.settings(settings)
        ralph.refuses(*ralph.flags(DONE), *flags, says=["plugin 'exits-at-import' (acme-exits-at-import)", "SystemExit: 3"])  # fmt: skip


class TestProviders:
    """The four kinds of named things, brought by a third party, do their work in a real run."""

    def test_an_agent(self, acme):
        done = acme("run", "-a", "acme", "-p", "x")
        assert done.returncode == 0, done.stderr
        assert "123 tokens, $0.2500" in done.stdout
        assert "polish chrome" in done.stderr
        assert acme.state()["recent"][0]["session"] == "s1"

    def test_an_agent_is_found_by_auto_and_by_doctor(self, acme):
        env = {"RALPH_PLUGINS": "acme"}
        assert json.loads(acme("doctor", "--json", env=env).stdout)["auto"] == "acme"
        done = acme("run", "-p", "x", env=env)
        assert done.returncode == 0, done.stderr
        assert acme.state()["agent"] == "acme"

    def test_an_agent_that_lacks_something_is_refused_with_what_it_lacks(self, acme):
        acme.refuses("run", "-a", "acme", "-p", "x", env={"ACME": "probe-missing"}, says=["acme", "a licence"])

    def test_an_agent_that_can_not_be_probed_is_refused(self, acme):
        acme.refuses("run", "-a", "acme", "-p", "x", env={"ACME": "probe-raises"}, says=["acme", "boom"])

    @pytest.mark.parametrize(
        ("does", "words"),
        [("agent-raises", "the adapter raised ValueError: boom"), ("agent-ends-early", "no final event")],
    )
    def test_an_agent_that_breaks_off_has_failed(self, acme, does, words):
        acme.settings("max_failures: 1")
        done = acme("run", "-a", "acme", "-p", "x", env={"ACME": does})
        assert done.returncode == 1
        assert words in done.stderr
        assert acme.state()["failures"] == 1

    def test_a_checkpoint_store(self, acme):
        acme.settings("checkpoint_store: pickles")
        agent = acme.agent("echo more", "echo LOOP_COMPLETE")
        assert acme.run(agent, "-i", "1").returncode == 3
        assert not (acme.folder / "state.json").exists()
        assert acme.snapshots() == []
        status = json.loads(acme("status", "--json").stdout)
        assert (status["finished"], status["condition"]) == (1, "stopped")
        done = acme("resume", "-i", "2")
        assert done.returncode == 0, done.stderr
        assert json.loads(acme("status", "--json").stdout)["finished"] == 2

    def test_a_checkpoint_store_that_can_not_save_ends_the_run_before_more_is_paid(self, acme):
        acme.settings("checkpoint_store: pickles")
        agent = acme.agent("echo more")
        done = acme.run(agent, env={"ACME": "store-fails"})
        assert done.returncode == 1
        assert "the jar is full" in done.stdout
        assert agent.calls == 0

    def test_an_audit_sink(self, acme):
        acme.settings("audit_sinks: [types, file]")
        assert acme.run(DONE).returncode == 0
        assert (acme.home / "types").read_text().splitlines() == acme.types()
        assert (acme.home / "closed").exists()

    def test_an_audit_sink_that_raises_neither_stops_the_run_nor_starves_another_and_is_said(self, acme):
        acme.settings("audit_sinks: [types, file]")
        done = acme.run(DONE, env={"ACME": "sink-raises"})
        assert done.returncode == 0
        types = acme.types()
        assert types[-1] == "run.finished"
        assert f"sink types: 0 written, {len(types)} wait on disk, 0 lost: OSError: no paper" in done.stdout

    def test_a_policy_stops_the_run_by_its_name(self, acme):
        done = acme.run("cat > /dev/null", env={"ACME": "policy-stops"})
        assert done.returncode == 3
        assert "stopped: enough (by acme)" in done.stdout
        (record,) = [record for record in acme.records() if record["type"] == "verdict"]
        assert (record["actor"], record["plugin"], record["message"]) == ("acme", "acme", "enough")
        assert (record["data"]["moment"], record["data"]["verdict"]) == ("finished", "stop")

    def test_a_policy_stops_an_agent_at_work(self, acme):
        agent = acme.agent("sleep 60")
        done = acme.run(agent, env={"ACME": "policy-stops,tick"}, limit=15)
        assert done.returncode == 3
        assert not acme.alive(agent.pids[0])

    @pytest.mark.parametrize(
        ("does", "code", "words"),
        [
            ("policy-fails", 1, "failed: too bad (by acme)"),
            ("policy-denies", 3, "stopped: not that (by acme)"),
            ("policy-asks", 3, "stopped: may I? (by acme)"),
        ],
    )
    def test_what_a_verdict_means_for_the_run(self, acme, does, code, words):
        done = acme.run("cat > /dev/null", env={"ACME": does})
        assert done.returncode == code
        assert words in done.stdout

    def test_a_policy_that_pauses_is_asked_again(self, acme):
        done = acme.run("cat > /dev/null", "-i", "2", env={"ACME": "policy-pauses"})
        assert done.returncode == 3
        assert [record["message"] for record in acme.records() if record["type"] == "wait.started"] == ["a breath"]
        assert acme.state()["finished"] == 2

    @pytest.mark.parametrize(
        ("does", "words"),
        [
            ("policy-raises", "policy 'acme' raised ValueError: boom"),
            ("policy-exits", "policy 'acme' raised SystemExit: 0"),
            ("policy-hangs", "policy 'acme' gave no answer within 1 s"),
            ("policy-nonsense", "policy 'acme' answered True, which is no verdict"),
            ("policy-silent", "policy 'acme' answered None, which is no verdict"),
        ],
    )
    @pytest.mark.parametrize("when", ["finished", "tick"])
    def test_a_policy_that_fails_to_answer_stops_the_run_by_name(self, acme, does, words, when):
        agent = acme.agent("sleep 60" if when == "tick" else ":")
        done = acme.run(agent, env={"ACME": f"{does},{when}"}, limit=15)
        assert done.returncode == 1
        assert f"failed: plugin 'acme' (ralph-acme 1.2.3): {words} (by acme)" in done.stdout
        assert agent.calls == 1
        assert not acme.alive(agent.pids[0])
        assert acme.state()["outcome"]["by"] == "acme"


class TestLoopHooks:
    """The four hooks in the loop change what happens; one that fails stops the run and is named."""

    def test_the_agent_that_a_plugin_chooses_makes_the_attempt(self, acme):
        agent = acme.agent("echo LOOP_COMPLETE")
        assert acme.run(agent, "-a", "command,acme", env={"ACME": "choose-last"}).returncode == 0
        assert agent.calls == 0
        assert acme.state()["agent"] == "acme"

    def test_sections_are_in_the_prompt_that_the_agent_gets(self, acme):
        agent = acme.agent("echo LOOP_COMPLETE")
        assert acme.run(agent, task="Paint it.").returncode == 0
        prompt = agent.prompt().decode()
        first = prompt.index("# First\n\niteration 1, task Paint it.")
        second = prompt.index("# Second\n\niteration 1, task Paint it.")
        assert prompt.index("Paint it.") < first < second < prompt.index("# How this works")

    def test_the_agent_runs_as_the_command_was_prepared(self, acme):
        agent = acme.agent("echo LOOP_COMPLETE")
        assert acme.run(agent, env={"ACME": "prepare-wraps"}).returncode == 0
        assert agent.environment()["WRAPPED"] == "yes"
        assert (acme.folder / "output" / "0001.out").read_text() == "wrapped\nLOOP_COMPLETE\n"
        assert agent.prompt().startswith(b"# Task")

    def test_a_failure_is_treated_as_the_kind_that_a_plugin_makes_of_it(self, acme):
        steps = ["echo flaky >&2; exit 1", "echo flaky >&2; exit 1", "echo LOOP_COMPLETE"]
        flags = ["--retry-delay", "0", "-i", "1"]
        assert acme.run(acme.agent(*steps), *flags, env={"ACME": "classify-network"}).returncode == 0
        assert acme.state()["failures"] == 0
        assert [attempt["failure"] for attempt in acme.state()["recent"]] == ["network", "network", None]

    def test_without_it_the_failure_is_the_agents(self, acme):
        assert acme.run(acme.agent("echo flaky >&2; exit 1"), "-i", "1").returncode == 3
        assert acme.state()["failures"] == 1

    @pytest.mark.parametrize(
        ("does", "words"),
        [
            ("choose-raises", "ralph_choose_agent raised ValueError: boom"),
            ("choose-nonsense", "ralph_choose_agent answered 'nobody', not one of ['command']"),
            ("sections-raise", "ralph_prompt_sections raised ValueError: boom"),
            ("sections-nonsense", "ralph_prompt_sections answered ['words'], not a sequence of Section"),
            ("prepare-raises", "ralph_prepare_command raised ValueError: boom"),
            ("prepare-nonsense", "ralph_prepare_command answered ['/bin/sh', "),
            ("classify-raises", "ralph_classify_failure raised ValueError: boom"),
            ("classify-nonsense", "ralph_classify_failure answered 'bad luck'"),
        ],
    )
    def test_one_that_raises_or_answers_nonsense_stops_the_run_and_is_named(self, acme, does, words):
        agent = acme.agent("exit 1")
        done = acme.run(agent, env={"ACME": does})
        assert done.returncode == 1
        assert f"failed: plugin 'acme' (ralph-acme 1.2.3): {words}" in done.stdout
        assert " (by acme)\n" in done.stdout
        assert agent.calls <= 1
        stems = [type_.rpartition(".") for type_ in acme.types()]
        started = sorted(stem for stem, _, end in stems if end == "started")
        assert started == sorted(stem for stem, _, end in stems if end in ("finished", "failed", "abandoned"))


def test_a_store_that_raises_what_it_should_not_stops_the_run_by_name(ralph):
    ralph.plugin(
        "brittle",
        "from ralph_core import Provider, hookimpl\n"
        "from ralph_core.builtin.local import LocalStore\n"
        "class Store(LocalStore):\n"
        "    def save(self, state, lease, *, durable=True):\n"
        "        if state.finished == 1: raise KeyError('oops')\n"
        "        super().save(state, lease, durable=durable)\n"
        "@hookimpl\n"
        "def ralph_checkpoint_stores():\n"
        "    return [Provider('brittle', 'raises', __name__ + ':Store')]\n",
    )
    ralph.settings("checkpoint_store: brittle\n")
    agent = ralph.agent("echo more")
    done = ralph.run(agent)
    assert done.returncode == 1
    assert "brittle" in done.stdout
    assert "KeyError" in done.stdout
    assert agent.calls == 1
