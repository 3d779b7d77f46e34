"""Kills Ralph with SIGKILL at every write, rename, fsync and git call it makes, and at random instants; then resumes.

    python tests/proofs/durability.py [--points N] [--random N] [--seed N]

A real loop with a real git repository and a scripted agent that leaves an effect per iteration, bills for it, and leaves a
background process behind. After each kill the run is resumed to its end, and then every promise is checked: each iteration
finished exactly once, totals never went down and are right, state and snapshots load, no process is left, and the user's
branch, index and files are what they were. Prints a line of figures; exit code 1 if anything was lost, repeated or left.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ITERATIONS = 4
COST = 0.01
AGENT = """\
cat > /dev/null
echo "start $RALPH_ITERATION $$" >> "$PROOF/starts"
setsid sleep 1000 < /dev/null > /dev/null 2>&1 &
printf '{"type": "usage", "message_id": "m", "tokens": {"input": 10, "output": 5}, "cost": 0.01}\\n'
echo "effect of $RALPH_ITERATION" > "effect-$RALPH_ITERATION.txt"
[ "$RALPH_ITERATION" -lt ITERATIONS ] && said=more || said=LOOP_COMPLETE
printf '{"type": "finished", "text": "did a piece\\\\n%s", "cost": 0.01}\\n' "$said"
""".replace("ITERATIONS", str(ITERATIONS))

FAULT_POINTS = frozenset(
    [
        "write",
        "writelines",
        "fsync",
        "replace",
        "rename",
        "link",
        "unlink",
        "mkdir",
        "open",
        "pwrite",
        "ftruncate",
        "truncate",
        "flock",
        "send",
        "sendall",
        "fork_exec",
    ]
)
"""Names of C functions before which Ralph is killed: everything that leaves a mark outside of the process."""


class Broken(Exception):
    """A promise that does not hold."""


@dataclass
class Case:
    """One scratch workspace with a dirty repository, and the kills and resumes that it goes through."""

    folder: Path
    seen: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.workspace, self.proof = self.folder / "repo", self.folder / "proof"
        self.proof.mkdir()
        self.before = self.user_side()

    def sit(self, *, kill_at: int | None = None, kill_after: float | None = None) -> int | None:
        """A sitting of the run in a fresh process; returns its exit code, or None if it was killed."""
        pid = os.fork()
        if pid == 0:
            try:
                os._exit(work(self, kill_at))
            except BaseException as error:
                print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
                os._exit(99)
        if kill_after is not None:
            time.sleep(kill_after)
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        return os.waitstatus_to_exitcode(status) if not os.WIFSIGNALED(status) else None

    def check_meanwhile(self) -> None:
        """What has to hold right after a kill, before anybody has resumed."""
        self.no_process_left()
        state = self.state()
        if state is None:
            return
        totals = {
            "finished": state.finished,
            "attempts": state.attempts,
            "elapsed": state.elapsed,
            "cost": state.spend.cost or 0.0,
            "tokens": state.spend.tokens.total if state.spend.tokens else 0,
        }
        for name, value in totals.items():
            if value < self.seen.get(name, 0):
                raise Broken(f"{name} went down from {self.seen[name]} to {value}")
        self.seen.update(totals)
        if self.user_side() != self.before:
            raise Broken("the user's branch, index or files were touched")

    def check_end(self) -> None:
        """What has to hold when the run is complete."""
        self.check_meanwhile()
        state = self.state()
        if state is None or state.outcome is None or state.outcome.kind.value != "completed":
            raise Broken(f"the run is not complete: {state and state.outcome}")
        finished = Counter(attempt.iteration for attempt in state.recent if attempt.result == "finished")
        if finished != Counter(range(1, ITERATIONS + 1)) or state.finished != ITERATIONS:
            raise Broken(f"iterations were lost or repeated: {dict(finished)}, {state.finished} counted")
        starts = (self.proof / "starts").read_text().splitlines()
        if len(starts) > state.attempts:
            raise Broken(f"{len(starts)} agents were started, {state.attempts} are on record")
        billed = sum(attempt.spend.cost or 0.0 for attempt in state.recent)
        if abs(billed - (state.spend.cost or 0.0)) > 1e-9 or billed < ITERATIONS * COST - 1e-9:
            raise Broken(f"the bill is {state.spend.cost}, its parts are {billed}")
        for number in range(1, ITERATIONS + 1):
            if not (self.workspace / f"effect-{number}.txt").exists():
                raise Broken(f"the effect of iteration {number} is gone")
        refs = git(self.workspace, "for-each-ref", "--format=%(objectname)^{tree}", f"refs/ralph/{state.run}").split()
        if not refs:
            raise Broken("there is no snapshot")
        for ref in refs:
            git(self.workspace, "ls-tree", "-r", ref)

    def state(self):
        from ralph_core.builtin.git import GitStore
        from ralph_core.contracts import Context

        store = GitStore(None, Context(self.workspace, self.workspace / ".agent", dict(os.environ)))
        runs = store.runs()
        if len(runs) > 1:
            raise Broken(f"the run was started again as another one: {runs}")
        return store.load(runs[0]).state if runs else None

    def no_process_left(self) -> None:
        """Nothing that was started under this case is alive, at the latest a moment after the kill."""
        mark = f"PROOF={self.proof}".encode()
        until = time.monotonic() + 5
        while left := [pid for pid in pids() if mark in environment(pid)]:
            if time.monotonic() > until:
                raise Broken(f"processes are left: {left}")
            time.sleep(0.005)

    def user_side(self) -> str:
        """A digest of all that is the user's: branch, index, stash, and the files that were there."""
        digest = hashlib.sha256()
        for path in ("HEAD", "index", "config", "logs/HEAD", "refs/stash", "logs/refs/stash"):
            file = self.workspace / ".git" / path
            digest.update(file.read_bytes() if file.exists() else b"-")
        digest.update(git(self.workspace, "for-each-ref", "refs/heads", "refs/tags", "refs/stash").encode())
        for name in ("tracked.txt", "staged.txt", "untracked.txt"):
            digest.update((self.workspace / name).read_bytes())
        return digest.hexdigest()


