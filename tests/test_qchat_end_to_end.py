"""`ralph run` drives the stand-in of Q Chat and Kiro CLI (plugins/ralph-qchat/tests/standin), in a real repository."""

import ast
import os
import shutil
import sys
import time
from pathlib import Path

import pytest

STANDIN = Path(__file__).parents[1] / "plugins/ralph-qchat/tests/standin/q"


@pytest.fixture
def chat(ralph):
    """Run Ralph with the stand-in, installed under `program`, in one of its modes."""
    folder = ralph.root / "bin"
    folder.mkdir()
    ralph.env["PATH"] = f"{folder}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    def chat(*arguments, mode="ok", program="q", agent="q", env=None, **options):
        shutil.copy(STANDIN, folder / program)
        task = ("-p", "Do what is to be done.")
        return ralph("run", "-a", agent, *task, *arguments, env={"Q_STANDIN": mode, **(env or {})}, **options)

    return chat


@pytest.mark.parametrize(
    ("agent", "program"), [("q", "q"), ("qchat", "q"), ("q", "kiro-cli"), ("qchat", "kiro-cli"), ("kiro", "kiro-cli")]
)
def test_each_name_runs_whichever_program_is_there(ralph, chat, agent, program):
    done = chat(agent=agent, program=program)
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert "completed: claimed by the agent" in done.stdout
    assert ralph.state()["agent"] == agent
    assert ralph.state()["spend"]["tokens"] is None, "unknown, which is not zero"


def test_the_prompt_arrives_and_the_answer_is_kept(ralph, chat):
    kept = ralph.root / "kept"
    kept.mkdir()
    done = chat(
        mode="tool", env={"Q_STANDIN_KEEP": str(kept), "Q_API_KEY": "secret-of-q", "CLAUDE_API_KEY": "other-key"}
    )
    assert done.returncode == 0
    arguments, prompt, env = ast.literal_eval(next(kept.iterdir()).read_text())
    assert arguments[:2] == ["chat", "--no-interactive"]
    assert "Do what is to be done." in prompt
    assert env["KIRO_API_KEY"] == "secret-of-q"
    assert "CLAUDE_API_KEY" not in env
    records = [record for record in ralph.records() if record["type"] == "agent.finished"]
    assert records[0]["message"] == "All done."


def test_a_login_that_nobody_can_do_ends_the_run_at_once(ralph, chat):
    began = time.monotonic()
    done = chat(mode="no-login", program="kiro-cli", agent="kiro", env={"KIRO_API_KEY": "which it does not take"})
    assert done.returncode == 1
    assert "✗ failed: auth:" in done.stdout
    assert time.monotonic() - began < 40
    done = chat(mode="no-login", program="kiro-cli", agent="kiro")
    assert done.returncode == 2
    assert "not logged in: run `kiro-cli login`" in done.stderr


def test_a_service_that_has_trouble_is_asked_again_and_that_costs_no_iteration(ralph, chat):
    ralph.settings("retry_delay: 0.1\n")
    done = chat(mode="throttle-once", env={"QCHAT_RETRY_DELAY": "1.5"})
    assert done.returncode == 0, done.stdout
    state = ralph.state()
    assert (state["finished"], state["attempts"], state["consecutive_failures"]) == (1, 2, 0)
    first, second = state["recent"]
    assert second["started"] - first["ended"] >= 1.5


def test_a_service_that_stays_so_fails_the_iteration(ralph, chat):
    ralph.settings("retry_delay: 0.1\n")
    done = chat("--max-iterations", "1", mode="throttle", env={"QCHAT_MAX_RETRIES": "1", "QCHAT_RETRY_DELAY": "0.1"})
    assert done.returncode in (1, 3)
    assert [attempt["failure"] for attempt in ralph.state()["recent"]] == ["overloaded", "agent"]


def test_the_time_of_a_request_is_that_of_the_variable(ralph, chat):
    done = chat("--max-iterations", "1", mode="hang", env={"QCHAT_TIMEOUT": "1"})
    assert done.returncode in (1, 3)
    (attempt,) = ralph.state()["recent"]
    assert attempt["failure"] == "timeout"
    assert "QCHAT_TIMEOUT" in attempt["message"]


def test_the_file_of_the_guide_is_read_from_its_place(ralph, chat):
    ralph.write("config/qchat.yaml", "logging: {file: qchat.log}\nmonitoring: {metrics_enabled: true}\n")
    assert chat().returncode == 0
    assert "request finished" in (ralph.workspace / "qchat.log").read_text()
    assert "qchat_requests_total 1.0" in (ralph.home / "metrics/qchat.prom").read_text()


@pytest.mark.parametrize(
    ("env", "file", "says"),
    [
        ({"QCHAT_MAX_RETRIES": "many"}, "", ["environment variable QCHAT_MAX_RETRIES", "'many'"]),
        ({}, "adapter:\n  timeuot: 3\n", ["config/qchat.yaml, line 2", "did you mean 'timeout'?"]),
    ],
)
def test_a_wrong_setting_is_one_line(ralph, chat, env, file, says):
    if file:
        ralph.write("config/qchat.yaml", file)
    done = chat(env=env)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    for words in says:
        assert words in done.stderr


def test_a_prompt_that_is_not_allowed_starts_nothing(ralph, chat):
    kept = ralph.root / "kept"
    kept.mkdir()
    ralph.settings("agents: {q: {blocked_patterns: [to be done]}}\n")
    done = chat(env={"Q_STANDIN_KEEP": str(kept)})
    assert done.returncode == 1
    assert "blocked_patterns" in done.stdout
    assert list(kept.iterdir()) == []


def test_it_hands_over_when_its_quota_is_used_up(ralph, chat):
    ralph.settings("agents: {command: {command: 'cat >/dev/null; echo LOOP_COMPLETE'}}\n")
    done = chat(mode="monthly", agent="q,command")
    assert done.returncode == 0, done.stdout
    assert [attempt["agent"] for attempt in ralph.state()["recent"]] == ["q", "command"]
