"""The fixtures that authors may ask for, each used as they would."""

import socket
import urllib.request

from ralph_core.testing.gemini_api import GeminiAPI
from ralph_core.testing.messages_api import MessagesAPI

pytest_plugins = ["ralph_core.testing.fixtures"]


def test_a_run_in_this_process_with_a_scripted_agent(ralph_here, scripted_agent, scratch_repository):
    agent = scripted_agent("echo one > one; echo more", "echo LOOP_COMPLETE")
    ran = ralph_here("run", "-a", "command", "--command", agent.command, "-p", "Count.")
    assert ran.code == 0, ran.err
    assert "completed: claimed by the agent" in ran.out
    assert (scratch_repository / "one").read_text() == "one\n"
    assert len(agent.prompts) == 2
    assert b"Count." in agent.prompts[0]


def test_a_mistake_is_one_line(ralph_here):
    ran = ralph_here("run", "-a", "clade", "-p", "x")
    assert (ran.code, ran.err.count("\n")) == (2, 1)


def test_model_apis_on_loopback(messages_api, gemini_api):
    one, other = messages_api([]), gemini_api([])
    assert isinstance(one, MessagesAPI)
    assert isinstance(other, GeminiAPI)
    with urllib.request.urlopen(urllib.request.Request(one.url, method="HEAD")) as answer:
        assert answer.status == 200
    socket.create_connection(("127.0.0.1", int(other.url.rpartition(":")[2])), timeout=10).close()
    assert one.url in one.env().values()
    assert other.url in other.env().values()
