"""What `q chat` and `kiro-cli chat` write, and what it means: an answer in plain text, and errors beside it.

Neither program can be installed from a package registry. This follows the sources of `q` 1.19.7 (`crates/chat-cli/src/cli`
of https://github.com/aws/amazon-q-developer-cli, `chat/mod.rs` and `user.rs`, read November 2026), and what is published of
Kiro CLI 2, which is closed source. Both write the answer to standard output, coloured even into a file, and everything else
to standard error; both end with 0 after most errors. There are no figures: usage and cost are unknown.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Iterator

from ralph_core.contracts import Exit, tail_of
from ralph_core.events import Event, Failed, FailureKind, Finished, Text

ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]*[0-~])")
"""Escape sequences, as in ECMA-48 (5th edition) 5.4, 5.6 and 8.3 and ECMA-35 13.2: control sequences (colours, cursor),
control strings (titles, links), and the short ones."""

ANSWER = re.compile(r"^(?:\x1b\[[0-?]*[ -/]*[@-~])*\x1b\[[0-9;]*m> ")
"""The start of an answer: a coloured "> ". A quotation in the answer itself is not coloured in its first place."""

SIGNALS = (
    ("Monthly request limit reached", FailureKind.USAGE_LIMIT),
    ("rate limit reached:", FailureKind.OVERLOADED),
    ("dispatch failure", FailureKind.NETWORK),
    ("is having trouble responding right now", FailureKind.OVERLOADED),
    ("You are not logged in", FailureKind.AUTH),
    ("Authentication failed.", FailureKind.AUTH),
    # Last: it is also said, wrongly, after any of the others.
    ("Tool approval required but --no-interactive was specified", FailureKind.AGENT),
)
"""What standard error says of a failure, in order of precedence; the model's words never get there."""

LOGIN = ("Confirm the following code in the browser", "Open this URL: https://")
"""How the programs begin to log somebody in (`user.rs`): on standard output, and then they wait for ever."""

SHOWN = 100.0
"""Lines a second that are reported as they come: what tools print is among them, and may be a flood."""

LINES_KEPT = 10_000
"""Lines of the answer that are kept for the final message; all of it is in the run's folder."""


class Transcript:
    """The reader of one request's lines, and of its end. A prompt that is echoed before the answer is none of it."""

    def __init__(self, prompt: str = "") -> None:
        self._answer: deque[str] = deque(maxlen=LINES_KEPT)
        self._expected = deque(line.strip() for line in prompt.strip().splitlines())
        self._held: list[str] = []  # lines that may be the beginning of an echo
        self._answered = False
        self.asks_for_login = False
        self._allowance, self._asked = SHOWN, time.monotonic()

    def events(self, line: bytes) -> Iterator[Event]:
        """What one line means."""
        raw = _visible(line.decode(errors="replace"))
        begins = ANSWER.match(raw)
        if begins:
            self._answered = True
            self._answer.clear()  # what came before were tools, and what was said before them
            raw = raw[begins.end() :]
        words = ANSI.sub("", raw).rstrip()
        if not self._answered and words.startswith(LOGIN):
            self.asks_for_login = True
        for said in self._after_echo(words):
            self._answer.append(said)
            if said and self._shows():
                yield Text(said)

    def end(self, end: Exit) -> Iterator[Event]:
        """The final event. Standard error says whether it failed: the exit code is 0 after most errors."""
        errors = ANSI.sub("", end.stderr)
        for words, kind in SIGNALS:
            if words in errors:
                at = errors.index(words)
                yield Failed(kind, " ".join(errors[max(0, at - 40) : at + 300].split()))
                return
        if self.asks_for_login:
            yield Failed(FailureKind.AUTH, "it is not logged in, and waits for somebody to do so in a browser")
            return
        answer = "\n".join((*self._answer, *self._held)).strip()
        if end.code != 0:
            yield Failed(FailureKind.AGENT, f"{end.words}{tail_of(errors)}")
        elif not answer:
            yield Failed(FailureKind.INVALID_OUTPUT, f"no answer, {end.words}{tail_of(errors)}")
        else:
            yield Finished(answer)

    def _shows(self) -> bool:
        """Whether one more line may be reported."""
        now = time.monotonic()
        self._allowance = min(SHOWN, self._allowance + SHOWN * (now - self._asked))
        self._asked = now
        shows = self._allowance >= 1
        self._allowance -= shows
        return shows

    def _after_echo(self, words: str) -> Iterator[str]:
        """The lines that are none of an echo of the prompt, which can only be told once it is whole."""
        if not self._expected:
            yield words
            return
        line = words.strip()
        if not self._held and not line:
            return  # before anything was said
        expected = self._expected[0]
        if line in (expected, f"> {expected}".strip()):
            self._held.append(words)
            self._expected.popleft()
            if not self._expected:
                self._held.clear()
            return
        self._expected.clear()
        held, self._held = self._held, []
        yield from (*held, words)


def _visible(line: str) -> str:
    """What of a line stays to be seen: a spinner goes back to its start, and is written over."""
    return next((part for part in reversed(line.split("\r")) if ANSI.sub("", part).strip()), "")
