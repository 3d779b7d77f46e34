"""Genuine agents behind the protocol, driven through the contract, each against a model API on loopback."""

from __future__ import annotations

import json

import pytest

from ralph_core.events import Failed, FailureKind, Finished, Started, Text, Tokens, ToolCall, ToolResult
from ralph_core.testing import chat_api as chat
from ralph_core.testing import gemini_api as gemini
from ralph_core.testing.chat_api import ChatAPI
from ralph_core.testing.gemini_api import GeminiAPI
from ralph_core.testing.messages_api import Fault, MessagesAPI, Refusal, Reply, text, tool_use

pytestmark = pytest.mark.real_cli

FIGURES = Tokens(input=111, output=37, cache_read=23, cache_write=13)


def of(kind, events):
    return [event for event in events if isinstance(event, kind)]


def answers(driver, *, allowed):
    """Let the policies say that to everything; returns the names of the tools that were asked about, and what was made by then."""
    asked = []

    def answer(each):
        asked.append((each.call.name, sorted(path.name for path in driver.workspace.iterdir())))
        each.answer(allowed=allowed, reason="not that")

    driver.answers = answer
    return asked


class TestClaude:
    @pytest.fixture
    def run(self, driver, genuine):
        program = genuine(
            "RALPH_TEST_ACP_CLAUDE", "claude-agent-acp", "npm install @agentclientprotocol/claude-agent-acp"
        )

        def run(api, prompt="Do the work.", **settings):
            env = api.env() if isinstance(api, MessagesAPI) else api
            return driver.known("claude", program, env, prompt, **settings)

        return run

    def work(self, driver):
        shell = tool_use("Bash", {"command": "echo made > made.txt", "description": "make it"})
        write = tool_use("Write", {"file_path": str(driver.workspace / "note.txt"), "content": "a note\n"})
        return [
            Reply([text("I begin."), shell], FIGURES),
            Reply([write], FIGURES),
            Reply([text("Done.\nLOOP_COMPLETE")], FIGURES),
        ]

    def test_tools_text_figures_and_cost(self, driver, run):
        with MessagesAPI(self.work(driver)) as api:
            events = run(api)
        assert (driver.workspace / "made.txt").read_text() == "made\n"
        assert (driver.workspace / "note.txt").read_text() == "a note\n"
        assert isinstance(events[0], Started)
        assert [(call.name, call.input.get("command") or call.input["file_path"]) for call in of(ToolCall, events)] == [
            ("Bash", "echo made > made.txt"), ("Write", str(driver.workspace / "note.txt"))]  # fmt: skip
        assert [result.ok for result in of(ToolResult, events)] == [True, True]
        assert [each.text for each in of(Text, events)] == ["I begin.", "Done.\nLOOP_COMPLETE"]
        assert events[-1].text == "Done.\nLOOP_COMPLETE"
        assert events[-1].usage == FIGURES + FIGURES + FIGURES
        assert events[-1].cost > 0

    @pytest.mark.parametrize("allowed", [True, False])
    def test_policies_are_asked_before_a_tool_runs(self, driver, run, allowed):
        asked = answers(driver, allowed=allowed)
        with MessagesAPI(self.work(driver)) as api:
            events = run(api)
        made = ["made.txt"] if allowed else []
        assert asked == [("Bash", []), ("Write", made)]
        assert (driver.workspace / "made.txt").exists() == (driver.workspace / "note.txt").exists() == allowed
        assert [result.ok for result in of(ToolResult, events)] == [allowed] * 2

    @pytest.mark.parametrize("prompt", ["/etc/hosts is wrong", "x" * 1_000_000, " \n two lines\r\n\n"])
    def test_prompt_arrives(self, run, prompt):
        with MessagesAPI([Reply([text("Read.")])]) as api:
            assert isinstance(run(api, prompt)[-1], Finished)
        assert any(prompt in told for told in api.requests[0].texts())

    def test_mode_and_model(self, run):
        with MessagesAPI([Reply([text("ok")])]) as api:
            events = run(api, mode="acceptEdits", model="haiku")
        assert events[0].model == "haiku"
        assert "haiku" in api.requests[0].body["model"]

    @pytest.mark.parametrize(
        ("refusal", "kind"),
        [
            (Refusal(401, "invalid x-api-key"), FailureKind.AUTH),
            (Refusal(429, headers={"retry-after": "3600"}), FailureKind.USAGE_LIMIT),
            (Refusal(529, "Overloaded"), FailureKind.OVERLOADED),
        ],
    )
    def test_refusals(self, run, refusal, kind):
        with MessagesAPI([refusal]) as api:
            events = run(api)
        assert events[-1].kind is kind, events
        assert len(api.requests) <= 2

    def test_nobody_listens(self, run):
        with MessagesAPI([]) as api:
            env = api.env()
        assert run(env)[-1].kind is FailureKind.NETWORK

    def test_no_key(self, run):
        with MessagesAPI([Reply([text("never asked")])]) as api:
            assert run({"ANTHROPIC_BASE_URL": api.url})[-1].kind is FailureKind.AUTH
        assert not api.requests

    def test_told_to_stop_it_ends_its_turn(self, driver, run):
        with MessagesAPI([Reply([text("On")], FIGURES, fault=Fault.HANG)]) as api:
            events = run(api, stop_when=lambda event: isinstance(event, Started))
        assert isinstance(events[-1], Failed)
        assert driver.host.job.ended


