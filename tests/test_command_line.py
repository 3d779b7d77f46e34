"""The command line: mistakes are one line each and cost nothing, and every name of a setting has its effect."""

import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ralph_core import __version__
from ralph_core.settings.model import Settings
from ralph_core.settings.sources import ENVIRONMENT

DONE = "cat > /dev/null; echo LOOP_COMPLETE"
GO_ON = "cat > /dev/null; echo more"
COMMANDS = ["run", "resume", "status", "plugins", "doctor", "init", "checkpoints"]


class TestMistakesInThePrompt:
    """A prompt that can't be used is said before anything is started."""

    def test_none(self, ralph):
        ralph.refuses(*ralph.flags(DONE, task=None), says=["no prompt", "PROMPT.md does not exist", "ralph init"])

    def test_a_file_that_is_not_there(self, ralph):
        ralph.refuses(
            *ralph.flags(DONE, "--prompt", "nope.md", task=None), says=["no prompt", "nope.md does not exist"]
        )

    @pytest.mark.parametrize("text", ["", "  \n\t "])
    def test_empty(self, ralph, text):
        ralph.refuses(*ralph.flags(DONE, task=text), says="the prompt is empty")
        ralph.write("PROMPT.md", text)
        ralph.refuses(*ralph.flags(DONE, task=None), says=["PROMPT.md", "is empty"])

    def test_not_utf_8(self, ralph):
        ralph.write("PROMPT.md", "Größe".encode("latin-1"))
        ralph.refuses(*ralph.flags(DONE, task=None), says=["PROMPT.md", "byte 2 is not UTF-8"])
        ralph.refuses(*ralph.flags(DONE, task="Größe".encode("latin-1").decode(errors="surrogateescape")), says="not UTF-8")  # fmt: skip

    def test_a_directory(self, ralph):
        ralph.refuses(*ralph.flags(DONE, "--prompt", ralph.workspace, task=None), says="Is a directory")

    def test_an_impossible_name(self, ralph):
        ralph.settings('prompt: "a\\0b"')
        ralph.refuses(*ralph.flags(DONE, task=None), says="ralph.yml, line 1: prompt: 'a\\x00b' is not valid")


class TestMistakesInTheAgent:
    """An agent that is not there is never replaced by another one."""

    def test_unknown(self, ralph):
        ralph.refuses(*ralph.flags(DONE), "-a", "comand", says=["unknown agent 'comand'", "did you mean 'command'?"])

    def test_unknown_beside_one_that_would_do(self, ralph):
        ralph.refuses(*ralph.flags(DONE), "-a", "command,comand", says="unknown agent 'comand'")

    def test_not_installed(self, ralph):
        ralph.plugin("acme", "from ralph_core import *\nclass A(Agent):\n  def probe(self): return Probe(missing=('the program acme on PATH',))\n  def run(self, request): ...\n@hookimpl\ndef ralph_agents(): return [Provider('acme', '', __name__ + ':A')]")  # fmt: skip
        ralph.refuses(*ralph.flags(DONE), "-a", "acme", says=["acme", "the program acme on PATH", "ralph doctor"])

    def test_without_a_command(self, ralph):
        ralph.refuses("run", "-a", "command", "-p", "x", says=["agent command", "--command 'CMD'"])

    def test_none_at_all(self, ralph):
        ralph.refuses("run", "-p", "x", env={"RALPH_PLUGINS": ""}, says=["agent command", "ralph doctor"])

    @pytest.mark.parametrize("agents", ["[]", "''", "','"])
    def test_an_empty_list(self, ralph, agents):
        ralph.settings(f"agent: {agents}")
        ralph.refuses("run", "--command", DONE, "-p", "x", says="ralph.yml, line 1: agent")


UNKNOWN = {
    "max_iteration: 3": ["line 1", "unknown setting 'max_iteration'", "did you mean 'max_iterations'?"],
    "verbose: true\n\nmax_iteration: 3": ["line 3", "unknown setting 'max_iteration'"],
    "plugins:\n  disabel: []": ["line 2", "'plugins.disabel'", "did you mean 'disable'?"],
    "process:\n  limits:\n    cpu_second: 3": ["line 3", "'process.limits.cpu_second'", "did you mean 'cpu_seconds'?"],
    "gates:\n- {comand: x}": ["line 1", "'gates.comand'", "did you mean 'command'?"],
    "agents:\n  command:\n    comand: x": ["line 3", "'agents.command.comand'", "did you mean 'command'?"],
    "sinks:\n  file:\n    max_file: 3": ["line 3", "'sinks.file.max_file'", "did you mean 'max_files'?"],
    "agents:\n  comand:\n    command: x": ["line 2", "unknown agent 'comand'", "did you mean 'command'?"],
    "stores: {gitt: {}}": ["line 1", "unknown store 'gitt'", "did you mean 'git'?"],
    "sinks: {files: {}}": ["line 1", "unknown sink 'files'", "did you mean 'file'?"],
    "policies: {iteration: false}": ["line 1", "unknown policy 'iteration'", "did you mean 'iterations'?"],
    "policies:\n  iterations: {x: 1}": ["line 2", "policy 'iterations' has no settings"],
    "audit_sinks: [fiel]": ["unknown sink 'fiel'", "did you mean 'file'?"],
    "checkpoint_store: gti": ["unknown store 'gti'", "did you mean 'git'?"],
    "production:\n  max_iteration: 3": ["line 2", "unknown setting 'max_iteration'"],
    "prodution:\n  max_iterations: 3": ["line 1", "unknown setting 'prodution'"],
    "5: x": ["unknown setting 5"],
}

