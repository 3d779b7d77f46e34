"""`ralph run` drives the genuine Gemini CLI, against a stand-in of its API on loopback, in a real repository."""

import json
import os
import shutil
import sys
import time
from pathlib import Path

import pytest

from ralph_core.testing.gemini_api import GeminiAPI, Refusal, Reply, call, retry_in, text
from ralph_core.testing.loopback import Fault

pytestmark = pytest.mark.real_cli

TASK = "Write three files, one an iteration."


@pytest.fixture(scope="module")
def gemini():
    local = Path(__file__).parents[1] / ".tools/node_modules/.bin/gemini"
    found = os.environ.get("RALPH_TEST_GEMINI") or (str(local) if local.exists() else shutil.which("gemini"))
    if not found or not shutil.which(found):
        pytest.skip("no genuine Gemini CLI (npm install @google/gemini-cli, or RALPH_TEST_GEMINI)")
    return found


@pytest.fixture
def run(ralph, gemini):
    """Run Ralph with Gemini CLI against an API."""

    def run(api, *arguments, settings="", key="gemini-test-key", task=TASK):
        section = f"{{executable: {gemini}, model: gemini-2.5-flash}}"
        ralph.settings(f"agents: {{gemini: {section}}}\n{settings}")
        task_flags = ("-p", task) if task else ()
        return ralph("run", "-a", "gemini", *task_flags, *arguments, env=api.env(key), limit=90)

    return run


def turn(workspace, number, last="Done for now."):
    """An iteration: a file is written by the agent's own tool, then it says its last words."""
    write = call("write_file", {"file_path": f"{workspace}/piece-{number}.txt", "content": f"piece {number}\n"})
    return [Reply([text(f"I write piece {number}."), write]), Reply([text(last)])]


def test_three_iterations_that_complete(ralph, run):
    before = ralph.repository()
    script = [
        *turn(ralph.workspace, 1),
        *turn(ralph.workspace, 2, "I must not print LOOP_COMPLETE yet"),
        *turn(ralph.workspace, 3, "All three are there.\nLOOP_COMPLETE"),
    ]
    with GeminiAPI(script) as api:
        done = run(api)
        requests = list(api.requests)

    assert done.returncode == 0, (done.stdout, done.stderr)
    for number in (1, 2, 3):
        assert (ralph.workspace / f"piece-{number}.txt").read_text() == f"piece {number}\n"
    assert "iterations  3 of 100" in done.stdout

    assert len(requests) == 6
    assert all(TASK in "".join(request.texts()) for request in requests)
    assert len([request for request in requests if not request.texts("model")]) == 3

    # Six messages, cached tokens apart, each counted once, priced from the list.
    state = ralph.state()
    assert state["spend"]["tokens"] == {"input": 600, "output": 150, "cache_read": 120, "cache_write": 0}
    assert state["spend"]["cost"] == state["spend"]["estimated"] > 0
    assert len({attempt["session"] for attempt in state["recent"]}) == 3

    after = ralph.repository()
    assert after.pop("status").replace("? piece-1.txt\n? piece-2.txt\n? piece-3.txt\n? ralph.yml\n", "") == before.pop(
        "status"
    )
    assert after == before
    types = ralph.types()
    for stem in ("run", "iteration", "agent", "tool"):
        assert types.count(f"{stem}.started") == types.count(f"{stem}.finished") > 0
    assert not (ralph.root / "home/.gemini").exists(), "nothing of it is in the user's home"


def test_a_refused_key_ends_the_run_at_once(ralph, run):
    with GeminiAPI([Refusal(401, "no")]) as api:
        done = run(api, settings="retry_delay: 0.1\n")
        assert len(api.requests) == 1
    assert done.returncode == 1
    assert "✗ failed: auth:" in done.stdout
    assert ralph.state()["finished"] == 0


def test_a_quota_is_waited_for_as_long_as_the_api_said(ralph, run):
    calls = []

    def answer(_request):
        calls.append(time.monotonic())
        return (
            Refusal(429, "Quota exceeded", details=[retry_in(3)]) if len(calls) == 1 else Reply([text("LOOP_COMPLETE")])
        )

    with GeminiAPI(answer) as api:
        done = run(api)
    assert done.returncode == 0, done.stdout
    assert calls[1] - calls[0] >= 3
    state = ralph.state()
    assert (state["finished"], state["consecutive_failures"]) == (1, 0)


def test_an_api_that_never_answers_is_given_up(ralph, run):
    with GeminiAPI([Reply([text("never")], fault=Fault.HANG)]) as api:
        done = run(api, "--max-iterations", "1", settings="timeout_per_iteration: 4\n")
    assert done.returncode in (1, 3)
    assert [attempt["failure"] for attempt in ralph.state()["recent"]] == ["timeout"]


def test_a_long_prompt_arrives_whole_and_one_too_long_is_refused_before_it_costs(ralph, run):
    words = "".join(f"{number}: 文件 🚀 [/x] `LOOP_COMPLETE`\r\n" for number in range(25_000))
    with GeminiAPI([Reply([text("LOOP_COMPLETE")])]) as api:
        ralph.write("task.md", words)
        assert run(api, "--prompt", "task.md", task=None).returncode == 0
        assert any(words in part for part in api.requests[0].texts())
        asked = len(api.received)
        ralph.write("task.md", words * 10)
        done = run(api, "--prompt", "task.md", task=None)
        assert done.returncode == 1
        assert "spawn:" in done.stdout
        assert len(api.received) == asked


def test_it_is_taken_over_from_when_its_key_is_refused(ralph, run, gemini):
    with GeminiAPI([Refusal(403, "no")]) as api:
        ralph.settings(
            f"agents: {{gemini: {{executable: {gemini}, model: m}}, command: {{command: 'cat >/dev/null; echo LOOP_COMPLETE'}}}}\n"
        )
        done = ralph("run", "-a", "gemini,command", "-p", TASK, env=api.env(), limit=90)
    assert done.returncode == 0, done.stdout
    assert [attempt["agent"] for attempt in ralph.state()["recent"]] == ["gemini", "command"]


def test_the_key_is_written_nowhere(ralph, run):
    key = "gemini-canary-0123456789"
    with GeminiAPI([Reply([text(f"the key is {key}")]), Reply([text("LOOP_COMPLETE")])]) as api:
        done = run(api, "-v", key=key)
        assert api.requests[0].headers["x-goog-api-key"] == key
    assert done.returncode == 0
    assert key not in done.stdout + done.stderr
    # What the agent itself keeps of its session is its own, as is its raw output.
    kept = [path for path in ralph.home.rglob("*") if path.is_file() and path.parent.name != "output"]
    kept = [path for path in kept if ralph.home / "gemini" not in path.parents]
    assert [path for path in kept if key.encode() in path.read_bytes()] == []


def test_mcp_servers_of_the_settings_reach_it(ralph, run):
    server = Path(__file__).parents[1] / "plugins/ralph-gemini/tests/echo_mcp.py"
    with GeminiAPI([Reply([call("mcp_echo_ping", {"word": "there"})]), Reply([text("LOOP_COMPLETE")])]) as api:
        done = run(api, settings=f"mcp: {{servers: {{echo: {{command: {sys.executable}, args: [{server}]}}}}}}\n")
        assert done.returncode == 0, done.stdout
        assert "pong there" in json.dumps(api.requests[1].body)


def test_doctor_finds_it(ralph, gemini):
    env = {"GEMINI_API_KEY": "k", "PATH": f"{Path(gemini).parent}{os.pathsep}{os.environ['PATH']}"}
    found = ralph("doctor", env=env)
    assert "✓ gemini:" in found.stdout
