"""Git worktrees for runs side by side: each on a branch `ralph/<run>` of its own, below the state directory.

There, because git ignores that directory already, a tool policy that confines the agent to the workspace still holds, one
place is to be tidied up, and `RALPH_HOME` moves it to another disk. A worktree that holds work is never taken away.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from .errors import UserError
from .statefile import ensure_home
from .values import dataclass

FOLDER = "worktrees"
"""In the state directory of the workspace that they belong to: a worktree for each run, by its id."""
KEPT = ("GIT_CONFIG_", "GIT_SSH", "GIT_EXEC_PATH", "GIT_CEILING_DIRECTORIES")
"""Variables of git's that say how it works; the others say of a repository which it is, and that one is not meant."""


@dataclass(frozen=True)
class Worktree:
    """A worktree of a run. `workspace` is the directory in it that stands for the one that the run was started in."""

    run: str
    path: Path
    workspace: Path

    @property
    def home(self) -> Path:
        """The state directory of the run."""
        return self.path / ".agent"

    @property
    def branch(self) -> str:
        return f"ralph/{self.run}"


def add(workspace: Path, home: Path, run: str, env: Mapping[str, str]) -> Worktree:
    """Make the worktree of a run, of the commit that is checked out. Raises `UserError`; then nothing is left of it."""
    prefix, _ = base_of(workspace, env)
    ensure_home(home)
    made = Worktree(run, home / FOLDER / run, home / FOLDER / run / prefix)
    done = _git(workspace, env, "worktree", "add", "-q", "-b", made.branch, os.fspath(made.path), "HEAD")
    if done.returncode:
        raise UserError(f"no worktree can be made in {workspace}: {_words(done)}")
    ensure_home(made.home)
    return made


def base_of(workspace: Path, env: Mapping[str, str]) -> tuple[str, str]:
    """What a worktree is made of: the way from the root to the workspace, and the commit. Raises `UserError` if none can be."""
    prefix = _prefix(workspace, env)
    commit = _git(workspace, env, "rev-parse", "--short", "--verify", "HEAD^{commit}")
    if commit.returncode:
        raise UserError(
            f"no worktree can be made in {workspace}: there is no commit yet", mend="commit something first"
        )
    if prefix and _git(workspace, env, "cat-file", "-e", f"HEAD:{prefix.rstrip('/')}").returncode:
        raise UserError(f"{workspace} is not in the last commit", mend="commit it, or run without --worktree")
    return prefix, commit.stdout.strip()


def all_of(workspace: Path, home: Path, env: Mapping[str, str]) -> dict[str, Worktree]:
    """The worktrees that belong to a workspace, by run, the newest first."""
    folder = home / FOLDER
    names = sorted((path.name for path in folder.iterdir() if path.is_dir()), reverse=True) if folder.is_dir() else []
    try:
        prefix = _prefix(workspace, env) if names else ""
    except UserError:  # the repository is gone: what runs have left here can be looked at all the same
        return {}
    return {name: Worktree(name, folder / name, folder / name / prefix) for name in names}


def work_in(worktree: Worktree, env: Mapping[str, str]) -> str:
    """What would be lost with the worktree, in words; "" if nothing would."""
    status = _git(worktree.path, env, "status", "--porcelain", "--untracked-files=normal")
    if status.returncode:
        return f"git can't say what is in it: {_words(status)}"
    if status.stdout.strip():
        return f"{len(status.stdout.splitlines())} changed or new file(s) in it are not committed"
    if not _git(
        worktree.path, env, "for-each-ref", "--contains", "HEAD", "--count=1", "refs/heads", "refs/remotes"
    ).stdout:
        return "the commits in it are on no branch"
    modules = _git(worktree.path, env, "rev-parse", "--git-path", "modules").stdout.strip()
    if (worktree.path / modules).exists():
        return "it has submodules, with which git removes no worktree"
    return ""


def remove(worktree: Worktree, env: Mapping[str, str]) -> str:
    """Take the worktree away, unless that would lose work; why it is still there, or "".

    Its branch goes, too, if all of it is in the branch that is checked out in the workspace.
    """
    if kept := work_in(worktree, env):
        return kept
    common = worktree.path.parent
    done = _git(common, env, "worktree", "remove", os.fspath(worktree.path))  # git itself looks again
    if done.returncode:
        return _words(done)
    _git(common, env, "branch", "-q", "-d", worktree.branch)
    return ""


def _prefix(workspace: Path, env: Mapping[str, str]) -> str:
    """The way from the root of the work tree to the workspace. Raises `UserError` if there is no repository."""
    found = _git(workspace, env, "rev-parse", "--show-prefix")
    if found.returncode:
        raise UserError(f"{workspace} is in no git repository, which worktrees need", mend="run without --worktree")
    return found.stdout.strip()


def _git(where: Path, env: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Git, without the user's hooks."""
    own = {name: value for name, value in env.items() if not name.startswith("GIT_") or name.startswith(KEPT)}
    try:
        return subprocess.run(
            ["git", "-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=", *arguments],
            cwd=where,
            env=own | {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
            check=False,
        )
    except OSError as error:
        raise UserError(f"git can't be run: {error.strerror}") from None


def _words(done: subprocess.CompletedProcess[str]) -> str:
    return " ".join(done.stderr.split()) or f"git ended with exit code {done.returncode}"