INVALID = {
    "max_iterations: many": ["line 1", "max_iterations: 'many' is not valid", "it should be a valid integer"],
    "max_iterations: 0": ["line 1", "max_iterations: 0", "greater than or equal to 1"],
    "max_iterations: 1.5": ["line 1", "max_iterations: 1.5"],
    "verbose: true\nmax_runtime: -1": ["line 2", "max_runtime: -1", "greater than 0"],
    "max_runtime: .inf": ["line 1", "max_runtime: inf"],
    "retry_delay: .nan": ["line 1", "retry_delay: nan"],
    "max_failures: [1]": ["line 1", "max_failures: [1]"],
    "git_enabled: perhaps": ["line 1", "git_enabled: 'perhaps'", "a valid boolean"],
    "completion_promise: ''": ["line 1", "completion_promise: ''"],
    'completion_promise: "a\\nb"': ["line 1", "completion_promise"],
    "workspace: 5": ["line 1", "workspace: 5", "a valid string"],
    'home: "a\\0b"': ["line 1", "home"],
    "agents: 5": ["line 1", "agents"],
    "agents: {command: 5}": ["line 1", "agents.command"],
    "sinks:\n  file:\n    max_files: 0": ["line 3", "sinks.file.max_files: 0", "greater than or equal to 1"],
    "policies:\n  iterations: true": ["line 2", "policies.iterations: True is not valid"],
    "process:\n  limits: 5": ["line 2", "process.limits: 5"],
    "max_iterations: 5\nproduction:\n  max_iterations: many": ["line 3", "max_iterations: 'many'"],
    "max_iterations: 5\nprofiles:\n  fast:\n    max_iterations: many": ["line 4", "max_iterations: 'many'"],
    "gates:\n- {timeout: 5}": ["line 1", "gates.command is missing"],
    "gates:\n- {command: x, timeout: 0}": ["line 1", "gates.timeout: 0 is not valid"],
    "gates:\n- {command: x, must_match: '['}": ["line 1", "gates.must_match: '[' is not valid"],
    "production: 5": ["the profile 'production' has to be a table"],
    "profiles: 5": ["profiles has to be a table"],
    "- max_iterations": ["has to hold a table of settings, not a list"],
    "hello": ["has to hold a table of settings, not a str"],
}

MALFORMED = {
    ("ralph.yml", "agent: [\n"): "line 2, column 1",
    ("ralph.yml", "agent: command\n  x: y\n"): "line 2, column 4",
    ("ralph.yml", "\tagent: command\n"): "line 1, column 1",
    ("ralph.yml", "agent: a\n---\nagent: b\n"): "line 2, column 1",
    ("ralph.yml", "? [a]\n: b\n"): "line 1, column 3",
    ("ralph.yml", "prompt: 2024-13-45\n"): "month must be in 1..12",
    ("ralph.yml", "a: &a {b: *a}\n"): "nested too deeply, or within itself",
    ("ralph.yml", b"agent: \xff\n"): "byte 7 is not UTF-8",
    ("ralph.yml", "agent: \x00\n"): "not valid YAML",
    ("ralph.json", '{"agent": "command",\n "x" 5}'): "line 2, column 6",
    ("ralph.toml", 'agent = "command"\nx 5\n'): "line 2, column 3",
}


class TestMistakesInTheSettings:
    """What is wrong in a settings file is said with its place, whoever reads the setting."""

    @pytest.mark.parametrize("text", UNKNOWN)
    def test_an_unknown_name(self, ralph, text):
        ralph.settings(text)
        ralph.refuses(*ralph.flags(DONE), says=UNKNOWN[text])

    @pytest.mark.parametrize("text", INVALID)
    def test_a_value_of_the_wrong_kind_or_out_of_range(self, ralph, text):
        ralph.settings(text)
        ralph.refuses(*ralph.flags(DONE), says=INVALID[text])

    @pytest.mark.parametrize(("name", "text"), MALFORMED)
    def test_a_malformed_file(self, ralph, name, text):
        ralph.write(name, text)
        ralph.refuses(*ralph.flags(DONE), says=[name, MALFORMED[name, text]])
        ralph.refuses("plugins", says=[name, MALFORMED[name, text]])

    @pytest.mark.parametrize("name", ["ralph.json", "ralph.toml", "ralph.yaml"])
    def test_an_unknown_name_in_any_format(self, ralph, name):
        ralph.write(name, {"ralph.json": '{"max_iteration": 3}', "ralph.toml": "max_iteration = 3", "ralph.yaml": "max_iteration: 3"}[name])  # fmt: skip
        ralph.refuses(*ralph.flags(DONE), says=[name, "did you mean 'max_iterations'?"])

    def test_a_file_that_is_not_there(self, ralph):
        ralph.refuses(
            *ralph.flags(DONE),
            "-c",
            "nope.yml",
            says=[f"settings file {ralph.workspace}/nope.yml does not exist", "--config"],
        )

    def test_a_directory_for_a_file(self, ralph):
        ralph.refuses(*ralph.flags(DONE), "-c", ".", says=f"settings file {ralph.workspace} ")

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("RALPH_MAX_ITERATIONS", "many"),
            ("RALPH_MAX_ITERATIONS", "0"),
            ("RALPH_MAX_RUNTIME", "-1"),
            ("RALPH_VERBOSE", "perhaps"),
            ("RALPH_RETRY_DELAY", "inf"),
            ("AUDIT_MAX_FILES", "0"),
            ("AUDIT_MAX_FILE_SIZE", "big"),
            ("AUDIT_BATCH_SIZE", "1.5"),
        ],
    )
    def test_a_variable(self, ralph, name, value):
        says = [f"environment variable {name}: {ENVIRONMENT[name]}", repr(value)]
        ralph.refuses(*ralph.flags(DONE), env={name: value}, says=says)

    def test_a_variable_that_names_no_agent_or_sink(self, ralph):
        ralph.refuses("run", "-p", "x", env={"RALPH_AGENT": "comand"}, says="did you mean 'command'?")
        ralph.refuses(*ralph.flags(DONE), env={"AUDIT_STORAGE_TYPE": "flie"}, says="did you mean 'file'?")

    @pytest.mark.parametrize(
        ("flag", "value"),
        [
            ("--max-iterations", "many"),
            ("--max-iterations", "0"),
            ("-i", "-1"),
            ("--max-runtime", "nan"),
            ("--max-runtime", "inf"),
            ("--checkpoint-interval", "0"),
            ("--retry-delay", "-1"),
            ("--completion-promise", ""),
            ("--completion-promise", "a\nb"),
            ("--workspace", ""),
        ],
    )
    def test_a_flag(self, ralph, flag, value):
        ralph.refuses(*ralph.flags(DONE), flag, value, says="--max-iterations" if flag == "-i" else flag)


