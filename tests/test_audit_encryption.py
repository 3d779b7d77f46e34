"""The account, encrypted: where keys come from, how they are changed, and what is said when they are missing."""

import json
import os
import subprocess
import sys

import pytest

DONE = "echo LOOP_COMPLETE"
KEY, OTHER = "11" * 32, "RG8gbm90IHVzZSB0aGlzIGtleSBhbnl3aGVyZSEhISE="
ON = {"AUDIT_ENCRYPTION_ENABLED": "true"}


def lines(ralph):
    return [json.loads(line) for line in (ralph.home / "audit" / "audit.jsonl").read_text().splitlines()]


class TestRun:
    @pytest.mark.parametrize("key", [KEY, OTHER, OTHER.replace("+", "-").replace("/", "_")])
    def test_writes_nothing_in_clear_but_run_and_number(self, ralph, key):
        env = {**ON, "AUDIT_ENCRYPTION_KEY": key}
        assert ralph.run(ralph.agent("echo hello there; echo LOOP_COMPLETE"), env=env).returncode == 0
        for line in lines(ralph):
            assert set(line) == {"key", "nonce", "run", "sealed", "seq"}
        assert len({line["nonce"] for line in lines(ralph)}) == len(lines(ralph))
        data = (ralph.home / "audit" / "audit.jsonl").read_text()
        assert "hello" not in data
        assert "run.started" in ralph("audit", "query", env=env).stdout
        assert ralph("audit", "verify", env=env).returncode == 0

    def test_keeps_the_key_from_the_agent_and_the_gates(self, ralph):
        ralph.settings("gates: ['env > gate-env; true']\n")
        agent = ralph.agent("env; echo LOOP_COMPLETE")
        assert ralph.run(agent, env={**ON, "AUDIT_ENCRYPTION_KEY": KEY}).returncode == 0
        assert "AUDIT_ENCRYPTION_KEY" not in agent.environment()
        assert "AUDIT_ENCRYPTION_KEY" not in (ralph.workspace / "gate-env").read_text()
        for path in ralph.home.rglob("*"):
            assert not path.is_file() or KEY.encode() not in path.read_bytes()

    def test_with_a_new_key_goes_on_and_the_old_one_still_reads(self, ralph):
        ralph.run(ralph.agent(":"), "-i", "1", env={**ON, "AUDIT_ENCRYPTION_KEY": f"old:{KEY}"})
        both = {**ON, "AUDIT_ENCRYPTION_KEY": f"new:{OTHER},old:{KEY}"}
        assert ralph("resume", "-i", "2", env=both).returncode == 3
        assert {line["key"] for line in lines(ralph)} == {"old", "new"}
        assert ralph("audit", "verify", env=both).returncode == 0
        done = ralph("audit", "verify", env={"AUDIT_ENCRYPTION_KEY": f"new:{OTHER}"})
        assert done.returncode == 2
        assert "encrypted with key old, which is not given" in done.stderr

    def test_switched_on_later_or_off_is_read_line_by_line(self, ralph):
        env = {"AUDIT_ENCRYPTION_KEY": KEY}
        ralph.run(ralph.agent(":"), "-i", "1")
        ralph("resume", "-i", "2", env={**ON, **env})
        ralph("resume", "-i", "3", env=env)
        assert len({frozenset(line) for line in lines(ralph)}) == 2
        assert ralph("audit", "verify", env=env).returncode == 0

    def test_is_decrypted_to_the_byte(self, ralph):
        env = {**ON, "AUDIT_ENCRYPTION_KEY": KEY}
        ralph.run(ralph.agent(DONE), env=env)
        out = ralph.root / "plain.jsonl"
        assert ralph("audit", "decrypt", "--output", out, env=env).returncode == 0
        assert out.stat().st_mode & 0o777 == 0o600
        assert ralph("audit", "decrypt", env=env).stdout == out.read_text()
        (ralph.home / "audit" / "audit.jsonl").write_bytes(out.read_bytes())
        assert ralph("audit", "verify").returncode == 0

    def test_every_byte_that_is_flipped_is_found(self, ralph):
        """In the first two lines and the last one: each is a process of its own elsewhere, here it is the library."""
        env = {**ON, "AUDIT_ENCRYPTION_KEY": KEY}
        ralph.run(ralph.agent(DONE), env=env)
        script = (
            "import sys; from pathlib import Path; from ralph_core.builtin.sinks import FileSink, FileSinkSettings\n"
            "from ralph_core.account.chain import check; from ralph_core.contracts import Anchor, Context\n"
            "work = Path(sys.argv[1]); path = work / '.agent/audit/audit.jsonl'; data = path.read_bytes()\n"
            "sink = FileSink(FileSinkSettings(), Context(work, work / '.agent', {'AUDIT_ENCRYPTION_KEY': sys.argv[3]}))\n"
            "good = [line for _, line in sink.lines()]; last = __import__('json').loads(good[-1])\n"
            "anchor = [Anchor(last['seq'], last['hash'], 'here')]\n"
            "assert not check(sys.argv[2], sink.lines(), anchor).problem\n"
            "at = [*range(data.index(b'\\n') + 1), *range(data.rindex(b'\\n', 0, -1), len(data))]\n"
            "for number in at:\n"
            "    for bit in (1, 32):\n"
            "        path.write_bytes(data[:number] + bytes([data[number] ^ bit]) + data[number + 1:])\n"
            "        try:\n"
            "            assert check(sys.argv[2], sink.lines(), anchor).problem, number\n"
            "        except Exception as error:\n"
            "            assert 'is not given' in str(error), (number, error)\n"
            "    path.write_bytes(data[:number]); assert check(sys.argv[2], sink.lines(), anchor).problem, number\n"
        )
        command = [sys.executable, "-c", script, ralph.workspace, ralph.folder.name, KEY]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr


