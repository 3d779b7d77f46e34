"""What the adapter makes of what Gemini CLI wrote: captures of the genuine program (see record.py), and mutilated ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ralph_core.contracts import Exit
from ralph_core.events import Event, Failed, FailureKind, Finished, Started, Text, Tokens, ToolCall, ToolResult, Usage
from ralph_gemini.stream import Stream, remove_report

CAPTURES = Path(__file__).parent / "captures"
ONE = Tokens(input=100, output=25, cache_read=20)


def lines_of(name: str) -> list[bytes]:
    return (CAPTURES / f"{name}.jsonl").read_bytes().splitlines()


def events(lines: list[bytes], code: int = 0, stderr: str = "") -> list[Event]:
    stream = Stream()
    return [*(event for line in lines for event in stream.events(line)), *stream.end(Exit(code, stderr))]


class TestAnswer:
    def test_text_run(self):
        started, *texts, usage, finished = events(lines_of("text"))
        assert isinstance(started, Started)
        assert started.session
        assert "".join(each.text for each in texts) == "All done.\nLOOP_COMPLETE"
        assert usage == Usage("gemini-2.5-flash", ONE, "gemini-2.5-flash")
        assert finished == Finished("All done.\nLOOP_COMPLETE", ONE, None)

    def test_final_message_is_what_is_said_after_the_last_tool(self):
        found = events(lines_of("tool"))
        (call,) = [each for each in found if isinstance(each, ToolCall)]
        assert (call.name, call.input["file_path"]) == ("write_file", "hello.txt")
        assert [(each.id, each.ok) for each in found if isinstance(each, ToolResult)] == [(call.id, True)]
        assert found[-1] == Finished("Wrote it.\nLOOP_COMPLETE", ONE + ONE, None)

    def test_prompt_that_is_echoed_is_not_the_answer(self):
        assert not [each for each in events(lines_of("text")) if isinstance(each, Text) and "Do the work" in each.text]

    def test_thoughts_are_output(self):
        assert events(lines_of("thoughts"))[-1].usage == Tokens(input=100, output=32, cache_read=20)

    def test_figures_are_told_by_model(self):
        found = [each for each in events(lines_of("two_models")) if isinstance(each, Usage)]
        assert len({each.model for each in found}) == 2
        assert sum((each.tokens for each in found), Tokens()) == ONE + ONE

    def test_denied_tool_is_a_failed_tool_of_a_finished_run(self):
        found = events(lines_of("denied"))
        (result,) = [each for each in found if isinstance(each, ToolResult)]
        assert not result.ok
        assert "not found" in result.text
        assert isinstance(found[-1], Finished)

    def test_unknown_figures_are_not_zero(self):
        assert events(lines_of("no_figures"))[-1] == Finished("For free?", None, None)


class TestFailure:
    @pytest.mark.parametrize(
        ("capture", "code", "kind", "retry_after"),
        [
            ("401", 145, FailureKind.AUTH, None),
            ("bad_key", 144, FailureKind.AUTH, None),
            ("404", 1, FailureKind.AGENT, None),
            ("429_soon", 173, FailureKind.USAGE_LIMIT, 7.0),
            ("429_day", 173, FailureKind.USAGE_LIMIT, None),
            ("503", 247, FailureKind.OVERLOADED, None),
            ("refused", 1, FailureKind.NETWORK, None),
            ("dropped", 1, FailureKind.NETWORK, None),
            ("loop", 0, FailureKind.AGENT, None),
            ("max_turns", 53, FailureKind.AGENT, None),
            ("blocked", 0, FailureKind.AGENT, None),
            ("too_long", 0, FailureKind.AGENT, None),
        ],
    )
    def test_kind(self, capture, code, kind, retry_after):
        failed = events(lines_of(capture), code)[-1]
        assert isinstance(failed, Failed)
        assert (failed.kind, failed.retry_after) == (kind, retry_after)
        assert failed.message

    def test_failure_after_work_says_what_the_work_used(self):
        assert events(lines_of("max_turns"), 53)[-1].usage == ONE + ONE

    def test_answer_that_broke_off_is_not_free(self):
        assert events(lines_of("dropped"), 1)[-1].usage is None
        assert events(lines_of("401"), 145)[-1].usage == Tokens()

    @pytest.mark.parametrize(
        ("code", "kind"),
        [(41, FailureKind.AUTH), (42, FailureKind.SPAWN), (52, FailureKind.SPAWN), (55, FailureKind.SPAWN)],
    )
    def test_refusal_to_start_is_known_by_the_exit_code(self, code, kind):
        assert events([], code, "YOLO mode\nset  this\n") == [Failed(kind, "YOLO mode set this")]

    def test_warning_in_the_midst_of_work_is_no_failure(self):
        first, *rest = lines_of("text")
        warning = b'{"type":"error","severity":"warning","message":"a hook blocked something"}'
        assert isinstance(events([first, warning, *rest])[-1], Finished)

    @pytest.mark.parametrize("delay", ["1e", "...", "7h"])
    def test_delay_that_is_none(self, delay):
        lines = [line.replace(b"7s", f"{delay}s".encode()) for line in lines_of("429_soon")]
        assert events(lines, 173)[-1].retry_after is None


class TestOddities:
    def test_order_of_keys_does_not_matter(self):
        turned = [json.dumps(dict(reversed(json.loads(line).items()))).encode() for line in lines_of("tool")]
        assert events(turned) == events(lines_of("tool"))

    def test_noise_is_ignored(self):
        noise = [b"", b"YOLO mode is enabled", b"[]", b"{", b"\xff", b"[" * 100_000, b'{"type": ["result"]}']
        lines = [each for line in lines_of("text") for each in (*noise, line)]
        assert events(lines) == events(lines_of("text"))

    @pytest.mark.parametrize("name", sorted(path.stem for path in CAPTURES.glob("*.jsonl")))
    def test_parts_that_have_another_shape_raise_nothing(self, name):
        for value in (None, 7, "x", [], [None], {}, float("nan"), float("inf"), True):
            objects = [json.loads(line) for line in lines_of(name)]
            for each in objects:
                for key in set(each) - {"type"}:
                    events([json.dumps({**each, key: value}).encode()], 1)

    def test_output_without_a_result_is_left_to_the_core(self):
        lines = lines_of("text")
        for cut in (lines[:-1], [*lines[:-1], lines[-1][:200]]):
            assert not [each for each in events(cut) if isinstance(each, (Finished, Failed))]

    def test_no_machine_is_named_in_the_captures(self):
        for path in CAPTURES.glob("*.jsonl"):
            assert "/tmp" not in path.read_text(encoding="utf-8"), path.name
            assert "/root" not in path.read_text(encoding="utf-8"), path.name


class TestReport:
    def test_the_one_that_it_names_is_deleted(self, tmp_path):
        folder = tmp_path / "with a space"
        folder.mkdir()
        named, other = folder / "gemini-client-error-Turn.run-1.json", folder / "gemini-client-error-Turn.run-2.json"
        for path in (named, other):
            path.write_text("{}")
        remove_report(
            f"Error when talking to Gemini API Full report available at: {named} ApiError: no\n    at x.json\n"
        )
        assert list(folder.iterdir()) == [other]

    def test_nothing_else_is(self, tmp_path):
        (tmp_path / "settings.json").write_text("{}")
        remove_report(f"Full report available at: {tmp_path}/settings.json\nfull report available at: /nowhere")
        assert (tmp_path / "settings.json").exists()
