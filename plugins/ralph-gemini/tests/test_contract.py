"""Gemini CLI on the conformance kit: what its genuine program printed, and the program itself where it is installed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from ralph_core.events import FailureKind
from ralph_core.testing.agents import AgentContract
from ralph_core.testing.gemini_api import GeminiAPI, Refusal, Reply, call, text
from ralph_core.testing.packages import PluginContract
from ralph_core.testing.scenarios import Scenario

CAPTURES = Path(__file__).parent / "captures"
FAILURES = {
    "401": (145, FailureKind.AUTH),
    "bad_key": (144, FailureKind.AUTH),
    "404": (1, FailureKind.AGENT),
    "429_soon": (173, FailureKind.USAGE_LIMIT),
    "429_day": (173, FailureKind.USAGE_LIMIT),
    "503": (247, FailureKind.OVERLOADED),
    "refused": (1, FailureKind.NETWORK),
    "dropped": (1, FailureKind.NETWORK),
    "loop": (0, FailureKind.AGENT),
    "max_turns": (53, FailureKind.AGENT),
    "blocked": (0, FailureKind.AGENT),
    "too_long": (0, FailureKind.AGENT),
}
"""Capture: the program's exit code, and what it means."""


class TestPlugin(PluginContract):
    plugin = "gemini"


class TestCaptures(AgentContract):
    provider = "gemini"

    @pytest.fixture
    def scenarios(self) -> Sequence[Scenario]:
        return [
            Scenario(
                name=path.stem,
                capture=path,
                exit=FAILURES.get(path.stem, (0, None))[0],
                expect=FAILURES.get(path.stem, (0, None))[1],
            )
            for path in sorted(CAPTURES.glob("*.jsonl"))
        ]


@pytest.mark.real_cli
class TestGenuine(AgentContract):
    provider = "gemini"

    @pytest.fixture
    def scenarios(self, gemini: str) -> Iterator[Sequence[Scenario]]:
        settings = {"executable": gemini, "model": "gemini-2.5-flash"}
        shell = Reply([text("I look."), call("run_shell_command", {"command": "echo hi"})])
        with GeminiAPI([shell, Reply([text("Done.")])]) as good, GeminiAPI([Refusal(401, "no such key")]) as bad:
            yield [
                Scenario(name="a tool, then done", settings=settings, env=good.env()),
                Scenario(name="refused", settings=settings, env=bad.env(), expect=FailureKind.AUTH),
                Scenario(name="printed", capture=next(CAPTURES.glob("text*.jsonl"))),  # to be mutilated
            ]