class TestMistakesInThePlace:
    """The workspace has to be there, to be writable, and to be free."""

    def test_missing(self, ralph):
        ralph.refuses(*ralph.flags(DONE), "-w", "nope", says=["nope does not exist", "--workspace"])

    def test_a_file(self, ralph):
        ralph.refuses(*ralph.flags(DONE), "-w", "README", says="README is not a directory")

    @pytest.mark.parametrize("readonly", ["the workspace", "the state directory"])
    def test_read_only(self, ralph, readonly):
        place = ralph.workspace if readonly == "the workspace" else ralph.home
        place.mkdir(exist_ok=True)
        place.chmod(0o555)
        try:
            probe = subprocess.run(
                ["touch", str(place / "probe")], preexec_fn=ralph.without_privilege, capture_output=True
            )
            if probe.returncode == 0:
                pytest.skip("this user may write everywhere, and that can't be taken away here")
            says = f"{place} is read-only"
            ralph.refuses(*ralph.flags(DONE), says=says, preexec_fn=ralph.without_privilege)
            for flag in ("--help", "--version"):
                done = ralph(flag, preexec_fn=ralph.without_privilege)
                assert (done.returncode, done.stderr) == (0, "")
        finally:
            place.chmod(0o755)

    @pytest.mark.parametrize("command", ["run", "resume", "status", "doctor"])
    def test_help_in_a_read_only_directory(self, ralph, command):
        ralph.workspace.chmod(0o555)
        try:
            assert ralph(command, "--help", preexec_fn=ralph.without_privilege).returncode == 0
        finally:
            ralph.workspace.chmod(0o755)

    def test_a_state_directory_that_is_a_file(self, ralph):
        ralph.refuses(
            *ralph.flags(DONE), env={"RALPH_HOME": "README"}, says=["README is not a directory", "RALPH_HOME"]
        )

    @pytest.mark.parametrize("home", [".", ".."])
    def test_a_state_directory_around_the_workspace(self, ralph, home):
        message = ralph.refuses(
            *ralph.flags(DONE), env={"RALPH_HOME": home}, says=["the workspace is in it", "RALPH_HOME"]
        )
        assert "plugin" not in message

    def test_a_second_run_in_the_same_workspace(self, ralph):
        agent = ralph.agent("sleep 30")
        first = ralph.begin(agent)
        ralph.until(lambda: agent.calls)
        run = ralph.folder.name
        for command in (ralph.flags(DONE), ["resume"]):
            done = ralph(*command)
            assert done.returncode == 2
            assert done.stderr.count("\n") == 1
            assert f"run {run} (pid {first.pid}) holds the workspace" in done.stderr
        done = ralph.run(DONE, env={"RALPH_HOME": str(ralph.root / "elsewhere")})
        assert done.returncode == 2
        assert f"holds the workspace {ralph.workspace}" in done.stderr
        assert first.poll() is None
        first.send_signal(signal.SIGTERM)
        ralph.end(first)
        assert ralph.run(DONE).returncode == 0

    def test_two_workspaces_at_once(self, ralph):
        agent = ralph.agent("sleep 30")
        first = ralph.begin(agent)
        ralph.until(lambda: agent.calls)
        (ralph.workspace / "other").mkdir()
        assert ralph.run(DONE, "-w", "other").returncode == 0
        assert first.poll() is None


class TestMistakesInTheCommand:
    """Commands, options and ids that do not exist."""

    @pytest.mark.parametrize("command", ["resume", "status"])
    @pytest.mark.parametrize("run", ["../evil", "/etc", "..", "", "20250101-000000-aaaaaa", "nonsense"])
    def test_an_unknown_run(self, ralph, command, run):
        assert ralph.run(DONE).returncode == 0
        ralph.refuses(command, run, says=repr(run))

    @pytest.mark.parametrize("command", ["resume", "status"])
    def test_no_run_yet(self, ralph, command):
        ralph.refuses(command, says=["there is no run in", "ralph run"])

    def test_an_unknown_command(self, ralph):
        ralph.refuses("resum", says=["No such command 'resum'", "Did you mean 'resume'?"])

    @pytest.mark.parametrize(
        ("arguments", "meant"),
        [
            (["run", "--max-iteration", "3"], "--max-iterations"),
            (["--agnet", "command"], "--agent"),
            (["status", "--jsn"], "--json"),
        ],
    )
    def test_an_unknown_flag(self, ralph, arguments, meant):
        ralph.refuses(*arguments, says=["No such option", meant])

    def test_a_flag_without_its_value(self, ralph):
        ralph.refuses("run", "-i", says="-i")

    def test_one_argument_too_many(self, ralph):
        ralph.refuses(*ralph.flags(DONE), "extra", says="extra")


