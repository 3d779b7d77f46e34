"""Snapshots in a repository: commits under `refs/ralph/<run>/`, written once and never moved.

`0000`, `0001`, ... are a run's snapshots in order; `pre-restore-0000`, ... were taken before files were put back.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha1, sha256
from pathlib import Path
from threading import get_ident
from typing import Any
from zlib import compress

from ralph_core import statefile
from ralph_core.builtin.gitrepo import Repository
from ralph_core.contracts import Snapshot
from ralph_core.errors import LeaseLost, StoreError, UserError
from ralph_core.values import dataclass

SPACE = "refs/ralph"
BEFORE_RESTORE = "pre-restore-"
ACCOUNT = "account"
"""Name of the ref, beside the snapshots, that anchors the end of a run's account."""
_NAME = re.compile(rf"({BEFORE_RESTORE})?([0-9]{{1,9}})")
_FIELDS = "%(refname)%00%(objectname)%00%(tree)%00%(committerdate:unix)%00%(contents)%00"


@dataclass(frozen=True)
class Commit:
    """A snapshot as it is found in a repository. `run` is whatever the ref says: check it before it is used as a path."""

    ref: str
    id: str
    tree: str
    time: float
    message: bytes

    @property
    def run(self) -> str:
        return self.ref.split("/")[2]

    @property
    def name(self) -> str:
        return self.ref.split("/")[3]

    @property
    def before_restore(self) -> bool:
        return self.name.startswith(BEFORE_RESTORE)

    @property
    def number(self) -> int:
        return int(self.name.removeprefix(BEFORE_RESTORE))

    @property
    def content(self) -> dict[str, Any]:
        """What the message carries. Raises `StoreError` if it was edited."""
        return statefile.unseal(self.message.partition(b"\n\n")[2])

    @property
    def snapshot(self) -> Snapshot:
        """The snapshot as it was described when it was taken; without what the message no longer tells."""
        try:
            told = self.content["snapshot"]
            iteration, time, changed, notes = told["iteration"], told["time"], told["changed"], tuple(told["notes"])
        except (StoreError, KeyError, TypeError):
            iteration, time, changed, notes = 0, self.time, None, ("its description is torn or was edited",)
        return Snapshot(self.ref, self.run, self.number, iteration, time, changed, notes, self.tree)


def ref_of(run: str, number: int, *, before_restore: bool = False) -> str:
    """The ref of a snapshot."""
    return f"{SPACE}/{run}/{BEFORE_RESTORE if before_restore else ''}{number:04d}"


def parts_of(ref: str) -> tuple[str, str]:
    """Run and name in `refs/ralph/<run>/<n>` or `<run>/<n>`. Raises `UserError` for anything else."""
    run, _, name = ref.removeprefix(SPACE + "/").partition("/")
    match = _NAME.fullmatch(name)
    if not match:
        raise UserError(f"{ref!r} does not name a snapshot", mend=f"write {SPACE}/<run>/<number> or <run>/<number>")
    return run, f"{match[1] or ''}{int(match[2]):04d}"


def find(repository: Repository | None, run: str) -> Sequence[Commit]:
    """The snapshots of `run`, in order of their numbers, those before a restore last."""
    if repository is None:
        return []
    listed = repository.run("for-each-ref", f"--format={_FIELDS}", f"{SPACE}/{run}/").out.split(b"\0")
    found = []
    for at in range(0, len(listed) - 5, 5):
        ref, commit, tree, seconds = (part.decode("utf-8", "replace").strip() for part in listed[at : at + 4])
        if ref.count("/") == 3 and _NAME.fullmatch(ref.split("/")[3]) and tree:
            found.append(Commit(ref, commit, tree, float(seconds or 0), listed[at + 4]))
    return sorted(found, key=lambda commit: (commit.before_restore, commit.number))


def runs_in(repository: Repository) -> set[str]:
    """The runs that have snapshots in `repository`; any text may stand there, a clone brings what it brings."""
    refs = (
        repository.run("for-each-ref", "--format=%(refname)", SPACE + "/").out.decode("utf-8", "replace").splitlines()
    )
    return {ref.split("/")[2] for ref in refs}


def write(repository: Repository, taken: Snapshot, tree: str, parent: str | None, extra: Mapping[str, Any]) -> str:
    """Make the commit for `taken`, whose message carries its description and `extra`; returns its id. No ref yet, and not durable yet."""
    told = {"iteration": taken.iteration, "time": taken.time, "changed": taken.changed, "notes": taken.notes}
    subject = f"Ralph snapshot {taken.ref.removeprefix(SPACE + '/')}, iteration {taken.iteration}"
    return commit(repository, subject, tree, parent, {"snapshot": told, **extra}, taken.time)


