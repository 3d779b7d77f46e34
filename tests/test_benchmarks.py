"""The benchmarks work, as programs: what they show, what they end with, and that they leave nothing behind. No times."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PEER = "ralph-orchestrator"


def program(name, *arguments, where):
    """One benchmark, with scratch folders below `where`."""
    argv = [sys.executable, str(ROOT / "benchmarks" / name), *arguments]
    env = {**os.environ, "TMPDIR": str(where)}
    return subprocess.Popen(argv, env=env, cwd=where, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def rows(name, *arguments, where):
    process = program(name, *arguments, "--json", where=where)
    out, error = process.communicate(timeout=120)
    assert process.returncode in (0, 1), error  # 1: a bar is missed, as on a busy machine
    found = json.loads(out)
    assert process.returncode == any(row["met"] is False for row in found)
    assert not list(where.iterdir()), "something is left of it"
    return found


def state(pid):
    """One letter, as the kernel says it; nothing if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


class TestEach:
    def test_loop(self, tmp_path):
        found = rows("loop.py", "--runs", "1", "--peers", "0", "--long", "10", where=tmp_path)
        assert found[0]["what"].startswith("start, to the agent's spawn")
        assert all(re.fullmatch(r"-?[\d.]+ ms", row["ralph"]) for row in found)
        assert not any(row["peer"] for row in found)

    def test_checkpoint(self, tmp_path):
        found = rows("checkpoint.py", "--files", "3", "--changed", "1", "--rounds", "1", where=tmp_path)
        assert "1 of 3 files" in found[0]["what"]

    def test_stream(self, tmp_path):
        found = rows("stream.py", "--megabytes", "20", where=tmp_path)
        assert sum(row["what"].startswith("20 MB of output") for row in found) == 4

    @pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads memory from /proc")
    def test_side_by_side_leaves_nothing_and_keeps_to_its_bar(self, tmp_path):
        found = rows("side_by_side.py", "--runs", "2", "--peers", "0", where=tmp_path)
        assert {row["met"] for row in found if row["bar"]} == {True}

    @pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads memory from /proc")
    def test_side_by_side_that_is_ended_ends_its_runs(self, tmp_path):
        process = program("side_by_side.py", "--runs", "1", "--peers", "0", where=tmp_path)
        end = time.monotonic() + 60
        while not (found := [path.read_text() for path in tmp_path.glob("*/0/pid")]):
            assert time.monotonic() < end
            time.sleep(0.01)
        process.terminate()
        _, error = process.communicate(timeout=60)
        assert process.returncode == 128 + signal.SIGTERM, error
        assert state(int(found[0])) in ("", "Z")  # its new parent may not have looked yet
        assert not list(tmp_path.iterdir())


class TestTable:
    def test_the_pages_have_a_place_for_it_and_what_is_there_was_made(self):
        begin, end = "<!-- made by `make bench-docs` -->", "<!-- end of the table -->"
        for page in (ROOT / "README.md", ROOT / "docs/benchmarks.md"):
            _, _, rest = page.read_text(encoding="utf-8").partition(begin)
            table, found, _ = rest.partition(end)
            assert found, page
            assert f"| Ralph | without Ralph | {PEER} | bar |" in table
            assert "Measured on" in table
