"""A sink that is slow, hangs, raises or finds its disk full touches neither the run nor another sink, and all is accounted for."""

import json
import resource
import threading
import time

import pytest

from ralph_core.account import pipeline
from ralph_core.account.audit import AuditTrail, Selected
from ralph_core.account.pipeline import PipelineSettings
from ralph_core.account.spill import Spill, waiting_in
from ralph_core.contracts import AuditSink
from ralph_core.redaction import Redactor

DONE = "echo LOOP_COMPLETE"
SINK = """\
import json, os, time
from ralph_core import *

class S(AuditSink):
    def write(self, batch):
        HERE
        with open(self.context.home / "odd.jsonl", "ab") as stream:
            stream.write(b"".join(record.line for record in batch))

@hookimpl
def ralph_audit_sinks(): return [Provider("odd", "", __name__ + ":S")]
"""


def odd(ralph, does, **settings):
    """Let an odd sink take part beside the file sink."""
    ralph.plugin("odd", SINK.replace("HERE", does))
    ralph.write("ralph.json", json.dumps({"audit_sinks": ["odd", "file"], **settings}))


def whole(ralph):
    """The file sink has all of it, in order."""
    seqs = [record["seq"] for record in ralph.records()]
    assert seqs == list(range(1, len(seqs) + 1))
    assert ralph.types()[-1] == "run.finished"
    return len(seqs)


