"""No secret is written down or shown: by value, by form and by name; in records, states, transcripts, and on the terminal."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import zlib

import pytest

from ralph_core.contracts import Command
from ralph_core.processes.process import Supervisor
from ralph_core.redaction import MASK, PIECE, Redactor

CANARY = 'canary-"0123456789\\/ü'
"""With all that is written otherwise in JSON and in an address."""
PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA7\nabcdefghijklmnop\n-----END RSA PRIVATE KEY-----"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N"
FORMS = {
    "anthropic": "sk-ant-api03-" + "aB3_" * 20,
    "openai": "sk-" + "aB3d" * 12,
    "openai project": "sk-proj-" + "aB3_" * 12,
    "google": "AIzaSy" + "aB3_-" * 7,
    "github": "ghp_" + "aB3d" * 9,
    "github fine": "github_pat_" + "aB3d_" * 9,
    "aws": "AKIAIOSFODNN7EXAMPLE",
    "slack": "xoxb-1234567890-abcdef",
    "bearer": "Bearer abcdefghijklmnop.qrstuv",
    "jwt": JWT,
    "private key": PEM,
}
HARMLESS = (
    "the task-list-of-things-to-do-before-the-release-of-1.2.3 is done",
    '{"usage": {"input_tokens": 12000, "output_tokens": 300}, "max_tokens": "12345678"}',
    "a key, a token and a secret walk into a bar; password: none",
    "deadbeef" * 8,
    "src/auth/token_parser.py: token = parser.next_token()",
)


@pytest.fixture
def redactor():
    return Redactor({"ACME_API_KEY": CANARY, "EDITOR": "editor-12345678", "SHORT_KEY": "abc"})


class TestText:
    @pytest.mark.parametrize("secret", FORMS.values(), ids=FORMS)
    def test_of_a_known_form(self, redactor, secret):
        assert redactor.text(f"before {secret} after") == f"before {MASK} after"
        inside = json.dumps({"text": f"before {secret} after"})
        assert redactor.text(inside) == json.dumps({"text": f"before {MASK} after"})

    @pytest.mark.parametrize("text", HARMLESS)
    def test_without_a_secret_stays_as_it_is(self, redactor, text):
        assert redactor.text(text) == text

    def test_the_value_of_a_secret_variable_in_every_spelling(self, redactor):
        for echoed in (
            CANARY,
            json.dumps(CANARY),
            json.dumps(CANARY, ensure_ascii=False),
            "canary-%220123456789%5C%2F%C3%BC",
        ):
            assert MASK in redactor.text(f"x {echoed} y")
            assert "0123456789" not in redactor.text(f"x {echoed} y")
        assert redactor.text("editor-12345678 abc") == "editor-12345678 abc"

    def test_under_a_name_in_json_and_in_json_within_json(self, redactor):
        for name in ("api_key", "apiKey", "X-Api-Key", "authorization", "password", "client_secret", "access_token"):
            inner = json.dumps({name: "abcdefgh", "other": "kept"})
            assert redactor.text(inner) == json.dumps({name: MASK, "other": "kept"})
            assert "abcdefgh" not in redactor.text(json.dumps({"body": inner}))

    def test_what_is_cut_is_redacted_first(self, redactor):
        text = "x" * 95 + CANARY + "y" * 200
        assert "canary" not in redactor.cut(text, 100)
        assert redactor.tail("x" * 100 + CANARY + "y" * 95, 100) == f"{MASK}{'y' * 95}"[-100:]

    def test_what_is_learnt_later(self, redactor):
        assert redactor.text("it is fresh-secret now") == "it is fresh-secret now"
        redactor.learn({"NEW_TOKEN": "fresh-secret"})
        assert redactor.text("it is fresh-secret now") == "it is [redacted] now", "no text is remembered from before"
        assert redactor.text("a fresh-secret") == f"a {MASK}"


class TestValue:
    def test_under_the_name_of_a_secret(self, redactor):
        given = {
            "api_key": "x",
            "Authorization": ["a"],
            "n": [{"password": {"a": 1}, "tokens": 5, "token": ""}],
            "credentials": None,
        }
        assert redactor.value(given) == {
            "api_key": MASK,
            "Authorization": MASK,
            "n": [{"password": MASK, "tokens": 5, "token": ""}],
            "credentials": None,
        }

    def test_in_keys_and_deep_inside(self, redactor):
        assert redactor.value({CANARY: [{"a": (CANARY, 1)}]}) == {MASK: [{"a": [MASK, 1]}]}

    def test_that_holds_itself(self, redactor):
        deep = []
        deep.append(deep)
        assert MASK in str(redactor.value(deep))


class TestFile:
    def masked(self, redactor, tmp_path, data):
        path = tmp_path / "out"
        path.write_bytes(data)
        count = redactor.file(path)
        after = path.read_bytes()
        assert len(after) == len(data)
        return count, after

    def test_without_a_secret_is_not_touched(self, redactor, tmp_path):
        data = random.Random(1).randbytes(3 * PIECE)
        assert self.masked(redactor, tmp_path, data) == (0, data)

    @pytest.mark.parametrize(
        "secret",
        [CANARY, PEM, FORMS["anthropic"], '{"api_key": "abcdefgh12345678"}'],
        ids=["value", "pem", "form", "name"],
    )
    def test_a_secret_across_the_borders_of_pieces(self, redactor, tmp_path, secret):
        data = secret.encode()
        for shift in range(-len(data) - 1, 2):
            filler = b"." * (PIECE + shift)
            count, after = self.masked(redactor, tmp_path, filler + data + b" the end")
            assert count == 1, shift
            assert after.startswith(filler)
            assert after.endswith(b" the end")
            assert data not in after
            for part in (b"0123456789", b"abcdefgh", b"MIIE", b"aB3_aB3_"):
                assert part not in after

    def test_many_secrets_in_one_long_line(self, redactor, tmp_path):
        piece = b"." * 9999 + CANARY.encode()
        count, after = self.masked(redactor, tmp_path, piece * 200)
        assert count == 200
        assert after == (b"." * 9999 + MASK.encode().ljust(len(CANARY.encode()), b"*")) * 200

    def test_json_stays_json(self, redactor, tmp_path):
        lines = [json.dumps({"text": f"{CANARY} {secret}", "api_key": "abcdefgh12"}) for secret in FORMS.values()]
        _, after = self.masked(redactor, tmp_path, "\n".join(lines).encode())
        for line in after.split(b"\n"):
            assert set(json.loads(line)) == {"text", "api_key"}
            assert b"canary" not in line

    def test_large_ones_take_little_memory(self, tmp_path):
        path = tmp_path / "out"
        with path.open("wb") as stream:
            for _ in range(100):
                stream.write(b"x" * (1 << 20))
            stream.write(b"canary-0123456789")
        script = (
            "import resource, sys; from pathlib import Path; from ralph_core.redaction import Redactor\n"
            "redactor = Redactor({'A_KEY': 'canary-0123456789'}); before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
            "assert redactor.file(Path(sys.argv[1])) == 1\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
        )
        command = [sys.executable, "-c", script, path]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert int(done.stdout) < 20_000, done.stderr  # KB


def everything(ralph):
    """All that is in the state directory and in the messages of the snapshots, unpacked where it is packed."""
    for path in ralph.home.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            yield path, data
            try:
                yield path, zlib.decompress(data)
            except zlib.error:
                pass
    for ref in ralph.git("for-each-ref", "--format=%(refname)", "refs/ralph").split():
        yield ref, ralph.git("log", "-1", "--format=%B", ref).encode()


class TestRun:
    """Canaries in real runs."""

    SECRETS = ("canary-0123456789", FORMS["anthropic"], "named-0123456789", JWT)

    def says(self, *events):
        return "\n".join(f"cat <<'EOF'\n{json.dumps(event)}\nEOF" for event in events)

    def clean(self, ralph, done):
        for secret in self.SECRETS:
            assert secret not in done.stdout + done.stderr
            for where, data in everything(ralph):
                assert secret.encode() not in data, where

    def test_leave_no_secret_anywhere(self, ralph):
        secret, form, named, jwt = self.SECRETS
        events = [
            {"type": "text", "text": f"my key is {secret}, and {'x' * 980}{secret}"},
            {"type": "text", "text": "x" * 990 + secret + form},
            {
                "type": "tool_call",
                "id": "t",
                "name": "Bash",
                "input": {"command": f"curl -H 'x: {secret}' {jwt}", "api_key": named},
            },
            {"type": "tool_result", "id": "t", "ok": False, "text": "y" * 290 + secret},
            {"type": "finished", "text": f"{form} {secret}\nLOOP_COMPLETE"},
        ]
        notes = f"mkdir -p .agent; echo 'remember {secret}' > .agent/scratchpad.md; echo 'oops {secret}' >&2\n"
        failed = self.says({"type": "failed", "kind": "agent", "message": "z" * 490 + secret})
        agent = ralph.agent(notes + self.says(*events), notes + failed)
        gate = f"echo {'w' * 20} $ACME_TOKEN; seq 2000; echo $ACME_TOKEN $GATE_SECRET; exit 1"
        settings = {
            "agents": {"command": {"output": "events"}},
            "gates": [{"command": gate, "env": {"GATE_SECRET": named}}],
            "verbose": True,
        }
        ralph.write("ralph.json", json.dumps(settings))
        env = {"ACME_TOKEN": secret}
        done = ralph.run(agent, "-i", "2", env=env, task=f"Use {secret} well.", limit=60)
        assert done.returncode == 3, done.stderr
        task = ralph.folder / "state.json"
        assert f"Use {secret} well." in task.read_text()  # what the user gave as text is needed to go on
        for path in (task, ralph.folder / "state.prev.json", *ralph.folder.glob("moments.jsonl")):
            path.write_text(path.read_text().replace(f"Use {secret} well.", ""))
        for ref in ralph.git("for-each-ref", "--format=%(refname)", "refs/ralph").split():
            message = ralph.git("log", "-1", "--format=%B", ref)
            assert secret not in message.replace(f"Use {secret} well.", "")
            ralph.git("update-ref", "-d", ref)
        self.clean(ralph, done)
        assert MASK in (ralph.home / "scratchpad.md").read_text()
        assert (ralph.folder / "output" / "0001.out.err").read_text().startswith(f"oops {MASK}")
        assert not (ralph.folder / "output" / "raw").exists()
        assert list(ralph.folder.glob("output/gate-*.out"))

    def test_that_is_killed_has_its_transcript_redacted_when_it_goes_on(self, ralph):
        secret = self.SECRETS[0]
        process = ralph.begin(ralph.agent(f"echo {secret}; sleep 60", "echo LOOP_COMPLETE"), env={"ACME_TOKEN": secret})

        def raw():
            return [path for path in ralph.home.glob("runs/*/output/raw/*.out") if path.read_text()]

        ralph.until(raw)
        assert raw()[0].stat().st_mode & 0o777 == 0o600
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert secret in raw()[0].read_text()
        done = ralph("resume", env={"ACME_TOKEN": secret})
        assert done.returncode == 0, done.stderr
        assert (ralph.folder / "output" / "0001.out").read_text().startswith(MASK)
        assert not raw()
        for path, data in everything(ralph):
            assert secret.encode() not in data or path.name.startswith("state"), path  # in the agent's own command line

    def test_that_is_to_end_at_once_does_not_wait_for_a_large_transcript(self, ralph):
        """It stays where nobody else may read it, which is said, and is gone through when the run goes on."""
        secret = self.SECRETS[0]
        large = 'yes \'{"type": "text", "tokens": "of a key"}\' | head -c 1000000000'
        agent = ralph.agent(f"{large}; echo {secret}; touch written; sleep 60", "echo LOOP_COMPLETE")
        process = ralph.begin(agent, env={"ACME_TOKEN": secret})
        ralph.until((ralph.workspace / "written").exists, limit=60)
        process.send_signal(signal.SIGTERM)
        ended = ralph.end(process, limit=30)
        assert ended.returncode == 143
        assert "1 transcripts are not yet gone through" in ended.stdout
        (left,) = ralph.home.glob("runs/*/output/raw/*.out")
        assert left.stat().st_mode & 0o777 == 0o600
        os.truncate(left, 1000)  # the rest of it would only take time
        left.write_bytes(left.read_bytes() + f"{secret}\n".encode())
        assert ralph("resume", env={"ACME_TOKEN": secret}).returncode == 0
        kept = (ralph.folder / "output/0001.out").read_text()
        assert secret not in kept
        assert MASK in kept

    def test_the_end_of_standard_error_is_redacted_however_soon_the_process_has_ended(self, tmp_path):
        """It may have ended before its start has been told: what is done to its words has to be known by then."""

        async def scenario():
            command = Command(("sh", "-c", "echo secret >&2"), {"PATH": os.environ["PATH"]}, str(tmp_path))
            async with await Supervisor.open("soon") as supervisor:
                for _ in range(50):
                    job = await supervisor.start(command, output=tmp_path / "out", words=lambda text: text.upper())
                    assert (await job.wait()).stderr == "SECRET\n"

        asyncio.run(scenario())

    def test_half_a_secret_at_the_end_of_standard_error_is_none(self, ralph):
        secret = self.SECRETS[0]
        agent = ralph.agent(f"printf '%s' '{secret}{'y' * 293}' >&2; exit 1")
        done = ralph.run(agent, "-i", "1", env={"ACME_TOKEN": secret})
        assert done.returncode == 3
        assert "yyyy" in done.stderr
        assert "3456789y" not in done.stderr + (ralph.home / "audit" / "audit.jsonl").read_text()

    def test_a_hook_may_hand_the_agent_a_secret(self, ralph):
        """What is in the environment that an agent is given is kept out, wherever it came from."""
        code = "from dataclasses import replace\nfrom ralph_core import *\n@hookimpl\ndef ralph_prepare_command(command): return replace(command, env={**command.env, 'VAULT_TOKEN': 'canary-0123456789'})"
        ralph.plugin("vault", code)
        done = ralph.run(ralph.agent("echo $VAULT_TOKEN; echo LOOP_COMPLETE"))
        assert done.returncode == 0
        assert b"canary" not in (ralph.folder / "output" / "0001.out").read_bytes()
        self.clean(ralph, done)
