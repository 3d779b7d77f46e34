"""The spans of a run, as they stand in its folder: each piece of work and each call of a plugin, complete up to 20 ms before a kill."""

import json
import signal

import pytest

from ralph_core.hookspecs import RalphSpec

DONE = "cat > /dev/null; echo LOOP_COMPLETE"
HOOKS = [name for name in vars(RalphSpec) if name.startswith("ralph_")]

EVERYTHING = """\
from ralph_core import AuditSink, CheckpointStore, Command, CommandAgent, FailureKind, Finished, Provider, Section
from ralph_core import Allow, LimitPolicy, Probe, hookimpl
from ralph_core.builtin.local import LocalStore


class Policy(LimitPolicy):
    def judge(self, moment, state):
        return Allow()


class Sink(AuditSink):
    def write(self, batch):
        pass


class Store(LocalStore):
    pass


class Agent(CommandAgent):
    def probe(self):
        return Probe()

    def command(self, request):
        return Command(("/bin/sh", "-c", "test -e once || { touch once; exit 7; }; echo LOOP_COMPLETE"), request.env, str(request.workspace))

    def parse(self, line):
        yield Finished(line.decode())


@hookimpl
def ralph_agents():
    return [Provider("mine", "", __name__ + ":Agent")]

@hookimpl
def ralph_checkpoint_stores():
    return [Provider("mine", "", __name__ + ":Store")]

@hookimpl
def ralph_audit_sinks():
    return [Provider("mine", "", __name__ + ":Sink")]

@hookimpl
def ralph_limit_policies():
    return [Provider("mine", "", __name__ + ":Policy")]

@hookimpl
def ralph_choose_agent(state, candidates):
    return None

@hookimpl
def ralph_prompt_sections(state, task):
    return [Section("Rules", "Be brief."), Section("More", "And kind.")]

@hookimpl
def ralph_prepare_command(command, state):
    return command

@hookimpl
def ralph_classify_failure(failure, state):
    return FailureKind.AGENT
"""


def tree(spans):
    """Each span's name and that of the span around it."""
    names = {span["span_id"]: span["name"] for span in spans}
    return {(span["name"], names.get(span["parent_id"])) for span in spans}


def named(spans, name):
    return [span for span in spans if span["name"] == name]


@pytest.fixture(scope="module")
def whole_run(lasting_ralph):
    """The spans of a run in which one plugin brings and implements all there is."""
    ralph = lasting_ralph
    ralph.plugin("all", EVERYTHING)
    ralph.settings("checkpoint_store: mine\naudit_sinks: [mine, file]\ngates: ['true', 'test -e once']\n")
    done = ralph("run", "-a", "mine", "-p", "anything")
    assert done.returncode == 0, done.stderr
    return ralph.spans()


