"""The adapter on the conformance kit, with lines as Copilot CLI 1.0.102 prints them (November 2026)."""

import json

import pytest

from ralph_core import FailureKind
from ralph_core.testing.agents import AgentContract
from ralph_core.testing.packages import PluginContract
from ralph_core.testing.scenarios import Scenario


def printed(*entries):
    return b"".join(json.dumps({"type": kind, "data": data}).encode() + b"\n" for kind, data in entries)


CALL = {"toolCallId": "call_1", "toolName": "bash", "arguments": {"command": "echo made > made.txt"}}
DONE = printed(
    ("user.message", {"content": "Make a file."}),
    ("assistant.message", {"content": "", "toolRequests": [CALL]}),
    ("tool.execution_start", CALL),
    ("tool.execution_complete", {"toolCallId": "call_1", "success": True, "result": {"content": "done"}}),
    ("assistant.message", {"content": "Done.\nLOOP_COMPLETE"}),
    ("result", {}),
)


def refused(status):
    return printed(("session.error", {"statusCode": status, "message": f"{status} from the model API"}), ("result", {}))


class TestPlugin(PluginContract):
    plugin = "copilot"


class TestCopilot(AgentContract):
    provider = "copilot"

    @pytest.fixture
    def scenarios(self):
        return [
            Scenario(name="done", capture=DONE),
            Scenario(name="401", capture=refused(401), exit=1, expect=FailureKind.AUTH),
            Scenario(name="503", capture=refused(503), exit=1, expect=FailureKind.OVERLOADED),
            Scenario(name="418", capture=refused(418), exit=1, expect=FailureKind.AGENT),
            Scenario(name="killed", capture=DONE[:300], exit=-9, expect=FailureKind.CRASH),
        ]