class TestCommands:
    """What each command does when all is well."""

    @pytest.mark.parametrize("flag", ["--version", "-V"])
    def test_version(self, ralph, flag):
        done = ralph(flag)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"ralph {__version__}\n", "")

    @pytest.mark.parametrize("command", [[], *[[name] for name in COMMANDS], ["checkpoints", "restore"]])
    @pytest.mark.parametrize("flag", ["--help", "-h"])
    def test_help(self, ralph, command, flag):
        before = ralph.tree()
        done = ralph(*command, flag)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(f"Usage: {' '.join(['ralph', *command])} ")
        assert ralph.tree() == before

    def test_the_help_lists_every_command(self, ralph):
        words = ralph("--help").stdout.split()
        assert set(COMMANDS) <= set(words)

    def test_without_any_argument_the_help_is_shown(self, ralph):
        done = ralph()
        assert done.returncode == 2
        assert done.stderr.startswith("Usage: ralph ")
        assert len(done.stderr.splitlines()) > 10

    def test_the_installed_program_is_the_same(self, ralph):
        program = os.path.join(os.path.dirname(sys.executable), "ralph")
        if not os.path.exists(program):
            pytest.skip("ralph is not installed as a program beside this Python")
        done = subprocess.run([program, "--version"], env=ralph.env, capture_output=True, text=True, timeout=30)
        assert done.stdout == f"ralph {__version__}\n"

    def test_options_without_a_command_mean_run(self, ralph):
        done = ralph("-a", "command", "--command", DONE, "-p", "x")
        assert done.returncode == 0, done.stderr
        assert ralph.state()["outcome"]["kind"] == "completed"

    def test_it_runs_with_standard_streams_closed(self, ralph):
        flags = " ".join(f"'{flag}'" for flag in ralph.flags(DONE))
        shell = f"exec {sys.executable} -m ralph_core {flags} <&- >&- 2>&-"
        done = subprocess.run(["sh", "-c", shell], cwd=ralph.workspace, env=ralph.env, timeout=60)
        assert done.returncode == 0
        assert ralph.state()["outcome"]["kind"] == "completed"

    @pytest.mark.parametrize("stream", ["stdout", "stderr"])
    def test_nobody_need_read_what_it_prints(self, ralph, stream):
        agent = ralph.agent("sleep 0.3; echo more", "echo more", "echo LOOP_COMPLETE")
        process = ralph.begin(agent, "-v")
        getattr(process, stream).close()
        assert process.wait(timeout=30) == 0
        assert agent.calls == 3
        other = process.stderr if stream == "stdout" else process.stdout
        words = other.read()
        assert "Error" not in words
        assert ("─── iteration 3" if stream == "stdout" else "✓ completed") in words

    def test_a_dry_run_writes_nothing_and_says_what_would_be_done(self, ralph):
        agent = ralph.agent("echo LOOP_COMPLETE")
        before = ralph.tree()
        done = ralph.run(agent, "--dry-run", "-i", "7")
        assert (done.returncode, done.stderr) == (0, "")
        assert "iterations 7" in done.stdout
        assert str(ralph.workspace) in done.stdout
        assert ralph.tree() == before
        assert ralph.git("for-each-ref", "refs/ralph") == ""
        assert agent.calls == 0

    def test_a_dry_run_finds_what_a_run_would_find(self, ralph):
        ralph.refuses(*ralph.flags(DONE, "--dry-run", "-a", "comand"), says="did you mean 'command'?")
        ralph.refuses(*ralph.flags(DONE, "--dry-run", task=None), says="no prompt")
        ralph.settings("audit_sinks: [flie]")
        ralph.refuses(*ralph.flags(DONE, "--dry-run"), says="did you mean 'file'?")

    def test_init_and_then_run(self, ralph):
        done = ralph("init")
        assert done.returncode == 0
        assert {"PROMPT.md", "ralph.yml"} <= {path.name for path in ralph.workspace.iterdir()}
        agent = ralph.agent("echo working", "echo LOOP_COMPLETE")
        assert ralph.run(agent, task=None).returncode == 0
        assert agent.calls == 2
        assert (ralph.workspace / "PROMPT.md").read_bytes() in agent.prompt()

    def test_init_keeps_what_is_there_unless_forced(self, ralph):
        ralph.write("PROMPT.md", "mine")
        assert "kept" in ralph("init").stdout
        assert (ralph.workspace / "PROMPT.md").read_text() == "mine"
        assert ralph("init", "--force").returncode == 0
        assert (ralph.workspace / "PROMPT.md").read_text() != "mine"

    def test_init_in_a_directory_that_is_not_there(self, ralph):
        ralph.refuses("init", "-w", "nope", says="nope is not a directory")

    def test_status(self, ralph):
        ralph.run(GO_ON, "-i", "2")
        before = ralph.tree()
        done = ralph("status")
        assert (done.returncode, done.stderr) == (0, "")
        for words in (
            ralph.folder.name,
            "stopped: 2 of 2 iterations are used up",
            "2 of 2",
            "cost unknown",
            "ralph resume",
        ):
            assert words in done.stdout
        shown = json.loads(ralph("status", ralph.folder.name, "--json").stdout)
        assert (shown["run"], shown["finished"], shown["condition"]) == (ralph.folder.name, 2, "stopped")
        assert shown["spend"]["cost"] is None
        assert json.loads(ralph("status", ralph.folder.name[:17], "--json").stdout) == shown
        assert ralph.tree() == before

    def test_status_while_it_runs(self, ralph):
        agent = ralph.agent("sleep 30")
        ralph.begin(agent)
        ralph.until(lambda: agent.calls)
        shown = json.loads(ralph("status", "--json").stdout)
        assert (shown["condition"], shown["iteration"], shown["finished"]) == ("running", 1, 0)

    def test_status_of_a_run_that_was_killed(self, ralph):
        agent = ralph.agent("sleep 30")
        process = ralph.begin(agent)
        ralph.until(lambda: agent.calls)
        process.kill()
        process.wait()
        assert json.loads(ralph("status", "--json").stdout)["condition"] == "cut short"

    def test_doctor(self, ralph):
        ralph.settings("agents: {command: {command: 'true'}}")
        before = ralph.tree()
        done = ralph("doctor", env={"RALPH_PLUGINS": ""})
        assert done.returncode == 0
        assert "✓ command: " in done.stdout
        assert "`--agent auto` would use: command" in done.stdout
        shown = json.loads(ralph("doctor", "--json", env={"RALPH_PLUGINS": ""}).stdout)
        assert shown["auto"] == "command"
        assert shown["agents"]["command"]["usable"] is True
        assert ralph.tree() == before

    def test_doctor_when_no_agent_can_be_used(self, ralph):
        done = ralph("doctor", env={"RALPH_PLUGINS": ""})
        assert done.returncode == 1
        assert "missing: a command" in done.stdout
        assert json.loads(ralph("doctor", "--json", env={"RALPH_PLUGINS": ""}).stdout)["auto"] is None

    def test_doctor_for_an_agent_that_is_none(self, ralph):
        ralph.refuses("doctor", "-a", "comand", says="did you mean 'command'?")

    def test_a_completed_run_is_not_run_again(self, ralph):
        agent = ralph.agent("echo LOOP_COMPLETE")
        ralph.run(agent)
        done = ralph("resume")
        assert done.returncode == 0
        assert "it was complete already" in done.stdout
        assert agent.calls == 1

    def test_resume_goes_on_as_the_run_was_started_and_from_anywhere(self, ralph):
        (ralph.workspace / "sub").mkdir()
        ralph.plugin("acme", "raise RuntimeError('no')")
        agent = ralph.agent("pwd > where; echo more", "pwd > again; echo ALL DONE")
        flags = ["-w", "sub", "-i", "1", "--completion-promise", "ALL DONE", "--no-git", "--no-plugin", "acme"]
        assert ralph.run(agent, *flags).returncode == 3
        done = ralph("resume", "-i", "3", cwd=ralph.workspace / "sub")
        assert done.returncode == 0, done.stderr
        assert (ralph.workspace / "sub" / "again").read_text() == f"{ralph.workspace / 'sub'}\n"
        assert ralph.snapshots() == []
        records = (ralph.workspace / "sub" / ".agent" / "audit" / "audit.jsonl").read_text().splitlines()
        chosen = [row for record in map(json.loads, records) if record["type"] == "plugins" for row in record["data"]["plugins"] if row["name"] == "acme"]  # fmt: skip
        assert [row["status"] for row in chosen] == ["disabled", "disabled"]


