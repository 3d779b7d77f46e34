"""What a stranger has: the wheels, a package index, and an environment that knows nothing of this repository."""

import fcntl
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


class Place:
    """A home of its own, where programs are looked for in `bins` and among `tools` first, and packages on the shelf alone."""

    def __init__(self, home, shelf, *bins, **tools):
        self.home, self.work, own = home, home / "work", home / "tools"
        if not own.exists():
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

    def __call__(self, *command, cwd=None, limit=600, **env):
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
def once(tmp_path_factory):
    """Makes a folder once, and not once for each worker: with (its name, what fills it)."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def once(name, fill):
        folder, done = shared / name, shared / f"{name}.done"
        with open(shared / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                fill(folder)
                done.touch()
        return folder

    return once


def wheel(project, out):
    """Build the wheel of a project, as `make build` does."""
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, project]
    subprocess.run(command, check=True, capture_output=True, timeout=120)


@pytest.fixture(scope="session", name="wheel")
def _wheel():
    return wheel


def build(checkout, out, *, umask=-1, **env):
    """`make build`, but for the folder and the environment; the files by their names."""
    command = [checkout / "scripts/build", out]
    env = {**os.environ, "VENV": sys.prefix, **env}
    done = subprocess.run(command, env=env, umask=umask, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return {path.name: path for path in sorted(out.iterdir())}


@pytest.fixture(scope="session", name="build")
def _build():
    return build


@pytest.fixture(scope="session")
def built(once):
    """The wheels and source distributions of all packages, by their file names."""
    folder = once("built", lambda folder: build(ROOT, folder))
    return {path.name: path for path in sorted(folder.iterdir())}


@pytest.fixture(scope="session")
def shelf(built, once):
    """A folder with the wheels and with all that they need; without a package index the test is skipped."""
    return once("shelf", lambda folder: fill_shelf(built, folder))


def fill_shelf(built, folder):
    own = [path for name, path in built.items() if name.endswith(".whl")]
    core = next(path for path in own if path.name.startswith("ralph_core-"))
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--wheel-dir", folder, *own, f"{core}[testing]", *TOOLS]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300)
    if done.returncode and any(words in done.stderr for words in UNREACHABLE):
        pytest.skip(f"no package index can be reached: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def clean(shelf, once):
    """Makes a place with a fresh virtual environment: with (its name, what is done there first, **programs there)."""

    def clean(name, prepare=lambda place: None, **tools):
        def fill(home):
            done = subprocess.run(
                [sys.executable, "-m", "venv", home / "venv"], capture_output=True, text=True, timeout=300
            )
            assert done.returncode == 0, done.stdout + done.stderr
            prepare(Place(home, shelf, home / "venv/bin", **tools))

        home = once(name, fill)
        return Place(home, shelf, home / "venv/bin", **tools)

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
