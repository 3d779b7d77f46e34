"""The genuine Claude Code, driven through the contract, against a Messages API on loopback."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest

from ralph_core.contracts import McpServers
from ralph_core.events import (
    Failed,
    FailureKind,
    Finished,
    Started,
    Text,
    Tokens,
    ToolCall,
    ToolResult,
    Usage,
    UsageWindow,
)
from ralph_core.testing.messages_api import Fault, MessagesAPI, Refusal, Reply, text, tool_use

pytestmark = pytest.mark.real_cli

SERVER = Path(__file__).with_name("mcp_server.py")

FIGURES = Tokens(input=111, output=37, cache_read=23, cache_write=13)


def of(kind, events):
    return [event for event in events if isinstance(event, kind)]


class TestWork:
    def test_answer_usage_and_cost_are_what_the_api_said(self, driver):
        with MessagesAPI([Reply([text("Done.\nLOOP_COMPLETE")], FIGURES)]) as api:
            events = driver.run(api)
        assert [type(event) for event in events] == [Started, Usage, Text, Usage, Finished]
        assert events[-1].text == "Done.\nLOOP_COMPLETE"
        assert events[-1].usage == events[-2].tokens == FIGURES
        assert events[-1].cost > 0

    def test_tool_really_writes_a_file_in_the_workspace(self, driver):
        note = driver.workspace / "note.txt"
        call = tool_use("Write", {"file_path": str(note), "content": "written by the agent\n"})
        with MessagesAPI([Reply([call], FIGURES), Reply([text("Written.")], FIGURES)]) as api:
            events = driver.run(api)
        assert note.read_text() == "written by the agent\n"
        assert [(event.name, event.input["file_path"]) for event in of(ToolCall, events)] == [("Write", str(note))]
        assert [(event.id, event.ok) for event in of(ToolResult, events)] == [(of(ToolCall, events)[0].id, True)]
        assert events[-1].usage == FIGURES + FIGURES

    @pytest.mark.skipif(os.geteuid() != 0, reason="not run as root")
    def test_root_may_use_every_tool(self, driver):
        call = tool_use("Bash", {"command": "id -u > who.txt", "description": "say who"})
        with MessagesAPI([Reply([call]), Reply([text("Done.")])]) as api:
            events = driver.run(api)
        assert isinstance(events[-1], Finished)
        assert (driver.workspace / "who.txt").read_text() == "0\n"

    def test_denied_tool_is_reported(self, driver):
        call = tool_use("Write", {"file_path": str(driver.workspace / "note.txt"), "content": "x"})
        with MessagesAPI([Reply([call]), Reply([text("I may not.")])]) as api:
            events = driver.run(api, permission_mode="default")
        assert [event.ok for event in of(ToolResult, events)] == [False]
        assert events[-1].text == "I may not."
        assert not (driver.workspace / "note.txt").exists()

    @pytest.mark.parametrize(
        "prompt",
        [
            "".join(f"{number:07} Zeile mit Umlauten äöü 漢字 😀\r\n" for number in range(19_000)),  # 1 MB
            "  \n\ttrailing and leading \n\n",
            "/etc/hosts is wrong",
        ],
        ids=["1 MB", "white space", "slash"],
    )
    def test_prompt_arrives_byte_identical(self, driver, prompt):
        with MessagesAPI([Reply([text("Read.")])]) as api:
            events = driver.run(api, prompt)
        assert isinstance(events[-1], Finished)
        sent = f"\n{prompt}" if prompt.startswith("/") else prompt
        assert sent in api.requests[0].texts()

    def test_answer_of_5_mb_is_whole(self, driver):
        answer = "\n".join(f"{number:09}" for number in range(500_000))
        with MessagesAPI([Reply([text(answer)])]) as api:
            events = driver.run(api)
        assert events[-1].text == answer

    def test_settings_reach_the_request(self, driver):
        with MessagesAPI([Reply([text("ok")])]) as api:
            driver.run(
                api,
                model="haiku",
                append_system_prompt="SPEAK SOFTLY",
                disallowed_tools=("WebFetch",),
                env={"CLAUDE_CODE_EXTRA_BODY": json.dumps({"metadata": {"user_id": "from the settings"}})},
            )
        (request,) = api.requests
        assert "haiku" in request.body["model"]
        assert "SPEAK SOFTLY" in json.dumps(request.body["system"])
        assert "WebFetch" not in [tool["name"] for tool in request.body["tools"]]
        assert request.body["metadata"]["user_id"] == "from the settings"

    def test_each_attempt_is_a_session_of_its_own(self, driver):
        with MessagesAPI([Reply([text("once")])]) as api:
            sessions = [of(Started, driver.run(api))[0].session for _ in range(2)]
        assert len(set(sessions)) == 2
        assert all(len(request.texts("assistant")) == 0 for request in api.requests)

    def test_key_of_ralph_is_the_one_that_is_sent(self, driver):
        with MessagesAPI([Reply([text("ok")])]) as api:
            driver.run({**api.env("other"), "CLAUDE_API_KEY": "sk-ant-ours"})
        assert api.requests[0].headers["x-api-key"] == "sk-ant-ours"


class TestSurroundings:
    """What Claude Code makes of the user's own settings, and of the MCP servers of Ralph's."""

    @pytest.mark.parametrize(("sources", "seen"), [((), False), (("user", "project", "local"), True)])
    def test_the_users_settings_are_not_read_unless_asked_for(self, driver, sources, seen):
        hook = {"type": "command", "command": f"touch {driver.tmp}/hooked"}
        home = driver.tmp / "home/.claude"
        home.mkdir(parents=True)
        (home / "settings.json").write_text(json.dumps({"hooks": {"SessionStart": [{"hooks": [hook]}]}}))
        with MessagesAPI([Reply([text("ok")])]) as api:
            driver.run(api, **({"setting_sources": sources} if sources else {}))
        assert (driver.tmp / "hooked").exists() is seen

    @pytest.mark.parametrize("keep", [True, False])
    def test_sessions_are_kept_or_not(self, driver, keep):
        with MessagesAPI([Reply([text("ok")])]) as api:
            (started, *_) = driver.run(api, keep_sessions=keep)
        kept = [path.stem for path in (driver.tmp / "home/.claude").rglob("*.jsonl")]
        assert (started.session in kept) is keep

    def test_system_prompt_is_replaced(self, driver):
        with MessagesAPI([Reply([text("ok")])]) as api:
            driver.run(api, system_prompt="YOU ARE A TEAPOT")
        assert "YOU ARE A TEAPOT" in json.dumps(api.requests[0].body["system"])

    def test_mcp_servers_are_those_of_the_run_and_no_others(self, driver):
        driver.workspace.mkdir()
        server = {"command": sys.executable, "args": [str(SERVER)], "env": {"MARK": str(driver.tmp / "called")}}
        other = {"mcpServers": {"other": {"command": sys.executable, "args": [str(SERVER)]}}}
        (driver.workspace / ".mcp.json").write_text(json.dumps(other))
        driver.mcp = McpServers({"ours": server}, 10, 30)
        with MessagesAPI([Reply([tool_use("mcp__ours__mark", {"word": "hello"})]), Reply([text("Called.")])]) as api:
            events = driver.run(api)
        assert (driver.tmp / "called").read_text() == "hello"
        assert [event.ok for event in of(ToolResult, events)] == [True]
        tools = {tool["name"] for request in api.requests for tool in request.body["tools"]}
        assert not [name for name in tools if name.startswith("mcp__other")]


class TestFailure:
    @pytest.mark.parametrize(
        ("refusal", "kind"),
        [
            (Refusal(401, "invalid x-api-key"), FailureKind.AUTH),
            (Refusal(529, "Overloaded"), FailureKind.OVERLOADED),
            (Refusal(429, headers={"retry-after": "1"}), FailureKind.OVERLOADED),
            (Refusal(429, headers={"retry-after": "3600"}), FailureKind.USAGE_LIMIT),
        ],
        ids=["401", "529", "429 soon", "429 late"],
    )
    def test_kind_within_seconds(self, driver, refusal, kind):
        began = time.monotonic()
        with MessagesAPI([refusal]) as api:
            events = driver.run(api)
        assert [type(event) for event in events] == [Started, Failed]
        assert events[-1].kind is kind
        assert len(api.requests) <= 2
        assert time.monotonic() - began < 20

    def test_nobody_listens(self, driver):
        with MessagesAPI([]) as api:
            env = api.env()
        events = driver.run(env)
        assert events[-1].kind is FailureKind.NETWORK

    def test_dropped_stream_is_a_network_failure_that_was_not_free(self, driver):
        with MessagesAPI([Reply([text("never said whole")], FIGURES, fault=Fault.DROP)]) as api:
            events = driver.run(api)
        assert events[-1].kind is FailureKind.NETWORK
        assert events[-1].usage.input == FIGURES.input
        assert events[-1].cost is None

    def test_dropped_stream_that_is_made_good_is_an_answer(self, driver):
        def script(request):
            return Reply([text("whole")], FIGURES, fault=Fault.DROP if request.body.get("stream") else None)

        with MessagesAPI(script) as api:
            events = driver.run(api)
        assert events[-1].text == "whole"
        assert events[-1].cost > 0

    def test_no_key(self, driver):
        with MessagesAPI([Reply([text("never asked")])]) as api:
            events = driver.run({"ANTHROPIC_BASE_URL": api.url})
        assert events[-1].kind is FailureKind.AUTH
        assert not api.requests

    def test_too_many_turns(self, driver):
        call = tool_use("Bash", {"command": "true", "description": "nothing"})
        with MessagesAPI([Reply([call], FIGURES)]) as api:
            events = driver.run(api, max_turns=1)
        assert events[-1].kind is FailureKind.AGENT
        assert "maximum number of turns" in events[-1].message
        assert events[-1].usage == FIGURES

    def test_option_that_it_does_not_know_is_a_crash_with_its_words(self, driver):
        with MessagesAPI([Reply([text("never asked")])]) as api:
            events = driver.run(api, extra_args=("--no-such-option",))
        assert [type(event) for event in events] == [Failed]
        assert events[0].kind is FailureKind.CRASH
        assert "no-such-option" in events[0].message

    def test_quota_of_a_subscription_says_when_it_is_reset(self, driver):
        prefix, resets_at = "anthropic-ratelimit-unified", int(time.time()) + 3600
        headers = {
            f"{prefix}-status": "rejected",
            f"{prefix}-reset": str(resets_at),
            f"{prefix}-representative-claim": "five_hour",
        }
        with MessagesAPI([Refusal(429, "over the limit", headers=headers)]) as api:
            events = driver.run({"ANTHROPIC_BASE_URL": api.url, "CLAUDE_CODE_OAUTH_TOKEN": "sk-ant-oat01-test"})
        assert of(UsageWindow, events) == [UsageWindow("rejected", "five_hour", None, float(resets_at))]
        assert events[-1].kind is FailureKind.USAGE_LIMIT
        assert events[-1].retry_after == pytest.approx(3600, abs=60)


class TestStop:
    def test_usage_is_seen_to_grow_while_a_message_goes_on_and_it_ends_when_told(self, driver):
        told = []

        def stop(event):
            if isinstance(event, Usage) and event.tokens.output > 500 and not told:
                told.append(time.monotonic())
                return True
            return False

        with MessagesAPI([Reply([text("On")], FIGURES, fault=Fault.ENDLESS)]) as api:
            events = driver.run(api, stop_when=stop)
        assert time.monotonic() - told[0] < 5
        outputs = [event.tokens.output for event in of(Usage, events)]
        assert outputs == sorted(set(outputs))
        assert isinstance(events[-1], Failed)
        # Interrupted, it mostly writes a result before it goes; now and then it is gone (exit code 0) before that is written.
        assert events[-1].kind in (FailureKind.AGENT, FailureKind.CRASH)

    def test_api_that_never_answers(self, driver):
        with MessagesAPI([Reply([text("never said")], fault=Fault.HANG)]) as api:
            events = driver.run(api, stop_when=lambda event: isinstance(event, Started), env={"API_TIMEOUT_MS": "1500"})
        assert isinstance(events[-1], Failed)


class TestProbe:
    def test_it_finds_the_program_and_its_version(self, driver):
        probe = driver.agent({"PATH": os.environ["PATH"], "HOME": str(driver.tmp), "ANTHROPIC_API_KEY": "k"}).probe()
        assert probe.usable
        assert probe.version[0].isdigit()
