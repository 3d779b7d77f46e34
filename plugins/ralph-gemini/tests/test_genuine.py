"""The genuine Gemini CLI, driven through the contract, against a stand-in of its API on loopback."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
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
from ralph_core.testing.gemini_api import GeminiAPI, Refusal, Reply, call, quota, reason, retry_in, text
from ralph_core.testing.loopback import Fault
from ralph_gemini.plugin import ralph_agents

pytestmark = pytest.mark.real_cli

FIGURES = Tokens(input=111, output=37, cache_read=23)
SERVER = Path(__file__).parent / "echo_mcp.py"
ECHO = McpServers({"echo": {"command": sys.executable, "args": [str(SERVER)], "env": {}}}, 10, 30)
DONE = Reply([text("Done.\nLOOP_COMPLETE")], FIGURES)


def of(kind, events):
    return [event for event in events if isinstance(event, kind)]


class Proxy:
    """A proxy that refuses everything, and remembers what it was asked for."""

    def __enter__(self):
        self.asked_for = set()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def _listen(self):
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(5)
                self.asked_for.add(connection.recv(1000).split()[1].decode())
                connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


def shell(command):
    return Reply([call("run_shell_command", {"command": command})], FIGURES)


class TestWork:
    def test_answer_and_figures_are_what_the_api_said(self, driver):
        with GeminiAPI([Reply([text("Done.\nLOOP_COMPLETE")], FIGURES, thoughts=5)]) as api:
            events = driver.run(api)
        told = Tokens(input=111, output=42, cache_read=23)
        assert [type(event) for event in events] == [Started, Text, Text, Usage, Finished]
        assert events[-2] == Usage("gemini-2.5-flash", told, "gemini-2.5-flash")
        assert events[-1] == Finished("Done.\nLOOP_COMPLETE", told, None)

    def test_tool_really_writes_a_file_in_the_workspace(self, driver):
        write = call("write_file", {"file_path": str(driver.workspace / "note.txt"), "content": "by the agent\n"})
        with GeminiAPI([Reply([text("I write."), write], FIGURES), DONE]) as api:
            events = driver.run(api)
        assert (driver.workspace / "note.txt").read_text() == "by the agent\n"
        (used,), (result,) = of(ToolCall, events), of(ToolResult, events)
        assert (used.name, used.input["content"]) == ("write_file", "by the agent\n")
        assert (result.id, result.ok) == (used.id, True)
        assert events[-1] == Finished("Done.\nLOOP_COMPLETE", FIGURES + FIGURES)

    def test_it_does_what_its_provider_declares_and_no_more(self, driver):
        with GeminiAPI([shell("echo hi > hi.txt"), DONE]) as api:
            events = driver.run(api, model="gemini-2.5-pro", mcp=ECHO)
        final = events[-1]
        observed = {
            "tools": bool(of(ToolCall, events)) and events.index(of(ToolCall, events)[0]) < events.index(final),
            "session": of(Started, events)[0].session is not None,
            "usage": final.usage is not None,
            "usage-live": any(isinstance(event, Usage) for event in events[: -len(of(Usage, events)) - 1]),
            "cost": final.cost is not None,
            "quota": any(isinstance(event, UsageWindow) for event in events),
            "model": api.requests[0].model == "gemini-2.5-pro",
            "mcp": "mcp_echo_ping" in api.requests[0].tools(),
        }
        (provider,) = ralph_agents()
        assert {name for name, seen in observed.items() if seen} == provider.capabilities

    @pytest.mark.parametrize(
        ("mode", "offered", "missing"),
        [
            ("default", {"read_file"}, {"write_file", "run_shell_command"}),
            ("plan", {"read_file"}, {"run_shell_command"}),
            ("auto_edit", {"write_file"}, {"run_shell_command"}),
            ("yolo", {"write_file", "run_shell_command"}, set()),
        ],
    )
    def test_approval_mode_decides_which_tools_there_are(self, driver, mode, offered, missing):
        with GeminiAPI([DONE]) as api:
            driver.run(api, approval_mode=mode)
        assert offered <= api.requests[0].tools()
        assert not missing & api.requests[0].tools()

    def test_tool_that_may_not_be_used_is_reported_as_failed(self, driver):
        with GeminiAPI([shell("echo hi > hi.txt"), DONE]) as api:
            events = driver.run(api, approval_mode="auto_edit")
        assert [event.ok for event in of(ToolResult, events)] == [False]
        assert isinstance(events[-1], Finished)
        assert not (driver.workspace / "hi.txt").exists()

    def test_plan_mode_writes_nothing_into_the_workspace(self, driver):
        write = call("write_file", {"file_path": str(driver.workspace / "note.txt"), "content": "x"})
        with GeminiAPI([Reply([write]), DONE]) as api:
            events = driver.run(api, approval_mode="plan")
        assert [event.ok for event in of(ToolResult, events)] == [False]
        assert list(driver.workspace.iterdir()) == []

    @pytest.mark.parametrize(
        "prompt",
        [
            "".join(f"{number:07} Zeile mit Umlauten äöü 漢字 😀\r\n" for number in range(19_000)),  # 1 MB
            "  \n\ttrailing and leading \n\n",
            "/help is a command of its own; a@b.c, @nobody/nothing and @dataclass are not files here",
        ],
        ids=["1 MB", "white space", "slash and at"],
    )
    def test_prompt_arrives_byte_identical(self, driver, prompt):
        with GeminiAPI([DONE]) as api:
            events = driver.run(api, prompt)
        assert isinstance(events[-1], Finished)
        sent = f"\n{prompt}" if prompt.startswith("/") else prompt
        assert sent in api.requests[0].texts()

    def test_answer_of_1_mb_is_whole(self, driver):
        answer = "\n".join(f"{number:09}" for number in range(100_000))
        with GeminiAPI([Reply([text(answer)])]) as api:
            events = driver.run(api)
        assert events[-1].text == answer

    def test_each_attempt_is_a_session_of_its_own(self, driver):
        with GeminiAPI([Reply([text("once")])]) as api:
            sessions = [of(Started, driver.run(api))[0].session for _ in range(2)]
        assert len(set(sessions)) == 2
        assert all(not request.texts("model") for request in api.requests)

    def test_without_a_model_it_chooses_one_and_both_are_counted(self, driver):
        with GeminiAPI([DONE]) as api:
            events = driver.run(api, model=None)
        models = of(Usage, events)
        assert len(models) == 2
        assert events[-1].usage == models[0].tokens + models[1].tokens


class TestIsolation:
    def test_the_users_folder_is_as_it_was(self, driver):
        folder = driver.home / ".gemini"
        (folder / "tmp").mkdir(parents=True)
        (folder / "settings.json").write_text('{"general": {"maxAttempts": 7}} // mine\n')
        (folder / "GEMINI.md").write_text("ALWAYS SPEAK SOFTLY\n")
        before = {path: path.read_bytes() for path in driver.home.rglob("*") if path.is_file()}
        with GeminiAPI([DONE]) as api:
            driver.run(api)
        assert {path: path.read_bytes() for path in driver.home.rglob("*") if path.is_file()} == before
        assert "ALWAYS SPEAK SOFTLY" in json.dumps(api.requests[0].body)  # what the user has told it still holds

    def test_key_of_the_environment_wins_over_no_choice_and_is_the_one_that_is_sent(self, driver):
        with GeminiAPI([DONE]) as api:
            driver.run(api.env("the-key"))
        assert api.requests[0].headers["x-goog-api-key"] == "the-key"

    def test_settings_and_variables_of_the_section_reach_it(self, driver):
        with GeminiAPI([DONE]) as api:
            driver.run(
                api,
                model="gemini-2.5-pro",
                extra_args=("--include-directories", str(driver.tmp)),
                env={"GEMINI_CLI_CUSTOM_HEADERS": "x-mine: yes"},
            )
        (request,) = api.requests
        assert request.model == "gemini-2.5-pro"
        assert request.headers["x-mine"] == "yes"
        assert str(driver.tmp) in json.dumps(request.body["contents"])

    def test_mcp_server_is_started_and_used_and_no_other(self, driver):
        (driver.workspace / ".gemini").mkdir()
        other = {"mcpServers": {"other": {"command": sys.executable, "args": [str(SERVER)]}}}
        (driver.workspace / ".gemini/settings.json").write_text(json.dumps(other))
        with GeminiAPI([Reply([call("mcp_echo_ping", {"word": "there"})], FIGURES), DONE]) as api:
            events = driver.run(api, mcp=ECHO)
        (result,) = of(ToolResult, events)
        assert result.ok, result.text
        assert "pong there" in json.dumps(api.requests[1].body)
        assert {name for name in api.requests[0].tools() if name.startswith("mcp_")} == {"mcp_echo_ping"}

    @pytest.mark.parametrize("on", [False, True])
    def test_prompts_go_to_no_collector_unless_that_is_wanted(self, driver, on):
        with GeminiAPI([DONE]) as api, GeminiAPI([DONE]) as collector:
            where = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "GEMINI_TELEMETRY_TARGET": "local"}
            wanted = {"GEMINI_TELEMETRY_ENABLED": "true"} if on else {}
            driver.run({**api.env(), **where, "GEMINI_TELEMETRY_OTLP_PROTOCOL": "http"}, env=wanted)
        assert ("/v1/logs" in [each.endpoint for each in collector.received]) is on
        assert [each.endpoint.rpartition(":")[2] for each in api.received] == ["streamGenerateContent"]

    @pytest.mark.parametrize("on", [False, True])
    def test_it_contacts_nobody_but_the_api_unless_the_project_says_so(self, driver, on):
        """By way of a proxy, which counts who is asked for. Usage statistics are on by default."""
        if on:
            (driver.workspace / ".gemini").mkdir()
            settings = {"privacy": {"usageStatisticsEnabled": True}}
            (driver.workspace / ".gemini/settings.json").write_text(json.dumps(settings))
        with GeminiAPI([DONE]) as api, Proxy() as proxy:
            ways = {"HTTP_PROXY": proxy.url, "HTTPS_PROXY": proxy.url, "NO_PROXY": "127.0.0.1"}
            events = driver.run({**api.env(), **ways})
        assert isinstance(events[-1], Finished)
        assert proxy.asked_for == ({"play.googleapis.com:443"} if on else set())

    def test_folder_that_is_not_trusted(self, driver):
        with GeminiAPI([DONE]) as api:
            events = driver.run(api, trust_workspace=False)
        assert [type(event) for event in events] == [Failed]
        assert events[0].kind is FailureKind.SPAWN
        assert "trusted" in events[0].message
        assert not api.requests


class TestFailure:
    @pytest.mark.parametrize(
        ("refusal", "kind", "retry_after"),
        [
            (Refusal(400, "API key not valid.", details=[reason("API_KEY_INVALID")]), FailureKind.AUTH, None),
            (Refusal(401, "no"), FailureKind.AUTH, None),
            (Refusal(403, "no"), FailureKind.AUTH, None),
            (Refusal(404, "no such model"), FailureKind.AGENT, None),
            (Refusal(429, "too much", details=[retry_in(7)]), FailureKind.USAGE_LIMIT, 7.0),
            (Refusal(429, "too much", details=[retry_in(3600)]), FailureKind.USAGE_LIMIT, 3600.0),
            (Refusal(429, "Please retry in 41.5s."), FailureKind.USAGE_LIMIT, 41.5),
            (Refusal(429, "today", details=[quota("GenerateRequestsPerDay")]), FailureKind.USAGE_LIMIT, None),
            (Refusal(500, "internal"), FailureKind.OVERLOADED, None),
            (Refusal(503, "overloaded"), FailureKind.OVERLOADED, None),
        ],
        ids=["bad key", "401", "403", "404", "429 soon", "429 late", "429 in words", "429 of a day", "500", "503"],
    )
    def test_kind_at_once(self, driver, refusal, kind, retry_after):
        with GeminiAPI([refusal]) as api:
            events = driver.run(api)
        assert [type(event) for event in events] == [Started, Failed]
        assert (events[-1].kind, events[-1].retry_after) == (kind, retry_after)
        assert events[-1].usage == Tokens()
        assert len(api.requests) == 1, "waiting is Ralph's business"
        assert list(driver.scratch.iterdir()) == [], "reports of errors hold the prompt"

    def test_number_of_retries_is_a_setting(self, driver):
        with GeminiAPI([Refusal(500, "internal"), DONE]) as api:
            events = driver.run(api, max_retries=1)
        assert isinstance(events[-1], Finished)
        assert len(api.requests) == 2

    def test_nobody_listens(self, driver):
        with GeminiAPI([]) as api:
            env = api.env()
        events = driver.run(env)
        assert events[-1].kind is FailureKind.NETWORK

    def test_dropped_stream_is_a_network_failure_of_unknown_cost(self, driver):
        with GeminiAPI([Reply([text("never said whole")], fault=Fault.DROP)]) as api:
            events = driver.run(api)
        assert events[-1].kind is FailureKind.NETWORK
        assert (events[-1].usage, events[-1].cost) == (None, None)
        assert len(api.requests) == 1
        assert list(driver.scratch.iterdir()) == []

    def test_answer_without_figures_is_of_unknown_cost(self, driver):
        with GeminiAPI([Reply([text("free?")], usage=None)]) as api:
            assert driver.run(api)[-1] == Finished("free?", None, None)

    def test_no_key(self, driver):
        with GeminiAPI([DONE]) as api:
            events = driver.run({"GOOGLE_GEMINI_BASE_URL": api.url})
        assert [type(event) for event in events] == [Failed]
        assert events[0].kind is FailureKind.AUTH
        assert not api.requests

    @pytest.mark.parametrize("finish", ["SAFETY", "MALFORMED_FUNCTION_CALL"])
    def test_answer_that_is_none(self, driver, finish):
        with GeminiAPI([Reply([text("")], FIGURES, finish=finish)]) as api:
            events = driver.run(api)
        assert events[-1].kind is FailureKind.AGENT
        assert events[-1].usage == FIGURES

    def test_loop_that_it_detects_is_a_failure_though_it_says_success(self, driver):
        with GeminiAPI([shell("echo again")]) as api:
            events = driver.run(api)
        assert events[-1].kind is FailureKind.AGENT
        assert "Loop detected" in events[-1].message
        assert events[-1].usage.input > 0

    def test_too_many_turns(self, driver):
        with GeminiAPI([shell("echo again")]) as api:
            events = driver.run(api, max_turns=2)
        assert events[-1].kind is FailureKind.AGENT
        assert "max session turns" in events[-1].message
        assert events[-1].usage == FIGURES + FIGURES

    def test_prompt_over_what_it_reads_is_refused_before_it_starts(self, driver):
        with GeminiAPI([DONE]) as api:
            events = driver.run(api, "x" * (8 * 1024 * 1024 + 1))
        assert [type(event) for event in events] == [Failed]
        assert events[0].kind is FailureKind.SPAWN
        assert "8,388,609 bytes" in events[0].message
        assert not api.received

    def test_prompt_over_the_models_context_is_a_failure_though_it_says_success(self, driver):
        with GeminiAPI([DONE]) as api:
            events = driver.run(api, "word " * 840_000)
        assert events[-1].kind is FailureKind.AGENT
        assert "too long" in events[-1].message
        assert not api.requests

    def test_option_that_it_does_not_know_is_a_crash_with_its_words(self, driver):
        with GeminiAPI([DONE]) as api:
            events = driver.run(api, extra_args=("--no-such-option",))
        assert [type(event) for event in events] == [Failed]
        assert events[0].kind is FailureKind.CRASH
        assert "Unknown argument" in events[0].message


class TestStop:
    def test_api_that_never_answers(self, driver):
        with GeminiAPI([Reply([text("never")], fault=Fault.HANG)]) as api:
            events = driver.run(api, stop_when=lambda event: isinstance(event, Started))
        assert events[-1].kind is FailureKind.CRASH

    def test_it_ends_in_the_middle_of_an_answer_when_told(self, driver):
        told = []

        def stop(event):
            if isinstance(event, Text) and not told:
                told.append(time.monotonic())
                return True
            return False

        with GeminiAPI([Reply([text("On")], fault=Fault.ENDLESS)]) as api:
            events = driver.run(api, stop_when=stop)
        assert time.monotonic() - told[0] < 30
        assert events[-1].kind is FailureKind.CRASH  # exit code 0, and no result

    def test_no_tool_survives_it(self, driver):
        """`try_` looks for what is left; the tool is in a session of its own."""
        with GeminiAPI([shell("sleep 300")]) as api:
            events = driver.run(api, stop_when=lambda event: isinstance(event, ToolCall) and bool(time.sleep(1) or 1))
        assert events[-1].kind is FailureKind.CRASH

    def test_program_that_is_killed(self, driver):
        with GeminiAPI([shell("kill -KILL $PPID; sleep 30")]) as api:
            events = driver.run(api)
        assert events[-1].kind is FailureKind.CRASH
        assert signal.SIGKILL.name in events[-1].message


class TestProbe:
    def test_it_finds_the_program_and_its_version(self, driver):
        env = {"PATH": os.environ["PATH"], "HOME": str(driver.home), "GEMINI_API_KEY": "k"}
        probe = driver.agent(env).probe()
        assert probe.usable, probe.missing
        assert probe.version[0].isdigit()
        assert not (driver.tmp / "state").exists()
        assert list(driver.home.iterdir()) == []
