"""Keeps state in files and snapshots of the workspace in git, where the user sees nothing of them.

A snapshot is a commit under `refs/ralph/<run>/<n>`: its first parent is the snapshot before (for the first one: the commit
that is checked out), its message carries the run's state, so a clone that has the ref can resume.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

from ralph_core import statefile
from ralph_core.builtin import gitbundle, gitrefs, gitsync
from ralph_core.builtin.gitindex import PrivateIndex, Recorded, delete
from ralph_core.builtin.gitrepo import Repository, clean_environment, discover, make_private, private
from ralph_core.builtin.gitreview import GitSettings, publish
from ralph_core.builtin.local import RUN_ID, LocalStore
from ralph_core.contracts import Anchor, Context, Lease, Saved, Snapshot
from ralph_core.errors import StoreError, UnknownName, UserError
from ralph_core.state import RunState
from ralph_core.values import dataclass

OWN_REPOSITORY = "repo.git"
"""Folder of the state directory for the snapshots of a workspace that is in no repository."""
AROUND, OWN = "repository.bundle", "own.bundle"
"""Files of a backup: the snapshots in the repository that the workspace is in, and those in Ralph's own."""
_INDEX = re.compile(r"index-([0-9]+)(\..*)?")


@dataclass
class _Line:
    """A run's line of snapshots while this process continues it: the next number, and the last commit and its tree.

    `looked` says that the files were looked at since: then the index no longer tells what the next snapshot changes.
    `found` is what the next snapshot will be made of, if that is known: after which attempt, and what there is.
    `since` is from when on objects may not be durable yet (see `gitsync`): the snapshot before, since the agent's own git
    waits for no disk.
    """

    token: int
    index: PrivateIndex
    number: int = 0
    last: str | None = None
    tree: str | None = None
    looked: bool = False
    found: tuple[int, Recorded] | None = None
    since: int | None = None


