"""What Ralph adds to its agent, beside a plain `while` loop in bash that does the same job with a git commit.

    python benchmarks/loop.py [RUNS]        (default: 5 of each, taken in turns; medians are shown)

The agent is a shell script that takes its prompt, changes a file and exits. Both make a commit of the files in every
iteration: Ralph under refs/ralph, the loop on its branch. What an iteration costs is the slope between a short run and a
long one. Exit code 1 if a bar is missed.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

RALPH = str(Path(sys.executable).with_name("ralph"))
SHORT, LONG = 5, 55
FILES = 200
AGENT = """\
#!/bin/sh
[ -s began ] || date +%s.%N > began
cat > /dev/null
echo x >> log
"""
LOOP = """\
n=0
while [ $n -lt "$1" ]; do
    ./agent.sh < PROMPT.md
    git add -A
    git commit --quiet --message "iteration $n"
    n=$((n + 1))
done
"""
ENV = {
    **{name: value for name, value in os.environ.items() if not name.startswith(("RALPH_", "OTEL_"))},
    **{f"GIT_{who}_{what}": "bench" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
}


def repository(folder: Path) -> Path:
    """A fresh repository with some files, all committed."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "src").mkdir(parents=True)
    for number in range(FILES):
        (folder / f"src/{number}.txt").write_text(f"{number}\n" * 50)
    (folder / "agent.sh").write_text(AGENT)
    (folder / "agent.sh").chmod(0o755)
    (folder / "PROMPT.md").write_text("Add a line to the log.\n")
    for command in ("init --quiet", "add --all", "commit --quiet --message start"):
        subprocess.run(["git", *command.split()], cwd=folder, env=ENV, check=True)
    return folder


def timed(command: list[str], folder: Path, code: int = 0) -> tuple[float, float]:
    """Seconds until the first agent began, and until the end."""
    wall, began = time.time(), time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=ENV, stdin=subprocess.DEVNULL, capture_output=True)
    took = time.perf_counter() - began
    assert done.returncode == code, done.stderr.decode()
    first = folder / "began"
    return float(first.read_text()) - wall if first.exists() else 0.0, took


def ralph(folder: Path, iterations: int) -> tuple[float, float]:
    options = ["--max-iterations", str(iterations), "--checkpoint-interval", "1"]
    command = [RALPH, "run", "-a", "command", "--command", "./agent.sh", *options]
    result = timed(command, repository(folder), code=3)  # stopped by the limit
    refs = subprocess.run(["git", "for-each-ref", "refs/ralph"], cwd=folder, capture_output=True, check=True).stdout
    assert len([ref for ref in refs.splitlines() if not ref.endswith(b"/account")]) == iterations + 1
    assert len((folder / "log").read_text().splitlines()) == iterations
    return result


def bash(folder: Path, iterations: int) -> tuple[float, float]:
    return timed(["bash", "-c", LOOP, "loop", str(iterations)], repository(folder))


def both(loop: Callable[[Path, int], tuple[float, float]], folder: Path) -> tuple[float, float]:
    """Seconds until the agent is spawned, and seconds an iteration."""
    spawn, short = loop(folder, SHORT)
    _, long = loop(folder, LONG)
    return spawn, (long - short) / (LONG - SHORT)


def main(runs: int) -> int:
    spawns: dict[str, list[float]] = {"ralph": [], "bash": []}
    slopes: dict[str, list[float]] = {"ralph": [], "bash": []}
    starts: dict[str, list[float]] = {"ralph": [], "python": []}
    with tempfile.TemporaryDirectory(prefix="ralph-benchmark-") as scratch:
        folder = Path(scratch)
        ralph(folder / "warm", 1)
        for _ in range(runs):
            for name, loop in (("ralph", ralph), ("bash", bash)):
                spawn, slope = both(loop, folder / name)
                spawns[name].append(spawn)
                slopes[name].append(slope)
        for _ in range(4 * runs):
            starts["ralph"].append(timed([RALPH, "--version"], folder)[1])
            starts["python"].append(timed([sys.executable, "-c", "pass"], folder)[1])

    version = statistics.median(starts["ralph"]) / statistics.median(starts["python"])
    rows = (
        ("start to the agent's spawn", spawns["ralph"], spawns["bash"], statistics.median(spawns["ralph"]) <= 0.35),
        ("an iteration with a checkpoint", slopes["ralph"], slopes["bash"], statistics.median(slopes["ralph"]) <= 0.06),
        ("ralph --version, python -c pass", starts["ralph"], starts["python"], version <= 3),
    )
    bars = ("≤ 350 ms", "≤ 60 ms", "≤ 3 ×")
    print(f"{'medians of ' + str(runs) + ' runs':<34}{'Ralph':>9}{'plain':>9}{'ratio':>8}  bar")
    for (what, ours, plain, good), bar in zip(rows, bars, strict=True):
        mine, other = statistics.median(ours) * 1000, statistics.median(plain) * 1000
        print(f"{what:<34}{mine:>6.1f} ms{other:>6.1f} ms{mine / other:>7.1f}×  {bar} {'✓' if good else '✗ missed'}")
    return 0 if all(good for *_, good in rows) else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 5))
