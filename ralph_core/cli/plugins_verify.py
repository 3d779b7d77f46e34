"""`ralph plugins verify`: holds an installed plugin to the rules of the conformance kit, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from ralph_core.errors import UnknownName, UserError
from ralph_core.plugins.discovery import PluginChoice
from ralph_core.plugins.registry import PluginRow
from ralph_core.verdicts import ExitCode

from .common import load_plugins, printable, say, say_json

PATIENCE = 900.0
"""Seconds for all rules together; each has time limits of its own."""


@dataclass(frozen=True)
class Rule:
    """What came of one rule: `outcome` is passed, failed or skipped, `message` what was seen, and what to mend."""

    part: str
    rule: str
    outcome: str
    message: str = ""


def verify(name: str, *, as_json: bool) -> int:
    """Print the verdict on a plugin; exit code 1 if a rule does not hold. Raises `UserError` without pytest."""
    if find_spec("pytest") is None:
        raise UserError("the kit needs pytest, which is not installed", mend="pip install 'ralph-core[testing]'")
    rows = {row.name: row for row in load_plugins(PluginChoice()).rows}
    if name not in rows:
        raise UnknownName("plugin", name, rows)
    from ralph_core.testing.installed import left_out

    rules, notes = _run(name), left_out(name)
    failed = any(rule.outcome == "failed" for rule in rules)
    if as_json:
        row = rows[name]
        say_json(
            {
                "plugin": name,
                "distribution": row.distribution,
                "version": row.version,
                "passed": not failed,
                "rules": [asdict(rule) for rule in rules],
                "not_run": notes,
            }
        )
    else:
        _tell(rows[name], rules, notes)
    return ExitCode.FAILED if failed else ExitCode.COMPLETED


def _run(name: str) -> list[Rule]:
    from ralph_core.testing import installed

    with tempfile.TemporaryDirectory(prefix="ralph-verify-") as folder:
        report = Path(folder, "report.xml")
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            f"--junitxml={report}",
            f"--basetemp={report.with_name('basetemp')}",
        ]
        command += ["-p", "no:cacheprovider", "-c", os.devnull, f"--rootdir={folder}", "--noconftest"]
        command += ["-o", "python_files=installed.py", "-o", "junit_family=xunit2", str(installed.__file__)]
        env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        env |= {installed.VARIABLE: name, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        try:
            done = subprocess.run(
                command, env=env, cwd=folder, capture_output=True, text=True, timeout=PATIENCE, check=False
            )
        except subprocess.TimeoutExpired:
            return [Rule("plugin", "all", "failed", f"the rules took more than {PATIENCE:.0f} s")]
        if done.returncode not in (0, 1) or not report.exists():
            words = (done.stdout + done.stderr).strip().splitlines()
            return [Rule("plugin", "all", "failed", f"pytest could not run: {words[-1] if words else done.returncode}")]
        return [_rule(case) for case in ET.parse(report).iter("testcase")]  # noqa: S314 - pytest has just written it


def _rule(case: Any) -> Rule:
    part = case.get("classname", "").rpartition(".")[2].removeprefix("Test_").replace("_", " ", 1)
    rule = case.get("name", "").removeprefix("test_").replace("_", " ")
    for outcome, tags in (("failed", ("failure", "error")), ("skipped", ("skipped",))):
        for tag in tags:
            found = case.find(tag)
            if found is not None:
                return Rule(part, rule, outcome, (found.text or found.get("message") or "").strip())
    return Rule(part, rule, "passed")


def _tell(row: PluginRow, rules: Sequence[Rule], notes: Sequence[str]) -> None:
    for rule in rules:
        if rule.outcome != "passed":
            say(f"{'✗' if rule.outcome == 'failed' else '-'} {rule.part}: {rule.rule}")
            for line in rule.message.splitlines()[-12:]:
                say(f"    {printable(line)}")
    counts = {outcome: sum(rule.outcome == outcome for rule in rules) for outcome in ("passed", "failed", "skipped")}
    for note in notes:
        say(f"not run: {note}")
    verdict = "does not hold what it has to" if counts["failed"] else "holds what it has to"
    told = ", ".join(f"{number} {outcome}" for outcome, number in counts.items() if number)
    say(f"{'✗' if counts['failed'] else '✓'} {row.name} ({row.distribution} {row.version}) {verdict}: {told}")
