"""Runs git on the user's repository, or on a private one, so that nothing of the user's takes part or notices.

Hooks, signing, automatic maintenance, prompts and file-system monitors are switched off, durability is switched on, and
what the caller's environment says of repositories (GIT_DIR, GIT_INDEX_FILE, ...) is left out.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path

from ralph_core.errors import StoreError
from ralph_core.values import dataclass

TIMEOUT = 600.0
"""Seconds that one call of git may take. 100,000 new files take about ten."""

_KEPT = re.compile(
    r"GIT_(CONFIG_(GLOBAL|SYSTEM|NOSYSTEM|COUNT|(KEY|VALUE)_\d+)|CEILING_DIRECTORIES|DISCOVERY_ACROSS_FILESYSTEM"
    r"|EXEC_PATH|LFS_\w+|SSH\w*)"
)
"""Where the user's configuration is found, and what their filters need; any other GIT_* variable is dropped."""

_ALWAYS = {
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "LC_ALL": "C",  # messages are told apart here and there
}

_CONFIG = (
    "core.hooksPath=/dev/null",
    "commit.gpgSign=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "core.fsmonitor=",  # empty, not "false": git before 2.36 would run a program of that name
    "core.untrackedCache=keep",
    "core.splitIndex=false",  # a split index would put its shared part into the user's git directory
    "core.logAllRefUpdates=false",
    "core.safecrlf=false",  # line ends that don't survive the round trip are no reason to lose a snapshot
    "core.fsync=committed",
    "core.fsyncMethod=writeout-only",  # the one real fsync that is needed follows when a ref is written
    "submodule.recurse=false",
    "advice.addEmbeddedRepo=false",
    "user.name=Ralph",  # of the commits on the branch for review; the user is not their author
    "user.email=ralph@localhost",
)


@dataclass(frozen=True)
class Result:
    """How a call of git ended, and what it said."""

    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return os.fsdecode(self.out).strip()

    @property
    def words(self) -> str:
        """What went wrong, in one line: git's errors without its warnings and advice."""
        lines = [line for line in self.err.splitlines() if line.startswith(("fatal: ", "error: "))]
        return "; ".join(lines[:3] or self.err.splitlines()[-1:]) or f"exit code {self.code}"


@dataclass(frozen=True)
class Repository:
    """A repository and the workspace in it. `top` is the root of its work tree, `prefix` leads from there to the workspace."""

    git_dir: Path
    top: Path
    prefix: str
    env: Mapping[str, str] = field(repr=False)
    private: bool = False

    def run(
        self,
        *args: str,
        index: Path | None = None,
        data: bytes | None = None,
        top: Path | None = None,
        okay: int = 0,
        wait: bool = True,
    ) -> Result:
        """Run git at the root of the work tree. Raises `StoreError` for an exit code above `okay`.

        `index` is the index file to use; without one there is none, never the user's. `data` goes to its standard input.
        `top` is another root than the repository's own. Without `wait`, making objects durable is left to `gitsync`.
        """
        root = top or self.top
        env = {**self.env, "GIT_DIR": os.fspath(self.git_dir), "GIT_WORK_TREE": os.fspath(root)}
        env["GIT_INDEX_FILE"] = os.fspath(index or self.git_dir / "no-such-directory" / "index")
        result = call(args if wait else ("-c", "core.fsync=-loose-object", *args), root, env, data)
        if result.code < 0 or result.code > okay:
            raise StoreError(f"{self.git_dir}: git {_verb(args)} failed: {result.words}")
        return result

    @property
    def inside(self) -> str:
        """A pathspec for all that is in the workspace."""
        return f":(top,literal){self.prefix}" if self.prefix else ":(top)"

    @property
    def common_dir(self) -> Path:
        """Where the refs are: for a linked worktree that is the directory of the main one."""
        try:
            return Path(os.path.normpath(self.git_dir / (self.git_dir / "commondir").read_text().rstrip("\n")))
        except OSError:
            return self.git_dir

    @property
    def objects(self) -> Path:
        """Where the objects are."""
        return self.common_dir / "objects"