class TestRun:
    """Real runs, with a sink of a plugin."""

    @pytest.mark.parametrize("overflow", ["drop", "block"])
    def test_a_sink_that_raises_loses_what_it_does_not_take(self, ralph, overflow):
        odd(ralph, "raise OSError('no such collector')", audit_overflow=overflow)
        done = ralph.run(ralph.agent(DONE))
        assert done.returncode == 0, done.stderr
        assert f"sink odd: 0 written, {whole(ralph)} lost: OSError: no such collector" in done.stdout

    def test_a_sink_that_raises_has_its_records_wait_for_the_next_sitting(self, ralph):
        odd(ralph, "if not os.path.exists(self.context.workspace / 'mended'): raise OSError('down')")
        done = ralph.run(ralph.agent(":"), "-i", "1")
        assert done.returncode == 3
        count = whole(ralph)
        assert f"sink odd: 0 written, {count} wait on disk, 0 lost: OSError: down" in done.stdout
        assert (ralph.folder / "waiting-odd.jsonl").stat().st_mode & 0o777 == 0o600
        ralph.write("mended", "")
        assert ralph("resume", "-i", "2").returncode == 3
        assert not (ralph.folder / "waiting-odd.jsonl").exists()
        kept = (ralph.home / "odd.jsonl").read_bytes()
        assert kept == (ralph.home / "audit" / "audit.jsonl").read_bytes()

    def test_the_account_itself_that_could_not_be_written_goes_on_in_order(self, ralph):
        ralph.write(".agent/audit", "in the way")
        done = ralph.run(ralph.agent(":"), "-i", "1")
        assert done.returncode == 3
        assert "sink file: 0 written" in done.stdout
        (ralph.home / "audit").unlink()
        assert ralph("resume", "-i", "2").returncode == 3
        whole(ralph)
        done = ralph("audit", "verify")
        assert done.returncode == 0, done.stdout

    def test_a_sink_that_hangs_keeps_nobody(self, ralph):
        odd(ralph, "time.sleep(600)")
        began = time.monotonic()
        done = ralph.run(ralph.agent("echo x > f", DONE))
        assert done.returncode == 0
        count = whole(ralph)
        assert f"sink odd: 0 written, {count} wait on disk, 0 lost: did not end within" in done.stdout
        assert time.monotonic() - began < 30

    def test_a_slow_sink_gets_all_and_does_not_slow_the_run(self, ralph):
        odd(ralph, "time.sleep(0.2)")
        done = ralph.run(ralph.agent("seq 300", "seq 300", DONE))
        assert done.returncode == 0
        assert "audit       " not in done.stdout
        assert (ralph.home / "odd.jsonl").read_bytes() == (ralph.home / "audit" / "audit.jsonl").read_bytes()

    def test_a_full_disk_is_counted_and_said(self, ralph):
        """The limit on the size of a file stands for it: it strikes the account alone, which is the largest file."""
        limit = 80_000
        ralph.settings("audit_sinks: [file]\naudit_overflow: drop\nagents: {command: {output: events}}\n")
        said = """echo '{"type": "text", "text": "some words"}'\n""" * 400
        agent = ralph.agent(f"""{said}echo '{{"type": "finished", "text": "LOOP_COMPLETE"}}'""")
        done = ralph.run(agent, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
        assert done.returncode == 0, done.stderr
        data = (ralph.home / "audit" / "audit.jsonl").read_bytes()
        assert data.endswith(b"\n")
        assert len(data) <= limit
        assert f"sink file: {data.count(10)} written" in done.stdout, done.stdout
        assert "lost: OSError" in done.stdout

    @pytest.mark.parametrize("does", ["raise OSError('down')", "time.sleep(600)"])
    def test_a_required_sink_that_fails_keeps_the_agent_from_starting(self, ralph, does):
        odd(ralph, does, audit_required=["odd"], audit_deadline=0.5)
        agent = ralph.agent(DONE)
        done = ralph.run(agent)
        assert done.returncode == 1, done.stdout
        assert "failed: required audit sink 'odd'" in done.stdout
        assert agent.calls == 0
        assert whole(ralph)

    def test_a_required_sink_that_fails_later_stops_the_run(self, ralph):
        odd(ralph, "if os.path.exists(self.context.workspace / 'f'): raise OSError('down')", audit_required=["odd"])
        agent = ralph.agent("echo x > f; sleep 0.2; echo something to record; exec sleep 600", DONE)
        done = ralph.run(agent)
        assert done.returncode == 1
        assert "required audit sink 'odd' failed: OSError: down" in done.stdout
        assert agent.calls == 1

    def test_a_required_sink_that_loses_the_end_makes_the_run_a_failure(self, ralph):
        odd(ralph, "if any(r.type == 'run.finished' for r in batch): raise OSError('down')", audit_required=["odd"])
        done = ralph.run(ralph.agent(DONE))
        assert done.returncode == 1
        assert "required audit sink 'odd' failed" in done.stdout
        assert ralph.state()["outcome"]["kind"] == "failed"

    def test_a_required_sink_has_to_be_chosen(self, ralph):
        ralph.settings("audit_required: [fil]\n")
        ralph.refuses(*ralph.flags(DONE), says=["audit_required", "unknown sink 'fil'", "did you mean 'file'?"])

    def test_a_database_is_of_a_later_package(self, ralph):
        env = {"AUDIT_STORAGE_TYPE": "file,database"}
        ralph.refuses(*ralph.flags(DONE), env=env, says=["'database' comes with the package ralph-sql"])


class Odd(AuditSink):
    """Takes records at a gate that the test opens; raises as long as it is told to."""

    def __init__(self, home):
        super().__init__(None, None)
        self.gate, self.records, self.down = threading.Event(), [], False

    def write(self, batch):
        self.gate.wait(30)
        if self.down:
            raise OSError("down")
        self.records.extend(batch)


def trail(tmp_path, sinks, **how):
    selected = [Selected(name, "test", each, anchors=not number) for number, (name, each) in enumerate(sinks.items())]
    return AuditTrail(
        "20260101-000000-aaaaaa",
        selected,
        redactor=Redactor({}),
        ids=lambda: ("", ""),
        how=PipelineSettings(flush_interval=0.05, **how),
        folder=tmp_path,
    )


def seqs(sink):
    return [record.seq for record in sink.records]


class TestOverflow:
    """What becomes of records for which there is no room in memory."""

    def test_spilled_records_are_written_later_in_order(self, tmp_path):
        slow, other = Odd(tmp_path), Odd(tmp_path)
        other.gate.set()
        here = trail(tmp_path, {"slow": slow, "other": other}, queue=100, batch_size=50)
        for number in range(2000):
            here.record("note", data={"number": number})
        deadline = time.monotonic() + 20
        while len(other.records) < 2000:  # the slow one keeps nobody else
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert (tmp_path / "waiting-slow.jsonl").exists()
        slow.gate.set()
        account = here.close()[0]
        assert seqs(slow) == list(range(1, 2001))
        assert [record.line for record in slow.records] == [record.line for record in other.records]
        assert (account.written, account.lost, account.waiting, account.clean) == (2000, 0, 0, True)
        assert account.spilled >= 1800
        assert not (tmp_path / "waiting-slow.jsonl").exists()

    def test_what_still_waits_at_the_end_is_taken_first_in_the_next_sitting(self, tmp_path, monkeypatch):
        monkeypatch.setattr(pipeline, "CLOSING", 0.1)
        monkeypatch.setattr("ralph_core.account.audit.CLOSING", 0.1)
        slow = Odd(tmp_path)
        here = trail(tmp_path, {"slow": slow}, queue=10, batch_size=5)
        for _ in range(50):
            here.record("note")
        account = here.close()[0]
        assert (account.written, account.lost, account.waiting) == (0, 0, 50)
        again = Odd(tmp_path)
        again.gate.set()
        there = trail(tmp_path, {"slow": again}, queue=10)
        there.record("note")
        there.close()
        assert seqs(again) == [*range(1, 51), 1]
        slow.gate.set()

    def test_a_kill_brings_nothing_back_that_was_taken(self, tmp_path):
        spill = Spill(tmp_path / "waiting")
        records = self.some(10)
        assert spill.append(records)
        assert [record.seq for record in spill.peek(4)] == [1, 2, 3, 4]
        spill.taken()
        with spill.path.open("ab") as stream:
            stream.write(b'{"torn')
        assert [record.seq for record in waiting_in(spill.path)] == [5, 6, 7, 8, 9, 10]
        again = Spill(spill.path, after=6)
        assert again.waiting == 4
        assert [record.line for record in again.peek(100)] == [record.line for record in records[6:]]
        again.taken()
        assert not spill.path.exists()

    @staticmethod
    def some(count):
        taken = Odd(None)
        taken.gate.set()
        here = trail(None, {"taken": taken}, overflow="block")
        for _ in range(count):
            here.record("note")
        here.close()
        return taken.records

    def test_drop_loses_the_oldest_and_counts_them(self, tmp_path):
        slow = Odd(tmp_path)
        here = trail(tmp_path, {"slow": slow}, queue=100, batch_size=10, overflow="drop")
        for _ in range(2000):
            here.record("note")
        self.until(lambda: here._pipelines[0].account.lost >= 1890)
        slow.gate.set()
        account = here.close()[0]
        assert account.written + account.lost == 2000
        assert seqs(slow)[-100:] == list(range(1901, 2001))
        assert not account.clean

    def test_block_holds_up_who_makes_records_until_there_is_room(self, tmp_path):
        slow = Odd(tmp_path)
        here = trail(tmp_path, {"slow": slow}, queue=100, overflow="block")
        made = []
        maker = threading.Thread(target=lambda: [made.append(here.record("note")) for _ in range(500)])
        maker.start()
        self.until(lambda: len(made) == 100)
        time.sleep(0.1)
        assert len(made) == 100
        slow.gate.set()
        maker.join(20)
        account = here.close()[0]
        assert (account.written, account.lost) == (500, 0)

    def test_block_has_an_end(self, tmp_path, monkeypatch):
        monkeypatch.setattr(pipeline, "PATIENCE", 0.1)
        monkeypatch.setattr(pipeline, "CLOSING", 0.1)
        monkeypatch.setattr("ralph_core.account.audit.CLOSING", 0.1)
        slow = Odd(tmp_path)
        here = trail(tmp_path, {"slow": slow}, queue=10, overflow="block")
        for _ in range(100):
            here.record("note")
        account = here.close()[0]
        assert (account.written, account.lost) == (0, 100)
        slow.gate.set()

    def test_a_broken_sink_that_is_mended_gets_all_in_order(self, tmp_path):
        broken = Odd(tmp_path)
        broken.gate.set()
        broken.down = True
        here = trail(tmp_path, {"broken": broken}, queue=20, batch_size=7)
        for _ in range(200):
            here.record("note")
        self.until(lambda: here._pipelines[0].account.error)
        broken.down = False
        account = here.close()[0]
        assert seqs(broken) == list(range(1, 201))
        assert (account.written, account.lost) == (200, 0)

    def test_the_head_is_what_was_written(self, tmp_path):
        slow = Odd(tmp_path)
        here = trail(tmp_path, {"slow": slow})
        here.record("note")
        here.record("note")
        assert here.head == (0, "")
        slow.gate.set()
        self.until(lambda: here.head[0] == 2)
        assert here.head == (2, slow.records[-1].hash)
        here.close()

    def test_what_is_no_json_is_said_in_its_place(self, tmp_path):
        taken = Odd(tmp_path)
        taken.gate.set()
        here = trail(tmp_path, {"taken": taken})
        deep = {}
        deep["itself"] = deep
        here.record("note", data=deep)
        here.record("note", data={1: object(), "b": b"bytes", "s": {1, 2}})
        here.close()
        assert seqs(taken) == [1, 2]
        assert [json.loads(record.line)["seq"] for record in taken.records] == [1, 2]

    @staticmethod
    def until(condition):
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.005)


class TestSettings:
    """`audit_queue`, `audit_overflow`, `audit_required`, `audit_deadline`: the tests above show the last three in real runs."""

    def test_audit_queue(self, ralph):
        odd(ralph, "time.sleep(1)", audit_queue=5, audit_overflow="drop", audit_batch_size=5)
        done = ralph.run(ralph.agent("seq 200; echo LOOP_COMPLETE"))
        assert done.returncode == 0
        (line,) = [line for line in done.stdout.splitlines() if "sink odd: " in line]
        assert " 0 lost" not in line
