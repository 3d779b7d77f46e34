"""What Ralph adds to its agent, beside a `while` loop in bash and ralph-orchestrator, which do the same job.

    python benchmarks/loop.py [--runs 5] [--peers 3]        (medians; --peers 0 leaves ralph-orchestrator out)

The agent is a shell script that takes its prompt, adds a line to a file and exits, in a repository of 200 files. The loops take
turns. What an iteration costs is the slope between a short run and a long one; what it adds, that less the slope of a
loop in bash that does nothing but start the agent. Ralph keeps the files under refs/ralph, the others commit on the branch.
Exit code 1 if a bar is missed.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import orchestrator
from tables import ENV, PEER, RALPH, Row, command, git, ms, repository

AGENT = """\
#!/bin/sh
[ -s began ] || date +%s.%N > began
cat > /dev/null
echo x >> log
"""
BARE = 'n=0; while [ $n -lt "$1" ]; do ./agent.sh < PROMPT.md; n=$((n + 1)); done'
LOOP = BARE.replace("PROMPT.md;", 'PROMPT.md; git add -A; git commit --quiet --message "iteration $n";')
FILES = {
    "agent.sh": AGENT,
    "PROMPT.md": "Add a line to the log.\n",
    **{f"src/{number}.txt": f"{number}\n" * 50 for number in range(200)},
}

Timed = tuple[float, float]
"""Seconds until the first agent began, and until the end."""
Way = Callable[[Path, int], Timed]


def timed(argv: list[str], folder: Path, env: dict[str, str] = ENV, code: int = 0) -> Timed:
    wall, began = time.time(), time.perf_counter()
    done = subprocess.run(argv, cwd=folder, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=600)
    took = time.perf_counter() - began
    assert done.returncode == code, f"{argv}: exit code {done.returncode}: {done.stderr.decode()[-2000:]}"
    first = folder / "began"
    return float(first.read_text()) - wall if first.exists() else 0.0, took


def bash(script: str) -> Way:
    def run(folder: Path, iterations: int) -> Timed:
        return timed(["bash", "-c", script, "loop", str(iterations)], repository(folder, FILES))

    return run


def ralph(*options: str) -> Way:
    def run(folder: Path, iterations: int) -> Timed:
        own = ["run", "-a", "command", "--command", "./agent.sh", "--max-iterations", str(iterations), *options]
        result = timed([RALPH, *own], repository(folder, FILES), code=3)  # stopped by the limit
        refs = [ref for ref in git(folder, "for-each-ref", "refs/ralph").splitlines() if not ref.endswith("/account")]
        if options:
            assert len(refs) == iterations + 1, refs  # a snapshot after each, and one at the start
        return result

    return run


def peer(folder: Path, iterations: int) -> Timed:
    repository(folder, FILES)
    env = orchestrator.environment(folder / "agent.sh", folder.with_name("bin"))
    result = timed(orchestrator.command(iterations), folder, env)
    assert git(folder, "log", "--oneline").count("Ralph checkpoint") == iterations // 5
    return result


def measured(way: Way, folder: Path, short: int, long: int) -> Timed:
    """Seconds until the agent is spawned, and seconds an iteration; after a run that is not counted.

    What was measured before may have slept for a minute: a program that was not used meanwhile starts more slowly.
    """
    way(folder, 1)
    spawn, less = way(folder, short)
    _, more = way(folder, long)
    assert len((folder / "log").read_text().splitlines()) == long
    return spawn, (more - less) / (long - short)


def measure(runs: int, peers: int, long: int) -> Iterator[Row]:
    peers = peers if orchestrator.wanted(peers) else 0
    ways: dict[str, tuple[Way, int, int, int]] = {  # by name: how often, and how long its two runs are
        "bare": (bash(BARE), runs, 5, long),
        "bash": (bash(LOOP), runs, 5, long),
        "each": (ralph("--checkpoint-interval", "1"), runs, 5, long),
        "ralph": (ralph(), runs, 5, long),
    }
    if peers:
        ways[PEER] = (peer, peers, 5, 25)
    found: dict[str, list[Timed]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory(prefix="ralph-benchmark-") as scratch:
        folder = Path(scratch)
        for way, *_ in ways.values():
            way(folder / "warm", 1)
        for turn in range(max(runs, peers)):
            for name in list(ways)[:: -1 if turn % 2 else 1]:
                way, often, *lengths = ways[name]
                if turn < often:
                    found[name].append(measured(way, folder / name, *lengths))
        starts = started(folder, 4 * runs, bool(peers))
    yield from rows(found, starts)


def started(folder: Path, often: int, with_peer: bool) -> list[float]:
    """Seconds of `ralph --version`, of Python that does nothing, of `ralph --help`, and of that of ralph-orchestrator."""
    programs = [[RALPH, "--version"], [sys.executable, "-c", "pass"], [RALPH, "--help"]]
    if with_peer:
        programs.append([str(orchestrator.PROGRAM), "--help"])
    turns = [[timed(argv, folder)[1] for argv in programs] for _ in range(often)]
    return [statistics.median(column) for column in zip(*turns, strict=True)]


def rows(found: dict[str, list[Timed]], starts: list[float]) -> Iterator[Row]:
    spawn = {name: statistics.median(pair[0] for pair in pairs) for name, pairs in found.items() if pairs}
    each = {name: statistics.median(pair[1] for pair in pairs) for name, pairs in found.items() if pairs}
    added = {name: seconds - each["bare"] for name, seconds in each.items()}
    ratio = statistics.median(ours / loop for (_, ours), (_, loop) in zip(found["each"], found["bash"], strict=True))

    def of_peer(figures: dict[str, float], less: float = 0.0) -> str:
        return ms(figures[PEER] - less) if PEER in figures else ""

    version, python, usage, *of_orchestrator = starts
    yield Row("start, to the agent's spawn (bash)", ms(spawn["ralph"]), ms(spawn["bash"]), of_peer(spawn), "≤ 350 ms", spawn["ralph"] <= 0.35, front=True)  # fmt: skip
    yield Row("an iteration, files kept in each (bash, git commit)", ms(each["each"]), ms(each["bash"]), "", f"{ratio:.2f}, ≤ 1.5 × bash", ratio <= 1.5, front=True)  # fmt: skip
    yield Row("an iteration as shipped, files kept in every fifth (bash: the agent alone)", ms(each["ralph"]), ms(each["bare"]), of_peer(each), front=True)  # fmt: skip
    times = added.get(PEER, 0) / added["ralph"]
    bar = (f"{times:.0f}, ≥ 20 × less", times >= 20) if PEER in added else ("", None)
    yield Row("of it, added to the agent's own time", ms(added["ralph"]), "", of_peer(added), *bar, front=True)
    if PEER in added:
        yield Row("the same, less the 2 s that ralph-orchestrator sleeps", ms(added["ralph"]), "", of_peer(added, orchestrator.PAUSE), front=True)  # fmt: skip
    yield Row("--version (python -c pass)", ms(version), ms(python), "", f"{version / python:.1f}, ≤ 3 × python", version <= 3 * python)  # fmt: skip
    yield Row("--help", ms(usage), "", *map(ms, of_orchestrator))


if __name__ == "__main__":
    command(measure, __doc__, runs=5, peers=3, long=55)