class TestGemini:
    @pytest.fixture
    def run(self, driver, genuine):
        program = genuine("RALPH_TEST_GEMINI", "gemini", "npm install @google/gemini-cli")
        quiet = {
            "security": {"auth": {"selectedType": "gemini-api-key"}},
            "privacy": {"usageStatisticsEnabled": False},
            "general": {"enableAutoUpdate": False, "maxAttempts": 1},
            "telemetry": {"enabled": False},
        }
        (driver.tmp / "home/.gemini").mkdir(parents=True)
        (driver.tmp / "home/.gemini/settings.json").write_text(json.dumps(quiet))

        def run(api, prompt="Do the work.", *, key=True, **settings):
            env = {**api.env(), "GEMINI_MODEL": "gemini-2.5-flash"}
            if not key:
                del env["GEMINI_API_KEY"]
            return driver.known("gemini", program, env, prompt, **settings)

        return run

    WORK = (
        gemini.Reply([gemini.text("I begin."), gemini.call("run_shell_command", {"command": "echo made > made.txt"})]),
        gemini.Reply([gemini.call("write_file", {"file_path": "note.txt", "content": "a note\n"})]),
        gemini.Reply([gemini.text("Done.\nLOOP_COMPLETE")]),
    )

    def test_tools_text_and_figures(self, driver, run):
        with GeminiAPI(self.WORK) as api:
            events = run(api)
        assert (driver.workspace / "made.txt").read_text() == "made\n"
        assert (driver.workspace / "note.txt").read_text() == "a note\n"
        assert events[0].model == "gemini-2.5-flash"
        shell, write = of(ToolCall, events)
        assert (shell.name, shell.input["command"]) == ("run_shell_command", "echo made > made.txt")
        assert (write.name, write.input["changes"]) == (
            "write_file", [{"path": str(driver.workspace / "note.txt"), "content": "a note\n"}])  # fmt: skip
        assert [result.ok for result in of(ToolResult, events)] == [True, True]
        assert events[-1] == Finished("Done.\nLOOP_COMPLETE", Tokens(input=360, output=75), None)

    @pytest.mark.parametrize("allowed", [True, False])
    def test_policies_are_asked_before_a_tool_runs(self, driver, run, allowed):
        asked = answers(driver, allowed=allowed)
        with GeminiAPI(self.WORK) as api:
            run(api)
        assert asked == [("run_shell_command", []), ("write_file", ["made.txt"] if allowed else [])]
        assert (driver.workspace / "made.txt").exists() == (driver.workspace / "note.txt").exists() == allowed

    def test_prompt_arrives_and_the_mode_is_no_answer(self, run):
        with GeminiAPI([gemini.Reply([gemini.text("Read.")])]) as api:
            events = run(api, "/etc/hosts is wrong", mode="yolo")
        assert events[-1].text == "Read."
        assert any("/etc/hosts is wrong" in told for told in api.requests[0].texts())

    @pytest.mark.parametrize(
        ("status", "kind"), [(401, FailureKind.AUTH), (429, FailureKind.USAGE_LIMIT), (503, FailureKind.OVERLOADED)]
    )
    def test_refusals(self, run, status, kind):
        with GeminiAPI([gemini.Refusal(status)]) as api:
            assert run(api)[-1].kind is kind

    def test_no_key(self, run):
        with GeminiAPI([gemini.Reply([gemini.text("never asked")])]) as api:
            events = run(api, key=False)
        assert events[-1].kind is FailureKind.AUTH
        assert not api.requests


