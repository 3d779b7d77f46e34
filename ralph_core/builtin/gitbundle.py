"""The snapshots of all runs as files that git knows, so that they can be carried to another clone."""

from __future__ import annotations

from pathlib import Path

from ralph_core.builtin.gitrefs import SPACE
from ralph_core.builtin.gitrepo import Repository
from ralph_core.errors import StoreError, UserError


def refs(repository: Repository) -> dict[str, str]:
    """All refs of Ralph's in a repository, and the commits that they name."""
    listed = repository.run("for-each-ref", "--format=%(objectname) %(refname)", SPACE + "/").text
    return {ref: commit for commit, _, ref in (line.partition(" ") for line in listed.splitlines())}


def write(repository: Repository, bundle: Path) -> None:
    """Write Ralph's refs, with everything that they rest on, to a bundle; no file if there are none."""
    if found := refs(repository):
        names = "".join(f"{ref}\n" for ref in found).encode()
        repository.run("bundle", "create", "-q", str(bundle.absolute()), "--stdin", data=names)


def read(repository: Repository, bundle: Path) -> None:
    """Take in what a bundle has. Raises `UserError`, before any effect, if a ref is there already with another commit."""
    listed = repository.run("bundle", "list-heads", str(bundle.absolute())).text
    brought = {ref: commit for commit, _, ref in (line.partition(" ") for line in listed.splitlines())}
    here = refs(repository)
    for ref, commit in brought.items():
        if not ref.startswith(SPACE + "/"):
            raise StoreError(f"{bundle.name}: brings {ref}, which is none of Ralph's")
        if here.get(ref, commit) != commit:
            raise UserError(f"{ref} is there already, and is another snapshot", mend="restore into another clone")
    repository.run("bundle", "unbundle", str(bundle.absolute()))
    new = [f"create {ref} {commit}\n" for ref, commit in brought.items() if ref not in here]
    repository.run("update-ref", "--stdin", data="".join(new).encode())
