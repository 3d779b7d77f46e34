"""The command agent: any program, however it takes its prompt, and whatever language it is written in."""

import json
import shutil
import stat
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples/event-agents"


def run(ralph, command, text="Do it, \"well\" & 'soon' $HOME.\n", **options):
    ralph.write("PROMPT.md", text)
    return ralph("run", "-a", "command", "--command", command, "--max-iterations", "1", **options)


class TestInput:
    def test_as_the_last_argument(self, ralph):
        ralph.settings("agents: {command: {input: argument}}\n")
        ralph.write(
            "agent.sh", '#!/bin/sh\n[ $# = 2 ] && [ "$1" = first ] && printf %s "$2" > got\necho LOOP_COMPLETE\n'
        )
        assert run(ralph, "sh ./agent.sh first").returncode == 0
        assert "Do it, \"well\" & 'soon' $HOME.\n" in (ralph.workspace / "got").read_text()

    def test_in_a_file_that_nobody_else_may_read(self, ralph):
        ralph.settings("agents: {command: {input: file}}\n")
        ralph.write("agent.sh", '#!/bin/sh\ncp -p "$1" got\necho LOOP_COMPLETE\n')
        assert run(ralph, "sh ./agent.sh", "Ünï" * 100_000).returncode == 0
        assert "Ünï" * 100_000 in (ralph.workspace / "got").read_text()
        assert stat.S_IMODE((ralph.workspace / "got").stat().st_mode) == 0o600

    def test_what_does_not_fit_is_not_cut(self, ralph):
        ralph.settings("agents: {command: {input: argument}}\n")
        done = run(ralph, "touch started; :", "x" * 131_072)
        assert done.returncode == 1
        assert "set agents.command.input to stdin or file" in done.stdout
        assert not (ralph.workspace / "started").exists()


class TestExamples:
    """The two example agents that speak the event protocol."""

    @pytest.fixture(autouse=True)
    def events(self, ralph):
        ralph.settings("agents: {command: {output: events}}\n")

    def test_bash(self, ralph):
        done = run(ralph, EXAMPLES / "agent.sh")
        assert done.returncode == 0, done.stderr
        files = len([path for path in ralph.workspace.iterdir() if path.is_file()])  # PROMPT.md among them
        state = ralph.state()
        assert state["recent"][0]["message"] == f"There are {files} files."
        assert (state["recent"][0]["spend"]["tokens"]["input"], state["recent"][0]["spend"]["cost"]) == (10, 0)

    @pytest.mark.parametrize("left", [True, False])
    def test_node(self, ralph, left):
        if shutil.which("node") is None:
            pytest.skip("no node on PATH")
        ralph.write("README", "TODO\n" if left else "done\n")
        done = run(ralph, EXAMPLES / "agent.mjs")
        assert done.returncode == (3 if left else 0), done.stderr
        (tool,) = [record for record in ralph.records() if record["type"] == "tool.finished"]
        assert tool["message"] == "search"
        message = ralph.state()["recent"][0]["message"]
        assert message == ("agent: TODO is still in README" if left else "Nothing is left to do.")

    def test_their_lines_are_what_the_docs_say(self):
        page = (EXAMPLES.parents[1] / "docs/agents.md").read_text()
        for line in page.split("```json\n")[1].split("```")[0].splitlines():
            from ralph_core.wire import event_from

            event_from(json.loads(line))