def clean_environment(env: Mapping[str, str]) -> dict[str, str]:
    """`env` without what it says of repositories, and with what every call of git needs."""
    kept = {name: value for name, value in env.items() if not name.startswith("GIT_") or _KEPT.fullmatch(name)}
    return {**kept, **_ALWAYS}


def _verb(args: tuple[str, ...]) -> str:
    return next(arg for arg in args if not arg.startswith("-") and "=" not in arg)


def call(args: tuple[str, ...], cwd: Path, env: Mapping[str, str], data: bytes | None = None) -> Result:
    """Run git once. Raises `StoreError` if it can't be started, or is killed because it takes too long."""
    command = ["git", *(part for setting in _CONFIG for part in ("-c", setting)), *args]
    try:
        # A session of its own: Ctrl-C is for Ralph to answer, not for git to die of in the middle of a snapshot.
        with subprocess.Popen(
            command,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL if data is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        ) as process:
            out, err = _communicate(process, data)
    except OSError as error:
        if not cwd.is_dir():
            raise StoreError(f"{cwd} is gone") from error
        raise StoreError(f"git can't be run: {error.strerror}; install it, or use --no-git") from error
    if out is None:
        raise StoreError(f"{cwd}: git {_verb(args)} was killed, it took more than {TIMEOUT:g} seconds")
    return Result(process.returncode, out, err.decode("utf-8", "backslashreplace"))


def _communicate(process: subprocess.Popen[bytes], data: bytes | None) -> tuple[bytes | None, bytes]:
    """The output; None if it took too long. However this ends, git and its filters have ended."""
    try:
        return process.communicate(data, TIMEOUT)
    except BaseException as error:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # it has just ended
        process.wait()
        if isinstance(error, subprocess.TimeoutExpired):
            return None, b""
        raise


# --- finding one ------------------------------------------------------------------------------------------------------


def discover(workspace: Path, env: Mapping[str, str]) -> Repository | None:
    """The repository that `workspace` is in, as git itself finds it; None if it is in none.

    A workspace that the repository around it ignores (a home directory kept in git, say) is in none.
    Raises `StoreError` if there is one that git refuses to use.
    """
    found = call(("rev-parse", "--is-inside-work-tree", "--show-cdup", "--absolute-git-dir"), workspace, env)
    if found.code:
        _refuse_unless_none(found, workspace)
        return None
    inside, up, git_dir = os.fsdecode(found.out).split("\n", 2)
    if inside != "true":  # in a bare repository, or in a .git directory
        return None
    top = Path(os.path.normpath(workspace / up))
    prefix = os.path.relpath(workspace, top)
    repository = Repository(Path(git_dir.removesuffix("\n")), top, "" if prefix == "." else prefix, env)
    if repository.prefix and call(("check-ignore", "-q", "--", "."), workspace, env).code == 0:
        return None
    return repository


def private(git_dir: Path, workspace: Path, env: Mapping[str, str]) -> Repository:
    """The repository of Ralph's own at `git_dir`, for a `workspace` without one."""
    return Repository(git_dir, workspace, "", env, private=True)


def make_private(git_dir: Path, workspace: Path, env: Mapping[str, str]) -> Repository:
    """The same, after making it; on one that is there already this does no harm."""
    made = call(("init", "-q", "--bare", "--template=", os.fspath(git_dir)), workspace, env)
    if made.code:
        raise StoreError(f"can't make {git_dir}: {made.words}")
    return private(git_dir, workspace, env)


def _refuse_unless_none(found: Result, workspace: Path) -> None:
    if "dubious ownership" in found.err or "unsafe repository" in found.err:
        said = re.search(r"safe\.directory (.+)", found.err)
        where = said.group(1).strip() if said else os.fspath(workspace)
        raise StoreError(
            f"{workspace}: git refuses this repository because another user owns it; if you trust it: "
            f"git config --global --add safe.directory {where}"
        )
    if "not a git repository" not in found.err and "must be run in a work tree" not in found.err:
        raise StoreError(f"{workspace}: git can't use this repository: {found.words}")
