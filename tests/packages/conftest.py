"""What a stranger has: the wheels, a package index, and an environment that knows nothing of this repository.

All tests of this folder are one group for xdist, so that what is slow is built once, and not by each worker.
"""

import os
import re
import shutil
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r'^```(\w*)(?: title="([^"\n]+)")?[^\n`]*\n(.*?)^```$', re.MULTILINE | re.DOTALL)
UNREACHABLE = ("Could not find a version", "No matching distribution", "connection", "Max retries")
TOOLS = ("hatchling", "editables", "mypy", "ruff", "pip")
"""What the pages and the installers take from the index beside Ralph's own dependencies."""

INSTALLERS = {
    "PIP_CONFIG_FILE": os.devnull,
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PIP_NO_COMPILE": "1",  # what is imported is compiled then; the rest need not be
    "PIP_NO_INDEX": "1",
    "UV_NO_CONFIG": "1",
    "UV_OFFLINE": "1",
    "UV_PYTHON": sys.executable,
    "PIPX_DEFAULT_PYTHON": sys.executable,
}
"""pip, uv, and pipx, which uses one of them: nothing but what is on the shelf."""


def pytest_itemcollected(item):
    item.add_marker(pytest.mark.xdist_group("packages"))


class Place:
    """A home of its own, where programs are looked for in `bins` and among `tools` first, and packages on the shelf alone."""

    def __init__(self, home, shelf, *bins, **tools):
        self.home, self.work, own = home, home / "work", home / "tools"
        self.work.mkdir(parents=True)
        own.mkdir()
        for name, path in {"python3": os.path.realpath(sys.executable), **tools}.items():
            (own / name).symlink_to(path)
        self.env = {
            "PATH": os.pathsep.join([*map(str, bins), str(own), os.environ["PATH"]]),
            "HOME": str(home),
            "LANG": "C.UTF-8",
            **INSTALLERS,
            "PIP_FIND_LINKS": str(shelf),
            "UV_FIND_LINKS": str(shelf),
        }

    def __call__(self, *command, cwd=None, limit=300, **env):
        """Run a program; nobody is there to answer a question."""
        return subprocess.run(
            list(map(str, command)),
            cwd=cwd or self.work,
            env=self.env | env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=limit,
        )

    def does(self, *command, **options):
        """What a program says that has to succeed."""
        done = self(*command, **options)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout + done.stderr

    def follow(self, page, **env):
        """Do what a page says, in its order: write its files, run its commands, look whether they print what it shows."""
        folder, printed = self.work, ""
        for language, title, block in FENCE.findall(page):
            if title:
                (folder / title).write_text(block)
            elif language == "text":
                for line in block.splitlines():
                    assert any(fnmatchcase(each, line) for each in printed.splitlines()), (line, printed)
            elif language == "sh":
                printed = self.does("sh", "-ec", f"{{ {block}}} 2>&1; pwd >{self.home}/where", cwd=folder, **env)
                folder = Path((self.home / "where").read_text().strip())


@pytest.fixture(scope="session")
def build():
    """`make build`, but for the folders: (the checkout, where to put the files, **environment)."""

    def build(checkout, out, **options):
        command = [checkout / "scripts/build", out]
        env = {**os.environ, "VENV": sys.prefix, **options.pop("env", {})}
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, **options)
        assert done.returncode == 0, done.stdout + done.stderr
        return {path.name: path for path in sorted(out.iterdir())}

    return build


@pytest.fixture(scope="session")
def built(build, tmp_path_factory):
    """The wheels and source distributions of all packages, by their file names."""
    return build(ROOT, tmp_path_factory.mktemp("built"))


@pytest.fixture(scope="session")
def shelf(built, tmp_path_factory):
    """A folder with the wheels and with all that they need; without a package index the test is skipped."""
    folder = tmp_path_factory.mktemp("shelf")
    own = [path for name, path in built.items() if name.endswith(".whl")]
    core = next(path for path in own if path.name.startswith("ralph_core-"))
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--wheel-dir", folder, *own, f"{core}[testing]", *TOOLS]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300)
    if done.returncode and any(words in done.stderr for words in UNREACHABLE):
        pytest.skip(f"no package index can be reached: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def clean(shelf, tmp_path_factory):
    """Makes a place with a fresh virtual environment."""

    def clean(name="clean"):
        home = tmp_path_factory.mktemp(name)
        done = subprocess.run(
            [sys.executable, "-m", "venv", home / "venv"], capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return Place(home, shelf, home / "venv/bin")

    return clean


@pytest.fixture
def place(shelf, tmp_path):
    """Makes a place for one test, where these installers of the development group are; they put programs into ~/.local/bin."""

    def place(*tools):
        search = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        found = {name: shutil.which(name, path=search) for name in tools}
        if missing := [name for name, path in found.items() if path is None]:
            pytest.skip(f"{missing[0]} is not installed")
        return Place(tmp_path / "home", shelf, tmp_path / "home/.local/bin", **found)

    return place