# --- settings ---------------------------------------------------------------------------------------------------------

FLAGS = {
    "agent": "--agent",
    "prompt": "--prompt",
    "completion_promise": "--completion-promise",
    "max_iterations": "--max-iterations",
    "max_runtime": "--max-runtime",
    "retry_delay": "--retry-delay",
    "checkpoint_interval": "--checkpoint-interval",
    "workspace": "--workspace",
    "verbose": "--verbose",
    "dry_run": "--dry-run",
    "git_enabled": "--no-git",
    "archive_enabled": "--no-archive",
}
SWITCHES = ("--verbose", "--dry-run", "--no-git", "--no-archive")
TESTED = set()


def ways(name):
    """Run the test once for each way in which the setting can be made: the file, its variable, its flag."""
    variables = [variable for variable, key in ENVIRONMENT.items() if key == name]
    TESTED.update({name.split(".")[0], *variables})
    return pytest.mark.parametrize("way", ["file", *variables, *([FLAGS[name]] if name in FLAGS else [])])


def made(ralph, way, name, value):
    """Make the setting in that way: the flags and the options to run with."""
    if way == "file":
        for part in reversed(name.split(".")):
            value = {part: value}
        ralph.write("ralph.json", json.dumps(value))
        return [], {}
    if way.startswith("--"):
        return [way] if way in SWITCHES else [way, value], {}
    return [], {"env": {way: json.dumps(value) if isinstance(value, bool) else str(value)}}


OTHER_AGENT = "from ralph_core import *\nclass A(Agent):\n  def probe(self): return Probe()\n  async def run(self, request): yield Finished('LOOP_COMPLETE')\n@hookimpl\ndef ralph_agents(): return [Provider('another', '', __name__ + ':A')]"
COUNTING_SINK = "from ralph_core import *\nclass S(AuditSink):\n  def note(self, what):\n    with (self.context.home / 'counts').open('a') as file: file.write(what + '\\n')\n  def write(self, batch): self.note(f'write {len(batch)}')\n  def flush(self): self.note('flush')\n@hookimpl\ndef ralph_audit_sinks(): return [Provider('counts', '', __name__ + ':S')]"
NETWORK = """echo '{"type": "failed", "kind": "network", "message": "no route"}'"""


USED = {"type": "usage", "message_id": "m", "tokens": {"input": 60, "output": 5}, "cost": 0.3}
WINDOW = {
    "type": "usage_window",
    "status": "allowed",
    "window": "five_hour",
    "utilization": 0.9,
    "resets_at": 9999999999,
}
FINISHED = {"type": "finished", "text": "more"}


def saying(*events):
    """A step of an agent that reports these events."""
    return "\n".join(f"echo '{json.dumps(event)}'" for event in events)


def reporting(ralph):
    """Let the command agent report events, whatever else the settings file says."""
    path = ralph.workspace / "ralph.json"
    settings = json.loads(path.read_text()) if path.exists() else {}
    ralph.write("ralph.json", json.dumps({**settings, "agents": {"command": {"output": "events"}}}))


