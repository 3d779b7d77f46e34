"""Amazon Q Developer CLI and its successor Kiro CLI as agents: one headless process an attempt, plain text both ways.

Neither can be installed from a package registry, so nothing here was tried with the genuine programs. It follows the
sources of `q` 1.19.7 (github.com/aws/amazon-q-developer-cli, crates/chat-cli/src/cli/chat/mod.rs, read November 2026) and
what is published of Kiro CLI 2 (closed source). Both write the answer to standard output, coloured even into a file, and
everything else to standard error; both end with 0 after most errors. There are no figures: usage and cost are unknown.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

from ralph_core.contracts import Command, CommandAgent, Context, Exit, Probe, Request, tail_of
from ralph_core.events import Event, Failed, FailureKind, Finished, Text

from .settings import ChatSettings

ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
"""Escape sequences (ECMA-48): colours and cursor movements, titles and links, and the short ones."""

ANSWER = re.compile(r"^(?:\r|\x1b\[[0-?]*[ -/]*[@-~])*\x1b\[[0-9;]*m> ")
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

LINES_KEPT = 10_000
"""Lines of the answer that are kept for the final message; all of it is in the run's folder."""

LOGIN_ADVICE = "not logged in: run `{name} login`"


class QChatAgent(CommandAgent):
    """Runs `q chat`, or what took its place. Settings: `ChatSettings`."""

    settings: ChatSettings
    programs: ClassVar[tuple[str, ...]] = ("q", "qchat", "kiro-cli", "kiro-cli-chat")
    """Names of the program, the first that is there is taken."""

    def __init__(self, settings: Any, context: Context) -> None:
        super().__init__(settings or ChatSettings(), context)
        self._answer: deque[str] = deque(maxlen=LINES_KEPT)

    def probe(self) -> Probe:
        executable = self._executable()
        if executable is None:
            names = self.settings.executable or ", ".join(self.programs)
            return Probe(missing=(f"none of these programs on PATH: {names} (Kiro CLI: https://kiro.dev)",))
        version, missing = self._ask(executable, "--version")
        if not missing and not _is_chat_version(version):
            missing = f"{executable} is another program: --version says {version!r}"
        if not missing and not self.context.env.get("KIRO_API_KEY"):
            # Without a login, Kiro CLI prints an address to log in at and waits for ever.
            who, missing = self._ask(executable, "whoami")
            if missing or "not logged in" in who.lower():
                missing = LOGIN_ADVICE.format(name=os.path.basename(executable))  # noqa: PTH119 - a string will do
        notes = ("tested against its sources and a stand-in only", "reports no tokens and no cost")
        return Probe(executable, _number(version), (missing,) if missing else (), notes)

    def begin(self, request: Request) -> None:
        self._answer.clear()

    def command(self, request: Request) -> Command:
        trust = ("--trust-all-tools",) if self.settings.trust_all_tools else ()
        model = ("--model", self.settings.model) if self.settings.model else ()
        return Command(
            argv=(
                self._executable() or self.settings.executable or self.programs[0],
                *("chat", "--no-interactive", "--wrap", "never", *trust, *model),
            ),
            env={**request.env, **self.settings.env},
            cwd=str(request.workspace),
            stdin=request.prompt.encode(),  # which is read where there is no argument, and has no limit in length
            stop=((signal.SIGINT, 2.0), (signal.SIGTERM, 2.0)),
        )

    def parse(self, line: bytes) -> Iterator[Event]:
        raw = line.decode(errors="replace")
        begins = ANSWER.match(raw)
        if begins:
            self._answer.clear()  # what came before were tools, and what was said before them
            raw = raw[begins.end() :]
        words = ANSI.sub("", raw).rstrip().rsplit("\r", 1)[-1]  # a spinner goes back to the start of its line
        self._answer.append(words)
        if words:
            yield Text(words)

    def finish(self, end: Exit) -> Iterable[Event]:
        """Standard error says whether it failed: the exit code is 0 after most errors."""
        errors = ANSI.sub("", end.stderr)
        for words, kind in SIGNALS:
            if words in errors:
                at = errors.index(words)
                return [Failed(kind, " ".join(errors[max(0, at - 40) : at + 300].split()))]
        answer = "\n".join(self._answer).strip()
        if end.code != 0:
            return [Failed(FailureKind.AGENT, f"{end.words}{tail_of(errors)}")]
        if not answer:
            return [Failed(FailureKind.INVALID_OUTPUT, f"no answer, {end.words}{tail_of(errors)}")]
        return [Finished(answer)]

    def _executable(self) -> str | None:
        """The path of the program that is there."""
        names = (self.settings.executable,) if self.settings.executable else self.programs
        path = self.context.env.get("PATH")
        found = (shutil.which(os.path.expanduser(name), path=path) for name in names)  # noqa: PTH111 - a bare name stays one
        return next((each for each in found if each), None)

    def _ask(self, executable: str, question: str) -> tuple[str, str]:
        """The first line of the program's answer, and what is wrong if it has none."""
        env = {**self.context.env, **self.settings.env}
        try:
            done = subprocess.run(
                [executable, question], env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=4, check=False
            )
        except subprocess.TimeoutExpired:
            return "", f"{executable} {question} did not answer within 4 s"
        except OSError as error:
            return "", f"{executable} can't be run: {error.strerror or error}"
        lines = ANSI.sub("", done.stdout.decode(errors="replace")).strip().splitlines() or [""]
        return lines[0], f"{executable} {question} failed (exit code {done.returncode})" if done.returncode else ""


class KiroAgent(QChatAgent):
    """Runs `kiro-cli chat`. Settings: `ChatSettings`."""

    programs = ("kiro-cli", "kiro-cli-chat")


def _is_chat_version(line: str) -> bool:
    """Whether this is what one of the programs says of itself: "q 1.19.7". Other programs are called q, too."""
    return re.match(r"^(q|qchat|kiro-cli|kiro-cli-chat) \d+\.\d+", line) is not None


def _number(line: str) -> str | None:
    return line.split()[1] if _is_chat_version(line) else None
