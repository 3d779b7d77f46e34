"""What the adapter makes of what Claude Code wrote: captures of the genuine program (see record.py), and mutilated ones."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from ralph_claude.stream import Stream
from ralph_core.events import (
    Event,
    Failed,
    FailureKind,
    Finished,
    Started,
    Text,
    Tokens,
    ToolCall,
    ToolResult,
    Usage,
    UsageWindow,
)

CAPTURES = Path(__file__).parent / "captures"
ONE_MESSAGE = Tokens(input=100, output=25, cache_read=20, cache_write=10)


def lines_of(name: str) -> list[bytes]:
    return (CAPTURES / f"{name}.jsonl").read_bytes().splitlines()


def events(lines: list[bytes]) -> list[Event]:
    stream = Stream()
    return [event for line in lines for event in stream.events(line)]


def edited(lines: list[bytes], kind: str, **changes: Any) -> list[bytes]:
    """The lines, with changes to each object of type `kind`; None removes a key."""
    objects = [json.loads(line) for line in lines]
    for each in objects:
        if each["type"] == kind:
            each.update(changes)
            for key in [key for key, value in changes.items() if value is None]:
                del each[key]
    return [json.dumps(each).encode() for each in objects]


def summed(found: list[Event]) -> Tokens:
    """The sum over messages, the last figures of each, as a meter would take it."""
    last = {event.message_id: event.tokens for event in found if isinstance(event, Usage)}
    return sum(last.values(), Tokens())


class TestAnswer:
    def test_text_run_yields_start_usage_text_and_result_in_order(self):
        started, first, text, last, finished = events(lines_of("text"))
        assert isinstance(started, Started)
        assert started.session
        assert started.model == "claude-opus-4-8[1m]"
        assert isinstance(first, Usage)
        assert text == Text("All done.\nLOOP_COMPLETE")
        assert last == Usage("msg_0001", ONE_MESSAGE, "claude-opus-4-8")
        assert first.tokens == Tokens(100, 1, 20, 10)
        assert isinstance(finished, Finished)
        assert finished.text == "All done.\nLOOP_COMPLETE"
        assert finished.usage == ONE_MESSAGE
        assert finished.cost == pytest.approx(0.0011975)

    def test_tool_call_and_its_result(self):
        found = events(lines_of("tool"))
        call = next(event for event in found if isinstance(event, ToolCall))
        result = next(event for event in found if isinstance(event, ToolResult))
        assert (call.name, call.input["command"]) == ("Bash", "echo hi")
        assert result == ToolResult(call.id, ok=True, text="hi")
        assert summed(found) == found[-1].usage == ONE_MESSAGE + ONE_MESSAGE

    def test_figures_of_a_message_are_reported_only_when_they_grow(self):
        figures = [event.tokens.output for event in events(lines_of("tool")) if isinstance(event, Usage)]
        assert figures == [1, 25, 1, 25]

    def test_sub_agent_is_counted_but_does_not_give_the_answer(self):
        found = events(lines_of("subagent"))
        finished = found[-1]
        assert isinstance(finished, Finished)
        assert finished.text == "All of it is done."
        expected = Tokens(500, 30) + Tokens(70, 50, 30, 20) + Tokens(7, 5, 3, 2) + Tokens(1000, 50)
        assert finished.usage == expected
        assert [event.name for event in found if isinstance(event, ToolCall)] == ["Task", "Bash"]

    def test_denied_tool_is_a_failed_tool_of_a_finished_run(self):
        found = events(lines_of("denied"))
        results = [event for event in found if isinstance(event, ToolResult)]
        assert [result.ok for result in results] == [False]
        assert isinstance(found[-1], Finished)

    def test_denial_without_a_result_of_its_own_is_reported_from_the_end(self):
        lines = [line for line in lines_of("denied") if json.loads(line)["type"] != "user"]
        results = [event for event in events(lines) if isinstance(event, ToolResult)]
        assert results == [ToolResult("toolu_msg_0001_0", ok=False, text="permission denied: Write")]

    def test_answer_that_was_repeated_without_streaming_keeps_all_figures(self):
        """`usage` of the result is all zeros then, and the message that broke is in neither total."""
        finished = events(lines_of("not_streamed"))[-1]
        assert isinstance(finished, Finished)
        assert finished.text == "Said whole, not streamed."
        assert finished.usage == Tokens(100, 1, 20, 10) + ONE_MESSAGE
        assert finished.cost == pytest.approx(0.0011975)

    def test_model_that_was_never_asked_costs_nothing(self):
        assert not [event for event in events(lines_of("401")) if isinstance(event, (Usage, Text))]


class TestQuota:
    def test_window_is_reported(self):
        windows = [event for event in events(lines_of("quota_warning")) if isinstance(event, UsageWindow)]
        assert windows == [UsageWindow("allowed_warning", "five_hour", 0.93, 1_900_000_000.0)]

    def test_window_that_is_used_up_says_when_to_come_back(self):
        failed = events(lines_of("quota_used_up"))[-1]
        assert isinstance(failed, Failed)
        assert failed.kind is FailureKind.USAGE_LIMIT
        assert failed.retry_after == pytest.approx(1_900_000_000 - time.time(), abs=5)

    def test_window_that_has_been_reset_meanwhile_means_now(self):
        lines = edited(
            lines_of("quota_used_up"), "rate_limit_event", rate_limit_info={"status": "rejected", "resetsAt": 1}
        )
        assert events(lines)[-1].retry_after == 0.0


class TestFailure:
    @pytest.mark.parametrize(
        ("capture", "kind"),
        [
            ("401", FailureKind.AUTH),
            ("403", FailureKind.AUTH),
            ("no_key", FailureKind.AUTH),
            ("no_credit", FailureKind.AUTH),
            ("404", FailureKind.AGENT),
            ("too_long", FailureKind.AGENT),
            ("max_turns", FailureKind.AGENT),
            ("interrupted", FailureKind.AGENT),
            ("429_soon", FailureKind.OVERLOADED),
            ("429_late", FailureKind.USAGE_LIMIT),
            ("quota_used_up", FailureKind.USAGE_LIMIT),
            ("500", FailureKind.OVERLOADED),
            ("529", FailureKind.OVERLOADED),
            ("refused_connection", FailureKind.NETWORK),
            ("dropped", FailureKind.NETWORK),
        ],
    )
    def test_kind(self, capture, kind):
        failed = events(lines_of(capture))[-1]
        assert isinstance(failed, Failed)
        assert failed.kind is kind
        assert failed.message

    def test_overload_that_lost_its_status_after_several_tries_is_still_overload(self):
        lines = edited(lines_of("529"), "result", api_error_status=None)
        assert events(lines)[-1].kind is FailureKind.OVERLOADED

    def test_failure_after_work_says_what_the_work_cost(self):
        failed = events(lines_of("max_turns"))[-1]
        assert failed.usage == ONE_MESSAGE + ONE_MESSAGE
        assert failed.cost == pytest.approx(2 * 0.0011975)
        assert failed.message == "Reached maximum number of turns (2)"

    def test_broken_message_is_not_free(self):
        """Claude Code's totals leave it out; what it cost is then unknown, not zero."""
        failed = events(lines_of("dropped"))[-1]
        assert failed.usage == Tokens(100, 1, 20, 10)
        assert failed.cost is None

    def test_error_with_exit_zero_and_subtype_success_is_an_error(self):
        lines = edited(lines_of("text"), "result", is_error=True)
        assert events(lines)[-1].kind is FailureKind.AGENT

    def test_unknown_subtype_is_a_failure(self):
        lines = edited(lines_of("text"), "result", subtype="error_of_a_later_version", result=None)
        assert events(lines)[-1] == Failed(FailureKind.AGENT, "completed", None, ONE_MESSAGE, pytest.approx(0.0011975))

    def test_result_without_text_is_invalid(self):
        assert events(edited(lines_of("text"), "result", result=None))[-1].kind is FailureKind.INVALID_OUTPUT


