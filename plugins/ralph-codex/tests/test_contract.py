"""Codex on the conformance kit: lines as its program prints them, and the program itself where it is installed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from ralph_core.events import FailureKind
from ralph_core.testing.agents import AgentContract
from ralph_core.testing.packages import PluginContract
from ralph_core.testing.responses_api import ResponsesAPI
from ralph_core.testing.scenarios import Scenario

SHELL = {"id": "item_1", "type": "command_execution", "command": "ls"}
USAGE = {"input_tokens": 120, "cached_input_tokens": 20, "output_tokens": 25, "reasoning_output_tokens": 5}


def printed(*objects: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(each).encode() + b"\n" for each in objects)


DONE = printed(
    {"type": "thread.started", "thread_id": "t-1"},
    {"type": "turn.started"},
    {"type": "item.started", "item": {**SHELL, "status": "in_progress"}},
    {"type": "item.completed", "item": {**SHELL, "status": "completed", "exit_code": 0, "aggregated_output": "README"}},
    {"type": "item.completed", "item": {"id": "item_2", "type": "agent_message", "text": "Done."}},
    {"type": "turn.completed", "usage": USAGE},
)
NO_KEY = printed({"type": "turn.failed", "error": {"message": "unexpected status 401 Unauthorized"}})
CUT_SHORT = printed({"type": "error", "message": "stream disconnected before completion"})


CAPTURES = Path(__file__).parent / "captures"
"""What the genuine program printed (0.169.0, November 2026), with the address of its server made another."""


class TestPlugin(PluginContract):
    plugin = "codex"


class TestCaptures(AgentContract):
    provider = "codex"

    @pytest.fixture
    def scenarios(self) -> Sequence[Scenario]:
        return [
            Scenario(name="tool", capture=CAPTURES / "tool.jsonl"),
            Scenario(name="401", capture=CAPTURES / "401.jsonl", exit=1, expect=FailureKind.AUTH),
            Scenario(name="429", capture=CAPTURES / "429.jsonl", exit=1, expect=FailureKind.USAGE_LIMIT),
        ]


class TestLines(AgentContract):
    provider = "codex"

    @pytest.fixture
    def scenarios(self) -> Sequence[Scenario]:
        return [
            Scenario(name="done", capture=DONE),
            Scenario(name="no key", capture=NO_KEY, exit=1, expect=FailureKind.AUTH),
            Scenario(name="cut short", capture=CUT_SHORT, exit=1, expect=FailureKind.NETWORK),
            Scenario(name="killed", capture=DONE[:300], exit=137, expect=FailureKind.CRASH),
        ]


@pytest.mark.real_cli
class TestGenuine(AgentContract):
    provider = "codex"

    @pytest.fixture
    def scenarios(self, codex: str, config: Callable[[str], str], tmp_path: Path) -> Iterator[Sequence[Scenario]]:
        with ResponsesAPI(["echo hi"], "Done.") as good, ResponsesAPI(401) as bad:
            yield [
                scenario(codex, tmp_path / "good", config(good.url), None),
                scenario(codex, tmp_path / "bad", config(bad.url), FailureKind.AUTH),
                Scenario(name="printed", capture=DONE),  # to be mutilated
            ]


def scenario(codex: str, home: Path, config: str, expect: FailureKind | None) -> Scenario:
    home.mkdir()
    (home / "config.toml").write_text(config)
    env = {"CODEX_HOME": str(home), "CODEX_API_KEY": "sk-test-0123456789"}
    return Scenario(name=home.name, settings={"executable": codex}, env=env, expect=expect)
