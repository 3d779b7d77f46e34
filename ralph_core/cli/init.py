"""`ralph init`: a prompt and settings to begin with, which fit what is found in the workspace."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ralph_core.errors import UserError
from ralph_core.verdicts import ExitCode

from .common import load_plugins, printable, say
from .output import stdout

if TYPE_CHECKING:
    from ralph_core.session import Session

PROMPT = """\
Say here what is to be done, as you would to a colleague who has never seen this repository: what the result should be,
how one can see that it is right, and what must not be changed. Then list the pieces; they are ticked as they are done.

- [ ] the first piece of the work
- [ ] tests for it
"""

SETTINGS = """\
# Settings of Ralph: `ralph config show` says what there is and what holds, and why.
{agent}
max_iterations: 100
max_runtime: 14400      # seconds
max_cost: 50            # US dollars
checkpoint_interval: 5  # snapshot the files every 5 iterations
{gates}"""

NO_GATES = """\
# Commands that check the agent's claim to be done. Without one, its word is all there is:
# gates:
#   - command: make test
"""

PLACEHOLDER = re.compile(r"no test specified")
"""What `npm init` writes where the test command should be: it fails always."""


def write(workspace: Path, *, force: bool, yes: bool, prompt: bool = True) -> int:
    """Write the files that are not there yet; with `force`, also those that are. Without `yes`, a person is asked first.

    The prompt is left out without `prompt`.
    """
    if not workspace.is_dir():
        raise UserError(f"workspace {workspace} is not a directory", mend="see --workspace")
    gates = list(gates_of(workspace))
    agents = _usable(workspace)
    for command, why in gates:
        say(f"gate     {printable(command)} ({why})")
    if not gates:
        say("gate     none found: name one in ralph.yml, so that the agent's claim to be done is checked")
    say(f"agent    {', '.join(agents) or 'none can be used yet: `ralph doctor` says what is missing'}")
    if gates and not yes and not _agreed("use these gates?"):
        gates = []
    settings = SETTINGS.format(agent=_agent_line(agents), gates=_gate_lines([command for command, _ in gates]))
    files = {**({"PROMPT.md": PROMPT} if prompt else {}), "ralph.yml": settings}
    for name, words in files.items():
        _put(workspace / name, words, force=force)
    if prompt:
        say("\nNow describe the task in PROMPT.md, and start with `ralph run`.")
    return ExitCode.COMPLETED


def gates_of(workspace: Path) -> Iterator[tuple[str, str]]:
    """The commands that test this project, and where each was seen."""
    seen: set[str] = set()
    for find in FINDERS:
        for command, why in find(workspace):
            if command not in seen:
                seen.add(command)
                yield command, why


def _python(workspace: Path) -> Iterator[tuple[str, str]]:
    marks = {"pyproject.toml": r"\bpytest\b", "setup.cfg": r"tool:pytest", "tox.ini": r"\[pytest\]", "pytest.ini": ""}
    for name, pattern in marks.items():
        if (words := _read(workspace / name)) is not None and re.search(pattern, words):
            runner = "uv run " if (workspace / "uv.lock").is_file() else "python3 -m "
            yield f"{runner}pytest -q", name
            return
    projects = any((workspace / name).is_file() for name in ("pyproject.toml", "setup.py", "setup.cfg"))
    if projects and any(workspace.glob("tests/test*.py")):
        yield "python3 -m unittest discover -s tests", "tests/"


def _node(workspace: Path) -> Iterator[tuple[str, str]]:
    try:
        scripts = json.loads(_read(workspace / "package.json") or "{}").get("scripts", {})
        test = scripts.get("test", "")
    except (ValueError, AttributeError):  # no JSON, or none that npm would take
        return
    if isinstance(test, str) and test.strip() and not PLACEHOLDER.search(test):
        tools = {"pnpm-lock.yaml": "pnpm", "yarn.lock": "yarn", "bun.lock": "bun run", "bun.lockb": "bun run"}
        tool = next((tool for name, tool in tools.items() if (workspace / name).is_file()), "npm")
        yield f"{tool} test", "package.json, scripts.test"


def _makefile(workspace: Path) -> Iterator[tuple[str, str]]:
    for name in ("GNUmakefile", "makefile", "Makefile"):
        if (words := _read(workspace / name)) is not None:
            target = re.search(r"^(test|check)\s*:(?!=)", words, re.MULTILINE)
            if target is not None:
                yield f"make {target[1]}", name
            return


def _named(
    command: str, *names: str, wrapper: tuple[str, str] | None = None
) -> Callable[[Path], Iterator[tuple[str, str]]]:
    """A finder of a build tool by its file; `wrapper` is its own script in the project, and the command with that."""

    def find(workspace: Path) -> Iterator[tuple[str, str]]:
        for name in names:
            if (workspace / name).is_file():
                own = wrapper is not None and os.access(workspace / wrapper[0], os.X_OK)
                yield wrapper[1] if own and wrapper else command, name
                return

    return find


FINDERS: Sequence[Callable[[Path], Iterator[tuple[str, str]]]] = (
    _python,
    _node,
    _named("cargo test", "Cargo.toml"),
    _named("go test ./...", "go.mod"),
    _named("mvn -q test", "pom.xml", wrapper=("mvnw", "./mvnw -q test")),
    _named("gradle test", "build.gradle", "build.gradle.kts", wrapper=("gradlew", "./gradlew test")),
    _makefile,
)
"""All that look for tests. A project may have several; a Makefile that calls one of the others is a gate more."""


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def _usable(workspace: Path) -> list[str]:
    """The agents that can be used here, in the order in which `auto` tries them."""
    here = _session(workspace)
    return [name for name in here.auto_order() if here.probe(name).usable]


def _session(workspace: Path) -> Session:
    """A session without the settings file: it may be broken, and be about to be written anew."""
    from ralph_core.plugins.discovery import plugin_choice
    from ralph_core.session import Session
    from ralph_core.settings.model import settings_from
    from ralph_core.settings.sources import Sources, environment

    env, sources = environment(), Sources({"workspace": str(workspace)})
    cwd = Path.cwd()
    plugins = load_plugins(plugin_choice(sources, env))
    return Session(settings_from(sources), plugins, env, cwd, given={})


def _agent_line(agents: Sequence[str]) -> str:
    if not agents:
        return "agent: auto             # the first that can be used; `ralph doctor` says what each lacks"
    if len(agents) == 1:
        return f"agent: {agents[0]}"
    return f"agent: [{', '.join(agents)}]  # the others when the first can't go on"


def _gate_lines(commands: Sequence[str]) -> str:
    # As JSON, which is YAML: whatever is in a command.
    lines = [f"  - command: {json.dumps(command)}\n" for command in commands]
    return (
        "gates:                  # commands that check the agent's claim to be done\n" + "".join(lines)
        if lines
        else NO_GATES
    )


def _agreed(question: str) -> bool:
    """What a person says; yes when there is nobody to ask."""
    if not (sys.stdin is not None and sys.stdin.isatty() and stdout().isatty()):
        return True
    import typer

    return typer.confirm(question, default=True)


def _put(path: Path, words: str, *, force: bool) -> None:
    if os.path.lexists(path) and not force:
        say(f"kept     {path} (--force overwrites it)")
        return
    try:
        path.write_text(words, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path} can't be written: {error.strerror}") from None
    say(f"written  {path}")