class TestSettings:
    """Every setting, and every name by which it can be made, has its effect."""

    @ways("agent")
    def test_agent(self, ralph, way):
        ralph.plugin("another", OTHER_AGENT)
        agent = ralph.agent("echo LOOP_COMPLETE")
        flags, options = made(ralph, way, "agent", "command,another")
        assert ralph("run", "--command", agent.command, "-p", "x", *flags, **options).returncode == 0
        assert ralph.state()["agent"] == "command"
        assert agent.calls == 1

    @ways("prompt")
    def test_prompt(self, ralph, way):
        ralph.write("other.md", "Something else.")
        ralph.write("PROMPT.md", "The usual.")
        agent = ralph.agent("echo LOOP_COMPLETE")
        flags, options = made(ralph, way, "prompt", "other.md")
        assert ralph.run(agent, *flags, task=None, **options).returncode == 0
        assert b"Something else." in agent.prompt()
        assert b"The usual." not in agent.prompt()

    @ways("completion_promise")
    def test_completion_promise(self, ralph, way):
        agent = ralph.agent("echo LOOP_COMPLETE", "echo ALL DONE")
        flags, options = made(ralph, way, "completion_promise", "ALL DONE")
        assert ralph.run(agent, *flags, **options).returncode == 0
        assert agent.calls == 2
        assert b"exactly ALL DONE\n" in agent.prompt()

    @ways("max_iterations")
    def test_max_iterations(self, ralph, way):
        flags, options = made(ralph, way, "max_iterations", 2)
        agent = ralph.agent(":")
        assert ralph.run(agent, *flags, **options).returncode == 3
        assert agent.calls == 2

    @ways("max_runtime")
    def test_max_runtime(self, ralph, way):
        flags, options = made(ralph, way, "max_runtime", 0.5)
        assert ralph.run("sleep 30", *flags, **options, limit=15).returncode == 3

    @ways("max_tokens")
    def test_max_tokens(self, ralph, way):
        flags, options = made(ralph, way, "max_tokens", 100)
        reporting(ralph)
        agent = ralph.agent(saying(USED, FINISHED))
        done = ralph.run(agent, *flags, **options)
        assert done.returncode == 3
        assert "130 of 100 tokens are used up (by tokens)" in done.stdout
        assert agent.calls == 2

    @ways("max_cost")
    def test_max_cost(self, ralph, way):
        flags, options = made(ralph, way, "max_cost", 0.5)
        reporting(ralph)
        agent = ralph.agent(saying(USED, FINISHED))
        done = ralph.run(agent, *flags, **options)
        assert done.returncode == 3
        assert "$0.6000 of $0.5 are used up (by cost)" in done.stdout
        assert agent.calls == 2

    @ways("max_iterations_per_hour")
    def test_max_iterations_per_hour(self, ralph, way):
        flags, options = made(ralph, way, "max_iterations_per_hour", 2)
        agent = ralph.agent("echo more")
        assert ralph.run(agent, "--max-runtime", "3", *flags, **options).returncode == 3
        assert agent.calls == 2
        assert "2 iterations an hour are used up" in [record["message"] for record in ralph.records()]

    @ways("max_no_progress")
    def test_max_no_progress(self, ralph, way):
        flags, options = made(ralph, way, "max_no_progress", 2)
        agent = ralph.agent("echo still thinking")
        done = ralph.run(agent, *flags, **options)
        assert done.returncode == 3
        assert "(by no_progress)" in done.stdout
        assert agent.calls <= 4

    @ways("usage_window_stop")
    def test_usage_window_stop(self, ralph, way):
        flags, options = made(ralph, way, "usage_window_stop", 0.8)
        reporting(ralph)
        agent = ralph.agent(saying(WINDOW, FINISHED))
        assert ralph.run(agent, "--max-runtime", "2", *flags, **options).returncode == 3
        assert agent.calls == 1

    @ways("usage_window_action")
    def test_usage_window_action(self, ralph, way):
        flags, options = made(ralph, way, "usage_window_action", "stop")
        reporting(ralph)
        agent = ralph.agent(saying({**WINDOW, "status": "rejected"}, FINISHED))
        done = ralph.run(agent, *flags, **options)
        assert done.returncode == 3
        assert "(by usage_window)" in done.stdout

    @ways("budget.unmetered")
    def test_budget_unmetered(self, ralph, way):
        flags, options = made(ralph, way, "budget.unmetered", "refuse")
        ralph.refuses(*ralph.flags(DONE), *flags, **options, says=["max_tokens can't be enforced", "budget.unmetered"])

    @ways("max_failures")
    def test_max_failures(self, ralph, way):
        flags, options = made(ralph, way, "max_failures", 2)
        agent = ralph.agent("exit 1")
        assert ralph.run(agent, *flags, **options).returncode == 1
        assert agent.calls == 2

    @ways("timeout_per_iteration")
    def test_timeout_per_iteration(self, ralph, way):
        flags, options = made(ralph, way, "timeout_per_iteration", 0.5)
        done = ralph.run("sleep 30", "-i", "1", *flags, **options, limit=20)
        assert "silent for 0.5 s (timeout_per_iteration)" in done.stderr

    @ways("timeout_hard")
    def test_timeout_hard(self, ralph, way):
        flags, options = made(ralph, way, "timeout_hard", 0.5)
        done = ralph.run("while sleep 0.1; do echo busy; done", "-i", "1", *flags, **options, limit=20)
        assert "still working after 0.5 s (timeout_hard)" in done.stderr

    @ways("retry_delay")
    def test_retry_delay(self, ralph, way):
        ralph.plugin("network", "from ralph_core import *\n@hookimpl\ndef ralph_classify_failure(failure): return FailureKind.NETWORK")  # fmt: skip
        flags, options = made(ralph, way, "retry_delay", 0.4)
        assert ralph.run(ralph.agent("exit 1", "echo LOOP_COMPLETE"), *flags, **options).returncode == 0
        (wait,) = [record for record in ralph.records() if record["type"] == "wait.started"]
        assert 0.3 <= wait["data"]["seconds"] <= 0.5

    @ways("retry_max")
    def test_retry_max(self, ralph, way):
        ralph.plugin("network", "from ralph_core import *\n@hookimpl\ndef ralph_classify_failure(failure): return FailureKind.NETWORK")  # fmt: skip
        flags, options = made(ralph, way, "retry_max", 2)
        agent = ralph.agent("exit 1")
        assert ralph.run(agent, "--retry-delay", "0", *flags, **options).returncode == 1
        assert agent.calls == 3

    @ways("workspace")
    def test_workspace(self, ralph, way):
        (ralph.workspace / "sub").mkdir()
        flags, options = made(ralph, way, "workspace", "sub")
        assert ralph.run("cat > /dev/null; pwd > here; echo LOOP_COMPLETE", *flags, **options).returncode == 0
        assert (ralph.workspace / "sub" / "here").read_text() == f"{ralph.workspace / 'sub'}\n"
        assert not ralph.home.exists()

    @ways("home")
    def test_home(self, ralph, way):
        flags, options = made(ralph, way, "home", "state/of/ralph")
        assert ralph.run(DONE, *flags, **options).returncode == 0
        assert len(list((ralph.workspace / "state/of/ralph/runs").glob("*/state.json"))) == 1
        assert not ralph.home.exists()

    @ways("checkpoint_store")
    def test_checkpoint_store(self, ralph, way):
        flags, options = made(ralph, way, "checkpoint_store", "local")
        assert ralph.run(DONE, *flags, **options).returncode == 0
        assert ralph.snapshots() == []
        assert (ralph.folder / "state.json").exists()

    @ways("checkpoint_interval")
    def test_checkpoint_interval(self, ralph, way):
        flags, options = made(ralph, way, "checkpoint_interval", 2)
        ralph.run("cat > /dev/null; date +%N >> log", "-i", "4", *flags, **options)
        assert len(ralph.snapshots()) == 3  # at the beginning, and after the iterations 2 and 4

    @ways("git_enabled")
    def test_git_enabled(self, ralph, way):
        flags, options = made(ralph, way, "git_enabled", False)
        assert ralph.run(DONE, *flags, **options).returncode == 0
        assert ralph.snapshots() == []

    @ways("archive_enabled")
    def test_archive_enabled(self, ralph, way):
        flags, options = made(ralph, way, "archive_enabled", False)
        assert ralph.run(DONE, *flags, **options).returncode == 0
        assert not (ralph.home / "prompts").exists()

    @ways("audit_sinks")
    def test_audit_sinks(self, ralph, way):
        ralph.plugin("counts", COUNTING_SINK)
        flags, options = made(ralph, way, "audit_sinks", "memory,counts")
        assert ralph.run(DONE, *flags, **options).returncode == 0
        assert not (ralph.home / "audit").exists()
        assert "write" in (ralph.home / "counts").read_text()

    @ways("audit_batch_size")
    def test_audit_batch_size(self, ralph, way):
        ralph.plugin("counts", COUNTING_SINK)
        flags, options = made(ralph, way, "audit_batch_size", 1)
        options["env"] = {"AUDIT_STORAGE_TYPE": "counts", **options.get("env", {})}
        assert ralph.run("cat > /dev/null; seq 50; echo LOOP_COMPLETE", *flags, **options).returncode == 0
        assert {line for line in (ralph.home / "counts").read_text().splitlines() if line != "flush"} == {"write 1"}

    @ways("audit_flush_interval")
    def test_audit_flush_interval(self, ralph, way):
        ralph.plugin("counts", COUNTING_SINK)
        flags, options = made(ralph, way, "audit_flush_interval", 0.1)
        options["env"] = {"AUDIT_STORAGE_TYPE": "counts", **options.get("env", {})}
        assert ralph.run("cat > /dev/null; sleep 1; echo LOOP_COMPLETE", *flags, **options).returncode == 0
        assert (ralph.home / "counts").read_text().splitlines().count("flush") >= 5

    @ways("sinks.file.directory")
    def test_sinks_file_directory(self, ralph, way):
        flags, options = made(ralph, way, "sinks.file.directory", "the/account")
        assert ralph.run(DONE, *flags, **options).returncode == 0
        assert (ralph.workspace / "the" / "account" / "audit.jsonl").exists()

    @ways("sinks.file.max_file_size")
    def test_sinks_file_max_file_size(self, ralph, way):
        flags, options = made(ralph, way, "sinks.file.max_file_size", 1024)
        options["env"] = {"AUDIT_BATCH_SIZE": "1", **options.get("env", {})}
        assert ralph.run(DONE, *flags, **options).returncode == 0
        assert len(list((ralph.home / "audit").iterdir())) > 3

    @ways("sinks.file.max_files")
    def test_sinks_file_max_files(self, ralph, way):
        flags, options = made(ralph, way, "sinks.file.max_files", 2)
        options["env"] = {"AUDIT_BATCH_SIZE": "1", "AUDIT_MAX_FILE_SIZE": "1024", **options.get("env", {})}
        assert ralph.run(DONE, *flags, **options).returncode == 0
        assert {path.name for path in (ralph.home / "audit").glob("*.jsonl")} == {"audit.jsonl", "audit.1.jsonl"}

    @ways("dry_run")
    def test_dry_run(self, ralph, way):
        flags, options = made(ralph, way, "dry_run", True)
        agent = ralph.agent("echo LOOP_COMPLETE")
        done = ralph.run(agent, *flags, **options)
        assert done.returncode == 0
        assert done.stdout.startswith("Dry run")
        assert agent.calls == 0
        assert not ralph.home.exists()

    @ways("verbose")
    def test_verbose(self, ralph, way):
        flags, options = made(ralph, way, "verbose", True)
        words = "cat > /dev/null; echo thinking aloud; echo and on; echo LOOP_COMPLETE"
        assert "and on" in ralph.run(words, *flags, **options).stderr
        (ralph.workspace / "ralph.json").unlink(missing_ok=True)
        assert "and on" not in ralph.run(words).stderr

    @ways("gates")
    def test_gates(self, ralph, way):
        flags, options = made(ralph, way, "gates", ["test -e proof"])
        agent = ralph.agent("echo LOOP_COMPLETE", "touch proof; echo LOOP_COMPLETE")
        assert ralph.run(agent, *flags, **options).returncode == 0
        assert agent.calls == 2

    @ways("completion.confirmations")
    def test_completion_confirmations(self, ralph, way):
        flags, options = made(ralph, way, "completion.confirmations", 2)
        agent = ralph.agent("echo LOOP_COMPLETE")
        assert ralph.run(agent, *flags, **options).returncode == 0
        assert agent.calls == 2

    @ways("process.limits")
    def test_process_limits(self, ralph, way):
        flags, options = made(ralph, way, "process.limits", {"file_bytes": 4096})
        script = "cat > /dev/null; head -c 100000 /dev/zero > big; wc -c < big; echo LOOP_COMPLETE"
        ralph.run(script, "-i", "1", *flags, **options)
        assert (ralph.workspace / "big").stat().st_size == 4096

    @ways("plugins.disable")
    def test_plugins_disable(self, ralph, way):
        ralph.plugin("another", OTHER_AGENT)
        flags, options = made(ralph, way, "plugins.disable", ["another"])
        ralph.refuses("run", "-a", "another", "-p", "x", *flags, **options, says="unknown agent 'another'")

    @ways("plugins.require")
    def test_plugins_require(self, ralph, way):
        ralph.plugin("another", "raise SystemExit")
        flags, options = made(ralph, way, "plugins.require", ["another"])
        ralph.refuses(*ralph.flags(DONE), *flags, **options, says="'another'")

    @ways("agents.command.command")
    def test_agents_command_command(self, ralph, way):
        flags, options = made(ralph, way, "agents.command.command", DONE)
        assert ralph("run", "-a", "command", "-p", "x", *flags, **options).returncode == 0

    @ways("agents.command.output")
    def test_agents_command_output(self, ralph, way):
        flags, options = made(ralph, way, "agents.command.output", "events")
        event = '{"type": "finished", "text": "LOOP_COMPLETE", "cost": 1.5, "usage": {"input": 7}}'
        done = ralph.run(f"cat > /dev/null; echo '{event}'", *flags, **options)
        assert done.returncode == 0, done.stderr
        assert "7 tokens, $1.5000" in done.stdout

    @ways("stores")
    def test_stores(self, ralph, way):
        ralph.plugin("shelf", "from pydantic import BaseModel\nfrom ralph_core.builtin.local import LocalStore\nfrom ralph_core import *\nclass M(BaseModel):\n  label: str\nclass S(LocalStore):\n  def claim(self, run):\n    (self.context.home / self.settings.label).touch()\n    return super().claim(run)\n@hookimpl\ndef ralph_checkpoint_stores(): return [Provider('shelf', '', __name__ + ':S', __name__ + ':M')]")  # fmt: skip
        flags, options = made(ralph, way, "stores", {"shelf": {"label": "top"}})
        both = {"checkpoint_store": "shelf", **json.loads((ralph.workspace / "ralph.json").read_text())}
        ralph.write("ralph.json", json.dumps(both))
        assert ralph.run(DONE, *flags, **options).returncode == 0
        assert (ralph.home / "top").exists()

    @ways("policies")
    def test_policies(self, ralph, way):
        flags, options = made(ralph, way, "policies", {"iterations": False})
        agent = ralph.agent("echo one", "echo two", "echo LOOP_COMPLETE")
        assert ralph.run(agent, "-i", "1", *flags, **options).returncode == 0
        assert agent.calls == 3

    def test_every_setting_and_every_variable_has_such_a_test(self):
        missing = (set(Settings.model_fields) | set(ENVIRONMENT)) - TESTED
        others = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py") if path.name != Path(__file__).name)  # fmt: skip
        assert {name for name in missing if not re.search(rf"\b{name}\b", others)} == set()