class TestEveryCallOfAPlugin:
    """Has a span of its own, below that of the hook, with the plugin's name, its version, and what it answered."""

    @pytest.mark.parametrize("hook", HOOKS)
    def test_of_a_hook(self, whole_run, hook):
        assert f"def {hook}(" in EVERYTHING, "a hook that this plugin does not implement yet"
        calls = named(whole_run, f"{hook} all")
        assert calls, f"no span of {hook}"
        parents = {span["span_id"]: span for span in named(whole_run, hook)}
        for call in calls:
            around = parents[call["parent_id"]]
            assert around["start"] <= call["start"] <= call["end"] <= around["end"]
            assert call["attributes"]["ralph.hook"] == hook
            assert call["attributes"]["ralph.plugin"] == "all"
            assert call["attributes"]["ralph.plugin.version"] == "1.2.3"
            assert call["attributes"]["ralph.answer"]

    @pytest.mark.parametrize(
        ("hook", "answer"),
        [
            ("ralph_choose_agent", "none"),
            ("ralph_prompt_sections", "2"),
            ("ralph_prepare_command", "Command"),
            ("ralph_classify_failure", "agent"),
        ],
    )
    def test_says_what_it_answered(self, whole_run, hook, answer):
        assert {span["attributes"]["ralph.answer"] for span in named(whole_run, f"{hook} all")} == {answer}

    def test_the_others_are_asked_in_the_same_call(self, whole_run):
        (first, *_) = named(whole_run, "ralph_choose_agent")
        below = [span["name"] for span in whole_run if span["parent_id"] == first["span_id"]]
        assert below == ["ralph_choose_agent all", "ralph_choose_agent builtin"]

    def test_of_a_policy(self, whole_run):
        calls = named(whole_run, "judge mine")
        assert {call["attributes"]["ralph.moment"] for call in calls} >= {"run", "iteration", "finished"}
        assert {call["attributes"]["ralph.verdict"] for call in calls} == {"allow"}
        assert {call["attributes"]["ralph.plugin.version"] for call in calls} == {"1.2.3"}
        moments = {span["span_id"]: span for span in named(whole_run, "judge")}
        for call in calls:
            assert moments[call["parent_id"]]["attributes"]["ralph.moment"] == call["attributes"]["ralph.moment"]

    def test_of_a_store(self, whole_run):
        saves, checkpoints = named(whole_run, "save"), named(whole_run, "checkpoint")
        assert len(saves) >= 4
        assert checkpoints
        for call in (*saves, *checkpoints):
            assert call["attributes"]["ralph.store"] == "mine"
            assert call["attributes"]["ralph.plugin"] == "all"

    def test_of_an_agent(self, whole_run):
        first, second = named(whole_run, "invoke_agent mine")
        assert first["attributes"]["process.exit.code"] == 7
        assert first["attributes"]["error.type"] == "agent"
        assert second["attributes"]["process.exit.code"] == 0
        assert second["attributes"]["ralph.plugin"] == "all"

    def test_of_a_sink_is_one_for_all_its_batches(self, whole_run):
        """A batch is often one record, and one record often one text: what came of them all is what tells."""
        (sink,) = named(whole_run, "sink mine")
        (file,) = named(whole_run, "sink file")
        assert sink["attributes"]["ralph.sink.written"] == file["attributes"]["ralph.sink.written"] > 10
        assert sink["attributes"]["ralph.sink.lost"] == 0

    def test_all_lies_within_the_run(self, whole_run):
        assert {
            ("ralph.run", None),
            ("ralph_agents", "ralph.run"),
            ("judge", "ralph.run"),
            ("ralph.iteration", "ralph.run"),
            ("gate", "ralph.run"),
            ("checkpoint", "ralph.run"),
            ("sink mine", "ralph.run"),
            ("ralph_choose_agent", "ralph.iteration"),
            ("invoke_agent mine", "ralph.iteration"),
            ("ralph_prompt_sections", "invoke_agent mine"),
            ("ralph_prepare_command", "invoke_agent mine"),
            ("ralph_classify_failure", "invoke_agent mine"),
        } <= tree(whole_run)
        assert [name for name, around in tree(whole_run) if around is None] == ["ralph.run"]

    def test_one_that_raises_is_marked(self, ralph):
        ralph.plugin("bad", "from ralph_core import hookimpl\n@hookimpl\ndef ralph_prompt_sections(state): raise ValueError('no such rule')\n")  # fmt: skip
        assert ralph.run(DONE).returncode == 1
        (call,) = named(ralph.spans(), "ralph_prompt_sections bad")
        assert (call["status"], call["message"]) == ("ERROR", "no such rule")
        assert call["attributes"]["error.type"] == "ValueError"
        (around,) = named(ralph.spans(), "ralph_prompt_sections")
        assert around["status"] == "ERROR"

    def test_one_that_answers_nonsense_is_marked(self, ralph):
        ralph.plugin("bad", "from ralph_core import hookimpl\n@hookimpl\ndef ralph_choose_agent(): return 'nobody'\n")
        assert ralph.run(DONE).returncode == 1
        (call,) = named(ralph.spans(), "ralph_choose_agent bad")
        assert call["attributes"]["ralph.answer"] == "nobody"
        assert "not one of" in call["message"]


