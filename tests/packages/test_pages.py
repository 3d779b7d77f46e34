"""The pages for beginners are followed, command by command, where nothing but a fresh virtual environment is there."""

import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from ralph_core.testing.messages_api import MessagesAPI, Reply, text, tool_use

ROOT = Path(__file__).parents[2]


def page(name):
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def test_the_tutorial_is_what_happens(clean):
    place = clean("tutorial")
    place.follow(page("tutorial.md"))
    assert sorted(path.name for path in place.work.iterdir()) == ["tally", "tally.ralph"]


def test_the_tutorial_of_authors_is_what_happens(clean):
    section = page("authors.md").partition("\n## In 15 minutes\n")[2].partition("\n## ")[0]
    assert {"ralph plugins new acme --kind agent", "pip install -e '.[test]'", "pytest"} <= set(section.splitlines())
    place = clean("authors")
    place.follow(section)
    for command in re.findall(r"`(ralph plugins verify \w+)`", section):
        assert "holds what it has to" in place.does(*command.split())
    (row,) = [line.split() for line in place.does("ralph", "plugins").splitlines() if line.startswith("acme ")]
    assert row[1:4] == ["ralph-acme", "0.1.0", "active"]


class TestNewcomer:
    """`scripts/newcomer`: from the wheels to a finished run in less than five minutes, with nobody to answer a question."""

    @pytest.fixture
    def newcomer(self, built, place, tmp_path):
        at = place()

        def newcomer(*arguments, **env):
            wheels = next(iter(built.values())).parent
            env = {"TMPDIR": str(tmp_path), "PYTHON": sys.executable, **env}
            said = at.does(ROOT / "scripts/newcomer", wheels, *arguments, **env)
            took = re.search(r"^It took (\d+) s, and all of it is in (.*)$", said, re.MULTILINE)
            print(took[0])
            assert int(took[1]) < 300
            assert "completed: verified by 1 gate(s)" in said
            assert (Path(took[2]) / "project/hello.sh").is_file()
            return said

        return newcomer

    def test_without_an_agent_or_a_key(self, newcomer):
        newcomer()

    @pytest.mark.real_cli
    def test_with_claude_code(self, newcomer):
        local = ROOT / ".tools/node_modules/.bin/claude"
        found = os.environ.get("RALPH_TEST_CLAUDE") or (str(local) if local.exists() else shutil.which("claude"))
        if not found or not shutil.which(found):
            pytest.skip("no genuine Claude Code (npm install @anthropic-ai/claude-code, or RALPH_TEST_CLAUDE)")
        write = tool_use("Bash", {"command": "echo 'echo hello' >hello.sh", "description": "write it"})
        with MessagesAPI([Reply([write]), Reply([text("Done.\nLOOP_COMPLETE")])]) as api:
            path = f"{Path(found).parent}{os.pathsep}{os.environ['PATH']}"
            said = newcomer("-a", "claude", **{**api.env("sk-ant-test"), "PATH": path})
            assert "Write hello.sh, which prints hello." in "".join(api.requests[0].texts())
        assert "agent    claude" in said