class TestKeys:
    def test_from_a_file(self, ralph):
        path = ralph.root / "keys"
        path.write_text(f"new:{OTHER}\nold:{KEY}\n")
        ralph.settings(f"sinks: {{file: {{encryption: {{enabled: true, key_file: '{path}'}}}}}}\n")
        ralph.refuses(*ralph.flags(DONE), says=["others than you can read the keys", "chmod 600"])
        path.chmod(0o600)
        assert ralph.run(ralph.agent(DONE)).returncode == 0
        assert {line["key"] for line in lines(ralph)} == {"new"}
        assert ralph("audit", "verify").returncode == 0

    def test_from_the_keyring(self, ralph):
        backend = (
            "import keyring.backend\n"
            "class Ring(keyring.backend.KeyringBackend):\n"
            "    priority = 1\n"
            "    def set_password(self, *_): pass\n"
            f"    def get_password(self, service, name): return '{KEY}' if (service, name) == ('ralph', 'audit') else None\n"
        )
        (ralph.site / "ring.py").write_text(backend)
        env = {"PYTHON_KEYRING_BACKEND": "ring.Ring"}
        ralph.settings("sinks: {file: {encryption: {enabled: true, keyring: ralph/audit}}}\n")
        done = ralph.run(ralph.agent(DONE), env=env)
        assert done.returncode == 0, done.stderr
        assert ralph("audit", "verify", env=env).returncode == 0
        ralph.settings("sinks: {file: {encryption: {enabled: true, keyring: ralph/other}}}\n")
        ralph.refuses(
            "audit", "verify", env=env, says=["the keyring has no entry 'ralph/other'", "keyring set ralph other"]
        )

    @pytest.mark.parametrize(
        ("key", "says"),
        [
            (None, ["there is no key for it", "AUDIT_ENCRYPTION_KEY", "openssl rand -hex 32"]),
            (
                "your-encryption-key",
                ["AUDIT_ENCRYPTION_KEY", "32 bytes in hexadecimal or base64", "openssl rand -hex 32"],
            ),
            ("ab" * 16, ["32 bytes"]),
        ],
    )
    def test_that_are_missing_or_wrong_are_one_clear_line(self, ralph, key, says):
        env = ON | ({"AUDIT_ENCRYPTION_KEY": key} if key else {})
        said = ralph.refuses(*ralph.flags(DONE), env=env, says=says)
        assert key is None or key not in said

    def test_are_not_taken_from_the_command_line_or_the_settings(self, ralph):
        ralph.settings(f"sinks: {{file: {{encryption: {{enabled: true, key: '{KEY}'}}}}}}\n")
        ralph.refuses(*ralph.flags(DONE), says=["unknown setting 'sinks.file.encryption.key'"])

    def test_without_the_extra_it_says_what_to_install(self, ralph):
        (ralph.site / "cryptography.py").write_text("raise ImportError('not here')")
        env = {**ON, "AUDIT_ENCRYPTION_KEY": KEY, "PYTHONPATH": os.pathsep.join([str(ralph.site)])}
        ralph.refuses(
            *ralph.flags(DONE), env=env, says=["needs the package cryptography", "pip install 'ralph-core[encryption]'"]
        )
