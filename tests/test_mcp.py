"""MCP servers of the settings: checked, and handed to the agents that can use them."""

import json

import pytest


class TestMcpServers:
    @pytest.mark.parametrize(
        ("servers", "words"),
        [
            ("{a: {}}", "either `command` or `url`"),
            ("{a: {command: x, url: 'http://localhost'}}", "either `command` or `url`"),
            ("{a: {url: 'ftp://localhost'}}", "mcp.servers.a.url"),
            ("{a: {comand: x}}", "did you mean 'command'"),
            ("{" + ", ".join(f"s{n}: {{command: x}}" for n in range(21)) + "}", "at most 20 MCP servers"),
        ],
    )
    def test_a_mistake_is_said(self, ralph, servers, words):
        ralph.settings(f"mcp: {{servers: {servers}}}\n")
        assert words in ralph.refuses("run", "-a", "command", "--command", "true", "-p", "x")

    def test_how_many_there_may_be_is_a_variable(self, ralph):
        ralph.settings("mcp: {servers: {a: {command: x}, b: {command: x}}}\n")
        refused = ralph.refuses(
            "run", "-a", "command", "--command", "true", "-p", "x", env={"MAX_MCP_SERVERS_PER_ORG": "1"}
        )
        assert "at most 1 MCP servers" in refused

    def test_an_agent_that_can_not_be_handed_them_says_so(self, ralph):
        ralph.settings("mcp: {servers: {a: {command: x}}}\n")
        assert "agent command can't be handed MCP servers" in ralph.run(ralph.agent("echo LOOP_COMPLETE")).stderr

    def test_their_times_reach_the_agent(self, ralph):
        """By its own variables: in milliseconds, for Claude Code."""
        result = {"type": "result", "subtype": "success", "is_error": False, "result": "LOOP_COMPLETE"}
        ralph.write(
            "bin/claude",
            f"#!/bin/sh\n[ $1 = --version ] && echo 2.1.197 && exit\nenv > seen\necho '{json.dumps(result)}'\n",
        ).chmod(0o755)
        ralph.settings("mcp: {servers: {a: {command: x}}}\n")
        env = {"PATH": f"{ralph.workspace}/bin:{ralph.env['PATH']}", "CLAUDE_API_KEY": "sk-ant-test"}
        times = {"MCP_CONNECTION_TIMEOUT": "3", "MCP_CALL_TIMEOUT": "4"}
        done = ralph("run", "-a", "claude", "-p", "x", env={**env, **times})
        assert done.returncode == 0, done.stderr
        seen = dict(line.split("=", 1) for line in (ralph.workspace / "seen").read_text().splitlines() if "=" in line)
        assert (seen["MCP_TIMEOUT"], seen["MCP_TOOL_TIMEOUT"]) == ("3000", "4000")
