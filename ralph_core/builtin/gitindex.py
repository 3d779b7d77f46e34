"""An index of Ralph's own: it starts as a copy of the user's, so that nothing is hashed twice, and is then kept.

It is what makes a snapshot cheap and invisible: `git add -A` works on it, and the user's index is only ever read.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ralph_core.builtin.gitrepo import Repository, Result
from ralph_core.errors import StoreError
from ralph_core.statefile import unwritable
from ralph_core.values import dataclass

ATTEMPTS = 8
"""How often files are gathered anew while they come, go and change at the same time."""
NOTES = 20
"""How many single files are named in a snapshot's notes."""

_EMBEDDED = re.compile(r"^warning: adding embedded git repository: (.+)$", re.MULTILINE)
_BENIGN = re.compile(
    r"""error:\ (?:open|readlink)\("(?P<open>.*)"\):\ (?P<why>.*)
      | error:\ unable\ to\ index\ file\ '.*'
      | error:\ '(?P<empty>.*)/'\ does\ not\ have\ a\ commit\ checked\ out
      | error:\ (?P<odd>.*):\ can\ only\ add\ regular\ files,\ symbolic\ links\ or\ git-directories
      | error:\ (?:read\ error|short\ read)\ while\ indexing\ (?P<short>.*)
      | fatal:\ (?:unable\ to\ stat\ '.*':\ No\ such\ file\ or\ directory|Unable\ to\ process\ path\ .*)
      | error:\ .*:\ failed\ to\ insert\ into\ database
      | warning:\ could\ not\ open\ directory\ '(?P<folder>.*)':\ (?P<closed>.*)""",
    re.VERBOSE,
)
"""What git says of a single file that it could not take; anything else it calls an error is about the snapshot itself."""


@dataclass(frozen=True)
class Recorded:
    """What is in the workspace: `changed` counts the files that were taken in or dropped (None: not known)."""

    tree: str
    changed: int | None
    notes: tuple[str, ...]


class PrivateIndex:
    """The index file `path` for `repository`; nothing at or below one of `excluded` ever gets into it.

    What it adds to the repository is not durable before `gitsync.sync`.
    """

    def __init__(self, repository: Repository, path: Path, excluded: Iterable[Path]) -> None:
        self.path = path
        self._repository = repository
        self._nested: set[str] = set()
        self._commit: str | None = None
        self._tree: str | None = None  # what the index holds, if that is known
        top = repository.top
        self._excluded = [os.fspath(path.relative_to(top)) for path in excluded if path.is_relative_to(top)]

    def seed(self, seeds: Iterable[Path], commit: str | None) -> None:
        """Make the file if it isn't there: a copy of the first of `seeds` that exists, or else what is in `commit`."""
        self._commit = commit
        self._unlock()
        if self.path.exists() or any(self._copy(seed) for seed in seeds):
            try:
                self._tidy()
            except StoreError:  # the copy can't be read, or refers to what is lost: what can be told anew, is
                self._start_over()
        else:
            self._start_over()

    def record(self) -> Recorded:
        """Bring the index up to date with the files. Raises `StoreError` if that can't be done."""
        known, self._tree = self._tree, None
        self._unlock()
        added = self._add()
        self._nested.update(_EMBEDDED.findall(added.err))
        changed = _count(added.out)
        self._tree = known if known and changed == 0 else self._write_tree()
        return Recorded(self._tree, changed if known else None, (*self._notes_on_nested(), *_notes(added)))

    def add_ignored(self, paths: Sequence[str]) -> str:
        """Take in `paths` although they are ignored; returns the tree."""
        listed = b"\0".join(os.fsencode(path) for path in paths)
        options = ("--pathspec-from-file=-", "--pathspec-file-nul")
        self._run("--literal-pathspecs", "add", "-f", "-A", "--ignore-errors", *options, data=listed, okay=1)
        self._tree = self._write_tree()
        return self._tree

    def switch(self, old: str, new: str) -> Result:
        """Make the files that are recorded as the tree `old` equal to the tree `new`."""
        self._tree = None
        return self._run("read-tree", "-m", "-u", "--no-sparse-checkout", old, new)

    def remove(self) -> None:
        """Delete the file."""
        self._unlock()
        delete(self.path)

    def _run(self, *args: str, data: bytes | None = None, okay: int = 0) -> Result:
        return self._repository.run(*args, index=self.path, data=data, okay=okay, wait=False)

    def _write_tree(self) -> str:
        return self._run("write-tree").text

    def _unlock(self) -> None:
        # The index is ours alone, so a lock on it is what a killed git left behind.
        delete(self.path.with_name(self.path.name + ".lock"))

    def _copy(self, seed: Path) -> bool:
        part = self.path.with_name(self.path.name + ".part")
        try:
            shutil.copy2(seed, part)  # with its time: git tells by that which entries it has to look at again
            part.replace(self.path)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise unwritable(part, error) from error
        return True

    @property
    def _where(self) -> tuple[str, ...]:
        but = (f":(top,exclude,literal){path}" for path in self._excluded)
        return ("--", self._repository.inside, *but)

    # --- gathering the files ------------------------------------------------------------------------------------------

    def _add(self) -> Result:
        """`git add -A`, again while files change under it. What single files it could not take is in the result."""
        for attempt in range(ATTEMPTS):
            result = self._add_all() if attempt < 3 else self._add_one_by_one()
            if result.code == 0 or _is_settled(result, last=attempt == ATTEMPTS - 1):
                return result
            if not _faults(result):
                break
            time.sleep(0.01 * 2**attempt)
        raise StoreError(f"{self._repository.top}: the files can't be recorded: {result.words}")

    def _add_one_by_one(self) -> Result:
        """The same, but a file that is gone by the time it is its turn counts as removed: for a tree that never rests."""
        listed = self._run("ls-files", "-z", "-o", "-m", "-d", "--exclude-standard", *self._where, okay=128)
        if listed.code:
            return listed
        paths = b"".join(path.rstrip(b"/") + b"\0" for path in listed.out.split(b"\0") if path)
        done = self._run("update-index", "--add", "--remove", "-z", "--stdin", data=paths, okay=128)
        return Result(done.code, b"not counted\n", listed.err + done.err)

    def _add_all(self) -> Result:
        options = ("add", "-A", "-v", "--ignore-errors")
        if (self._repository.git_dir / "info" / "sparse-checkout").exists():
            # Without it, what changed outside a sparse checkout would be passed over, without a word.
            result = self._run(*options, "--sparse", *self._where, okay=129)
            if result.code != 129:  # git before 2.34 has no such option, and no need for it
                return result
        return self._run(*options, *self._where, okay=128)

    def _start_over(self) -> None:
        """Forget all that is known of the files and begin with the commit."""
        self.remove()
        if self._commit:
            self._run("read-tree", self._commit)
        self._tidy()

    def _tidy(self) -> None:
        """Undo what would keep files out of snapshots, take out what must not be in, and note nested repositories."""
        listed = self._run("ls-files", "-v", "-s", "-z").out
        entries = [_entry(line) for line in listed.split(b"\0") if line and not line.startswith((b"H 100", b"H 120"))]
        self._nested = {path for _, mode, _, path in entries if mode == "160000"}
        top, inside = self._repository.top, self._repository.prefix
        self._update("--no-assume-unchanged", (path for tag, *_, path in entries if tag.islower()))
        hidden = (path for tag, *_, path in entries if tag in "Ss" and os.path.lexists(top / path))
        self._update("--no-skip-worktree", hidden)
        self._update("--force-remove", self._forbidden(listed))
        # A merge that is going on outside the workspace: a tree can't be written before each file has one content.
        unmerged = {path for *_, stage, path in entries if stage != "0" and not _within(path, inside)}
        if unmerged:
            self.add_ignored(sorted(unmerged))

    def _forbidden(self, listed: bytes) -> Iterator[str]:
        if any(os.fsencode(folder) in listed for folder in self._excluded):
            paths = (_entry(line)[-1] for line in listed.split(b"\0") if line)
            yield from (path for path in paths if any(_within(path, folder) for folder in self._excluded))

    def _update(self, option: str, paths: Iterable[str]) -> None:
        data = b"".join(os.fsencode(path) + b"\0" for path in paths)
        if data:
            self._run("update-index", option, "-z", "--stdin", data=data)

    def _notes_on_nested(self) -> Iterator[str]:
        inside = (path.rstrip("/") for path in self._nested if _within(path.rstrip("/"), self._repository.prefix))
        here = sorted(path for path in inside if (self._repository.top / path / ".git").exists())
        if here:
            few = ", ".join(here[:NOTES]) + (f" and {len(here) - NOTES} more" if here[NOTES:] else "")
            yield f"of nested repositories only the commit is recorded, not the files: {few}"


