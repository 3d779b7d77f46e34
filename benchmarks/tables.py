"""What the benchmarks share: a row of a table, how a table is shown, and the scratch repositories that runs work in."""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

RALPH = str(Path(sys.executable).with_name("ralph"))
PEER = "ralph-orchestrator"
HEADS = ("", "Ralph", "without Ralph", PEER, "bar")
ENV = {
    **{name: value for name, value in os.environ.items() if not name.startswith(("RALPH_", "OTEL_", "GIT_"))},
    **{f"GIT_{who}_{what}": "bench@localhost" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
}
"""No settings of whoever measures: neither Ralph's nor git's."""


@dataclass(frozen=True)
class Row:
    """One line of the table, its figures with their units."""

    what: str
    ralph: str
    plain: str = ""
    """The same job without Ralph: `what` says by which means."""
    peer: str = ""
    bar: str = ""
    met: bool | None = None
    """None: there is no bar."""
    front: bool = False
    """Stands in the README, too."""

    @property
    def cells(self) -> tuple[str, ...]:
        verdict = "" if self.met is None else " ✓" if self.met else " ✗ missed"
        return self.what, self.ralph, self.plain, self.peer, self.bar + verdict


def command(measure: Callable[..., Iterable[Row]], about: str | None, **defaults: object) -> None:
    """Run one benchmark as a program: `--NAME VALUE` for each of the defaults, `--json` for the rows as JSON.

    Ends the process: with 1 if a bar is missed.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in defaults.items():
        many = isinstance(value, tuple)
        kind = type(value[0]) if isinstance(value, tuple) else str if value is None else type(value)
        parser.add_argument(
            f"--{name}", type=kind, nargs="+" if many else None, default=value, help="default: %(default)s"
        )
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    options = vars(parser.parse_args())
    as_json = options.pop("json")
    tidy_when_ended()
    rows = list(measure(**options))
    print(json.dumps([asdict(row) for row in rows]) if as_json else plain(rows))
    sys.exit(any(row.met is False for row in rows))


def tidy_when_ended() -> None:
    """Let SIGTERM raise SystemExit, so that what was begun is undone: processes end, scratch folders go."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))


def plain(rows: Sequence[Row]) -> str:
    """The table for a terminal."""
    cells = [HEADS, *(row.cells for row in rows)]
    wide = [max(map(_width, column)) for column in zip(*cells, strict=True)]
    shown = [column for column, width in enumerate(wide) if any(line[column] for line in cells[1:])]
    return "\n".join(
        "  ".join(_padded(line[column], wide[column], left=column in (0, 4)) for column in shown).rstrip()
        for line in cells
    )


def markdown(rows: Sequence[Row]) -> str:
    """The same; a line that is indented belongs to the one above, which is said by dots."""
    cells = ((re.sub("^ +", "… ", row.cells[0]), *row.cells[1:]) for row in rows)
    lines = [HEADS, ("---", *("---:",) * 3, "---"), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _width(text: str) -> int:
    return sum(not unicodedata.combining(letter) for letter in text)


def _padded(text: str, width: int, *, left: bool) -> str:
    space = " " * (width - _width(text))
    return text + space if left else space + text


def ms(seconds: float) -> str:
    return f"{seconds * 1000:.{1 if seconds < 0.01 else 0}f} ms"


def repository(folder: Path, files: dict[str, str]) -> Path:
    """A fresh repository with these files (name: text), all committed. What ends in `.sh` may be executed."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755 if path.suffix == ".sh" else 0o644)
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "-c", "gc.auto=0", "commit", "--quiet", "--message", "start")
    return folder


def git(folder: Path, *arguments: str) -> str:
    """What it printed. Raises CalledProcessError."""
    command = ["git", *arguments]
    done = subprocess.run(
        command, cwd=folder, env=ENV, check=True, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    return done.stdout
