"""How Gemini CLI is started and looked for, and what becomes of programs that only pretend to be it."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import pytest
from pydantic import ValidationError

from ralph_core.contracts import Command, Context, Request, SpawnError
from ralph_core.events import Failed, FailureKind, Finished, Started, Text
from ralph_gemini.agent import GeminiAgent
from ralph_gemini.plugin import ralph_agents
from ralph_gemini.settings import GeminiSettings

CAPTURES = Path(__file__).parent / "captures"


def agent(tmp_path: Path, env: dict[str, str] | None = None, **settings) -> GeminiAgent:
    base = {"HOME": str(tmp_path / "home"), "PATH": str(tmp_path / "bin"), **(env or {})}
    return GeminiAgent(GeminiSettings(**settings), Context(tmp_path, tmp_path / ".agent", base))


def command(tmp_path: Path, prompt: str = "work", env: dict[str, str] | None = None, **settings) -> Command:
    base = {"HOME": str(tmp_path / "home"), **(env or {})}
    return agent(tmp_path, **settings).command(Request("run", 1, 1, prompt, tmp_path, base, host=None))


def program(tmp_path: Path, body: str, interpreter: str = "/bin/sh") -> Path:
    path = tmp_path / "bin/gemini"
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!{interpreter}\n{body}\n")
    path.chmod(0o755)
    return path


class TestCommand:
    def test_prompt_is_standard_input_and_nobody_is_asked(self, tmp_path):
        made = command(tmp_path, "tu größer\n", {"GEMINI_API_KEY": "k"})
        assert made.argv == ("gemini", "-o", "stream-json", "--approval-mode", "yolo")
        assert made.stdin == "tu größer\n".encode()
        assert made.env["GEMINI_API_KEY"] == "k"
        assert made.env["GEMINI_CLI_NO_RELAUNCH"] == made.env["GEMINI_CLI_TRUST_WORKSPACE"] == "true"
        assert made.env["GEMINI_CLI_HOME"] == str(tmp_path / ".agent/gemini")

    def test_prompt_that_looks_like_a_command_of_its_own_is_kept_text(self, tmp_path):
        assert command(tmp_path, "/clear it up").stdin == b"\n/clear it up"

    def test_settings(self, tmp_path):
        settings = GeminiSettings(
            executable="/opt/gemini",
            model="pro",
            approval_mode="auto_edit",
            trust_workspace=False,
            extra_args=("--debug",),
            env={"A": "1"},
        )
        env = {"A": "0", "B": "1", "HOME": str(tmp_path)}
        made = GeminiAgent(settings, Context(tmp_path, tmp_path / ".agent", {})).command(
            Request("run", 1, 1, "p", tmp_path, env, host=None)
        )
        assert made.argv == ("/opt/gemini", "-o", "stream-json", "--approval-mode", "auto_edit", "-m", "pro", "--debug")
        assert (made.env["A"], made.env["B"]) == ("1", "1")
        assert "GEMINI_CLI_TRUST_WORKSPACE" not in made.env

    def test_never_a_resumed_session(self):
        for option in ("--resume=latest", "-r", "--session-id", "--output-format=text", "-p", "--acp"):
            with pytest.raises(ValidationError, match="can't be used"):
                GeminiSettings(extra_args=(option,))

    def test_unknown_settings_are_refused_and_all_are_described(self):
        with pytest.raises(ValidationError):
            GeminiSettings(modell="x")
        assert all(field.description for field in GeminiSettings.model_fields.values())

    def test_prompt_that_would_be_cut_is_refused(self, tmp_path):
        command(tmp_path, "x" * (8 * 1024 * 1024))
        with pytest.raises(SpawnError, match="8,388,608 at most"):
            command(tmp_path, "x" * (8 * 1024 * 1024 - 1) + "ü")


class TestProbe:
    KEY = {"GEMINI_API_KEY": "k"}

    def test_missing_program(self, tmp_path):
        assert "npm install -g @google/gemini-cli" in agent(tmp_path).probe().missing[0]

    def test_program_with_key_is_usable(self, tmp_path):
        program(tmp_path, "echo 0.61.4")
        probe = agent(tmp_path, self.KEY).probe()
        assert probe.usable
        assert (probe.version, probe.notes) == ("0.61.4", ("credentials: GEMINI_API_KEY (found, not tried)",))

    def test_other_version_is_a_note(self, tmp_path):
        program(tmp_path, "echo 0.1.9")
        assert (
            "version 0.1.9 is untested; this adapter was tried with 0.61.0" in agent(tmp_path, self.KEY).probe().notes
        )

    def test_no_credentials_says_what_to_set(self, tmp_path):
        program(tmp_path, "echo 0.61.0")
        assert "GEMINI_API_KEY" in agent(tmp_path).probe().missing[0]

    @pytest.mark.parametrize(
        "path", ["home/.gemini/oauth_creds.json", "home/.gemini/gemini-credentials.json", ".env", ".gemini/.env"]
    )
    def test_file_that_may_hold_credentials(self, tmp_path, path):
        program(tmp_path, "echo 0.61.0")
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("")
        assert agent(tmp_path).probe().usable

    @pytest.mark.parametrize(("body", "says"), [("exit 2", "exit code 2"), ("exec /nowhere/node", "exit code 127")])
    def test_program_that_fails(self, tmp_path, body, says):
        program(tmp_path, body)
        assert says in agent(tmp_path, self.KEY).probe().missing[0]

    def test_program_that_can_not_be_run(self, tmp_path):
        program(tmp_path, "").write_bytes(b"\x7fELF")
        assert "can't be run" in agent(tmp_path, self.KEY).probe().missing[0]


class TestFault:
    """Programs in its place that go wrong in their own ways; `Driver.run` sees to it that nothing of them is left."""

    @pytest.fixture
    def run(self, tmp_path, drive):
        def run(body, *, interpreter="/bin/sh", **more):
            driver = drive(str(program(tmp_path, body, interpreter)))
            return driver.run({"CAPTURES": str(CAPTURES), "GEMINI_API_KEY": "k"}, **more)

        return run

    def test_not_installed(self, tmp_path, drive):
        (failed,) = drive(str(tmp_path / "bin/gemini")).run({})
        assert failed.kind is FailureKind.SPAWN

    def test_version_that_does_not_know_the_format(self, run):
        said = "Invalid values:\\n  Argument: output-format, Given: stream-json, Choices: text, json"
        (failed,) = run(f"printf '{said}\\n' >&2; exit 1")
        assert failed.kind is FailureKind.CRASH
        assert "Invalid values" in failed.message

    def test_crash(self, run):
        events = run('head -n 2 "$CAPTURES/text.jsonl"; kill -SEGV $$')
        assert events[-1].kind is FailureKind.CRASH
        assert signal.SIGSEGV.name in events[-1].message

    def test_half_a_line(self, run):
        events = run('head -c -30 "$CAPTURES/text.jsonl"')
        assert [type(event) for event in events] == [Started, Text, Text, Failed]
        assert events[-1].kind is FailureKind.CRASH

    def test_garbage(self, run):
        (failed,) = run("head -c 300000 /dev/urandom")
        assert failed.kind is FailureKind.CRASH

    def test_garbage_around_an_answer(self, run):
        noise = "printf 'npm warn\\n\\033[31m{\\000\\n'"
        events = run(f'{noise}; cat "$CAPTURES/text.jsonl"; {noise}')
        assert isinstance(events[-1], Finished)

    def test_huge_line(self, run):
        body = """
