"""The example packages pass their own tests, each on the conformance kit, where a stranger has installed them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples/plugins").iterdir())
pytestmark = pytest.mark.xdist_group("wheels")
UNREACHABLE = ("Could not find a version", "No matching distribution", "connection", "Max retries")


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """That of a clean environment with ralph-core and all of them, from their folders, not editable."""
    folder = tmp_path_factory.mktemp("examples")
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True, timeout=120)
    python = folder / "venv" / "bin" / "python"
    command = [python, "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--quiet"]
    done = subprocess.run([*command, f"{ROOT}[testing]", *EXAMPLES], capture_output=True, text=True, timeout=300)
    if done.returncode and any(words in done.stderr for words in UNREACHABLE):
        pytest.skip(f"no package index can be reached: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return python


@pytest.mark.parametrize("package", EXAMPLES, ids=lambda path: path.name)
def test_passes_its_own_tests(python, package, tmp_path):
    work = shutil.copytree(package, tmp_path / package.name)  # as it is: what is tested is what is installed
    env = {"PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}", "HOME": str(tmp_path), "LANG": "C.UTF-8"}
    command = [
        python,
        "-m",
        "pytest",
        "-q",
        "-ra",
        "-W",
        "error",
        "-p",
        "no:cacheprovider",
        f"--basetemp={tmp_path / 'tmp'}",
    ]
    done = subprocess.run(command, cwd=work, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    if "no bwrap on PATH" in done.stdout:
        pytest.skip("no bwrap on PATH (Debian: apt install bubblewrap)")
    assert "skipped" not in done.stdout, done.stdout


@pytest.mark.parametrize("package", EXAMPLES, ids=lambda path: path.name)
def test_is_what_third_parties_are_told_to_write(package):
    """Entry point, pin, README, tests on the kit."""
    project = (package / "pyproject.toml").read_text()
    assert '[project.entry-points."ralph.plugins"]' in project
    assert 'test = ["ralph-core[testing]"]' in project
    assert "pip install -e '.[test]'" in (package / "README.md").read_text()
    assert "(PluginContract)" in (package / "tests" / "test_contract.py").read_text()