class TestOpenCode:
    """It has a JSON mode of its own, which can't be asked; hence the protocol."""

    @pytest.fixture
    def run(self, driver, genuine):
        program = genuine("RALPH_TEST_OPENCODE", "opencode", "npm install opencode-ai")

        def run(api, prompt="Do the work.", **settings):
            model = {"name": chat.MODEL, "limit": {"context": 128_000, "output": 8_000}}
            provider = {
                "npm": "@ai-sdk/openai-compatible",
                "options": {"baseURL": f"{api.url}/v1", "apiKey": "sk-test-0123456789"},
                "models": {chat.MODEL: {**model, "cost": {"input": 1, "output": 2}}},
            }
            config = driver.tmp / "home/.config/opencode"
            config.mkdir(parents=True, exist_ok=True)
            told = {"provider": {"ours": provider}, "model": f"ours/{chat.MODEL}", "small_model": f"ours/{chat.MODEL}"}
            (config / "opencode.json").write_text(json.dumps({**told, "autoupdate": False, "share": "disabled"}))
            env = {"OPENCODE_DISABLE_MODELS_FETCH": "1", "OPENCODE_DISABLE_LSP_DOWNLOAD": "1"}
            return driver.known("opencode", program, env, prompt, **settings)

        return run

    @staticmethod
    def script(*answers):
        """Those answers to what the agent asks; to what it asks for a title, a word."""
        left = list(answers)

        def script(request):
            if not request.body.get("tools"):
                return chat.Completion("Work")
            return left.pop(0) if len(left) > 1 else left[0]

        return script

    def work(self):
        call = chat.Call("bash", {"command": "echo made > made.txt", "description": "make it"})
        return self.script(chat.Completion(calls=[call]), chat.Completion("Done.\nLOOP_COMPLETE"))

    def test_tools_and_text(self, driver, run):
        with ChatAPI(self.work()) as api:
            events = run(api)
        assert (driver.workspace / "made.txt").read_text() == "made\n"
        assert [call.input["command"] for call in of(ToolCall, events)] == ["echo made > made.txt"]
        assert [result.ok for result in of(ToolResult, events)] == [True]
        assert events[-1].text == "Done.\nLOOP_COMPLETE"
        assert events[-1].cost > 0

    @pytest.mark.parametrize("allowed", [True, False])
    def test_policies_are_asked_before_a_tool_runs(self, driver, run, allowed):
        asked = answers(driver, allowed=allowed)
        with ChatAPI(self.work()) as api:
            run(api)
        assert [made for _, made in asked] == [[]]
        assert (driver.workspace / "made.txt").exists() is allowed

    def test_a_refused_key_is_told_in_words_alone(self, run):
        """The protocol carries no status here, and Ralph reads nothing into words: a failure of the agent's own."""
        with ChatAPI(self.script(chat.Refusal(401, "invalid api key"))) as api:
            failed = run(api)[-1]
        assert isinstance(failed, Failed)
        assert (failed.kind, "invalid api key" in failed.message) == (FailureKind.AGENT, True)
