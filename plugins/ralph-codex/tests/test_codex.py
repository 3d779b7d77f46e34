"""The adapter for Codex: its lines, and the genuine program against a Responses API on loopback."""

from __future__ import annotations

import json
import os
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ralph_codex.agent import CodexAgent
from ralph_codex.plugin import ralph_agents
from ralph_codex.settings import CodexSettings
from ralph_codex.stream import Stream, kind_of
from ralph_core.contracts import Context, Exit
from ralph_core.events import Failed, FailureKind, Finished, Started, Text, Tokens, ToolCall, ToolResult
from ralph_core.testing.attempts import tried

USAGE = {
    "input_tokens": 120, "input_tokens_details": {"cached_tokens": 20},
    "output_tokens": 25, "output_tokens_details": {"reasoning_tokens": 5}, "total_tokens": 145,
}  # fmt: skip
CONFIG = """
model = "fake-model"
model_provider = "fake"
[model_providers.fake]
name = "fake"
base_url = "{url}/v1"
env_key = "CODEX_API_KEY"
wire_api = "responses"
request_max_retries = 1
stream_max_retries = 1
[analytics]
enabled = false
"""


def heard(*lines):
    stream = Stream()
    return [event for line in lines for event in stream.events(json.dumps(line).encode())], stream


class TestLines:
    def test_a_turn(self):
        shell = {"id": "item_1", "type": "command_execution", "command": "ls"}
        events, _ = heard(
            {"type": "thread.started", "thread_id": "t-1"},
            {"type": "turn.started"},
            {"type": "item.completed", "item": {"id": "item_0", "type": "error", "message": "Model metadata not found"}},
            {"type": "item.started", "item": {**shell, "status": "in_progress"}},
            {"type": "item.completed", "item": {**shell, "status": "failed", "exit_code": 2, "aggregated_output": "no"}},
            {"type": "item.completed", "item": {"id": "item_2", "type": "file_change", "changes": [{"path": "a"}], "status": "completed"}},
            {"type": "item.completed", "item": {"id": "item_3", "type": "mcp_tool_call", "server": "s", "tool": "t", "arguments": {"x": 1}}},
            {"type": "item.completed", "item": {"id": "item_4", "type": "agent_message", "text": "Done."}},
            {"type": "turn.completed", "usage": {"input_tokens": 120, "cached_input_tokens": 20, "output_tokens": 25, "reasoning_output_tokens": 5}},
        )  # fmt: skip
        assert events == [
            Started("t-1"),
            ToolCall("item_1", "command_execution", {"command": "ls"}),
            ToolResult("item_1", ok=False, text="no"),
            ToolCall("item_2", "file_change", {"paths": ["a"]}),
            ToolResult("item_2"),
            ToolCall("item_3", "mcp__s__t", {"x": 1}),
            ToolResult("item_3"),
            Text("Done."),
            Finished("Done.", Tokens(100, 25, 20, 0)),
        ]

    def test_noise_means_nothing(self):
        stream = Stream()
        for line in (
            b"",
            b"warning: x",
            b"[]",
            b"{",
            b'{"type": 5}',
            b'{"type": "item.completed", "item": 3}',
            b"[" * 100_000,
        ):
            assert list(stream.events(line)) == []
        assert stream.finish(Exit(0)) == ()

    def test_without_a_usage_it_is_unknown(self):
        assert heard({"type": "turn.completed"})[0] == [Finished("")]

    def test_the_last_error_is_why_it_ended_without_a_final_line(self):
        _, stream = heard({"type": "error", "message": "unexpected status 401 Unauthorized"})
        (failed,) = stream.finish(Exit(1))
        assert failed.kind is FailureKind.AUTH

    @pytest.mark.parametrize(
        ("words", "kind"),
        [
            ("unexpected status 401 Unauthorized: no way", FailureKind.AUTH),
            ("exceeded retry limit, last status: 429 Too Many Requests", FailureKind.USAGE_LIMIT),
            ("Quota exceeded. Check your plan", FailureKind.USAGE_LIMIT),
            ("We're currently experiencing high demand", FailureKind.OVERLOADED),
            ("unexpected status 503 Service Unavailable", FailureKind.OVERLOADED),
            ("Missing environment variable: `FAKE_KEY`.", FailureKind.AUTH),
            ("stream disconnected before completion", FailureKind.NETWORK),
            ("it went wrong", FailureKind.AGENT),
        ],
    )
    def test_kinds_of_failure(self, words, kind):
        assert kind_of(words) is kind
        assert heard({"type": "turn.failed", "error": {"message": words}})[0] == [Failed(kind, words)]


