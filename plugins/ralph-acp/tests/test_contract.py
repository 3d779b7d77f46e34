"""The adapter for the Agent Client Protocol on the conformance kit: conversations that are played, and a scripted agent."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from ralph_core.events import FailureKind
from ralph_core.testing.agents import AgentContract
from ralph_core.testing.messages_api import MessagesAPI, Refusal, Reply, text, tool_use
from ralph_core.testing.packages import PluginContract
from ralph_core.testing.scenarios import Scenario

FAKE = Path(__file__).with_name("fake.py")
SHOWS = frozenset({"asks"})
"""No event shows it; that the agent's questions are put to the policies is tested in test_agent.py."""


def said(**message: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n"


def update(what: str, **fields: Any) -> bytes:
    return said(method="session/update", params={"sessionId": "s-1", "update": {"sessionUpdate": what, **fields}})


GREETING = said(id=0, result={"protocolVersion": 1, "agentCapabilities": {}, "authMethods": []})
SESSION = said(id=1, result={"sessionId": "s-1"})
TOOL = update("tool_call", toolCallId="t-1", title="ls", kind="execute", status="pending", rawInput={"command": "ls"})
ENDED = update("tool_call_update", toolCallId="t-1", status="completed")
TEXT = update("agent_message_chunk", content={"type": "text", "text": "All there."})
DONE = GREETING + SESSION + TOOL + ENDED + TEXT + said(id=2, result={"stopReason": "end_turn"})
NO_LOGIN = GREETING + said(id=1, error={"code": -32000, "message": "log in first"})
PLAY = """
greet()
prompt()
say("I look.")
update("tool_call", toolCallId="t-1", title="ls", kind="execute", status="pending", rawInput={"command": "ls"})
update("tool_call_update", toolCallId="t-1", status="completed")
say("All there.")
answer()
take()
"""


class TestPlugin(PluginContract):
    plugin = "acp"


class TestConversations(AgentContract):
    provider = "acp"

    @pytest.fixture
    def scenarios(self, tmp_path: Path) -> Sequence[Scenario]:
        play = tmp_path / "play.py"
        play.write_text(textwrap.dedent(PLAY))
        command = {"command": ["acme", "--acp"]}
        fake = {"command": [sys.executable, "-I", "-S", str(FAKE), str(play)]}
        return [
            Scenario(name="done", settings=command, capture=DONE, shows=SHOWS),
            Scenario(name="no login", settings=command, capture=NO_LOGIN, expect=FailureKind.AUTH),
            Scenario(name="scripted", settings=fake),
        ]


@pytest.mark.real_cli
class TestGenuine(AgentContract):
    """Claude behind the protocol, by its genuine agent."""

    provider = "acp-claude"

    @pytest.fixture
    def scenarios(self, genuine: Callable[[str, str, str], str]) -> Iterator[Sequence[Scenario]]:
        package = "npm install @agentclientprotocol/claude-agent-acp"
        settings = {"command": [genuine("RALPH_TEST_ACP_CLAUDE", "claude-agent-acp", package)]}
        shell = Reply([text("I look."), tool_use("Bash", {"command": "echo hi", "description": "say hi"})])
        with MessagesAPI([shell, Reply([text("Done.")])]) as good, MessagesAPI([Refusal(401, "no")]) as bad:
            yield [
                Scenario(name="a tool, then done", settings=settings, env=good.env(), shows=SHOWS),
                Scenario(name="refused", settings=settings, env=bad.env(), expect=FailureKind.AUTH),
                Scenario(name="played", settings={"command": ["acme"]}, capture=DONE, shows=SHOWS),  # to be mutilated
            ]
