"""What a stranger installs: the built wheels, in a clean environment, far from this repository."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
UNREACHABLE = ("Could not find a version", "No matching distribution", "connection", "Max retries")


def pip(python, *arguments):
    """Run pip; without a package index the test is skipped, since nothing can be installed then."""
    command = [python, "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300)
    if done.returncode and any(words in done.stderr for words in UNREACHABLE):
        pytest.skip(f"no package index can be reached: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    """The wheels of the core and of one plugin."""
    folder = tmp_path_factory.mktemp("wheels")
    for project in (ROOT, ROOT / "plugins" / "ralph-claude"):
        pip(sys.executable, "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, project)
    return folder


@pytest.fixture(scope="module")
def installed(wheels, tmp_path_factory):
    """A clean environment with them."""
    folder = tmp_path_factory.mktemp("clean") / "venv"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True, timeout=120)
    pip(folder / "bin" / "python", "install", "--quiet", *wheels.glob("*.whl"))
    return folder / "bin"


def run(program, *arguments, cwd, **env):
    """Run a program in an environment that knows nothing of this repository."""
    clean = {"PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}", "HOME": str(cwd), "LANG": "C.UTF-8", **env}
    return subprocess.run([program, *arguments], cwd=cwd, env=clean, capture_output=True, text=True, timeout=60)


def test_a_loop_runs_from_the_wheels(installed, tmp_path):
    where = run(installed / "python", "-c", "import ralph_core; print(ralph_core.__file__)", cwd=tmp_path)
    assert str(ROOT) not in where.stdout
    step = 'n=$(cat n 2>/dev/null || echo 0); echo $((n + 1)) > n; [ "$n" -lt 2 ] || echo LOOP_COMPLETE'
    done = run(installed / "ralph", "run", "-a", "command", "--command", step, "-p", "Count.", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "iterations  3 of 100" in done.stdout
    assert (tmp_path / "n").read_text() == "3\n"
    assert "refs/ralph" in run(installed / "ralph", "checkpoints", "list", cwd=tmp_path).stdout


def test_the_plugin_is_discovered(installed, tmp_path):
    done = run(installed / "ralph", "plugins", "--check", cwd=tmp_path)
    assert done.returncode == 0
    (row,) = [line.split() for line in done.stdout.splitlines() if line.startswith("claude ")]
    assert row[1:4] == ["ralph-claude", "0.1.0", "active"]


def test_the_supervisor_and_the_types_are_in_the_wheel(wheels):
    (core,) = wheels.glob("ralph_core-*.whl")
    names = set(zipfile.ZipFile(core).namelist())
    assert {"ralph_core/supervisor.py", "ralph_core/py.typed", "ralph_core/builtin/git.py"} <= names
    assert not [name for name in names if name.startswith(("tests", "plugins", "docs"))]