class TestOddities:
    def test_order_of_keys_does_not_matter(self):
        turned = [json.dumps(dict(reversed(json.loads(line).items()))).encode() for line in lines_of("tool")]
        assert events(turned) == events(lines_of("tool"))

    def test_noise_is_ignored(self):
        noise = [
            b"",
            b"npm warn",
            b"[1]",
            b'"result"',
            b"null",
            b"\xff\xfe",
            b"{",
            b"[" * 100_000,
            b'{"type": ["result"]}',
        ]
        lines = [each for line in lines_of("text") for each in (*noise, line)]
        assert events(lines) == events(lines_of("text"))

    @pytest.mark.parametrize("name", sorted(path.stem for path in CAPTURES.glob("*.jsonl")))
    def test_parts_that_have_another_shape_raise_nothing(self, name):
        for value in (None, 7, "x", [], [None], {}, float("nan"), float("inf"), True):
            objects = [json.loads(line) for line in lines_of(name)]
            for each in objects:
                for key in set(each) - {"type", "subtype"}:
                    changed = json.dumps({**each, key: value}).encode()
                    list(Stream().events(changed))

    def test_output_without_a_result_has_no_final_event(self):
        assert not [event for event in events(lines_of("text")[:-1]) if isinstance(event, (Finished, Failed))]

    def test_result_cut_in_the_middle_is_no_result(self):
        lines = lines_of("text")
        assert not [event for event in events([*lines[:-1], lines[-1][:200]]) if isinstance(event, (Finished, Failed))]

    def test_no_machine_is_named_in_the_captures(self):
        for path in CAPTURES.glob("*.jsonl"):
            assert "/tmp" not in path.read_text(encoding="utf-8"), path.name
            assert "/root" not in path.read_text(encoding="utf-8"), path.name