class GitStore(LocalStore):
    """State as `LocalStore` keeps it, and snapshots. All methods raise `StoreError` with git's words when git fails."""

    def __init__(self, settings: Any, context: Context) -> None:
        super().__init__(settings, context)
        self._workspace = context.workspace.resolve()
        self._home = context.home.resolve()
        if self._workspace.is_relative_to(self._home):
            raise UserError(f"{self._home} can't hold Ralph's state: the workspace is in it", mend="see RALPH_HOME")
        # Where it is, and the name it goes by in the workspace if that is a link.
        self._excluded = {self._home, context.home.parent.resolve() / context.home.name}
        self._env = clean_environment(context.env)
        self._private_dir = self._home / OWN_REPOSITORY
        self._around: Repository | None = None
        self._commits_too = isinstance(settings, GitSettings) and settings.commit
        self._lines: dict[str, _Line] = {}

    # --- snapshots ----------------------------------------------------------------------------------------------------

    def snapshot(self, state: RunState, lease: Lease) -> Snapshot:
        """Record the workspace's files. Raises `LeaseLost` if another process has taken the run over."""
        # Put back when all went well: after a failure, what git has is looked up anew.
        line = self._lines.pop(state.run, None)
        if line is None or line.found is None:
            with self.held(lease):
                pass  # whoever is fenced off need not start; it is asked once more when the ref is written
        try:
            repository = self._repository(state.run) or make_private(self._private_dir, self._workspace, self._env)
            line = self._continued(repository, line, lease)
            taken, self._lines[state.run] = self._extend(repository, line, state, lease)
        except StoreError:
            with self.held(lease):  # a newer process clears away what this one works with: then that is the reason
                raise
        return taken

    def look(self, state: RunState, lease: Lease) -> None:
        """Bring the index up to date, and write the tree of the snapshot that follows."""
        repository = self._repository(state.run)
        if repository is not None:
            line, recorded = self._looked(repository, state, lease)
            line.found = (state.attempts, recorded)

    def fingerprint(self, state: RunState, lease: Lease) -> str | None:
        """The id of the tree that a snapshot would have; what is new is in git's object store then, under no name."""
        repository = self._repository(state.run)
        if repository is None:
            return None
        line, recorded = self._looked(repository, state, lease)
        line.looked, line.found = True, None
        return recorded.tree

    def _looked(self, repository: Repository, state: RunState, lease: Lease) -> tuple[_Line, Recorded]:
        line = self._continued(repository, self._lines.pop(state.run, None), lease)
        line.looked = line.looked or line.found is not None  # one before this one, of which nothing came
        line.since = self._since(repository, line)
        recorded = line.index.record()
        self._lines[state.run] = line
        return line, recorded

    def _continued(self, repository: Repository, line: _Line | None, lease: Lease) -> _Line:
        if line is None or line.token != lease.token or not line.index.path.exists():
            return self._take_up(repository, lease)
        return line

    def _extend(self, repository: Repository, line: _Line, state: RunState, lease: Lease) -> tuple[Snapshot, _Line]:
        since = self._since(repository, line)
        at, found = line.found or (-1, None)
        recorded = found if found is not None and at == state.attempts else line.index.record()
        changed = None
        if line.tree:
            known = 0 if recorded.tree == line.tree else None if line.looked else recorded.changed
            changed = len(gitrefs.diff(repository, line.tree, recorded.tree)) if known is None else known
        ref = gitrefs.ref_of(state.run, line.number)
        taken = Snapshot(ref, state.run, line.number, state.iteration, time.time(), changed, recorded.notes)
        commit = gitrefs.write(repository, taken, recorded.tree, line.last, {"state": state})
        gitsync.sync(repository.objects, since)
        with self.held(lease):
            gitrefs.create(repository, ref, commit)
            note = publish(repository, state, recorded.tree) if self._commits_too else ""
        if note:
            taken = replace(taken, notes=(*taken.notes, note))
        taken = replace(taken, fingerprint=recorded.tree)
        made = gitsync.moment_of(repository.objects, commit)
        return taken, _Line(lease.token, line.index, line.number + 1, commit, recorded.tree, since=made)

    @staticmethod
    def _since(repository: Repository, line: _Line) -> int:
        return line.since if line.since is not None else gitsync.long_ago(repository.objects)

    def anchor(self, state: RunState, lease: Lease) -> None:
        """Save `state`, and keep it in a commit beside the snapshots, too: `refs/ralph/<run>/account`."""
        super().anchor(state, lease)
        repository, line = self._repository(state.run), self._lines.get(state.run)
        if repository is None:
            return
        line = line if line is not None else self._take_up(repository, lease)
        if line.last is None or line.tree is None:  # no snapshot was made
            return
        subject = f"Ralph's account of run {state.run}, up to record {state.audit_seq}"
        since = self._since(repository, line)
        commit = gitrefs.commit(repository, subject, line.tree, line.last, {"state": state}, time.time())
        gitsync.sync(repository.objects, since)
        with self.held(lease):
            gitrefs.move(repository, f"{gitrefs.SPACE}/{state.run}/{gitrefs.ACCOUNT}", commit)

    def anchors(self, run: str) -> Sequence[Anchor]:
        """The heads of the account in the messages of the run's commits, and the one that was saved with its state."""
        repository = self._repository(run)
        last = gitrefs.account_of(repository, run) if repository is not None else None
        found = []
        for commit in [*self._commits(run), *([last] if last else [])]:
            try:
                state = statefile.state_of(commit.content)
            except StoreError:  # taken before a restore: its message has no state; or edited: others will do
                continue
            if state.run == run and state.audit_hash:
                found.append(Anchor(state.audit_seq, state.audit_hash, f"the commit {commit.ref}"))
        try:
            return [*found, *super().anchors(run)]
        except (StoreError, UserError):
            return found

    def history(self, run: str) -> Sequence[Snapshot]:
        """The snapshots of a run by time, those taken before a restore among them (their notes say so)."""
        taken = [(commit, commit.snapshot) for commit in self._commits(run)]
        line = [snapshot for commit, snapshot in taken if not commit.before_restore]
        between = [(snapshot.time, snapshot) for commit, snapshot in taken if commit.before_restore]
        times = accumulate(
            (snapshot.time for snapshot in line), max
        )  # a clock that was set back doesn't turn them round
        return [
            snapshot for _, snapshot in sorted([*zip(times, line, strict=True), *between], key=lambda pair: pair[0])
        ]

    def changed_files(self, run: str) -> Sequence[str] | None:
        """Paths, relative to the workspace and fit to be shown, that differ between the first and the last snapshot."""
        commits = [commit for commit in self._commits(run) if not commit.before_restore]
        repository = self._repository(run)
        if repository is None or not commits:
            return None
        start = len(os.fsencode(repository.prefix)) + 1 if repository.prefix else 0
        names = gitrefs.diff(repository, commits[0].tree, commits[-1].tree)
        return [name[start:].decode("utf-8", "backslashreplace") for name in names]

    def diff(self, ref: str, other: str | None = None) -> bytes:
        """A unified diff of the workspace's files. Raises `UserError` or `UnknownName` for what names no snapshot."""
        repository, new = self._found(other if other is not None else ref)
        if other is not None:
            old = self._found(ref)[1].tree
        else:
            parent = repository.run("rev-parse", "-q", "--verify", f"{new.id}^1^{{tree}}", okay=1).text
            old = parent or repository.run("hash-object", "-t", "tree", "--stdin", data=b"").text
        how = ("-r", "-p", "--no-color", "--no-ext-diff", "--no-textconv")  # none of the user's programs
        return repository.run("diff-tree", *how, old, new.tree, "--", repository.inside).out

    def _found(self, ref: str) -> tuple[Repository, gitrefs.Commit]:
        """The snapshot that `ref` names, and where it is. Raises `UserError` or `UnknownName`."""
        run, name = gitrefs.parts_of(ref)
        commits = {commit.name: commit for commit in self._commits(run)}
        repository = self._repository(run)
        if repository is None or name not in commits:
            raise UnknownName("snapshot", name, commits, where=f"run {run}")
        return repository, commits[name]

    def _commits(self, run: str) -> Sequence[gitrefs.Commit]:
        self.folder(run)  # refuses what is no run's id
        return gitrefs.find(self._repository(run), run)

    def _take_up(self, repository: Repository, lease: Lease) -> _Line:
        """Go on where the run's snapshots ended, with an index of this lease's own: a stale writer can't disturb it."""
        folder = self.folder(lease.run)
        commits = [commit for commit in gitrefs.find(repository, lease.run) if not commit.before_restore]
        last = commits[-1] if commits else None
        parent = last.id if last else gitrefs.head(repository)
        index = PrivateIndex(repository, folder / f"index-{lease.token}", self._excluded)
        index.seed([*self._indexes(lease.run), repository.git_dir / "index"], parent)
        for path in folder.iterdir():
            older = _INDEX.fullmatch(path.name)  # or a lock on it that a killed process left
            if older and int(older[1]) < lease.token:
                delete(path)
        return _Line(lease.token, index, last.number + 1 if last else 0, parent, last.tree if last else None)

    def _indexes(self, run: str) -> list[Path]:
        """The run's index files, newest first."""
        found = [_INDEX.fullmatch(path.name) for path in self.folder(run).glob("index-*")]
        tokens = sorted((int(match[1]) for match in found if match and not match[2]), reverse=True)
        return [self.folder(run) / f"index-{token}" for token in tokens]

    # --- putting files back -------------------------------------------------------------------------------------------

    def restore(self, ref: str, into: Path) -> Snapshot | None:
        """Make the workspace's files those of a snapshot; returns the one taken first, of what was there.

        Files that git ignores stay as they are. An `into` that is another, empty directory is filled instead; then there
        is nothing to take a snapshot of: None. `ref` is `refs/ralph/<run>/<n>` or `<run>/<n>`. Raises `UserError` for
        anything else, `UnknownName` if there is no such snapshot.
        """
        run, name = gitrefs.parts_of(ref)
        commits = {commit.name: commit for commit in self._commits(run)}
        repository = self._repository(run)
        if repository is None or name not in commits:
            raise UnknownName("snapshot", name, commits, where=f"run {run}")
        if into.resolve() != self._workspace:
            self._export(repository, commits[name], into)
            return None
        past = [commit.number for commit in commits.values() if commit.before_restore]
        return self._replace_files(repository, commits[name], max(past, default=-1) + 1)

    def _replace_files(self, repository: Repository, wanted: gitrefs.Commit, number: int) -> Snapshot:
        head = gitrefs.head(repository)
        with self._scratch() as folder:
            index = PrivateIndex(repository, folder / "index", self._excluded)
            index.seed([*self._indexes(wanted.run), repository.git_dir / "index"], head)
            since = gitsync.long_ago(repository.objects)
            recorded = index.record()
            tree = recorded.tree
            hidden = sorted(set(_in_the_way(repository, tree, wanted.tree)))
            if hidden:  # ignored files that have to give way: they are in the snapshot too, for it is to be undone
                tree = index.add_ignored(hidden)
            notes = (f"what was there before {wanted.name} was restored", *recorded.notes)
            ref = gitrefs.ref_of(wanted.run, number, before_restore=True)
            before = Snapshot(ref, wanted.run, number, wanted.snapshot.iteration, time.time(), None, notes)
            commit = gitrefs.write(repository, before, tree, head, {})
            gitsync.sync(repository.objects, since)
            gitrefs.create(repository, ref, commit)
            target = self._graft(repository, tree, wanted.tree, folder) if repository.prefix else wanted.tree
            try:
                result = index.switch(tree, target)
            except StoreError as error:
                raise StoreError(f"{error}; what was there before is in {ref}") from error
            self._workspace.mkdir(exist_ok=True)  # git removes a directory that it empties
        left = [
            line.removeprefix("warning: ") for line in result.err.splitlines() if line.startswith("warning: unable")
        ]
        return replace(before, notes=(*notes, *(f"not restored: {line}" for line in left)))

    def _graft(self, repository: Repository, old: str, new: str, folder: Path) -> str:
        """The tree `old` with the workspace's part, a sub-directory, taken from `new`."""
        kept = repository.run("ls-tree", "-r", "-z", "--full-tree", old).out.split(b"\0")
        start = os.fsencode(repository.prefix) + b"/"
        outside = [line for line in kept if line and not line.partition(b"\t")[2].startswith(start)]
        inside = repository.run("ls-tree", "-r", "-z", "--full-tree", new, "--", repository.prefix).out
        data = b"".join(line + b"\0" for line in outside) + inside
        repository.run("update-index", "-z", "--index-info", index=folder / "graft", data=data)
        return repository.run("write-tree", index=folder / "graft").text

    def _export(self, repository: Repository, wanted: gitrefs.Commit, into: Path) -> None:
        try:
            into.mkdir(parents=True, exist_ok=True)
            if any(into.iterdir()):
                raise UserError(f"{into} is not the workspace, and not empty", mend="name an empty directory")
        except OSError as error:
            raise statefile.unwritable(into, error) from error
        tree = f"{wanted.tree}:{repository.prefix}" if repository.prefix else wanted.tree
        with self._scratch() as folder:
            repository.run(
                "read-tree", "-m", "-u", "--no-sparse-checkout", tree, index=folder / "index", top=into.resolve()
            )

    @contextmanager
    def _scratch(self) -> Iterator[Path]:
        """A folder in Ralph's own directory, for a while."""
        statefile.ensure_home(self._home)
        try:
            folder = tempfile.mkdtemp(prefix="restore-", dir=self._home)
        except OSError as error:
            raise statefile.unwritable(self._home, error) from error
        try:
            yield Path(folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    # --- state that is only in git ------------------------------------------------------------------------------------

    def load(self, run: str) -> Saved:
        """The newest state that is whole; from a snapshot if no file holds one, as in a clone."""
        try:
            return super().load(run)
        except (UnknownName, StoreError):
            saved = self._load_from_refs(run)
            if saved is None:
                raise
            return saved

    def latest(self) -> str | None:
        return super().latest() or next(iter(self.runs()), None)

    def runs(self) -> Sequence[str]:
        here = super().runs()
        try:
            further = [run for run in self._runs_in_refs() - set(here) if self._load_from_refs(run)]
        except StoreError:  # git itself does not work: the states in files can be loaded all the same
            further = []
        return sorted([*here, *further], reverse=True)

    def _load_from_refs(self, run: str) -> Saved | None:
        for commit in reversed([commit for commit in self._commits(run) if not commit.before_restore]):
            try:
                state = statefile.state_of(commit.content)
            except StoreError:
                continue
            if state.run == run:
                return Saved(state, f"{self.folder(run)}: no state that loads; the one in {commit.ref} is used")
        return None

    def _runs_in_refs(self) -> set[str]:
        places = (self._private(), self._surrounding())
        return {run for place in places if place for run in gitrefs.runs_in(place) if RUN_ID.fullmatch(run)}

    def _forget(self, run: str) -> bool:
        if not super()._forget(run):
            return False
        repository = self._repository(run)
        if repository:
            last = gitrefs.account_of(repository, run)
            gitrefs.delete(repository, [*self._commits(run), *([last] if last else [])])
            if repository.private:  # nobody else ever tidies it up; refs stay files, `_repository` looks for them
                repository.run("-c", "gc.packRefs=false", "gc", "-q")
        return True

    # --- backups ------------------------------------------------------------------------------------------------------

    def pack(self, folder: Path) -> None:
        """The refs as bundles: those in the repository around, and those in Ralph's own."""
        for name, repository in ((AROUND, self._surrounding()), (OWN, self._private())):
            if repository is not None:
                gitbundle.write(repository, folder / name)

    def unpack(self, folder: Path) -> None:
        """Snapshots of the repository around go into that of this workspace, or into Ralph's own where there is none."""
        for name, around in ((AROUND, self._surrounding()), (OWN, None)):
            if (folder / name).is_file():
                repository = around or make_private(self._private_dir, self._workspace, self._env)
                gitbundle.read(repository, folder / name)

    # --- repositories -------------------------------------------------------------------------------------------------

    def _repository(self, run: str) -> Repository | None:
        """The repository with the snapshots of `run`: a run that began without one stays with Ralph's own."""
        if (self._private_dir / gitrefs.SPACE / run).is_dir():
            return self._private()
        return self._surrounding()

    def _surrounding(self) -> Repository | None:
        if self._around is None:
            self._around = discover(self._workspace, self._env)
        return self._around

    def _private(self) -> Repository | None:
        made = (self._private_dir / "HEAD").is_file()
        return private(self._private_dir, self._workspace, self._env) if made else None


def _in_the_way(repository: Repository, now: str, wanted: str) -> Iterator[str]:
    """What is on disk, but not in the tree `now`, where the tree `wanted` has a file."""
    for name in gitrefs.diff(repository, now, wanted, "--diff-filter=A"):
        path, parts = repository.top, Path(os.fsdecode(name)).parts
        for depth, part in enumerate(parts, 1):
            path /= part
            if depth == len(parts) or path.is_symlink() or not path.is_dir():
                if os.path.lexists(path):
                    yield os.fspath(Path(*parts[:depth]))
                break
