"""The tutorial's adapter, as it stands in the docs, drives the genuine program that it is for."""

import json
import os
import re
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs/new-adapter.md").read_text(encoding="utf-8")
CODE = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1]

pytestmark = pytest.mark.real_cli


@pytest.fixture(scope="module")
def copilot():
    local = ROOT / ".tools/node_modules/.bin/copilot"
    found = os.environ.get("RALPH_TEST_COPILOT") or (str(local) if local.exists() else shutil.which("copilot"))
    if not found or not shutil.which(found):
        pytest.skip("no genuine Copilot CLI (npm install @github/copilot, or RALPH_TEST_COPILOT)")
    return found


class ChatAPI:
    """The chat completions of an OpenAI-compatible server, on loopback: each answer in turn, a refusal by its status."""

    def __init__(self, *answers):
        self.answers, self.requests = list(answers), []
        api = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *arguments):
                pass

            def do_POST(self):
                api.requests.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                answer = api.answers.pop(0) if len(api.answers) > 1 else api.answers[0]
                if isinstance(answer, int):
                    self.reply(answer, "application/json", json.dumps({"error": {"message": "refused"}}).encode())
                    return
                end = "tool_calls" if "tool_calls" in answer else "stop"
                chunks = [({"role": "assistant", **answer}, None), ({}, end)]
                choices = [[{"index": 0, "delta": delta, "finish_reason": reason}] for delta, reason in chunks]
                lines = [
                    {"id": "c1", "object": "chat.completion.chunk", "model": "m", "choices": each} for each in choices
                ]
                body = "".join(f"data: {json.dumps(line)}\n\n" for line in lines) + "data: [DONE]\n\n"
                self.reply(200, "text/event-stream", body.encode())

            def reply(self, status, kind, body):
                self.send_response(status)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error):
        self.server.shutdown()
        self.server.server_close()

    @property
    def env(self):
        """Copilot CLI's own way to use another server, with no other host to talk to."""
        return {
            "COPILOT_OFFLINE": "true",
            "COPILOT_PROVIDER_BASE_URL": f"http://127.0.0.1:{self.server.server_port}/v1",
            "COPILOT_PROVIDER_API_KEY": "sk-test-0123456789",
            "COPILOT_MODEL": "fake-model",
            "COPILOT_AUTO_UPDATE": "false",
        }


@pytest.fixture
def run(ralph, copilot):
    ralph.plugin("copilot", CODE)
    (ralph.site / "ralph_copilot.py").write_text(CODE)
    path = f"{Path(copilot).parent}{os.pathsep}{ralph.env['PATH']}"

    def run(api, *arguments):
        env = {**api.env, "PATH": path}
        return ralph("run", "-a", "copilot", "-p", "Make a file.", *arguments, env=env, limit=120)

    return run


def test_it_is_forty_lines_of_python():
    lines = [line for line in CODE.splitlines() if line.strip()]
    assert len(lines) <= 40


def test_it_works(ralph, run):
    arguments = json.dumps({"command": "echo made > made.txt", "description": "make it"})
    call = {"index": 0, "id": "t1", "type": "function", "function": {"name": "bash", "arguments": arguments}}
    with ChatAPI({"tool_calls": [call]}, {"content": "Done.\nLOOP_COMPLETE"}) as api:
        done = run(api)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (ralph.workspace / "made.txt").read_text() == "made\n"
    assert [record["message"] for record in ralph.records() if record["type"].startswith("tool.")] == ["bash", "bash"]
    assert ralph.state()["spend"]["cost"] is None, "unknown is not zero"


def test_a_refused_key_is_no_fault_of_the_agent(ralph, run):
    with ChatAPI(401) as api:
        done = run(api)
    assert done.returncode == 1
    assert ralph.state()["recent"][-1]["failure"] == "auth"
