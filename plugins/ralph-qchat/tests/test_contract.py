"""Amazon Q Developer CLI and Kiro CLI on the conformance kit."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from ralph_core.events import FailureKind
from ralph_core.testing.agents import AgentContract
from ralph_core.testing.packages import PluginContract
from ralph_core.testing.scenarios import Scenario


class TestPlugin(PluginContract):
    plugin = "qchat"


class TestQ(AgentContract):
    provider = "q"

    @pytest.fixture
    def scenarios(self) -> Sequence[Scenario]:
        return [
            Scenario(name="done", capture=b"> All of it is done.\r\n\r\nLOOP_COMPLETE\r\n"),
            Scenario(name="failed", capture=b"> I try.\n", exit=1, stderr="it went wrong", expect=FailureKind.AGENT),
        ]


class TestKiro(TestQ):
    provider = "kiro"
