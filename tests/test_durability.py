"""The proof of durability, in short: `make prove-durability` is the long one."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the guarantees proved here are Linux's")


def test_nothing_is_lost_repeated_or_left_when_ralph_is_killed():
    # In a process of its own: it forks, and sets the environment.
    proof = Path(__file__).parent / "proofs" / "durability.py"
    command = [sys.executable, str(proof), "--points", "12", "--random", "12", "--seed", "7"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert '"failures": 0' in done.stdout