class TestTheTree:
    def test_tools_gates_and_waits(self, ralph):
        ralph.settings("agents: {command: {output: events}}\ngates: ['exit 3']\nretry_delay: 0.01\n")
        call = """echo '{"type": "tool_call", "id": "2", "name": "Edit"}'; echo '{"type": "tool_result", "id": "2", "ok": false}'"""
        last = """echo '{"type": "finished", "text": "LOOP_COMPLETE"}'"""
        failed = """echo '{"type": "failed", "kind": "overloaded", "message": "later"}'"""
        ralph.run(ralph.agent(failed, f"{call}; {last}"), "--max-iterations", "1")
        spans = ralph.spans()
        assert {
            ("invoke_agent command", "ralph.iteration"),
            ("wait", "ralph.iteration"),
            ("execute_tool Edit", "invoke_agent command"),
            ("gate", "ralph.run"),
            ("checkpoint", "ralph.run"),
        } <= tree(spans)
        (tool,) = named(spans, "execute_tool Edit")
        assert (tool["status"], tool["attributes"]["error.type"]) == ("ERROR", "failed")
        (gate,) = named(spans, "gate")
        assert gate["attributes"] == {"ralph.gate": "exit 3", "ralph.passed": False, "process.exit.code": 3}
        (run,) = named(spans, "ralph.run")
        assert run["attributes"]["ralph.outcome"] == "stopped"

    def test_records_of_the_account_name_spans_that_are_there(self, ralph):
        ralph.run(ralph.agent("echo one", DONE))
        known = {span["span_id"] for span in ralph.spans()}
        traced = [record for record in ralph.records() if record["span_id"]]
        assert traced
        assert {record["span_id"] for record in traced} <= known

    def test_what_is_at_work_when_ralph_is_killed_stands_there_as_begun(self, ralph):
        ralph.settings("agents: {command: {output: events}}")
        agent = ralph.agent("""echo '{"type": "tool_call", "id": "2", "name": "Bash"}'; touch up; sleep 60""", """echo '{"type": "finished", "text": "LOOP_COMPLETE"}'""")  # fmt: skip
        process = ralph.begin(agent)
        ralph.until(
            lambda: any("execute_tool Bash" in path.read_text() for path in ralph.home.glob("runs/*/trace.jsonl"))
        )
        process.send_signal(signal.SIGKILL)
        ralph.end(process)
        begun, ended = ralph.spans("start"), {span["span_id"] for span in ralph.spans()}
        open_ = [span["name"] for span in begun if span["span_id"] not in ended]
        assert open_ == ["ralph.run", "ralph.iteration", "invoke_agent command", "execute_tool Bash"]

        assert ralph("resume").returncode == 0
        first, second = named(ralph.spans("start"), "ralph.run")
        assert [first["attributes"]["ralph.sitting"], second["attributes"]["ralph.sitting"]] == [1, 2]

    def test_no_span_for_what_an_agent_says(self, ralph):
        ralph.settings("agents: {command: {output: events}}")
        said = """for n in 1 2 3 4 5 6 7 8 9; do echo '{"type": "text", "text": "word"}'; done; echo '{"type": "finished", "text": "LOOP_COMPLETE"}'"""
        ralph.run(ralph.agent(said))
        few = ralph.spans()
        assert ralph.types().count("agent.text") == 9
        assert len(few) < 100
        assert not [span for span in few if "word" in json.dumps(span)]


class TestWhatIsKept:
    """Every span is in the run's folder, whatever is said of export; and no secret is in any."""

    @pytest.mark.parametrize(
        "env",
        [
            {"OTEL_SDK_DISABLED": "true"},
            {"OTEL_TRACES_SAMPLER": "always_off"},
            {"OTEL_TRACES_EXPORTER": "none"},
            {"TRACEPARENT": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"},
        ],
        ids=lambda env: next(iter(env)),
    )
    def test_all_of_it(self, ralph, env):
        assert ralph.run(DONE, env=env).returncode == 0
        assert {"ralph.run", "ralph.iteration", "invoke_agent command"} <= {span["name"] for span in ralph.spans()}

    def test_no_secret(self, ralph):
        secret = "sk-very-secret-0123456789"
        ralph.settings(f"agents: {{command: {{output: events}}}}\ngates: ['echo $ACME_API_KEY {secret}']\n")
        ralph.plugin("leaky", f"from ralph_core import hookimpl\n@hookimpl\ndef ralph_prepare_command(): raise ValueError('{secret}')\n")  # fmt: skip
        call = f"""echo '{{"type": "tool_call", "id": "{secret}", "name": "Edit {secret}"}}'; echo '{{"type": "tool_result", "id": "{secret}"}}'"""
        done = f"""{call}; echo '{{"type": "finished", "text": "LOOP_COMPLETE"}}'"""
        assert ralph.run(done, "--no-plugin", "leaky", env={"ACME_API_KEY": secret}).returncode == 0
        assert ralph.run(done, env={"ACME_API_KEY": secret}).returncode == 1
        kept = "".join((folder / "trace.jsonl").read_text() for folder in ralph.folders)
        assert "execute_tool Edit [redacted]" in kept
        assert '"message": "[redacted]"' in kept
        assert secret not in kept

    def test_a_line_that_was_cut_short_harms_nothing(self, ralph):
        agent = ralph.agent("sleep 60", DONE)
        process = ralph.begin(agent)
        ralph.until(lambda: agent.calls)
        process.kill()
        ralph.end(process)
        with (ralph.folder / "trace.jsonl").open("a") as stream:
            stream.write('{"phase": "end", "name": "cut sh')
        assert ralph("resume").returncode == 0
        lines = (ralph.folder / "trace.jsonl").read_text().splitlines()
        whole = [json.loads(line) for line in lines if line.endswith("}")]
        assert len(whole) == len(lines) - 1
        assert [line["phase"] for line in named(whole, "ralph.run")] == ["start", "start", "end"]