class TestPrecedence:
    """Command line over environment over file over defaults."""

    def limit(self, ralph, *flags, **options):
        done = ralph.run(DONE, "--dry-run", *flags, **options)
        assert done.returncode == 0, done.stderr
        return int(done.stdout.partition("iterations ")[2].partition(",")[0])

    def test_of_one_setting(self, ralph):
        assert self.limit(ralph) == 100
        ralph.settings("max_iterations: 11")
        assert self.limit(ralph) == 11
        env = {"RALPH_MAX_ITERATIONS": "22"}
        assert self.limit(ralph, env=env) == 22
        assert self.limit(ralph, "-i", "33", env=env) == 33

    def test_an_empty_variable_says_nothing(self, ralph):
        ralph.settings("max_iterations: 11")
        assert self.limit(ralph, env={"RALPH_MAX_ITERATIONS": ""}) == 11

    def test_a_section_is_merged_by_key(self, ralph):
        ralph.settings("sinks: {file: {directory: a, max_files: 1}}")
        env = {"AUDIT_LOG_DIR": "b", "AUDIT_MAX_FILE_SIZE": "1024", "AUDIT_BATCH_SIZE": "1"}
        assert ralph.run(DONE, env=env).returncode == 0
        assert [path.name for path in (ralph.workspace / "b").glob("*.jsonl")] == ["audit.jsonl"]
        assert not (ralph.home / "a").exists()

    @pytest.mark.parametrize("name", ["ralph.yml", "ralph.yaml", "ralph.json", "ralph.toml"])
    def test_the_file_is_found_in_the_workspace(self, ralph, name):
        ralph.write(f"sub/{name}", {"json": '{"max_iterations": 11}', "toml": "max_iterations = 11"}.get(name[6:], "max_iterations: 11"))  # fmt: skip
        assert self.limit(ralph, "-w", "sub") == 11
        assert self.limit(ralph, env={"RALPH_WORKSPACE": "sub"}) == 11
        assert self.limit(ralph) == 100

    def test_a_file_that_is_named_is_used_instead(self, ralph):
        ralph.settings("max_iterations: 11")
        ralph.write("conf/other.toml", "max_iterations = 44")
        assert self.limit(ralph, "-c", "conf/other.toml") == 44

    PROFILES = "max_iterations: 11\nmax_failures: 3\nproduction: {max_iterations: 22}\nprofiles: {fast: {max_iterations: 33}}\n"

    @pytest.mark.parametrize(
        ("environment", "limit"), [("production", 22), ("fast", 33), ("development", 11), ("", 11), (None, 11)]
    )
    def test_the_profile_that_environment_names(self, ralph, environment, limit):
        ralph.settings(self.PROFILES)
        assert self.limit(ralph, env={} if environment is None else {"ENVIRONMENT": environment}) == limit

    @pytest.mark.parametrize("text", ["max_iterations: 11\nproduction: {max_iterations: 22}", "profiles: {any: {max_iterations: 22}}"])  # fmt: skip
    def test_the_only_profile_needs_no_name(self, ralph, text):
        ralph.settings(text)
        assert self.limit(ralph) == 22

    def test_a_profile_of_another_name_at_the_top(self, ralph):
        ralph.settings("max_iterations: 11\nnightly: {max_iterations: 22}")
        assert self.limit(ralph, env={"ENVIRONMENT": "nightly"}) == 22

    def test_flags_and_variables_win_over_a_profile(self, ralph):
        ralph.settings(self.PROFILES)
        env = {"ENVIRONMENT": "production", "RALPH_MAX_ITERATIONS": "44"}
        assert self.limit(ralph, env=env) == 44
        assert self.limit(ralph, "-i", "55", env=env) == 55


