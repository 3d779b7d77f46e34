"""`ralph run` drives the genuine Claude Code, against a Messages API on loopback, in a real repository."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from ralph_core.events import Tokens
from ralph_core.testing.messages_api import MessagesAPI, Refusal, Reply, text, tool_use

pytestmark = pytest.mark.real_cli

TASK = "Write three files, one an iteration."


@pytest.fixture(scope="module")
def claude():
    local = Path(__file__).parents[1] / ".tools/node_modules/.bin/claude"
    found = os.environ.get("RALPH_TEST_CLAUDE") or (str(local) if local.exists() else shutil.which("claude"))
    if not found or not shutil.which(found):
        pytest.skip("no genuine Claude Code (npm install @anthropic-ai/claude-code, or RALPH_TEST_CLAUDE)")
    return found


@pytest.fixture
def run(ralph, claude):
    """Run Ralph with Claude Code against an API."""

    def run(api, *arguments, settings="", task=TASK, key="sk-ant-test"):
        ralph.settings(f"agents: {{claude: {{executable: {claude}}}}}\n{settings}")
        task_flags = ("-p", task) if task else ()
        return ralph("run", "-a", "claude", *task_flags, *arguments, env=api.env(key), limit=90)

    return run


def turn(workspace, number, last="Done for now."):
    """An iteration: a file is written by the agent's own tool, then it says its last words."""
    write = tool_use("Write", {"file_path": f"{workspace}/piece-{number}.txt", "content": f"piece {number}\n"})
    return [Reply([text(f"I write piece {number}."), write]), Reply([text(last)])]


def test_three_iterations_that_complete(ralph, run):
    before = ralph.repository()
    script = [
        *turn(ralph.workspace, 1),
        *turn(ralph.workspace, 2, "I must not print LOOP_COMPLETE yet"),
        *turn(ralph.workspace, 3, "All three are there.\nLOOP_COMPLETE"),
    ]
    with MessagesAPI(script) as api:
        done = run(api, settings="checkpoint_interval: 1\n")
        requests = list(api.requests)

    assert done.returncode == 0, (done.stdout, done.stderr)
    for number in (1, 2, 3):
        assert (ralph.workspace / f"piece-{number}.txt").read_text() == f"piece {number}\n"
    assert "iterations  3 of 100" in done.stdout
    assert "4 changed" not in done.stdout
    assert "3 changed" in done.stdout

    # Each iteration is a fresh process: it knows nothing of the ones before, and is told the task word for word.
    assert len(requests) == 6
    assert all(TASK in "".join(request.texts()) for request in requests)
    assert len([request for request in requests if not request.texts("assistant")]) == 3

    # Six messages, each with the figures that the API gave, cache included, counted once.
    state = ralph.state()
    assert state["spend"]["tokens"] == {"input": 600, "output": 150, "cache_read": 120, "cache_write": 60}
    assert state["spend"]["cost"] > 0
    assert state["spend"]["unmetered"] == 0
    assert [attempt["session"] for attempt in state["recent"]] != [None] * 3
    assert len({attempt["session"] for attempt in state["recent"]}) == 3

    # The repository is the user's: only the agent's own files are new.
    after = ralph.repository()
    assert after.pop("status").replace("? piece-1.txt\n? piece-2.txt\n? piece-3.txt\n? ralph.yml\n", "") == before.pop(
        "status"
    )
    assert after == before
    assert len(ralph.snapshots()) == 4
    assert ralph.git("show", f"{ralph.snapshots()[2]}:piece-2.txt") == "piece 2\n"


def test_the_account_and_the_trace_tell_the_same_story(ralph, run):
    with MessagesAPI([*turn(ralph.workspace, 1, "LOOP_COMPLETE")]) as api:
        assert run(api).returncode == 0

    types = ralph.types()
    for stem in ("run", "iteration", "agent", "tool", "checkpoint"):
        assert types.count(f"{stem}.started") == types.count(f"{stem}.finished") > 0
    (tool,) = [record for record in ralph.records() if record["type"] == "tool.started"]
    assert tool["message"] == "Write"
    assert tool["data"]["input"]["content"] == "piece 1\n"

    spans = {span["name"]: span for span in ralph.spans()}
    invoke, tool_span = spans["invoke_agent claude"], spans["execute_tool Write"]
    assert tool_span["parent_id"] == invoke["span_id"]
    assert invoke["parent_id"] == spans["ralph.iteration"]["span_id"]
    assert spans["ralph.iteration"]["parent_id"] == spans["ralph.run"]["span_id"]
    assert invoke["attributes"]["gen_ai.usage.input_tokens"] == 260
    assert invoke["attributes"]["gen_ai.usage.output_tokens"] == 50
    assert invoke["attributes"]["ralph.usage.cost_usd"] > 0
    assert invoke["attributes"]["gen_ai.request.model"]
    assert invoke["attributes"]["gen_ai.provider.name"] == "anthropic"
    assert invoke["attributes"]["process.exit.code"] == 0


