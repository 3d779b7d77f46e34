"""The branch for review: what each good iteration left, as commits that can be read, merged or thrown away."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from ralph_core.builtin import gitrefs
from ralph_core.builtin.gitrepo import Repository
from ralph_core.state import RunState


class GitSettings(BaseModel):
    """Settings of the git store."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    commit: bool = False
    """Also commit the snapshot after each good iteration on a branch `ralph/<run>`."""


def publish(repository: Repository, state: RunState, tree: str) -> str:
    """Add a commit with `tree` to the run's branch, if its last iteration ended well and changed something.

    Returns a sentence if the branch could not be moved, because somebody has checked it out. Raises `StoreError`.
    """
    if not state.recent or state.recent[-1].result != "finished":
        return ""
    last = state.recent[-1]
    branch = f"refs/heads/ralph/{state.run}"
    tip = repository.run("rev-parse", "-q", "--verify", f"{branch}^{{commit}}", okay=1).text
    parent = tip or gitrefs.head(repository) or ""
    if parent and repository.run("rev-parse", f"{parent}^{{tree}}").text == tree:
        return ""
    listed = repository.run("worktree", "list", "--porcelain").out.decode("utf-8", "replace").splitlines()
    if f"branch {branch}" in listed:  # moving it would turn that worktree's files into uncommitted changes
        return (
            f"{branch.removeprefix('refs/heads/')} is checked out: iteration {last.iteration} was not committed on it"
        )
    message = (
        f"Ralph, iteration {last.iteration}: {last.message or 'no words'}\n\nRun: {state.run}\nAgent: {last.agent}\n"
    )
    parents = ("-p", parent) if parent else ()
    commit = repository.run("commit-tree", tree, *parents, data=message.encode()).text
    repository.run("update-ref", "--no-deref", branch, commit, tip)
    return ""
