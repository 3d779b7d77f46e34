"""What Ralph brings itself passes the kit that third parties are given: all of it, nothing skipped."""

import json

import pytest

from ralph_core import FailureKind
from ralph_core.plugins.discovery import PluginChoice, build_manager
from ralph_core.testing.agents import AgentContract
from ralph_core.testing.packages import PluginContract
from ralph_core.testing.policies import LimitPolicyContract
from ralph_core.testing.scenarios import Scenario
from ralph_core.testing.sinks import AuditSinkContract
from ralph_core.testing.stores import CheckpointStoreContract

EVENTS = [
    {"type": "started", "session": "s1", "model": "m"},
    {"type": "text", "text": "I look."},
    {"type": "usage", "message_id": "m1", "tokens": {"input": 10, "output": 2}},
    {"type": "tool_call", "id": "t1", "name": "Bash", "input": {"command": "ls"}},
    {"type": "tool_result", "id": "t1", "ok": True, "text": "README"},
    {"type": "usage_window", "status": "allowed", "window": "day", "utilization": 0.5},
    {"type": "usage", "message_id": "m1", "tokens": {"input": 10, "output": 20}, "cost": 0.01},
    {"type": "finished", "text": "Done.", "usage": {"input": 10, "output": 20}, "cost": 0.01},
]
FAILED = {"type": "failed", "kind": "overloaded", "message": "come back later", "retry_after": 3.0}


def printed(*events):
    return b"".join(json.dumps(each).encode() + b"\n" for each in events)


def recording(folder, *events):
    """What `ralph run --record` writes."""
    path = folder / "recording" / "0001.jsonl"
    path.parent.mkdir(parents=True)
    lines = [{"agent": "command"}, *({"at": 0.1 * number, "event": each} for number, each in enumerate(events))]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(folder)


class TestBuiltin(PluginContract):
    plugin = "builtin"


class TestCommand(AgentContract):
    provider = "command"

    @pytest.fixture
    def scenarios(self):
        program = "cat > /dev/null; echo working; sleep 1; echo done"
        return [
            Scenario(name="text", settings={"command": "true"}, capture=b"All is done.\nLOOP_COMPLETE\n"),
            Scenario(name="exit 3", settings={"command": "true"}, capture=b"", exit=3, stderr="oh", expect=FailureKind.AGENT),
            Scenario(name="no program", settings={"command": "x"}, capture=b"", exit=127, expect=FailureKind.SPAWN),
            Scenario(name="events", settings={"command": "true", "output": "events"}, capture=printed(*EVENTS)),
            Scenario(name="failed", settings={"command": "true", "output": "events"}, capture=printed(FAILED), expect=FailureKind.OVERLOADED),
            Scenario(name="no final event", settings={"command": "true", "output": "events"}, capture=printed(*EVENTS[:3]), expect=FailureKind.CRASH),
            Scenario(name="argument", settings={"command": "true", "input": "argument"}, capture=b"ok\n"),
            Scenario(name="file", settings={"command": "true", "input": "file"}, capture=b"ok\n"),
            Scenario(name="run", settings={"command": program}),
            Scenario(name="run in vain", settings={"command": "echo oh >&2; sleep 300 & exit 2"}, expect=FailureKind.AGENT),
        ]  # fmt: skip


class TestReplay(AgentContract):
    provider = "replay"

    @pytest.fixture
    def scenarios(self, tmp_path):
        good, bad = recording(tmp_path / "good", *EVENTS), recording(tmp_path / "bad", *EVENTS[:2], FAILED)
        return [
            Scenario(name="finished", settings={"run": good}, capture=b""),
            Scenario(name="failed", settings={"run": bad}, capture=b"", expect=FailureKind.OVERLOADED),
        ]


class TestGit(CheckpointStoreContract):
    provider = "git"


class TestLocal(CheckpointStoreContract):
    provider = "local"


class TestFile(AuditSinkContract):
    provider = "file"


class TestEncryptedFile(AuditSinkContract):
    provider = "file"

    @pytest.fixture
    def settings(self, tmp_path):
        key = tmp_path / "key"
        key.write_text("ab" * 32)
        key.chmod(0o600)
        return {"encryption": {"enabled": True, "key_file": str(key)}}


class TestMemory(AuditSinkContract):
    provider = "memory"
    lasting = False


POLICIES = {
    "high_risk_tools": {"high_risk_tools": ["Bash"]},
    "forbidden_commands": {"forbidden_commands": ["rm -rf /"]},
    "allowed_directories": {"allowed_directories": ["."]},
    "concurrent_actions": {"max_concurrent_actions": 4},
    "max_file_size": {"max_file_size": 1000},
    "blocked_prompt_patterns": {"blocked_prompt_patterns": ["Do it"]},
}
"""Those that judge nothing as they are: with what they do."""


def policies():
    """A class on the kit for each policy that Ralph brings."""
    for name in sorted(build_manager(PluginChoice(allow=frozenset())).providers["policy"]):
        given = POLICIES.get(name, {})
        own = pytest.fixture(lambda self, given=given: given)
        yield f"Test_{name}", type(f"Test_{name}", (LimitPolicyContract,), {"provider": name, "settings": own})


globals().update(policies())