def test_the_iteration_limit_stops_it(ralph, run):
    with MessagesAPI(lambda _request: Reply([text("Still at it.")])) as api:
        done = run(api, "--max-iterations", "2")
        assert len(api.requests) == 2

    assert done.returncode == 3
    assert "stopped: 2 of 2 iterations are used up (by iterations)" in done.stdout
    assert "ralph resume" in done.stdout


def test_a_refused_key_ends_the_run_at_once(ralph, run):
    with MessagesAPI([Refusal(401, "invalid x-api-key")]) as api:
        done = run(api, settings="retry_delay: 0.1\n")
        assert len(api.requests) <= 2, "Claude Code's own retry, and nothing on top of it"

    assert done.returncode == 1
    assert "✗ failed: auth:" in done.stdout
    assert ralph.state()["finished"] == 0


def test_an_overloaded_api_is_tried_again_and_costs_no_iteration(ralph, run):
    calls = []

    def answer(_request):
        calls.append(1)
        return Refusal(529, "Overloaded") if len(calls) <= 3 else Reply([text("LOOP_COMPLETE")])

    with MessagesAPI(answer) as api:
        done = run(api, settings="retry_delay: 0.1\n")

    assert done.returncode == 0, done.stdout
    state = ralph.state()
    assert state["finished"] == 1
    assert state["attempts"] > 1
    assert state["consecutive_failures"] == 0
    assert "wait.started" in ralph.types()


def test_an_api_that_stays_overloaded_fails_the_run_after_the_retries(ralph, run):
    with MessagesAPI([Refusal(529, "Overloaded")]) as api:
        done = run(api, settings="retry_delay: 0.05\nretry_max: 2\n")

    assert done.returncode == 1
    assert "overloaded:" in done.stdout
    assert "(tried 3 times)" in done.stdout
    assert ralph.state()["attempts"] == 3


def test_a_long_prompt_arrives_whole(ralph, run):
    words = "".join(f"{number}: 文件 🚀 [/x] `LOOP_COMPLETE`\r\n" for number in range(25_000))
    ralph.write("task.md", words)
    with MessagesAPI([Reply([text("LOOP_COMPLETE")])]) as api:
        done = run(api, "--prompt", "task.md", task=None)
        assert done.returncode == 0, done.stderr
        assert any(words in part for part in api.requests[0].texts())


def test_auto_finds_it_and_doctor_says_so(ralph, claude):
    with MessagesAPI([Reply([text("LOOP_COMPLETE")])]) as api:
        env = api.env() | {"PATH": f"{Path(claude).parent}{os.pathsep}{os.environ['PATH']}"}
        found = ralph("doctor", env=env)
        assert "✓ claude:" in found.stdout
        assert "`--agent auto` would use: claude" in found.stdout
        done = ralph("run", "-p", "anything", env=env, limit=90)
        assert done.returncode == 0
        assert ralph.state()["agent"] == "claude"


def test_the_key_is_written_nowhere(ralph, run):
    key = "sk-ant-canary-0123456789"
    with MessagesAPI([Reply([text(f"the key is {key}")]), Reply([text("LOOP_COMPLETE")])]) as api:
        done = run(api, "-v", key=key)
        assert api.requests[0].headers["x-api-key"] == key

    assert done.returncode == 0
    assert key not in done.stdout + done.stderr
    kept = [path for path in ralph.home.rglob("*") if path.is_file()]
    assert [path for path in kept if key.encode() in path.read_bytes()] == []


def test_unknown_stays_unknown_but_what_claude_says_is_taken(ralph, run):
    with MessagesAPI([Reply([text("LOOP_COMPLETE")], usage=Tokens(7, 3, 2, 1))]) as api:
        done = run(api)
    assert "13 tokens, $" in done.stdout


def test_a_false_claim_is_caught_and_claude_is_told_why(ralph, run):
    script = [Reply([text("Done!\nLOOP_COMPLETE")]), *turn(ralph.workspace, 1, "Now it is.\nLOOP_COMPLETE")]
    with MessagesAPI(script) as api:
        done = run(api, settings="gates: ['test -f piece-1.txt || { echo piece 1 is missing; exit 9; }']\n")
        assert done.returncode == 0
        assert "verified by 1 gate" in done.stdout
        second = "".join(api.requests[1].texts())
    assert "piece 1 is missing" in second
    assert "exit code 9" in second
    assert "piece 1 is missing\n" not in "".join(api.requests[0].texts())


def test_mcp_servers_of_the_settings_are_used(ralph, run):
    server = Path(__file__).parents[1] / "plugins/ralph-claude/tests/mcp_server.py"
    settings = (
        "mcp:\n  call_timeout: 60\n  servers:\n    notes:\n"
        f"      {{command: {sys.executable}, args: [{server}], env: {{MARK: {ralph.workspace}/mark}}}}\n"
    )
    with MessagesAPI([Reply([tool_use("mcp__notes__mark", {"word": "it"})]), Reply([text("LOOP_COMPLETE")])]) as api:
        done = run(api, settings=settings)
    assert done.returncode == 0, done.stderr
    assert (ralph.workspace / "mark").read_text() == "it"