class TestCommand:
    def agent(self, tmp_path, env=None, **settings):
        return CodexAgent(
            CodexSettings(**settings), Context(tmp_path, tmp_path, {"PATH": str(tmp_path), **(env or {})})
        )

    def test_not_installed(self, tmp_path):
        assert "@openai/codex" in self.agent(tmp_path).probe().missing[0]

    def test_login(self, tmp_path):
        program = tmp_path / "codex"
        program.write_text("#!/bin/sh\necho codex-cli 0.169.0\n")
        program.chmod(0o755)
        home = {"CODEX_HOME": str(tmp_path)}
        probe = self.agent(tmp_path, home).probe()
        assert probe.version == "0.169.0"
        assert "no credentials" in probe.missing[0]
        assert self.agent(tmp_path, {**home, "CODEX_API_KEY": "k"}).probe().usable
        (tmp_path / "config.toml").write_text('model_provider = "own"')
        assert self.agent(tmp_path, home).probe().usable
        (tmp_path / "config.toml").unlink()
        (tmp_path / "auth.json").write_text("{}")
        assert self.agent(tmp_path, home).probe().usable

    def test_the_provider_promises_nothing_that_is_not_here(self):
        (provider,) = ralph_agents()
        assert provider.capabilities == {"tools", "session", "usage", "model"}


class Responses:
    """As much of the Responses API as Codex needs, as a context. A step is a text, a shell command in a list, or a status."""

    def __init__(self, *steps):
        self.requests = []
        api, left, lock = self, list(steps), threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_POST(self):
                with lock:
                    api.requests.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                    step, number = left.pop(0) if len(left) > 1 else left[0], len(api.requests)
                status = step if isinstance(step, int) else 200
                body = json.dumps({"error": {"message": "no way"}}) if status != 200 else stream(step, number)
                self.send_response(status)
                self.send_header("content-type", "text/event-stream" if status == 200 else "application/json")
                self.end_headers()
                self.wfile.write(body.encode())

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()


def stream(step, number):
    if isinstance(step, list):
        arguments = json.dumps({"cmd": step[0]})
        item = {
            "type": "function_call",
            "id": f"f{number}",
            "call_id": f"c{number}",
            "name": "exec_command",
            "arguments": arguments,
        }
    else:
        item = {
            "type": "message",
            "role": "assistant",
            "id": f"m{number}",
            "content": [{"type": "output_text", "text": step}],
        }
    events = (
        {"type": "response.created", "response": {"id": f"r{number}"}},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": {"id": f"r{number}", "usage": USAGE}},
    )
    return "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events)


@pytest.mark.real_cli
class TestGenuine:
    @pytest.fixture
    def run(self, tmp_path):
        local = Path(__file__).parents[3] / ".tools/node_modules/.bin/codex"
        program = os.environ.get("RALPH_TEST_CODEX") or (str(local) if local.exists() else shutil.which("codex"))
        if not program or not shutil.which(program):
            pytest.skip("no genuine Codex (npm install @openai/codex, or RALPH_TEST_CODEX)")
        for folder in ("work", "home/.codex"):
            (tmp_path / folder).mkdir(parents=True)

        def run(url, prompt="Do the work.", *, key="k", **settings):
            (tmp_path / "home/.codex/config.toml").write_text(CONFIG.format(url=url))
            env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path / "home"), "LANG": "C.UTF-8"}
            env |= {"CODEX_API_KEY": key} if key else {}
            agent = CodexAgent(CodexSettings(executable=program, **settings), Context(tmp_path / "work", tmp_path, env))
            assert not [words for words in agent.probe().missing if "credentials" not in words]
            return tried(agent, prompt, tmp_path / "work", env, tmp_path / "output")

        return run

    def test_tool_text_and_figures(self, run, tmp_path):
        with Responses(["echo made > made.txt"], "Done.\nLOOP_COMPLETE") as api:
            done = run(api.url)
        assert (tmp_path / "work/made.txt").read_text() == "made\n"
        (call,) = [event for event in done.events if isinstance(event, ToolCall)]
        assert (call.name, "echo made > made.txt" in call.input["command"]) == ("command_execution", True)
        assert [event.ok for event in done.events if isinstance(event, ToolResult)] == [True]
        assert isinstance(done.events[0], Started)
        assert done.final == Finished("Done.\nLOOP_COMPLETE", Tokens(200, 50, 40, 0))
        assert done.left == 0

    @pytest.mark.parametrize("prompt", ["x" * 500_000 + "end", "/etc/hosts is wrong", " \n two lines\r\n\n"])
    def test_prompt_arrives(self, run, prompt):
        with Responses("Read.") as api:
            assert run(api.url, prompt).final.text == "Read."
        assert json.dumps(prompt.strip())[1:-1] in json.dumps(api.requests[0])

    def test_model(self, run):
        with Responses("ok") as api:
            run(api.url, model="other-model")
        assert api.requests[0]["model"] == "other-model"

    def test_sandbox(self, run, tmp_path):
        with Responses(["echo made > made.txt"], "Done.") as api:
            run(api.url, sandbox="read-only")
        assert not (tmp_path / "work/made.txt").exists()

    @pytest.mark.parametrize(("status", "kind"), [(401, FailureKind.AUTH), (429, FailureKind.USAGE_LIMIT)])
    def test_refusals(self, run, status, kind):
        with Responses(status) as api:
            done = run(api.url)
        assert isinstance(done.final, Failed)
        assert done.final.kind is kind

    def test_no_key(self, run):
        with Responses("never asked") as api:
            assert run(api.url, key=None).final.kind is FailureKind.AUTH
        assert not api.requests