def commit(
    repository: Repository, subject: str, tree: str, parent: str | None, content: Mapping[str, Any], moment: float
) -> str:
    """Make a commit whose message carries `content`; returns its id. `moment` in seconds since the epoch."""
    message = subject.encode() + b"\n\n" + statefile.seal(content)
    who = f"Ralph <ralph@localhost> {int(moment)} +0000"
    head = [f"tree {tree}", *([f"parent {parent}"] if parent else []), f"author {who}", f"committer {who}", "", ""]
    body = "\n".join(head).encode("ascii") + message
    digest = sha1 if len(tree) == 40 else sha256
    return _write_object(repository.objects, b"commit %d\0%s" % (len(body), body), digest)


def _write_object(objects: Path, data: bytes, digest: Callable[[bytes], Any]) -> str:
    """Write a loose object as `git commit-tree` would, without the milliseconds of one more process.

    Its name is the hash of its content, so it can't disturb anything, and `update-ref` reads it before a ref names it.
    """
    name: str = digest(data).hexdigest()
    folder = objects / name[:2]
    temporary = folder / f"tmp_obj_{os.getpid()}_{get_ident()}"  # a name that git itself clears away
    try:
        if not folder.exists():
            folder.mkdir(exist_ok=True)
            folder.chmod(objects.stat().st_mode & 0o7777)  # a repository that is shared stays so
        temporary.write_bytes(compress(data, 1))
        temporary.chmod(0o444)
        temporary.replace(folder / name[2:])
    except OSError as error:
        raise statefile.unwritable(folder, error) from error
    finally:
        statefile.discard(temporary)
    return name


def create(repository: Repository, ref: str, commit: str) -> None:
    """Let `ref` name `commit`, durably. Raises `LeaseLost` if the ref is there already: somebody else goes on with the run."""
    common = repository.common_dir
    try:
        if (common / "reftable").exists() or not _create_file(common, ref, commit):
            _create_by_git(repository, ref, commit)
    except FileExistsError:
        raise LeaseLost(f"{ref} was written by another Ralph process") from None


def _create_file(common: Path, ref: str, commit: str) -> bool:
    """Write a ref as git keeps a new one, in a file; to start git for that takes ten times as long. False: git has to do it.

    Raises `FileExistsError` if there is such a ref. Source: gitrepository-layout(5), `refs` and `packed-refs`.
    """
    path = common / ref
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{get_ident()}")  # no name of a ref begins with a dot
    try:
        if f" {ref}\n".encode() in (common / "packed-refs").read_bytes():
            raise FileExistsError(ref)
    except FileNotFoundError:
        pass  # nothing is packed
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(f"{commit}\n", encoding="ascii")
        _sync(temporary)
        os.link(temporary, path)
        statefile.sync_folder(path.parent)
    except FileExistsError:
        raise
    except OSError:  # no hard links here, or `git gc` has just removed the folder; what is really wrong, git will say
        return False
    finally:
        statefile.discard(temporary)
    return True


def _create_by_git(repository: Repository, ref: str, commit: str) -> None:
    result = repository.run("update-ref", "--no-deref", ref, commit, "", okay=128)
    if result.code and "already exists" in result.err:
        raise FileExistsError(ref)
    if result.code:
        raise StoreError(f"{repository.git_dir}: can't write {ref}: {result.words}")
    path = repository.common_dir / ref
    try:
        _sync(path)  # git before 2.36 does not, and no git makes the name itself durable
        statefile.sync_folder(path.parent)
    except FileNotFoundError:
        pass  # refs are kept in another way here, which is git's to make durable
    except OSError as error:
        raise statefile.unwritable(path, error) from error


def delete(repository: Repository, commits: Sequence[Commit]) -> None:
    """Remove the refs of `commits`; git forgets the files when it next collects garbage."""
    if commits:
        repository.run(
            "update-ref", "--stdin", data=b"".join(b"delete %s\n" % commit.ref.encode() for commit in commits)
        )


def move(repository: Repository, ref: str, commit: str) -> None:
    """Let `ref` name `commit`, whatever it has named before."""
    result = repository.run("update-ref", "--no-deref", ref, commit, okay=128)
    if result.code:
        raise StoreError(f"{repository.git_dir}: can't write {ref}: {result.words}")


def account_of(repository: Repository, run: str) -> Commit | None:
    """The commit that anchors the end of a run's account."""
    ref = f"{SPACE}/{run}/{ACCOUNT}"
    found = repository.run("for-each-ref", f"--format={_FIELDS}", ref).out.split(b"\0")
    if len(found) < 6:
        return None
    name, commit, tree, seconds = (part.decode("utf-8", "replace").strip() for part in found[:4])
    return Commit(name, commit, tree, float(seconds or 0), found[4])


def head(repository: Repository) -> str | None:
    """The commit that is checked out; None before the first one."""
    return repository.run("rev-parse", "-q", "--verify", "HEAD^{commit}", okay=1).text or None


def diff(repository: Repository, old: str, new: str, *options: str) -> list[bytes]:
    """Paths from the root of the work tree that differ between two trees, in the workspace."""
    if old == new:
        return []
    args = ("diff-tree", "-r", "-z", "--name-only", *options, old, new, "--", repository.inside)
    return [name for name in repository.run(*args).out.split(b"\0") if name]


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
