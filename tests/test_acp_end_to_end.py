"""`ralph run` drives a scripted agent of the Agent Client Protocol: judged, stopped and killed like any other."""

import signal
import sys
import textwrap
import time
from pathlib import Path

import pytest

FAKE = Path(__file__).parents[1] / "plugins/ralph-acp/tests/fake.py"

WRITES = """
greet(); prompt()
import os
verdict = permission(kind="edit", title="Write", rawInput={"file_path": "note.txt", "content": "abc"})
if verdict == "once":
    open("note.txt", "w").write("abc")
update("tool_call_update", toolCallId="t-1", status="completed" if verdict == "once" else "failed")
say("Done.\\nLOOP_COMPLETE"); answer()
"""

WORKS = """
import os, subprocess, time
child = subprocess.Popen(["sleep", "60"], start_new_session=True)
greet(); prompt()
open("pids", "w").write(f"{os.getpid()} {child.pid}")
open("heard", "w").write(take()["method"])
time.sleep(60)
"""


@pytest.fixture
def agent(ralph):
    """Let a play be what `-a acp` runs; `settings` are added to the settings file."""

    def agent(play, settings="", **section):
        script = ralph.root / "play.py"
        script.write_text(textwrap.dedent(play))
        more = "".join(f", {name}: {value}" for name, value in section.items())
        command = f"[{sys.executable}, -I, -S, {FAKE}, {script}]"
        ralph.settings(f"agents: {{acp: {{command: {command}{more}}}}}\n{settings}")
        return ["run", "-a", "acp", "-p", "Do it."]

    return agent


def pids(ralph):
    path = ralph.workspace / "pids"
    return [int(pid) for pid in path.read_text().split()] if path.exists() else []


def test_a_run_that_completes(ralph, agent):
    done = ralph(*agent(WRITES))
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert (ralph.workspace / "note.txt").read_text() == "abc"
    assert "cost unknown" in done.stdout or "unknown" in done.stdout
    (record,) = [each for each in ralph.records() if each["type"] == "agent.session"]
    assert record["data"]["session"] == "s-1"
    assert [type_ for type_ in ralph.types() if type_.startswith("tool")] == ["tool.started", "tool.finished"]


@pytest.mark.parametrize(
    "settings", ["security: {max_file_size: 2}", "security: {allowed_directories: [other]}", "high_risk_tools: [edit]"]
)
def test_deny_and_ask_with_nobody_there_hold_before_the_tool_runs(ralph, agent, settings):
    done = ralph(*agent(WRITES, settings))
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert not (ralph.workspace / "note.txt").exists()
    assert [type_ for type_ in ralph.types() if type_.startswith("tool")] == ["tool.started", "tool.failed"]


def test_what_a_person_grants_is_done(ralph, agent):
    process = ralph.start(*agent(WRITES, "high_risk_tools: [edit]\napprovals: wait"))
    folder = ralph.until(lambda: ralph.folders and list((ralph.folder / "approvals").glob("*.json")))
    assert not (ralph.workspace / "note.txt").exists()
    assert ralph("approvals", "grant", folder[0].stem).returncode == 0
    assert ralph.end(process).returncode == 0
    assert (ralph.workspace / "note.txt").exists()


@pytest.mark.parametrize(("asks", "words"), [("true", "did not ask before"), ("false", "could not be asked before")])
def test_a_tool_that_was_used_without_a_question_stops_the_run(ralph, agent, asks, words):
    play = """
        greet(); prompt()
        update("tool_call", toolCallId="t", title="rm x", kind="execute", status="in_progress", rawInput={"command": "rm x"})
        update("tool_call_update", toolCallId="t", status="completed")
        take()
        """
    done = ralph(*agent(play, "security: {forbidden_commands: [rm]}", asks=asks))
    assert done.returncode == 3, (done.stdout, done.stderr)
    assert words in done.stdout


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_the_agent_is_told_and_then_killed(ralph, agent, number, code):
    process = ralph.start(*agent(WORKS))
    found = ralph.until(lambda: pids(ralph))
    process.send_signal(number)
    if number is signal.SIGINT:  # the first one lets the iteration finish
        time.sleep(0.3)
        process.send_signal(number)
    assert ralph.end(process).returncode == code
    assert (ralph.workspace / "heard").read_text() == "session/cancel"
    assert not any(map(ralph.alive, found))


def test_kill_9_of_ralph_leaves_nothing(ralph, agent):
    process = ralph.start(*agent(WORKS))
    found = ralph.until(lambda: pids(ralph))
    process.kill()
    ralph.until(lambda: not any(map(ralph.alive, found)))
    assert not list(ralph.folder.glob("output/*.in"))


def test_without_a_command_it_is_refused(ralph):
    ralph.settings("agents: {acp: {}}\n")
    ralph.refuses("run", "-a", "acp", "-p", "x", says="agents.acp.command")


def test_known_agents_come_after_the_native_ones(ralph):
    lines = ralph("doctor").stdout.splitlines()
    names = [line.split()[1].rstrip(":") for line in lines if line.startswith(("✓", "✗"))]
    assert names.index("kiro") < names.index("acp") < names.index("acp-claude") < names.index("acp-gemini")
