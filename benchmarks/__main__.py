"""All benchmarks, one after the other, and one table of what they found.

    python benchmarks [--quick] [--only loop trace] [--markdown] [--write]        (about six minutes; with --quick two)

Each one runs in a process of its own and can be run alone, with more in it: `python benchmarks/loop.py --help`. `--markdown`
prints the table as Markdown; `--write` puts it into docs/benchmarks.md, and the lines that matter most into the README.
Exit code 1 if a bar is missed, or a benchmark failed.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

from orchestrator import VERSION
from tables import PEER, Row, markdown, plain, tidy_when_ended

HERE = Path(__file__).resolve().parent
SCRIPTS = {
    "loop": ("", "--runs 1 --peers 1"),
    "side_by_side": ("", "--runs 10 --peers 2"),
    "checkpoint": ("--files 10 1000 10000 --changed 1", "--files 10 1000 --changed 1 --rounds 5"),
    "stream": ("--megabytes 500", "--megabytes 50"),
    "audit": ("", "--runs 1"),
    "trace": ("", "--runs 1"),
    "qchat": ("", "--requests 100"),
}
"""In this order, with the arguments here: of the whole, and of `--quick`."""
BEGIN, END = "<!-- made by `make bench-docs` -->", "<!-- end of the table -->"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=SCRIPTS, default=list(SCRIPTS), metavar="NAME")
    parser.add_argument("--quick", action="store_true", help="one turn of each: to see that all work")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.add_argument("--write", action="store_true", help="write it into the README and docs/benchmarks.md")
    options = parser.parse_args()
    tidy_when_ended()
    busy = os.getloadavg()[0]
    if busy > 0.5:
        print(f"the machine is busy (load {busy:.1f}): times will be longer than they need be", file=sys.stderr)
    if options.write and len(options.only) < len(SCRIPTS):
        parser.error("--write needs all benchmarks")
    found = {name: measured(name, SCRIPTS[name][options.quick]) for name in options.only}
    rows = [row for each in found.values() for row in each or ()]
    print(markdown(rows) if options.markdown else plain(rows))
    failed = [name for name, each in found.items() if each is None]
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    elif options.write:
        write(rows, f"load {busy:.1f} before" + (", one turn of each" if options.quick else ""))
    return int(bool(failed) or any(row.met is False for row in rows))


def measured(name: str, arguments: str) -> list[Row] | None:
    """None if the benchmark failed; what was wrong is on standard error then."""
    print(f"{name} ...", file=sys.stderr, flush=True)
    argv = [sys.executable, str(HERE / f"{name}.py"), *arguments.split(), "--json"]
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        try:
            found, _ = process.communicate()
        finally:
            process.terminate()  # it tidies up; nothing happens to one that has ended
    try:
        return [Row(**row) for row in json.loads(found)]
    except ValueError:
        return None


def write(rows: list[Row], how: str) -> None:
    beside = [row for row in rows if row.front]
    if not any(row.peer for row in beside):
        sys.exit(f"nothing is written: {PEER} could not be measured")
    for page, table in ((HERE.parent / "README.md", beside), (HERE.parent / "docs/benchmarks.md", rows)):
        before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
        _, end, after = rest.partition(END)
        assert begin, f"{page} has no place for the table"
        assert end, f"{page} has no end of the table"
        page.write_text(f"{before}{begin}\n{markdown(table)}\n\n{machine(how)}\n{end}{after}", encoding="utf-8")


def machine(how: str) -> str:
    """Where and when this is measured, in general terms."""
    python, git = platform.python_version(), subprocess.check_output(["git", "--version"], text=True).split()[2]
    return (
        f"Measured on {datetime.now(timezone.utc):%Y-%m-%d} ({how}): {os.cpu_count()} cores, {platform.system()}"
        f" {platform.release().partition('-')[0]}, Python {python}, git {git}; {PEER} {VERSION} from the package index."
    )


if __name__ == "__main__":
    sys.exit(main())
