"""An agent's process is given what it needs of Ralph's environment, and keys of its own; and nothing else."""

import os

import pytest

SHELL = {"PWD", "OLDPWD", "SHLVL", "_"}
"""What a shell adds itself."""
MARKS = {"RALPH_RUN_ID", "RALPH_ITERATION", "TRACEPARENT"}
KEY = "sk-canary-0123456789abcdef"


@pytest.fixture
def agent(ralph):
    return ralph.agent("echo LOOP_COMPLETE")


class TestEnvironment:
    def test_what_is_common_is_given_as_it_is_with_the_runs_marks(self, ralph, agent):
        ralph.run(agent, env={"LC_ALL": "C.UTF-8", "PIP_CACHE_DIR": "/x\ny", "https_proxy": "http://127.0.0.1:1"})
        seen = agent.environment()
        assert (seen["LC_ALL"], seen["PIP_CACHE_DIR"], seen["https_proxy"]) == (
            "C.UTF-8",
            "/x\ny",
            "http://127.0.0.1:1",
        )
        common = set(ralph.env) | {"LC_ALL", "PIP_CACHE_DIR", "https_proxy"}
        assert common - set(seen) == set()
        assert set(seen) - common - SHELL <= MARKS
        assert os.path.realpath(seen["PWD"]) == str(ralph.workspace.resolve())

    def test_anything_else_is_not(self, ralph, agent):
        others = {"ACME_URL": "x", "CLAUDE_API_KEY": KEY, "PIP_TOKEN": KEY, "OTEL_SERVICE_NAME": "mine"}
        done = ralph.run(agent, env=others)
        assert not set(others) & set(agent.environment())
        assert "not given to the agent (see environment.allow): CLAUDE_API_KEY, PIP_TOKEN" in done.stderr
        assert "ACME_URL" not in done.stderr

    def test_what_is_allowed_or_set_is(self, ralph, agent):
        ralph.settings("environment: {allow: [ACME_*, PIP_TOKEN], set: {ACME_MODE: test, LANG: C}}\n")
        done = ralph.run(agent, env={"ACME_URL": "x", "ACME_MODE": "live", "PIP_TOKEN": KEY, "OTHER": "y"})
        seen = agent.environment()
        assert (seen["ACME_URL"], seen["ACME_MODE"], seen["PIP_TOKEN"], seen["LANG"]) == ("x", "test", KEY, "C")
        assert "OTHER" not in seen
        assert "not given" not in done.stderr

    def test_a_star_gives_all(self, ralph, agent):
        ralph.settings("environment: {allow: '*'}\n")
        ralph.run(agent, env={"ANY_THING": "x"})
        assert agent.environment()["ANY_THING"] == "x"

    def test_of_two_agents_each_gets_what_its_adapter_declares(self, ralph):
        """The keys of one are not seen by the other, in its probe either."""
        for name in ("claude", "gemini"):
            ralph.write(f"bin/{name}", f"#!/bin/sh\nenv > {ralph.workspace}/{name}.env\necho 2.1.197\n").chmod(0o755)
        path = f"{ralph.workspace}/bin:{ralph.env['PATH']}"
        ralph("doctor", env={"PATH": path, "CLAUDE_API_KEY": KEY, "GEMINI_API_KEY": "g" + KEY})
        claude, gemini = ((ralph.workspace / f"{name}.env").read_text() for name in ("claude", "gemini"))
        assert (f"CLAUDE_API_KEY={KEY}" in claude, "GEMINI_API_KEY" in claude) == (True, False)
        assert ("CLAUDE_API_KEY" in gemini, f"GEMINI_API_KEY=g{KEY}" in gemini) == (False, True)


class TestKeys:
    SETTINGS = "environment: {{allow: [ACME_KEY]}}\nkeys: {{ACME_KEY: {{{how}}}}}\n"

    def test_from_a_file(self, ralph, agent):
        (ralph.root / "key").write_text(f"{KEY}\n")
        ralph.settings(self.SETTINGS.format(how=f"file: {ralph.root}/key"))
        ralph.run(agent)
        assert agent.environment()["ACME_KEY"] == KEY

    def test_from_the_keyring(self, ralph, agent):
        """By the genuine library, with a backend that keeps its keys in memory."""
        pytest.importorskip("keyring")
        (ralph.site / "ring.py").write_text(
            "from keyring.backend import KeyringBackend\n"
            "class Ring(KeyringBackend):\n"
            "    priority = 1\n"
            "    set_password = delete_password = None\n"
            "    def get_password(self, service, username):\n"
            f"        return {{('ralph', 'ACME_KEY'): {KEY!r}}}.get((service, username))\n"
        )
        ralph.settings(self.SETTINGS.format(how="keyring: ralph"))
        backend = {"PYTHON_KEYRING_BACKEND": "ring.Ring"}
        done = ralph.run(agent, env=backend)
        assert done.returncode == 0, done.stderr
        assert agent.environment()["ACME_KEY"] == KEY
        ralph.settings(self.SETTINGS.format(how="keyring: other"))
        refused = ralph.refuses("run", "-a", "command", "--command", agent.command, "-p", "x", env=backend)
        assert "keyring set other ACME_KEY" in refused

    def test_without_the_library_it_says_what_to_install(self, ralph, agent):
        (ralph.site / "keyring.py").write_text("raise ImportError\n")
        ralph.settings(self.SETTINGS.format(how="keyring: ralph"))
        refused = ralph.refuses("run", "-a", "command", "--command", agent.command, "-p", "x")
        assert "pip install 'ralph-core[keyring]'" in refused

    def test_the_environment_goes_first(self, ralph, agent):
        (ralph.root / "key").write_text(KEY)
        ralph.settings(self.SETTINGS.format(how=f"file: {ralph.root}/key"))
        ralph.run(agent, env={"ACME_KEY": "of the environment"})
        assert agent.environment()["ACME_KEY"] == "of the environment"

    def test_an_agent_that_does_not_need_it_does_not_get_it(self, ralph, agent):
        (ralph.root / "key").write_text(KEY)
        ralph.settings(f"keys: {{CLAUDE_API_KEY: {{file: {ralph.root}/key}}}}\n")
        ralph.run(agent)
        assert "CLAUDE_API_KEY" not in agent.environment()

    def test_it_is_nowhere_in_what_ralph_keeps(self, ralph):
        (ralph.root / "key").write_text(KEY)
        ralph.settings(self.SETTINGS.format(how=f"file: {ralph.root}/key"))
        agent = ralph.agent('echo "the key is $ACME_KEY"; echo "$ACME_KEY"; echo LOOP_COMPLETE')
        done = ralph.run(agent)
        assert KEY not in done.stdout + done.stderr
        for path in (*ralph.home.glob("audit/*"), *ralph.folder.glob("*.json*")):
            assert KEY not in path.read_text(), path

    @pytest.mark.parametrize(
        ("how", "words"),
        [
            ("file: nowhere", "nowhere can't be read"),
            ("file: README", "has to hold the key, and nothing else"),
            ("file: a, keyring: b", "either `file` or `keyring`"),
            ("", "either `file` or `keyring`"),
        ],
    )
    def test_one_that_can_not_be_had_is_said(self, ralph, agent, how, words):
        ralph.write("README", "two words\n")
        ralph.settings(self.SETTINGS.format(how=how))
        refused = ralph.refuses("run", "-a", "command", "--command", agent.command, "-p", "x")
        assert words in refused
        assert "keys.ACME_KEY" in refused
