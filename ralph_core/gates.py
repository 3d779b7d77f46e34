"""Checks a claim of completion: runs commands itself, and asks of each whether it tests anything at all."""

from __future__ import annotations

import asyncio
import re
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from . import conventions as names
from .contracts import Command, Exit
from .errors import StoreError, UserError
from .plugins.guarded import in_thread
from .records import Severity
from .redaction import OWN
from .run import Ended, Run
from .state import GateResult

if TYPE_CHECKING:
    from .settings.tables import GateSettings

TAIL = 4000
"""Characters of the end of a gate's output that are kept, and shown to the agent."""
LOOK = 0.1
"""Seconds between two looks whether somebody wants the run to end."""

COUNTS = (
    re.compile(r"^Ran (\d+) tests? in", re.MULTILINE),  # unittest
    re.compile(r"^test result: \w+\. (\d+) passed", re.MULTILINE),  # cargo test
    re.compile(r"^# tests (\d+)$", re.MULTILINE),  # node --test
    re.compile(r"^Tests:.*?(\d+) total", re.MULTILINE),  # jest
    re.compile(r"^(?:=+ )?(?:.*?, )?(\d+) passed\b", re.MULTILINE),  # pytest, vitest, and many others
    re.compile(r"^(\d+) examples?, \d+ failures?", re.MULTILINE),  # RSpec
)
NO_TESTS = re.compile(r"no tests ran|collected 0 items|\[no test files\]|no tests? found|0 passing", re.IGNORECASE)
"""How test runners say that they had nothing to run; several of them exit with 0 then."""


class Gates:
    """The gates of a run. All are run at every claim, so that the agent hears of every failure at once."""

    def __init__(self, run: Run) -> None:
        self._run = run

    async def check(self) -> tuple[GateResult, ...]:
        """Run every gate in the workspace. Raises `Ended` if somebody wants the run to end at once."""
        results = []
        for number, gate in enumerate(self._run.parts.settings.gates, 1):
            with (
                self._run.parts.telemetry.span("gate", {names.GATE: gate.command}) as span,
                self._run.parts.trail.pair("gate", message=gate.command) as pair,
            ):
                told = await self._one(gate, f"gate-{self._run.state.finished:04d}-{number}")
                result = replace(told, command=self._run.parts.redactor.text(told.command))
                span.set_attributes({names.PASSED: result.passed, names.EXIT_CODE: result.code})
                pair.message = f"{gate.command}: {result.why}"
                pair.data = {"code": result.code, "checked_by": result.checked_by, "output": result.tail}
                if not result.passed:
                    pair.ending, pair.severity = "failed", Severity.WARNING
            results.append(result)
        return tuple(results)

    async def _one(self, gate: GateSettings, name: str) -> GateResult:
        workspace = self._run.parts.workspace
        end, output, late = await self._execute(gate, gate.command, workspace / (gate.cwd or ""), name)
        tail = self._run.parts.redactor.tail(output, TAIL)
        if late:
            return GateResult(gate.command, False, end.code, f"not done after {gate.timeout:g} s", tail)
        if end.code != 0:
            return GateResult(gate.command, False, end.code, end.words, tail)
        checked_by, fault = _vacuous(gate, output)
        if not fault and gate.must_fail_after:
            checked_by, fault = await self._on_a_broken_tree(gate, name)
        return GateResult(gate.command, not fault, end.code, fault or f"passed ({checked_by})", tail, checked_by)

    async def _on_a_broken_tree(self, gate: GateSettings, name: str) -> tuple[str, str]:
        """Break a copy of the workspace as the user says, and see the gate fail there."""
        await self._run.snapshot()
        ref = self._run.state.snapshot
        if ref is None:
            return "", "must_fail_after needs a checkpoint store that keeps files"
        # Beside the records rather than in the system's temporary folder: the copy is as large as the workspace.
        folder = Path(tempfile.mkdtemp(prefix="broken-", dir=self._run.parts.folder))
        try:
            await in_thread(self._run.parts.store.restore, ref, folder)
            place = folder / (gate.cwd or "")
            broke, output, _ = await self._execute(gate, gate.must_fail_after, place, f"{name}-break")
            if broke.code != 0:
                said = self._run.parts.redactor.tail(output, 200).strip()
                return "", f"must_fail_after itself failed ({broke.words}): {said}"
            end, _, late = await self._execute(gate, gate.command, place, f"{name}-broken")
        except (StoreError, UserError) as error:
            return "", f"the broken tree could not be made: {error}"
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        if end.code == 0 and not late:
            return "", f"tests nothing: it passes on a broken tree, too (after `{gate.must_fail_after}`)"
        return "fails on a broken tree", ""

    async def _execute(self, gate: GateSettings, command: str, place: Path, name: str) -> tuple[Exit, str, bool]:
        """Run a shell command to its end or its time limit; gives its exit, its output, and whether it was too late."""
        parts = self._run.parts
        output = parts.transcripts.raw(f"{name}.out")
        # Both streams into one file, in the order in which they were written.
        argv = ("/bin/sh", "-c", f"exec 2>&1\n{command}")
        env = {**{name: value for name, value in parts.env.items() if name not in OWN}, **gate.env}
        parts.redactor.learn(env)
        job = await parts.supervisor.start(Command(argv, env, str(place)), output=output)
        ended = asyncio.ensure_future(job.wait())
        until = time.monotonic() + gate.timeout
        try:
            while not ended.done() and parts.halt.now is None and time.monotonic() < until:
                await asyncio.wait({ended}, timeout=LOOK)
            late = not ended.done()
        finally:
            await job.stop(now=True)
            written = _end_of(output)
            await asyncio.to_thread(parts.transcripts.keep, output.name)
        if parts.halt.now is not None:
            raise Ended(parts.halt.now)
        return await ended, written, late


def _vacuous(gate: GateSettings, output: str) -> tuple[str, str]:
    """How it was seen that a passing gate tests something, and what is wrong if it does not."""
    if gate.must_match is not None:
        if not re.search(gate.must_match, output, re.MULTILINE):
            return "", f"passed, but its output does not match must_match {gate.must_match!r}"
        return "output matches", ""
    tests = count_tests(output)
    if gate.min_tests is not None:
        if tests is None or tests < gate.min_tests:
            found = "none that Ralph can count" if tests is None else str(tests)
            return "", f"passed, but {gate.min_tests} tests are wanted and {found} were run"
        return f"{tests} tests", ""
    if tests == 0:
        return "", "tests nothing: no tests were run"
    return (f"{tests} tests" if tests else "unchecked"), ""


def count_tests(output: str) -> int | None:
    """How many tests a well-known test runner says it has run; None when no such line is there."""
    counts = [int(match) for pattern in COUNTS for match in pattern.findall(output)]
    if counts:
        return max(counts)
    return 0 if NO_TESTS.search(output) else None


def _end_of(path: Path) -> str:
    """The end of an output file, generously: what is counted in it stands at its end."""
    try:
        with path.open("rb") as stream:
            size = stream.seek(0, 2)
            stream.seek(max(0, size - 16 * TAIL))
            return stream.read().decode(errors="replace")
    except OSError:
        return ""