def test_the_state_directory_is_private_to_git(ralph):
    """It ignores itself, wherever it is."""
    ralph.run(DONE, env={"RALPH_HOME": "notes/ralph"})
    assert ralph.git("status", "--porcelain", "--ignored=no") == ""
    output = next((ralph.workspace / "notes/ralph/runs").glob("*/output/0001.out"))
    assert stat.S_IMODE(output.stat().st_mode) == 0o600


def test_a_run_id_sorts_by_time(ralph):
    """So the latest run is the last name."""
    for _ in range(2):
        ralph.run(DONE)
        time.sleep(1.05)
    first, second = ralph.folders
    assert json.loads((first / "state.json").read_text())["state"]["started"] < json.loads((second / "state.json").read_text())["state"]["started"]  # fmt: skip


class TestWhatTheDocumentsSay:
    """Values as the deployment documents write them mean what they mean there."""

    def test_the_documented_audit_directory_is_the_default_one(self, ralph):
        ralph.run(ralph.agent("echo LOOP_COMPLETE"), env={"AUDIT_LOG_DIR": ".agent/audit"})
        assert (ralph.home / "audit" / "audit.jsonl").exists()

    def test_a_limit_below_one_is_refused(self, ralph):
        ralph.settings("process: {limits: {memory_bytes: -3}}\n")
        ralph.refuses("run", "-a", "command", "--command", "true", "-p", "x", says="memory_bytes has to be at least 1")

    def test_a_profile_adds_to_a_table(self, ralph):
        ralph.settings(
            "agents: {command: {command: 'echo LOOP_COMPLETE'}}\nproduction: {agents: {command: {output: text}}}\n"
        )
        assert ralph("run", "-a", "command", "-p", "x").returncode == 0


class TestAgents:
    def test_a_row_for_each_with_what_it_can_do(self, ralph):
        listed = ralph("agents").stdout.splitlines()
        rows = {line.split()[0]: line.split() for line in listed[1:] if line and not line.startswith(("USAGE", "`"))}
        assert rows["claude"][1:4] == ["live", "yes", "yes"]
        assert rows["command"][1] == "never"
        assert rows["gemini"][1:3] == ["at", "end"]

    def test_for_a_program(self, ralph):
        found = {agent["name"]: agent for agent in json.loads(ralph("agents", "--json").stdout)}
        assert "asks" in found["claude"]["capabilities"]
        assert "CLAUDE_*" in found["claude"]["environment"]
        assert found["claude"]["plugin"] == "claude"
        assert "claude" not in {
            a["name"] for a in json.loads(ralph("agents", "--json", "--no-plugin", "claude").stdout)
        }


def test_a_misspelt_setting_below_a_name_of_the_users_own_is_said(ralph):
    ralph.settings("keys: {ACME_KEY: {fil: x}}\n")
    refused = ralph.refuses("run", "-a", "command", "--command", "true", "-p", "x")
    assert "unknown setting 'keys.ACME_KEY.fil'" in refused
    assert "did you mean 'file'" in refused
