"""Makes the captures anew: `RALPH_TEST_CLAUDE=… python plugins/ralph-claude/tests/record.py`.

Runs the genuine Claude Code, as the adapter would, against the API on loopback, and keeps what it writes.
"""

from __future__ import annotations

import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from conftest import Driver
from ralph_core.events import Event, Tokens, ToolCall
from ralph_core.testing.messages_api import Answer, Fault, MessagesAPI, Received, Refusal, Reply, Script, text, tool_use

CAPTURES = Path(__file__).parent / "captures"
RESETS_AT = 1_900_000_000  # in 2030: a time that is to come whenever the tests run


def delegate(request: Received) -> Answer:
    """A main agent that hands work to a sub-agent, which runs a command."""
    follow_up = "tool_result" in str(request.body["messages"])
    if any("MAIN WORK" in each for each in request.texts()):
        if follow_up:
            return Reply([text("All of it is done.")], Tokens(input=1000, output=50))
        task = {"description": "side work", "prompt": "SIDE WORK", "subagent_type": "general-purpose"}
        return Reply([text("I delegate."), tool_use("Task", task)], Tokens(input=500, output=30))
    if follow_up:
        return Reply([text("The side work is done.")], Tokens(7, 5, 3, 2))
    return Reply([tool_use("Bash", {"command": "echo side", "description": "say side"})], Tokens(70, 50, 30, 20))


def fall_back(request: Received) -> Answer:
    return Reply([text("Said whole, not streamed.")], fault=Fault.DROP if request.body.get("stream") else None)


def quota(status: str) -> dict[str, str]:
    """The headers of an account with a subscription (names as read in the bundle of Claude Code 2.1.197)."""
    prefix = "anthropic-ratelimit-unified"
    return {
        f"{prefix}-status": status,
        f"{prefix}-reset": str(RESETS_AT),
        f"{prefix}-representative-claim": "five_hour",
        f"{prefix}-5h-utilization": "0.93",
        f"{prefix}-5h-reset": str(RESETS_AT),
        f"{prefix}-5h-surpassed-threshold": "0.9",
    }


def _in_a_tool(event: Event) -> bool:
    if isinstance(event, ToolCall):
        time.sleep(0.5)  # told to stop while a tool is about to start, it ends without a result
    return isinstance(event, ToolCall)


WRITE = tool_use("Write", {"file_path": "/workspace/note.txt", "content": "a note\n"})
DONE = Reply([text("All done.\nLOOP_COMPLETE")])
SUBSCRIPTION = {"ANTHROPIC_API_KEY": "", "CLAUDE_CODE_OAUTH_TOKEN": "sk-ant-oat01-test"}

CASES: dict[str, tuple[Script, dict[str, Any]]] = {
    "text": ([DONE], {}),
    "tool": ([Reply([text("I look."), tool_use("Bash", {"command": "echo hi", "description": "say hi"})]), DONE], {}),
    "denied": ([Reply([WRITE]), DONE], {"permission_mode": "default"}),
    "subagent": (delegate, {"prompt": "MAIN WORK"}),
    "not_streamed": (fall_back, {}),
    "max_turns": ([Reply([tool_use("Bash", {"command": "true", "description": "nothing"})])], {"max_turns": 2}),
    "interrupted": (
        [Reply([tool_use("Bash", {"command": "sleep 30", "description": "wait"})])],
        {"stop_when": _in_a_tool},
    ),
    "dropped": ([Reply([text("never said whole")], fault=Fault.DROP)], {}),
    "refused_connection": ([DONE], {"env": {"ANTHROPIC_BASE_URL": "http://127.0.0.1:1"}}),
    "no_key": ([DONE], {"env": {"ANTHROPIC_API_KEY": ""}}),
    "401": ([Refusal(401, "invalid x-api-key")], {}),
    "403": ([Refusal(403, "forbidden")], {}),
    "404": ([Refusal(404, "model: nope")], {}),
    "500": ([Refusal(500, "internal")], {}),
    "529": ([Refusal(529, "Overloaded")], {}),
    "429_soon": ([Refusal(429, "slow down", headers={"retry-after": "1"})], {}),
    "429_late": ([Refusal(429, "quota used up", headers={"retry-after": "3600"})], {}),
    "too_long": ([Refusal(400, "prompt is too long: 250000 tokens > 200000 maximum")], {}),
    "no_credit": ([Refusal(400, "Your credit balance is too low to access the Anthropic API.")], {}),
    "quota_warning": ([Reply([text("Done.")], headers=quota("allowed_warning"))], {"env": SUBSCRIPTION}),
    "quota_used_up": ([Refusal(429, "over the limit", headers=quota("rejected"))], {"env": SUBSCRIPTION}),
}


def record(name: str, claude: str) -> None:
    script, settings = CASES[name]
    with tempfile.TemporaryDirectory() as tmp, MessagesAPI(script) as api:
        driver = Driver(claude, Path(tmp))
        driver.run(api, **settings)
        raw = driver.output.read_text(encoding="utf-8")
        raw = raw.replace(str(driver.workspace), "/workspace").replace(tmp, "/home/user")
        raw = raw.replace(driver.workspace.as_posix().replace("/", "-"), "-workspace")
        (CAPTURES / f"{name}.jsonl").write_text(re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1", raw), encoding="utf-8")


if __name__ == "__main__":
    import os

    CAPTURES.mkdir(exist_ok=True)
    for each in sys.argv[1:] or CASES:
        record(each, os.environ["RALPH_TEST_CLAUDE"])
        print(each)
