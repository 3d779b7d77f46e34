"""Makes the captures anew: `RALPH_TEST_GEMINI=… python plugins/ralph-gemini/tests/record.py`.

Runs the genuine Gemini CLI, as the adapter would, against the API on loopback, and keeps what it writes. The exit code,
which is not in what it writes, is in `test_parse.py`.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from conftest import Driver
from ralph_core.events import Tokens
from ralph_core.testing.gemini_api import GeminiAPI, Refusal, Reply, Script, call, quota, reason, retry_in, text
from ralph_core.testing.loopback import Fault

CAPTURES = Path(__file__).parent / "captures"

WRITE = call("write_file", {"file_path": "hello.txt", "content": "hello\n"})
AGAIN = call("run_shell_command", {"command": "echo again"})
DONE = Reply([text("All done.\nLOOP_COMPLETE")])

CASES: dict[str, tuple[Script, dict[str, Any]]] = {
    "text": ([DONE], {}),
    "thoughts": ([Reply([text("Thought about it.")], thoughts=7)], {}),
    "two_models": ([DONE], {"model": None}),
    "tool": ([Reply([text("I write it."), WRITE]), Reply([text("Wrote it.\nLOOP_COMPLETE")])], {}),
    "denied": ([Reply([AGAIN]), Reply([text("I may not.")])], {"approval_mode": "default"}),
    "loop": ([Reply([AGAIN])], {}),
    "max_turns": ([Reply([AGAIN])], {"max_turns": 2}),
    "no_figures": ([Reply([text("For free?")], usage=None)], {}),
    "blocked": ([Reply([text("")], Tokens(100, 0), finish="SAFETY")], {}),
    "too_long": ([DONE], {"prompt": "word " * 840_000}),
    "dropped": ([Reply([text("never said whole")], fault=Fault.DROP)], {}),
    "refused": ([DONE], {"env": {"GOOGLE_GEMINI_BASE_URL": "http://127.0.0.1:1"}}),
    "bad_key": ([Refusal(400, "API key not valid.", details=[reason("API_KEY_INVALID")])], {}),
    "401": ([Refusal(401, "no")], {}),
    "404": ([Refusal(404, "no such model")], {}),
    "429_soon": ([Refusal(429, "too much", details=[retry_in(7)])], {}),
    "429_day": ([Refusal(429, "too much", details=[quota("GenerateRequestsPerDay")])], {}),
    "503": ([Refusal(503, "overloaded")], {}),
}


def record(name: str, gemini: str) -> None:
    script, settings = CASES[name]
    with tempfile.TemporaryDirectory() as tmp, GeminiAPI(script) as api:
        driver = Driver(gemini, Path(tmp))
        driver.run(api, **settings)
        raw = driver.output.read_text(encoding="utf-8").replace(tmp, "/home/user").replace("word " * 800_000, "")
        (CAPTURES / f"{name}.jsonl").write_text(re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1", raw), encoding="utf-8")


if __name__ == "__main__":
    import os

    CAPTURES.mkdir(exist_ok=True)
    for each in sys.argv[1:] or CASES:
        record(each, os.environ["RALPH_TEST_GEMINI"])
        print(each)
