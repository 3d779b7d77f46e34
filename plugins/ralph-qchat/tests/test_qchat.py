"""The adapter for Q Chat and Kiro CLI, against stand-ins that write what the sources, and published captures, say."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from ralph_core.contracts import Context, Exit, Request
from ralph_core.events import Failed, FailureKind, Finished, Text
from ralph_qchat.agent import KiroAgent, QChatAgent
from ralph_qchat.plugin import ralph_agents
from ralph_qchat.settings import ChatSettings

GREETING = "\x1b[36m\U0001f916 You are chatting with claude-4-sonnet\x1b[39m\n\n"


def agent(
    tmp_path: Path, kind: type[QChatAgent] = QChatAgent, env: dict[str, str] | None = None, **settings
) -> QChatAgent:
    base = {"HOME": str(tmp_path / "home"), "PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", **(env or {})}
    return kind(ChatSettings(**settings), Context(tmp_path, tmp_path / ".agent", base))


def attempt(tmp_path: Path, stdout: str, stderr: str = GREETING, code: int = 0) -> list:
    running = agent(tmp_path)
    found = [each for line in stdout.encode().split(b"\n") for each in running.parse(line)]
    return [*found, *running.finish(Exit(code, stderr))]


def program(tmp_path: Path, name: str, version: str, whoami: str = "echo Logged in with Builder ID") -> None:
    path = tmp_path / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f'#!/bin/sh\ncase "$1" in --version) echo "{version}";; whoami) {whoami};; esac\n')
    path.chmod(0o755)


class TestAnswer:
    def test_colours_and_the_sign_before_the_answer_are_removed(self, tmp_path):
        found = attempt(tmp_path, "\x1b[38;5;141m> \x1b[0mAll \x1b[1mdone\x1b[22m.\x1b[0m\x1b[0m\nLOOP_COMPLETE")
        assert found == [Text("All done."), Text("LOOP_COMPLETE"), Finished("All done.\nLOOP_COMPLETE")]

    def test_answer_is_what_is_said_after_the_last_tool(self, tmp_path):
        stdout = (
            "\x1b[38;5;10m> \x1b[39mI'll look.\n"
            "\U0001f6e0\ufe0f  Using tool: execute_bash (trusted)\n \u22ee \n \u25cf I will run the following shell command: ls\n"
            " \u25cf Completed in 0.1s\n\n"
            "\x1b[38;5;10m> \x1b[39mNothing there.\n\n> a quotation\n"
        )
        assert attempt(tmp_path, stdout)[-1] == Finished("Nothing there.\n\n> a quotation")

    def test_answer_without_colours(self, tmp_path):
        assert attempt(tmp_path, "Plain.\r\n")[-1] == Finished("Plain.")

    def test_no_text_can_hurt(self, tmp_path):
        assert attempt(tmp_path, "\x1b[31m\x1b]0;title\x07\x00漢字 [/x] \udc80".encode("utf-8", "replace").decode())

    def test_attempts_do_not_mix(self, tmp_path):
        running = agent(tmp_path)
        list(running.parse(b"old"))
        running.begin(Request("run", 1, 2, "p", tmp_path, {}, host=None))
        list(running.parse(b"new"))
        assert running.finish(Exit(0)) == [Finished("new")]


class TestFailure:
    @pytest.mark.parametrize(
        ("stderr", "code", "kind"),
        [
            (
                "\x1b[33m ⚠️  \x1b[1mAmazon Q rate limit reached:\x1b[22m\n    Request quota exceeded.",
                0,
                FailureKind.OVERLOADED,
            ),
            (
                "\x1b[1m\x1b[31mAmazon Q is having trouble responding right now: \n   0: unavailable",
                0,
                FailureKind.OVERLOADED,
            ),
            (
                "Kiro is having trouble responding right now: \n dispatch failure\nerror: Tool approval required but --no-int",
                1,
                FailureKind.NETWORK,
            ),
            ("\x1b[33mMonthly request limit reached\x1b[39m - The limits reset on 12/01.", 0, FailureKind.USAGE_LIMIT),
            ("error: You are not logged in, please log in with q login", 1, FailureKind.AUTH),
            ("Authentication failed.", 0, FailureKind.AUTH),
            ("error: Tool approval required but --no-interactive was specified. Use", 1, FailureKind.AGENT),
            ("error: unexpected argument '--wrap' found", 2, FailureKind.AGENT),
        ],
    )
    def test_kind(self, tmp_path, stderr, code, kind):
        failed = attempt(tmp_path, "\x1b[38;5;10m> \x1b[39mhalf an ans", GREETING + stderr, code)[-1]
        assert isinstance(failed, Failed)
        assert failed.kind is kind
        assert "\x1b" not in failed.message

    def test_same_words_in_the_answer_are_no_failure(self, tmp_path):
        found = attempt(tmp_path, "> You are not logged in. Amazon Q rate limit reached: no.")
        assert isinstance(found[-1], Finished)

    def test_silence_is_not_an_answer(self, tmp_path):
        assert attempt(tmp_path, "")[-1].kind is FailureKind.INVALID_OUTPUT


class TestCommand:
    def test_prompt_is_standard_input_and_nobody_is_asked(self, tmp_path):
        program(tmp_path, "q", "q 1.19.7")
        made = agent(tmp_path).command(Request("run", 1, 1, "größer\n", tmp_path, {"A": "1"}, host=None))
        assert made.argv == (
            *(str(tmp_path / "bin/q"), "chat", "--no-interactive", "--wrap", "never"),
            "--trust-all-tools",
        )
        assert made.stdin == "größer\n".encode()
        assert made.env == {"A": "1"}

    def test_settings(self, tmp_path):
        settings = ChatSettings(executable="/opt/q", model="m", trust_all_tools=False, env={"A": "2"})
        made = QChatAgent(settings, Context(tmp_path, tmp_path, {"PATH": ""})).command(
            Request("run", 1, 1, "p", tmp_path, {"A": "1"}, host=None)
        )
        assert made.argv == ("/opt/q", "chat", "--no-interactive", "--wrap", "never", "--model", "m")
        assert made.env == {"A": "2"}
        with pytest.raises(ValidationError):
            ChatSettings(modell="x")
        assert all(field.description for field in ChatSettings.model_fields.values())


class TestProbe:
    @pytest.mark.parametrize(
        ("kind", "name", "version"),
        [
            (QChatAgent, "q", "q 1.19.7"),
            (QChatAgent, "kiro-cli", "kiro-cli 2.21.2"),
            (KiroAgent, "kiro-cli", "kiro-cli 2.21.2"),
        ],
    )
    def test_program_that_is_logged_in(self, tmp_path, kind, name, version):
        program(tmp_path, name, version)
        probe = agent(tmp_path, kind).probe()
        assert probe.usable
        assert (probe.executable, probe.version) == (str(tmp_path / "bin" / name), version.split()[1])

    def test_kiro_is_not_q(self, tmp_path):
        program(tmp_path, "q", "q 1.19.7")
        assert "kiro-cli" in agent(tmp_path, KiroAgent).probe().missing[0]

    def test_another_program_of_that_name(self, tmp_path):
        program(tmp_path, "q", "q version 3.1.6")
        assert "another program" in agent(tmp_path).probe().missing[0]

    def test_no_login(self, tmp_path):
        program(tmp_path, "q", "q 1.19.7", whoami="echo Not logged in; exit 1")
        assert agent(tmp_path).probe().missing == ("not logged in: run `q login`",)

    def test_key_is_as_good_as_a_login(self, tmp_path):
        program(tmp_path, "kiro-cli", "kiro-cli 2.21.2", whoami="exit 1")
        assert agent(tmp_path, KiroAgent, {"KIRO_API_KEY": "k"}).probe().usable


def test_three_names_lead_to_two_agents():
    factories = {provider.name: provider.factory for provider in ralph_agents()}
    q, kiro = f"{QChatAgent.__module__}:QChatAgent", f"{KiroAgent.__module__}:KiroAgent"
    assert factories == {"q": q, "qchat": q, "kiro": kiro}
    assert {provider.settings for provider in ralph_agents()} == {f"{ChatSettings.__module__}:ChatSettings"}