def delete(path: Path) -> None:
    """Remove the file if it is there. Raises `StoreError` naming it if that can't be done."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(path, error) from error


def _entry(line: bytes) -> tuple[str, str, str, str]:
    """Tag, mode, stage and path in a line of `git ls-files -v -s`."""
    facts, path = line.split(b"\t", 1)
    tag, mode, _, stage = facts.decode("ascii").split()
    return tag, mode, stage, os.fsdecode(path)


def _within(path: str, folder: str) -> bool:
    return not folder or path == folder or path.startswith(folder + "/")


def _count(out: bytes) -> int | None:
    """How many files `git add -v` reports; None if a name with a line break makes that uncertain."""
    lines = out.splitlines()
    plain = all(line.startswith((b"add '", b"remove '")) and line.endswith(b"'") for line in lines)
    return len(lines) if plain else None


def _faults(result: Result) -> list[re.Match[str]] | None:
    """What is the matter with single files; None if that is not all that went wrong."""
    lines = [
        line for line in result.err.splitlines() if line.startswith(("error: ", "fatal: ", "warning: could not open"))
    ]
    found = [_BENIGN.fullmatch(line) for line in lines]
    faults = [match for match in found if match]
    return faults if len(faults) == len(lines) else None


def _is_settled(result: Result, *, last: bool) -> bool:
    """Whether to accept that some files can't be taken: at once if it is for good, else after the last attempt."""
    faults = _faults(result)
    if result.code != 1 or not faults:
        return False
    return last or all(match["why"] in (None, "Permission denied") and match["short"] is None for match in faults)


def _notes(result: Result) -> Iterator[str]:
    """A sentence for each file that is not in the snapshot as it is now."""
    told = []
    for match in _faults(result) or ():
        if match["open"]:
            told.append(f"not recorded as it is now: {match['open']} ({match['why'].lower()})")
        elif match["folder"]:
            told.append(f"not recorded as it is now: {match['folder']} ({match['closed'].lower()})")
        elif match["empty"]:
            told.append(f"not recorded: {match['empty']} (a nested repository without a commit)")
        elif match["odd"] or match["short"]:
            told.append(
                f"not recorded as it is now: {match['odd'] or match['short']} (changing, or not a regular file)"
            )
    yield from told[:NOTES]
    if told[NOTES:]:
        yield f"and {len(told) - NOTES} more files"
