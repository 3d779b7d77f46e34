"""The tutorial's adapter, as it stands in the docs, drives the genuine program that it is for."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from ralph_core.testing.chat_api import MODEL, Call, ChatAPI, Completion, Refusal

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/new-adapter.md").read_text(encoding="utf-8")
CODE = re.search(r"```python .*?\n(.*?)```", PAGE, re.DOTALL)[1]

pytestmark = pytest.mark.real_cli


@pytest.fixture(scope="module")
def copilot():
    local = ROOT / ".tools/node_modules/.bin/copilot"
    found = os.environ.get("RALPH_TEST_COPILOT") or (str(local) if local.exists() else shutil.which("copilot"))
    if not found or not shutil.which(found):
        pytest.skip("no genuine Copilot CLI (npm install @github/copilot, or RALPH_TEST_COPILOT)")
    return found


def environment(api):
    """Copilot CLI's own way to use another server, with no other host to talk to."""
    return {
        "COPILOT_OFFLINE": "true",
        "COPILOT_PROVIDER_BASE_URL": f"{api.url}/v1",
        "COPILOT_PROVIDER_API_KEY": "sk-test-0123456789",
        "COPILOT_MODEL": MODEL,
        "COPILOT_AUTO_UPDATE": "false",
    }


@pytest.fixture(scope="module")
def somebody(clean, copilot):
    """Somebody with Ralph from the wheels, who has followed the page."""

    def follow(place):
        place.does("pip", "install", "ralph-core")
        with ChatAPI([]) as api:
            place.follow(PAGE, **environment(api))

    return clean("new-adapter", follow, copilot=copilot)


@pytest.fixture
def run(somebody, tmp_path):
    """Run Ralph with it in a workspace."""

    def run(api, *arguments):
        return somebody(
            "ralph",
            "run",
            "-a",
            "copilot",
            "-p",
            "Make a file.",
            *arguments,
            cwd=tmp_path,
            limit=120,
            **environment(api),
        )

    return run


def state(workspace):
    """The state of the only run."""
    (path,) = workspace.glob(".agent/runs/2*/state.json")
    return json.loads(path.read_text())["state"]


def test_it_is_forty_lines_of_python():
    lines = [line for line in CODE.splitlines() if line.strip()]
    assert len(lines) <= 40


def test_it_works(run, tmp_path):
    call = Call("bash", {"command": "echo made > made.txt", "description": "make it"})
    with ChatAPI([Completion(calls=[call]), Completion("Done.\nLOOP_COMPLETE")]) as api:
        done = run(api)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "made.txt").read_text() == "made\n"
    records = [json.loads(line) for line in (tmp_path / ".agent/audit/audit.jsonl").read_text().splitlines()]
    assert [record["message"] for record in records if record["type"].startswith("tool.")] == ["bash", "bash"]
    assert state(tmp_path)["spend"]["cost"] is None, "unknown is not zero"


def test_a_refused_key_is_no_fault_of_the_agent(run, tmp_path):
    with ChatAPI([Refusal(401)]) as api:
        done = run(api)
    assert done.returncode == 1
    assert state(tmp_path)["recent"][-1]["failure"] == "auth"
