"""What lines of either program mean, one by one."""

from __future__ import annotations

import pytest

from ralph_core.contracts import Exit
from ralph_core.events import Failed, FailureKind, Finished, Text
from ralph_qchat.transcript import ANSI, Transcript

GREETING = "\x1b[36m\U0001f916 You are chatting with claude-4-sonnet\x1b[39m\n\n"


def events(stdout: str, prompt: str = "", stderr: str = GREETING, code: int = 0) -> list:
    reader = Transcript(prompt)
    found = [each for line in stdout.encode().split(b"\n") for each in reader.events(line)]
    return [*found, *reader.end(Exit(code, stderr))]


class TestColours:
    @pytest.mark.parametrize(
        "sequence",
        [
            "\x1b[38;5;141m",  # a colour
            "\x1b[?25l",  # the cursor is hidden
            "\x1b[2K",  # the line is cleared
            "\x1b]0;title\x07",  # a title, ended by BEL
            "\x1b]8;;https://x/y\x1b\\",  # a link, ended by ST
            "\x1bP1$r0m\x1b\\",  # a control string
            "\x1b(B",  # a character set
            "\x1b7",  # the cursor is saved
            "\x1bM",  # one line up
        ],
    )
    def test_and_other_sequences_are_removed(self, sequence):
        assert ANSI.sub("", f"a{sequence}b{sequence}") == "ab"

    def test_brackets_and_arrows_of_the_text_stay(self):
        assert events("[31m a > b \\ ]0;x")[-1] == Finished("[31m a > b \\ ]0;x")

    def test_no_text_can_hurt(self):
        assert events("\x1b[31m\x1b]0;un\x1bended\x00漢字 [/x]\x1b")


class TestAnswer:
    def test_quotation_in_it_is_no_new_one(self):
        found = events("\x1b[38;5;10m> \x1b[39mNothing there.\n\n> a quotation\n")
        assert found[-1] == Finished("Nothing there.\n\n> a quotation")

    def test_spinner_goes_back_to_the_start_of_its_line(self):
        assert events("⠋ Thinking...\r⠙ Thinking...\r\x1b[2K\x1b[38;5;10m> \x1b[39mPlain.\r\n")[-1] == Finished(
            "Plain."
        )

    def test_words_of_an_error_in_it_are_none(self):
        found = events("> You are not logged in. Amazon Q rate limit reached: no.")
        assert isinstance(found[-1], Finished)

    def test_words_of_a_login_in_it_are_none(self):
        reader = Transcript()
        for line in (b"\x1b[1m> \x1b[0mIt says:", b"Confirm the following code in the browser"):
            list(reader.events(line))
        assert not reader.asks_for_login

    def test_line_that_ends_in_a_return_is_whole(self):
        assert events("Plain.\r\x1b[0m\r\n")[-1] == Finished("Plain.")


class TestEcho:
    PROMPT = "Do it.\n\nLOOP_COMPLETE\n"

    @pytest.mark.parametrize("prefix", ["", "> ", "\x1b[38;5;10m> \x1b[39m"])
    def test_is_told_from_the_answer(self, prefix):
        found = events(f"\n{prefix}Do it.\n\nLOOP_COMPLETE\nDone.", self.PROMPT)
        assert found == [Text("Done."), Finished("Done.")]

    def test_is_none_unless_it_is_whole(self):
        found = events("Do it.\n\nYourself.", self.PROMPT)
        assert found[-1] == Finished("Do it.\n\nYourself.")
        assert events("Do it.", self.PROMPT)[-1] == Finished("Do it.")

    def test_of_a_part_in_the_midst_of_an_answer_is_the_answer(self):
        assert events("Well.\nDo it.\n\nLOOP_COMPLETE", self.PROMPT)[-1] == Finished("Well.\nDo it.\n\nLOOP_COMPLETE")


class TestFailure:
    @pytest.mark.parametrize(
        ("stderr", "code", "kind"),
        [
            ("Kiro is having trouble responding right now: \n dispatch failure\nerror: Tool approval required but --no-int", 1, FailureKind.NETWORK),
            ("error: You are not logged in, please log in with q login", 1, FailureKind.AUTH),
            ("error: Tool approval required but --no-interactive was specified. Use", 1, FailureKind.AGENT),
            ("error: unexpected argument '--wrap' found", 2, FailureKind.AGENT),
        ],
    )  # fmt: skip
    def test_kind(self, stderr, code, kind):
        failed = events("\x1b[38;5;10m> \x1b[39mhalf an ans", "", GREETING + stderr, code)[-1]
        assert isinstance(failed, Failed)
        assert failed.kind is kind
