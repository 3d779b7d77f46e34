"""The adapter for Gemini CLI, over captures of the genuine program (0.61.0, against a stand-in of its API on loopback)."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from ralph_core.contracts import Context, Exit, Request
from ralph_core.events import Event, Failed, FailureKind, Finished, Started, Text, Tokens, ToolCall, ToolResult
from ralph_gemini.agent import GeminiAgent
from ralph_gemini.plugin import ralph_agents
from ralph_gemini.settings import GeminiSettings

CAPTURES = Path(__file__).parent / "captures"


def agent(tmp_path: Path, env: dict[str, str] | None = None, **settings) -> GeminiAgent:
    base = {"HOME": str(tmp_path / "home"), "PATH": str(tmp_path / "bin"), **(env or {})}
    return GeminiAgent(GeminiSettings(**settings), Context(tmp_path, tmp_path / ".agent", base))


def request(tmp_path: Path, prompt: str = "work", env: dict[str, str] | None = None) -> Request:
    return Request("run", 1, 1, prompt, tmp_path, env or {}, host=None)


def events(tmp_path: Path, capture: str, code: int) -> list[Event]:
    running = agent(tmp_path)
    found = [each for line in (CAPTURES / f"{capture}.jsonl").read_bytes().splitlines() for each in running.parse(line)]
    return [*found, *running.finish(Exit(code))]


def program(tmp_path: Path, body: str) -> None:
    path = tmp_path / "bin/gemini"
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


class TestEvents:
    def test_text_run(self, tmp_path):
        started, *texts, finished = events(tmp_path, "text", 0)
        assert isinstance(started, Started)
        assert started.session
        assert "".join(each.text for each in texts if isinstance(each, Text)) == "All done.\nLOOP_COMPLETE"
        assert finished == Finished("All done.\nLOOP_COMPLETE", Tokens(input=100, output=25, cache_read=20), None)

    def test_final_message_is_what_is_said_after_the_last_tool(self, tmp_path):
        found = events(tmp_path, "tool", 0)
        (call,) = [each for each in found if isinstance(each, ToolCall)]
        assert (call.name, call.input["file_path"]) == ("write_file", "hello.txt")
        assert [each for each in found if isinstance(each, ToolResult)] == [ToolResult(call.id, ok=True)]
        assert found[-1] == Finished("Wrote it.\nLOOP_COMPLETE", Tokens(input=200, output=50, cache_read=40), None)

    def test_prompt_that_is_echoed_is_not_the_answer(self, tmp_path):
        assert "say hello" not in [each.text for each in events(tmp_path, "text", 0) if isinstance(each, Text)]

    @pytest.mark.parametrize(
        ("capture", "code", "kind"),
        [
            ("401", 145, FailureKind.AUTH),
            ("bad_key", 144, FailureKind.AUTH),
            ("429", 173, FailureKind.USAGE_LIMIT),
            ("503", 247, FailureKind.OVERLOADED),
            ("refused", 1, FailureKind.NETWORK),
            ("loop", 0, FailureKind.AGENT),
        ],
    )
    def test_failures(self, tmp_path, capture, code, kind):
        failed = events(tmp_path, capture, code)[-1]
        assert isinstance(failed, Failed)
        assert failed.kind is kind
        assert failed.message

    def test_no_login_is_known_by_the_exit_code(self, tmp_path):
        (failed,) = agent(tmp_path).finish(Exit(41, "you must specify the GEMINI_API_KEY environment variable"))
        assert failed.kind is FailureKind.AUTH
        assert "GEMINI_API_KEY" in failed.message

    def test_end_without_a_result_is_left_to_the_core(self, tmp_path):
        running = agent(tmp_path)
        for line in (CAPTURES / "text.jsonl").read_bytes().splitlines()[:-1]:
            list(running.parse(line))
        assert not running.finish(Exit(0))

    def test_noise_is_ignored_and_each_attempt_starts_anew(self, tmp_path):
        running = agent(tmp_path)
        assert not [each for line in (b"", b"YOLO mode", b"[]", b"{", b"\xff") for each in running.parse(line)]
        list(running.parse(b'{"type":"message","role":"assistant","content":"old"}'))
        running.begin(request(tmp_path))
        list(running.parse(b'{"type":"result","status":"success"}'))
        assert running.finish(Exit(0)) == [Finished("", None)]


class TestCommand:
    def test_prompt_is_standard_input_and_nobody_is_asked(self, tmp_path):
        made = agent(tmp_path).command(request(tmp_path, "tu größer\n", {"GEMINI_API_KEY": "k"}))
        assert made.argv == ("gemini", "-o", "stream-json", "--approval-mode", "yolo")
        assert made.stdin == "tu größer\n".encode()
        assert made.env["GEMINI_API_KEY"] == "k"
        assert made.env["GEMINI_CLI_NO_RELAUNCH"] == made.env["GEMINI_CLI_TRUST_WORKSPACE"] == "true"

    def test_settings(self, tmp_path):
        settings = GeminiSettings(executable="/opt/gemini", model="pro", approval_mode="auto_edit", env={"A": "1"})
        made = GeminiAgent(settings, Context(tmp_path, tmp_path, {}))
        command = made.command(request(tmp_path, env={"A": "0"}))
        assert command.argv == ("/opt/gemini", "-o", "stream-json", "--approval-mode", "auto_edit", "-m", "pro")
        assert command.env["A"] == "1"
        with pytest.raises(ValidationError):
            GeminiSettings(modell="x")
        assert all(field.description for field in GeminiSettings.model_fields.values())


class TestProbe:
    def test_missing_program(self, tmp_path):
        assert "npm install -g @google/gemini-cli" in agent(tmp_path).probe().missing[0]

    def test_program_with_key_is_usable(self, tmp_path):
        program(tmp_path, "echo 0.61.0")
        probe = agent(tmp_path, {"GEMINI_API_KEY": "k"}).probe()
        assert probe.usable
        assert probe.version == "0.61.0"

    def test_no_credentials_says_what_to_set(self, tmp_path):
        program(tmp_path, "echo 0.61.0")
        assert "GEMINI_API_KEY" in agent(tmp_path).probe().missing[0]

    @pytest.mark.parametrize("path", ["home/.gemini/oauth_creds.json", ".env", ".gemini/.env"])
    def test_file_that_may_hold_credentials(self, tmp_path, path):
        program(tmp_path, "echo 0.61.0")
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("")
        assert agent(tmp_path).probe().usable

    def test_program_that_fails(self, tmp_path):
        program(tmp_path, "exit 2")
        assert "exit code 2" in agent(tmp_path, {"GEMINI_API_KEY": "k"}).probe().missing[0]


def test_provider_leads_to_the_agent_and_its_settings():
    (provider,) = ralph_agents()
    assert provider.name == "gemini"
    assert provider.factory == f"{GeminiAgent.__module__}:{GeminiAgent.__name__}"
    assert provider.settings == f"{GeminiSettings.__module__}:{GeminiSettings.__name__}"
