"""The adapter for Codex: its lines, and the genuine program against a Responses API on loopback."""

from __future__ import annotations

import json
import os

import pytest

from ralph_codex.agent import CodexAgent
from ralph_codex.plugin import ralph_agents
from ralph_codex.settings import CodexSettings
from ralph_codex.stream import Stream, kind_of
from ralph_core.contracts import Context, Exit
from ralph_core.events import Failed, FailureKind, Finished, Started, Text, Tokens, ToolCall, ToolResult
from ralph_core.testing.attempts import tried
from ralph_core.testing.responses_api import ResponsesAPI


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


@pytest.mark.real_cli
class TestGenuine:
    @pytest.fixture
    def run(self, tmp_path, codex, config):
        for folder in ("work", "home/.codex"):
            (tmp_path / folder).mkdir(parents=True)

        def run(url, prompt="Do the work.", *, key="k", **settings):
            (tmp_path / "home/.codex/config.toml").write_text(config(url))
            env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path / "home"), "LANG": "C.UTF-8"}
            env |= {"CODEX_API_KEY": key} if key else {}
            agent = CodexAgent(CodexSettings(executable=codex, **settings), Context(tmp_path / "work", tmp_path, env))
            assert not [words for words in agent.probe().missing if "credentials" not in words]
            return tried(agent, prompt, tmp_path / "work", env, tmp_path / "output")

        return run

    def test_tool_text_and_figures(self, run, tmp_path):
        with ResponsesAPI(["echo made > made.txt"], "Done.\nLOOP_COMPLETE") as api:
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
        with ResponsesAPI("Read.") as api:
            assert run(api.url, prompt).final.text == "Read."
        assert json.dumps(prompt.strip())[1:-1] in json.dumps(api.requests[0])

    def test_model(self, run):
        with ResponsesAPI("ok") as api:
            run(api.url, model="other-model")
        assert api.requests[0]["model"] == "other-model"

    def test_sandbox(self, run, tmp_path):
        with ResponsesAPI(["echo made > made.txt"], "Done.") as api:
            run(api.url, sandbox="read-only")
        assert not (tmp_path / "work/made.txt").exists()

    @pytest.mark.parametrize(("status", "kind"), [(401, FailureKind.AUTH), (429, FailureKind.USAGE_LIMIT)])
    def test_refusals(self, run, status, kind):
        with ResponsesAPI(status) as api:
            done = run(api.url)
        assert isinstance(done.final, Failed)
        assert done.final.kind is kind

    def test_no_key(self, run):
        with ResponsesAPI("never asked") as api:
            assert run(api.url, key=None).final.kind is FailureKind.AUTH
        assert not api.requests
