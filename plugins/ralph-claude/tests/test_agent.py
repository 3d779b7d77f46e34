"""How Claude Code is started and looked for."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from ralph_claude import credentials as found
from ralph_claude.agent import ClaudeAgent
from ralph_claude.plugin import ralph_agents
from ralph_claude.settings import ClaudeSettings
from ralph_core.contracts import Command, Context, Request


@pytest.fixture(autouse=True)
def no_managed_settings(monkeypatch):
    monkeypatch.setattr(found, "MANAGED", ())


def agent(tmp_path: Path, env: dict[str, str] | None = None, **settings) -> ClaudeAgent:
    base = {"HOME": str(tmp_path / "home"), "PATH": str(tmp_path / "bin"), **(env or {})}
    return ClaudeAgent(ClaudeSettings(**settings), Context(tmp_path, tmp_path / ".agent", base))


def command(tmp_path: Path, prompt: str = "work", env: dict[str, str] | None = None, **settings) -> Command:
    request = Request("run", 1, 1, prompt, tmp_path, env or {}, host=None)
    return agent(tmp_path, **settings).command(request)


def program(tmp_path: Path, body: str) -> None:
    path = tmp_path / "bin/claude"
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


class TestCommand:
    def test_prompt_is_standard_input(self, tmp_path):
        made = command(tmp_path, prompt="línea\r\n\r\n  ende \n")
        assert made.stdin == "línea\r\n\r\n  ende \n".encode()
        assert made.cwd == str(tmp_path)

    def test_prompt_that_looks_like_a_command_of_its_own_is_kept_text(self, tmp_path):
        assert command(tmp_path, prompt="/etc/hosts is wrong").stdin == b"\n/etc/hosts is wrong"

    def test_it_streams_json_and_asks_nobody(self, tmp_path):
        assert command(tmp_path).argv == (
            *("claude", "-p", "--output-format", "stream-json", "--verbose", "--include-partial-messages"),
            *("--permission-mode", "bypassPermissions", "--setting-sources", "project,local"),
        )

    def test_settings_become_options(self, tmp_path):
        made = command(
            tmp_path,
            executable="/opt/claude",
            model="opus",
            permission_mode="acceptEdits",
            allowed_tools=("Bash(git:*)", "Edit"),
            disallowed_tools=("WebFetch",),
            append_system_prompt="Be brief.",
            max_turns=7,
            extra_args=("--no-session-persistence",),
        )
        assert made.argv[0] == "/opt/claude"
        assert made.argv[6:] == (
            *("--permission-mode", "acceptEdits", "--model", "opus"),
            *("--allowedTools", "Bash(git:*)", "Edit", "--disallowedTools", "WebFetch"),
            *("--setting-sources", "project,local"),
            *("--append-system-prompt", "Be brief.", "--max-turns", "7", "--no-session-persistence"),
        )

    def test_never_a_continued_session(self, tmp_path):
        assert not {"-c", "--continue", "-r", "--resume"} & set(command(tmp_path).argv)
        for option in ("--continue", "-c", "--resume=1", "--output-format", "--session-id"):
            with pytest.raises(ValidationError, match="can't be used"):
                ClaudeSettings(extra_args=(option,))

    def test_it_is_asked_to_end_within_what_the_core_promises(self, tmp_path):
        stop = command(tmp_path).stop
        assert [number for number, _ in stop] == [signal.SIGINT, signal.SIGTERM]
        assert sum(grace for _, grace in stop) < 5


class TestEnvironment:
    def test_base_is_kept_and_extended(self, tmp_path):
        env = command(tmp_path, env={"PATH": "/bin", "ANTHROPIC_BASE_URL": "http://x", "TRACEPARENT": "00-1"}).env
        assert (env["PATH"], env["ANTHROPIC_BASE_URL"], env["TRACEPARENT"]) == ("/bin", "http://x", "00-1")
        assert env["CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC"] == env["DISABLE_AUTOUPDATER"] == "1"
        assert env["CLAUDE_CODE_MAX_RETRIES"] == "1"

    def test_number_of_retries_is_a_setting(self, tmp_path):
        assert command(tmp_path, max_retries=3).env["CLAUDE_CODE_MAX_RETRIES"] == "3"
        with pytest.raises(ValidationError):
            ClaudeSettings(max_retries=0)

    def test_claude_api_key_is_handed_on_under_the_name_that_is_read(self, tmp_path):
        env = command(tmp_path, env={"CLAUDE_API_KEY": "ours", "ANTHROPIC_API_KEY": "other"}).env
        assert env["ANTHROPIC_API_KEY"] == "ours"
        assert "CLAUDE_API_KEY" not in env
        assert command(tmp_path, env={"CLAUDE_API_KEY": "", "ANTHROPIC_API_KEY": "k"}).env["ANTHROPIC_API_KEY"] == "k"

    def test_variables_of_the_settings_win(self, tmp_path):
        settings = ClaudeSettings(env={"A": "mine", "DISABLE_AUTOUPDATER": "0"})
        env = (
            ClaudeAgent(settings, Context(tmp_path, tmp_path, {}))
            .command(Request("run", 1, 1, "p", tmp_path, {"A": "base"}, host=None))
            .env
        )
        assert (env["A"], env["DISABLE_AUTOUPDATER"]) == ("mine", "0")

    def test_a_ralph_that_was_started_by_claude_code_can_start_it(self, tmp_path):
        assert "CLAUDECODE" not in command(tmp_path, env={"CLAUDECODE": "1"}).env

    @pytest.mark.parametrize(
        ("user", "mode", "wanted"),
        [(0, "bypassPermissions", True), (0, "default", False), (1000, "bypassPermissions", False)],
    )
    def test_sandbox_is_claimed_only_where_root_needs_it(self, tmp_path, monkeypatch, user, mode, wanted):
        monkeypatch.setattr("os.geteuid", lambda: user)
        assert ("IS_SANDBOX" in command(tmp_path, permission_mode=mode).env) is wanted
        assert any("IS_SANDBOX" in note for note in agent(tmp_path, permission_mode=mode).probe().notes) is wanted


class TestProbe:
    KEY = {"ANTHROPIC_API_KEY": "k"}

    def test_program_with_key_is_usable(self, tmp_path):
        program(tmp_path, "echo '2.1.197 (Claude Code)'")
        probe = agent(tmp_path, self.KEY).probe()
        assert probe.usable
        assert (probe.executable, probe.version) == (str(tmp_path / "bin/claude"), "2.1.197")
        assert "credentials: ANTHROPIC_API_KEY (found, not tried)" in probe.notes

    def test_absolute_path(self, tmp_path):
        program(tmp_path, "echo '2.1.197 (Claude Code)'")
        assert agent(tmp_path, {**self.KEY, "PATH": "/nowhere"}, executable=str(tmp_path / "bin/claude")).probe().usable

    def test_missing_program_says_how_to_install_it(self, tmp_path):
        (missing,) = agent(tmp_path, self.KEY).probe().missing
        assert "npm install -g @anthropic-ai/claude-code" in missing

    def test_program_that_fails_is_not_usable(self, tmp_path):
        program(tmp_path, "echo 'no GLIBC' >&2; exit 3")
        (missing,) = agent(tmp_path, self.KEY).probe().missing
        assert "exit code 3" in missing
        assert "no GLIBC" in missing

    def test_program_that_can_not_be_run_is_not_usable(self, tmp_path):
        program(tmp_path, "")
        (tmp_path / "bin/claude").write_bytes(b"\x7fELF")
        assert "can't be run" in agent(tmp_path, self.KEY).probe().missing[0]

    def test_other_major_version_is_a_note(self, tmp_path):
        program(tmp_path, "echo '3.0.0 (Claude Code)'")
        probe = agent(tmp_path, self.KEY).probe()
        assert probe.usable
        assert any("3.0.0 is untested" in note for note in probe.notes)

    def test_no_credentials_says_what_to_set(self, tmp_path, monkeypatch):
        monkeypatch.setattr("os.uname", lambda: type("uname", (), {"sysname": "Linux"}))
        program(tmp_path, "echo '2.1.197 (Claude Code)'")
        (missing,) = agent(tmp_path).probe().missing
        assert "ANTHROPIC_API_KEY" in missing
        assert "CLAUDE_CODE_OAUTH_TOKEN" in missing

    def test_keychain_of_macos_may_hold_what_was_not_found(self, tmp_path, monkeypatch):
        monkeypatch.setattr("os.uname", lambda: type("uname", (), {"sysname": "Darwin"}))
        program(tmp_path, "echo '2.1.197 (Claude Code)'")
        probe = agent(tmp_path).probe()
        assert probe.usable
        assert any("keychain" in note for note in probe.notes)


class TestCredentials:
    @pytest.mark.parametrize("name", [*found.VARIABLES, *found.CLOUDS])
    def test_variable(self, tmp_path, name):
        assert name in (found.credentials({"HOME": str(tmp_path), name: "1"}, tmp_path) or "")

    def test_switch_that_is_off_is_no_credential(self, tmp_path):
        env = {"HOME": str(tmp_path), "CLAUDE_CODE_USE_BEDROCK": "0", "ANTHROPIC_API_KEY": ""}
        assert found.credentials(env, tmp_path) is None

    @pytest.mark.parametrize(
        ("path", "content"),
        [
            ("home/.claude/.credentials.json", {}),
            ("home/.claude.json", {"primaryApiKey": "k"}),
            ("home/.claude/settings.json", {"apiKeyHelper": "/bin/key"}),
            ("home/.claude/settings.json", {"env": {"ANTHROPIC_AUTH_TOKEN": "t"}}),
            ("work/.claude/settings.json", {"apiKeyHelper": "/bin/key"}),
            ("work/.claude/settings.local.json", {"env": {"CLAUDE_CODE_USE_VERTEX": "1"}}),
        ],
    )
    def test_file(self, tmp_path, path, content):
        file = tmp_path / path
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(content))
        assert str(file) in (found.credentials({"HOME": str(tmp_path / "home")}, tmp_path / "work") or "")

    def test_folder_of_its_own(self, tmp_path):
        (tmp_path / "config").mkdir()
        (tmp_path / "config/.credentials.json").write_text("{}")
        env = {"HOME": str(tmp_path), "CLAUDE_CONFIG_DIR": str(tmp_path / "config")}
        assert "config" in (found.credentials(env, tmp_path) or "")

    @pytest.mark.parametrize("content", ["", "[]", "{", '{"env": 3}', '{"apiKeyHelper": ""}'])
    def test_settings_that_say_nothing(self, tmp_path, content):
        (tmp_path / ".claude").mkdir()
        (tmp_path / ".claude/settings.json").write_text(content)
        assert found.credentials({"HOME": str(tmp_path)}, tmp_path / "work") is None


class TestPlugin:
    def test_provider_leads_to_the_agent_and_its_settings(self):
        (provider,) = ralph_agents()
        assert provider.name == "claude"
        assert provider.factory == f"{ClaudeAgent.__module__}:{ClaudeAgent.__name__}"
        assert provider.settings == f"{ClaudeSettings.__module__}:{ClaudeSettings.__name__}"

    def test_listing_it_imports_nothing_heavy(self):
        import subprocess

        code = "import sys, ralph_claude.plugin; print([m for m in sys.modules if m in ('pydantic', 'asyncio', 'ralph_claude.agent')])"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[]"

    def test_every_setting_is_described_and_unknown_ones_are_refused(self):
        assert all(field.description for field in ClaudeSettings.model_fields.values())
        with pytest.raises(ValidationError):
            ClaudeSettings(modell="opus")
