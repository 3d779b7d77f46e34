"""`ralph doctor --mcp`: connects to the MCP servers of the settings, and lists their tools."""

import json
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest

SERVER = Path(__file__).parents[1] / "plugins" / "ralph-claude" / "tests" / "mcp_server.py"
WEB = """
import sys
from mcp.server import MCPServer
server = MCPServer("web")
@server.tool()
def add(a: int, b: int) -> int: return a + b
server.run(sys.argv[2], port=int(sys.argv[1]))
"""


@pytest.fixture
def doctor(ralph):
    """What `ralph doctor --mcp` finds of these servers: its exit code, and what it says of each."""

    def examine(servers, env=None, **more):
        settings = {"servers": servers, "reconnect_delay": 0, **more}
        ralph.write("ralph.json", json.dumps({"mcp": settings, "agents": {"command": {"command": "true"}}}))
        done = ralph("doctor", "--mcp", "--json", "-a", "command", env=env)
        assert done.returncode in (0, 1), done.stderr
        return done.returncode, json.loads(done.stdout)["mcp"]

    return examine


def script(text):
    return {"command": "sh", "args": ["-c", text]}


@pytest.fixture
def web(ralph):
    """A server at an address, of the protocol's own SDK."""

    def start(transport):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        program = ralph.write("web.py", WEB)
        command = [sys.executable, program, str(port), transport]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        started.append(process)

        def answers():
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        ralph.until(answers, limit=60)
        return port

    started = []
    yield start
    for process in started:
        process.kill()
        process.wait()


class TestDoctor:
    def test_lists_the_tools_of_a_program(self, doctor):
        code, found = doctor({"mark": {"command": sys.executable, "args": [str(SERVER)]}})
        assert (code, found) == (0, {"mark": {"tools": ["mark"], "error": "", "tries": 1}})

    @pytest.mark.parametrize(("kind", "transport", "path"), [("http", "streamable-http", "mcp"), ("sse", "sse", "sse")])
    def test_lists_the_tools_at_an_address(self, doctor, web, kind, transport, path):
        port = web(transport)
        code, found = doctor({"web": {"type": kind, "url": f"http://127.0.0.1:{port}/{path}"}})
        assert (code, found["web"]["tools"]) == (0, ["add"]), found

    def test_says_of_each_one_what_is_wrong(self, doctor):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{free.getsockname()[1]}/mcp"
        servers = {
            "good": {"command": sys.executable, "args": [str(SERVER)]},
            "missing": {"command": "no-such-program"},
            "broken": script("echo license has expired >&2; exit 3"),
            "away": {"url": url},
        }
        code, found = doctor(servers, max_retries=0)
        assert code == 1
        assert found["good"]["tools"] == ["mark"]
        assert "No such file" in found["missing"]["error"]
        assert "license has expired" in found["broken"]["error"]
        assert "connection" in found["away"]["error"].lower()

    @pytest.mark.parametrize(("env", "tries"), [({}, 4), ({"MCP_MAX_RETRIES": "1"}, 2), ({"MCP_MAX_RETRIES": "0"}, 1)])
    def test_tries_again(self, doctor, ralph, env, tries):
        _, found = doctor({"broken": script("echo x >> tries; exit 3")}, env)
        assert found["broken"]["tries"] == tries
        assert (ralph.workspace / "tries").read_text().split() == ["x"] * tries

    def test_has_it_when_it_comes_late(self, doctor):
        server = shlex.join([sys.executable, str(SERVER)])
        _, found = doctor({"late": script(f"[ -e late ] && exec {server}; touch late")}, reconnect_delay=0.1)
        assert (found["late"]["tools"], found["late"]["tries"]) == (["mark"], 2)

    def test_waits_no_longer_than_it_may(self, doctor):
        _, found = doctor({"mute": script("exec sleep 60")}, {"MCP_CONNECTION_TIMEOUT": "0.5", "MCP_MAX_RETRIES": "0"})
        assert "not there after 0.5 s (mcp.connection_timeout)" in found["mute"]["error"]

    def test_does_not_show_secrets(self, doctor):
        server = {**script("echo key $ACME_KEY is bad >&2; exit 3"), "env": {"ACME_KEY": "s3cret-s3cret"}}
        _, found = doctor({"acme": server}, max_retries=0)
        assert "key [redacted] is bad" in found["acme"]["error"]

    def test_in_words(self, ralph):
        ralph.settings(f"mcp: {{servers: {{mark: {{command: '{sys.executable}', args: ['{SERVER}']}}}}}}\nagents: {{command: {{command: 'true'}}}}")  # fmt: skip
        assert "✓ mcp mark: tools: mark\n" in ralph("doctor", "--mcp", "-a", "command").stdout
        assert "mcp" not in ralph("doctor", "-a", "command").stdout
