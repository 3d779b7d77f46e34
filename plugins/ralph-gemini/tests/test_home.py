"""The configuration folder that Gemini CLI is given: the user's, with Ralph's settings over it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ralph_core.contracts import McpServers, SpawnError
from ralph_gemini.home import merged, prepare, user_home, user_settings
from ralph_gemini.settings import GeminiSettings

NONE = GeminiSettings()


@pytest.fixture
def user(tmp_path):
    (tmp_path / "home/.gemini").mkdir(parents=True)
    return tmp_path / "home"


def made(tmp_path: Path, settings: GeminiSettings = NONE, **env: str) -> Path:
    prepare(tmp_path / "ours", settings, {"HOME": str(tmp_path / "home"), **env})
    return tmp_path / "ours/.gemini"


class TestSettings:
    def test_few_retries_no_statistics_no_update(self, tmp_path):
        found = json.loads((made(tmp_path) / "settings.json").read_text())
        assert found["general"] == {
            "maxAttempts": 1,
            "enableAutoUpdate": False,
            "enableAutoUpdateNotification": False,
        }
        assert found["privacy"] == {"usageStatisticsEnabled": False}
        assert set(found) == {"general", "privacy"}

    def test_what_the_user_has_set_is_kept(self, tmp_path, user):
        (user / ".gemini/settings.json").write_text(
            '{\n  // mine\n  "general": {"vimMode": true, /* many */ "maxAttempts": 9},\n'
            '  "mcpServers": {"a": {"url": "http://x//y", "args": ["\\"//"]}}\n}\n'
        )
        found = json.loads((made(tmp_path) / "settings.json").read_text())
        assert found["general"]["vimMode"] is True
        assert found["general"]["maxAttempts"] == 1
        assert found["mcpServers"] == {"a": {"url": "http://x//y", "args": ['"//']}}

    def test_settings_of_the_section(self):
        settings = GeminiSettings(max_retries=3, max_turns=7)
        servers = McpServers({"b": {"command": "b"}}, connection_timeout=10, call_timeout=30)
        found = merged({"mcpServers": {"a": {}}, "model": {"name": "m"}}, settings, {}, servers)
        assert found["general"]["maxAttempts"] == 4
        assert found["model"] == {"name": "m", "maxSessionTurns": 7}
        assert found["mcpServers"] == {"b": {"command": "b", "timeout": 30000}}

    @pytest.mark.parametrize(
        ("theirs", "env", "chosen"),
        [
            ({}, {"GEMINI_API_KEY": "k"}, "gemini-api-key"),
            ({}, {}, None),
            ({}, {"GEMINI_API_KEY": "k", "GOOGLE_GENAI_USE_VERTEXAI": "true"}, None),
            ({"security": {"auth": {"selectedType": "oauth-personal"}}}, {"GEMINI_API_KEY": "k"}, "oauth-personal"),
            ({"security": {"auth": 7}}, {"GEMINI_API_KEY": "k"}, "gemini-api-key"),
        ],
    )
    def test_way_to_log_in(self, theirs, env, chosen):
        auth = merged(theirs, NONE, env).get("security", {}).get("auth", {})
        assert auth.get("selectedType") == chosen

    @pytest.mark.parametrize("text", ["{", "[]", "7", '{"a": "\\x"}'])
    def test_that_can_not_be_read_are_an_error_before_it_starts(self, tmp_path, user, text):
        (user / ".gemini/settings.json").write_text(text)
        with pytest.raises(SpawnError, match=r"settings\.json"):
            made(tmp_path)

    def test_are_private(self, tmp_path):
        assert (made(tmp_path) / "settings.json").stat().st_mode & 0o777 == 0o600

    def test_no_home_at_all(self, tmp_path):
        assert user_settings(tmp_path / "nowhere") == {}


class TestLinks:
    def test_lead_to_all_but_the_sessions(self, tmp_path, user):
        for name in ("oauth_creds.json", "GEMINI.md", "projects.json"):
            (user / ".gemini" / name).write_text(name)
        for name in ("tmp", "history", "extensions"):
            (user / ".gemini" / name).mkdir()
        (user / ".env").write_text("GEMINI_API_KEY=k")
        folder = made(tmp_path)
        links = {path.name for path in folder.iterdir() if path.is_symlink()}
        assert links == {"oauth_creds.json", "GEMINI.md", "extensions"}
        assert (folder / "oauth_creds.json").read_text() == "oauth_creds.json"
        assert (tmp_path / "ours/.env").read_text() == "GEMINI_API_KEY=k"

    def test_follow_what_the_user_has_now(self, tmp_path, user):
        (user / ".gemini/old").write_text("x")
        folder = made(tmp_path)
        (user / ".gemini/old").rename(user / ".gemini/new")
        made(tmp_path)
        assert {path.name for path in folder.iterdir() if path.is_symlink()} == {"new"}

    def test_what_it_wrote_itself_stays_until_the_users_is_newer(self, tmp_path, user):
        theirs = user / ".gemini/oauth_creds.json"
        theirs.write_text("theirs")
        folder = made(tmp_path)
        (folder / "oauth_creds.json").unlink()
        (folder / "oauth_creds.json").write_text("refreshed")
        os.utime(theirs, (1, 1))
        made(tmp_path)
        assert (folder / "oauth_creds.json").read_text() == "refreshed"
        os.utime(theirs)
        os.utime(folder / "oauth_creds.json", (1, 1))
        made(tmp_path)
        assert (folder / "oauth_creds.json").read_text() == "theirs"

    def test_home_that_is_named_is_the_users(self, tmp_path):
        (tmp_path / "other/.gemini").mkdir(parents=True)
        (tmp_path / "other/.gemini/GEMINI.md").write_text("x")
        assert (made(tmp_path, GEMINI_CLI_HOME=str(tmp_path / "other")) / "GEMINI.md").read_text() == "x"

    def test_our_own_is_not_the_users(self, tmp_path):
        env = {"HOME": "/home/me", "GEMINI_CLI_HOME": str(tmp_path / "ours")}
        assert user_home(env, tmp_path / "ours") == Path("/home/me")

    def test_folder_that_can_not_be_made_is_an_error(self, tmp_path):
        (tmp_path / "ours").write_text("a file")
        with pytest.raises(SpawnError, match="can't prepare"):
            made(tmp_path)
