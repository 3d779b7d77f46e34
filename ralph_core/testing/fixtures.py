"""Fixtures for tests of plugins, to be asked for: `pytest_plugins = ["ralph_core.testing.fixtures"]` in a conftest.py."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from ralph_core.testing import gemini_api as gemini
from ralph_core.testing import messages_api as messages

PLAYER = """\
here=${0%/*}
n=1
while [ -e "$here/prompt.$n" ]; do n=$((n + 1)); done
cat > "$here/prompt.$n"
step=$here/step.$n
[ -e "$step" ] || step=$here/step.last
. "$step"
"""


@dataclass(frozen=True)
class ScriptedAgent:
    """A shell script for the agent `command`: its n-th process plays the n-th step, every later one the last."""

    folder: Path

    @property
    def command(self) -> str:
        """What `--command` is to be."""
        return f"exec sh {shlex.quote(str(self.folder / 'play'))}"

    @property
    def prompts(self) -> list[bytes]:
        """What each process was given on standard input."""
        count = len(list(self.folder.glob("prompt.*")))
        return [(self.folder / f"prompt.{number}").read_bytes() for number in range(1, count + 1)]


@dataclass(frozen=True)
class Ran:
    """What `ralph` printed, and its exit code."""

    code: int
    out: str
    err: str


@pytest.fixture
def scratch_repository(tmp_path: Path) -> Path:
    """A git repository with one commit, made with no one's identity or configuration."""
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "README").write_text("hello\n")
    env = {
        "PATH": os.environ["PATH"],
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "HOME": str(tmp_path),
    }
    who = ("-c", "user.name=tester", "-c", "user.email=tester@example.org")
    for arguments in (("init", "-q", "-b", "main"), ("add", "."), (*who, "commit", "-q", "-m", "begin")):
        subprocess.run(["git", *arguments], cwd=folder, env=env, check=True, capture_output=True)
    return folder


@pytest.fixture
def scripted_agent(tmp_path: Path) -> Callable[..., ScriptedAgent]:
    """Makes a scripted agent of its steps, which are pieces of shell."""

    def make(*steps: str) -> ScriptedAgent:
        folder = tmp_path / f"agent{len(list(tmp_path.glob('agent*')))}"
        folder.mkdir()
        (folder / "play").write_text(PLAYER)
        for number, step in enumerate(steps, 1):
            (folder / f"step.{number}").write_text(step)
        (folder / "step.last").write_text(steps[-1])
        return ScriptedAgent(folder)

    return make


@pytest.fixture
def ralph_here(
    scratch_repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., Ran]:
    """Runs `ralph` with these arguments in the scratch repository, in this process: what it does can be debugged."""
    from ralph_core.cli import with_command
    from ralph_core.cli.app import run_app
    from ralph_core.cli.output import release

    monkeypatch.chdir(scratch_repository)
    for name in [name for name in os.environ if name.startswith(("RALPH_", "OTEL_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))

    def run(*arguments: str) -> Ran:
        capsys.readouterr()
        try:
            code = run_app(with_command(list(arguments)))
        finally:
            release()
        said = capsys.readouterr()
        return Ran(int(code), said.out, said.err)

    return run


@pytest.fixture
def messages_api() -> Iterator[Callable[[messages.Script], messages.MessagesAPI]]:
    """Starts a stand-in of the Anthropic Messages API with a script; its `env()` leads an agent there."""
    with ExitStack() as stack:
        yield lambda script: stack.enter_context(messages.MessagesAPI(script))


@pytest.fixture
def gemini_api() -> Iterator[Callable[[gemini.Script], gemini.GeminiAPI]]:
    """Starts a stand-in of the Gemini API with a script; its `env()` leads an agent there."""
    with ExitStack() as stack:
        yield lambda script: stack.enter_context(gemini.GeminiAPI(script))