import json
print(open(f"{__import__('os').environ['CAPTURES']}/text.jsonl").readline(), end="")
print(json.dumps({"type": "message", "role": "assistant", "content": "x" * 20_000_000 + "\\nLOOP_COMPLETE"}))
print(json.dumps({"type": "result", "status": "success", "stats": {"models": {"m": {}}}}))
"""
        events = run(body, interpreter=sys.executable)
        assert isinstance(events[-1], Finished)
        assert len(events[-1].text) == 20_000_014

    def test_child_that_keeps_its_output_open_is_no_reason_to_wait(self, run):
        began = time.monotonic()
        events = run('setsid sleep 300 & cat "$CAPTURES/text.jsonl"')
        assert isinstance(events[-1], Finished)
        assert time.monotonic() - began < 30

    def test_result_is_the_end_though_the_process_lingers(self, run):
        began = time.monotonic()
        events = run('cat "$CAPTURES/text.jsonl"; exec sleep 300')
        assert isinstance(events[-1], Finished)
        assert time.monotonic() - began < 30

    def test_hang_that_ignores_being_told(self, run):
        body = "trap '' TERM INT; head -n 1 \"$CAPTURES/text.jsonl\"; while :; do sleep 1; done"
        began = time.monotonic()
        events = run(body, stop_when=lambda event: isinstance(event, Started))
        assert events[-1].kind is FailureKind.CRASH
        assert time.monotonic() - began < 30


class TestPlugin:
    def test_provider_leads_to_the_agent_and_its_settings(self):
        (provider,) = ralph_agents()
        assert provider.name == "gemini"
        assert provider.factory == f"{GeminiAgent.__module__}:{GeminiAgent.__name__}"
        assert provider.settings == f"{GeminiSettings.__module__}:{GeminiSettings.__name__}"

    def test_listing_it_imports_nothing_heavy(self):
        import subprocess

        code = "import sys, ralph_gemini.plugin; print([m for m in sys.modules if m in ('pydantic', 'asyncio', 'ralph_gemini.agent')])"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[]"
