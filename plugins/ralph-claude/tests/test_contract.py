"""Claude Code on the conformance kit: what its genuine program printed, and the program itself where it is installed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from ralph_core.events import FailureKind
from ralph_core.testing.agents import AgentContract
from ralph_core.testing.messages_api import MessagesAPI, Refusal, Reply, text, tool_use
from ralph_core.testing.packages import PluginContract
from ralph_core.testing.scenarios import Scenario

CAPTURES = Path(__file__).parent / "captures"
FAILURES = {
    **dict.fromkeys(("401", "403", "no_key", "no_credit"), FailureKind.AUTH),
    **dict.fromkeys(("404", "too_long", "max_turns", "interrupted"), FailureKind.AGENT),
    **dict.fromkeys(("429_soon", "500", "529"), FailureKind.OVERLOADED),
    **dict.fromkeys(("429_late", "quota_used_up"), FailureKind.USAGE_LIMIT),
    **dict.fromkeys(("refused_connection", "dropped"), FailureKind.NETWORK),
}
SHOWS = {"subagent": frozenset({"sub-agents"}), "text": frozenset({"trace"})}
"""Those that events do not show; that spans arrive below the attempt's is a test of tests/test_claude_end_to_end.py."""


class TestPlugin(PluginContract):
    plugin = "claude"


class TestCaptures(AgentContract):
    provider = "claude"

    @pytest.fixture
    def scenarios(self) -> Sequence[Scenario]:
        return [
            Scenario(
                name=path.stem,
                capture=path,
                exit=1 if path.stem in FAILURES else 0,
                expect=FAILURES.get(path.stem),
                shows=SHOWS.get(path.stem, frozenset()),
            )
            for path in sorted(CAPTURES.glob("*.jsonl"))
        ]


class TestGenuine(AgentContract):
    provider = "claude"

    @pytest.fixture
    def scenarios(self, claude: str) -> Iterator[Sequence[Scenario]]:
        look = Reply([text("I look."), tool_use("Bash", {"command": "echo hi", "description": "say hi"})])
        subagent = Scenario(name="subagent", capture=CAPTURES / "subagent.jsonl", shows={"sub-agents", "trace"})
        quota = Scenario(name="quota", capture=CAPTURES / "quota_warning.jsonl")
        with (
            MessagesAPI([look, Reply([text("Done.")])]) as good,
            MessagesAPI([Refusal(401, "invalid x-api-key")]) as bad,
        ):
            yield [
                Scenario(name="a tool, then done", settings={"executable": claude}, env=good.env()),
                Scenario(name="refused", settings={"executable": claude}, env=bad.env(), expect=FailureKind.AUTH),
                subagent,
                quota,
            ]