def work(case: Case, kill_at: int | None) -> int:
    """In the forked process: what `ralph resume` does, or `ralph run` when there is nothing to resume."""
    os.setsid()
    os.chdir(case.workspace)
    sys.stderr = open(case.proof / "stderr", "a")  # noqa: SIM115
    sys.stdout = sys.stderr
    os.environ["PROOF"] = str(case.proof)
    if kill_at is not None:
        arm(kill_at, case.proof / "points")
    from ralph_core.cli.app import run_app

    options = ["--command", f"sh {case.folder}/agent.sh", "--config", str(case.folder / "ralph.yml")]
    code = run_app(["resume"])
    if code == 2:
        code = run_app(["run", "-a", "command", "-p", "prove it", *options])
    sys.setprofile(None)
    return code


def arm(kill_at: int, report: Path) -> None:
    """Have this process killed just before its call number `kill_at` of a C function in `FAULT_POINTS`."""
    lock, count = threading.Lock(), 0

    def watch(_frame, event, function) -> None:
        nonlocal count
        if event != "c_call" or function.__name__ not in FAULT_POINTS:
            return
        with lock:
            count += 1
            if count == kill_at:
                descriptor = os.open(report, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
                os.write(descriptor, f"{function.__name__}\n".encode())
                os.kill(os.getpid(), signal.SIGKILL)

    threading.setprofile(watch)
    sys.setprofile(watch)


def pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def environment(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def git(where: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-c", "core.fsync=none", *arguments], cwd=where, check=True, capture_output=True, text=True, timeout=60
    ).stdout


def template(folder: Path) -> Path:
    """A repository with a commit, a staged, a modified and an untracked file, and a stash."""
    repo = folder / "repo"
    repo.mkdir()
    identity = ("-c", "user.name=User", "-c", "user.email=user@localhost")
    git(repo, "init", "-q", "-b", "main")
    (repo / "tracked.txt").write_text("one\n")
    git(repo, "add", ".")
    git(repo, *identity, "commit", "-qm", "first")
    (repo / "tracked.txt").write_text("stashed\n")
    git(repo, *identity, "stash")
    (repo / "tracked.txt").write_text("modified\n")
    (repo / "staged.txt").write_text("staged\n")
    git(repo, "add", "staged.txt")
    (repo / "untracked.txt").write_text("untracked\n")
    (folder / "agent.sh").write_text(AGENT)
    (folder / "ralph.yml").write_text(
        "checkpoint_interval: 1\nenvironment: {allow: [PROOF]}\nagents: {command: {output: events}}\n"
    )
    return folder


def fresh(source: Path, parent: Path, name: str) -> Case:
    folder = parent / name
    shutil.copytree(source, folder, symlinks=True)
    git(folder / "repo", "status")  # settles the stat cache of the copied index, once, before it is looked at
    return Case(folder)


def finish(case: Case) -> int:
    """Resume until the run is complete; returns how many sittings that took."""
    for sitting in range(1, 6):
        code = case.sit()
        if code == 0:
            case.check_end()
            return sitting
        case.check_meanwhile()
    words = (case.proof / "stderr").read_text()[-1500:]
    raise Broken(f"not complete after 5 sittings, exit code {code}: {words}")


def at_point(source: Path, parent: Path, number: int) -> str | None:
    """One kill before fault point `number`; returns its name, or None when the run has fewer of them."""
    case = fresh(source, parent, f"point-{number}")
    if case.sit(kill_at=number) is not None:
        return None
    case.check_meanwhile()
    finish(case)
    name = (case.proof / "points").read_text().strip()
    shutil.rmtree(case.folder, ignore_errors=True)
    return name


def at_random(source: Path, parent: Path, number: int, dice: random.Random, whole: float) -> int:
    """Up to three kills at random instants of one run; returns how many there were."""
    case = fresh(source, parent, f"random-{number}")
    kills = 0
    for _ in range(dice.randint(1, 3)):
        if case.sit(kill_after=dice.uniform(0.0, whole)) is not None:
            break
        kills += 1
        case.check_meanwhile()
    finish(case)
    shutil.rmtree(case.folder, ignore_errors=True)
    return kills


def prove(points: int | None, kills_wanted: int, seed: int) -> tuple[Counter[str], int, list[str]]:
    """Run the proof; `points` limits the fault points (None: all). Returns points by name, random kills, and failures."""
    import opentelemetry.sdk.trace  # noqa: F401

    import ralph_core.session  # noqa: F401 - warm, so that the forked processes need not import it again

    for name in [name for name in os.environ if name.startswith(("RALPH_", "OTEL_"))]:
        del os.environ[name]
    failures: list[str] = []
    hit: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="ralph-proof-") as folder:
        parent = Path(folder)
        (parent / "template").mkdir()
        source = template(parent / "template")
        began = time.monotonic()
        finish(fresh(source, parent, "unharmed"))
        whole = (time.monotonic() - began) * 1.1
        total = count_points(source, parent)
        step = 1 if points is None else max(1, total // points)
        for number in range(1, total + 1, step):
            with guarded(failures, f"fault point {number}"):
                hit[at_point(source, parent, number) or "end"] += 1
        dice, kills = random.Random(seed), 0
        number = 0
        while kills < kills_wanted:
            number += 1
            before = kills
            with guarded(failures, f"random {number}"):
                kills += at_random(source, parent, number, dice, whole)
            kills = max(kills, before + 1)
    return hit, kills, failures


def count_points(source: Path, parent: Path) -> int:
    """How many fault points an unharmed run has, by bisection over where a kill still hits."""
    low, high = 0, 8192
    while high - low > 1:
        middle = (low + high) // 2
        case = fresh(source, parent, f"count-{middle}")
        if case.sit(kill_at=middle) is None:
            low = middle
        else:
            high = middle
        case.no_process_left()
        shutil.rmtree(case.folder, ignore_errors=True)
    return low


@contextmanager
def guarded(failures: list[str], what: str):
    """Each case stands for itself: what fails in one is noted, and the next one begins."""
    try:
        yield
    except Exception as error:
        failures.append(f"{what}: {type(error).__name__}: {error}")
        print(failures[-1], file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--points", type=int, help="how many of the fault points to try, evenly spread (default: all)")
    parser.add_argument("--random", type=int, default=1000, help="how many kills at random instants")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    began = time.monotonic()
    hit, kills, failures = prove(options.points, options.random, options.seed)
    took = time.monotonic() - began
    figures = {"fault_points": sum(hit.values()), "by_call": dict(hit.most_common()), "random_kills": kills}
    print(json.dumps({**figures, "failures": len(failures), "seconds": round(took, 1)}))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
