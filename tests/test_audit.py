"""The account can't be changed in silence: the chain of records, its anchors, and what a kill leaves behind."""

import hashlib
import io
import json
import shutil
import signal
import subprocess

import pytest

from ralph_core.account.chain import check
from ralph_core.builtin.sinks import FileSink, FileSinkSettings
from ralph_core.contracts import Anchor, Context
from ralph_core.records import AuditFilter, AuditRecord, Severity, chained, record_of

DONE = "echo LOOP_COMPLETE"
RUN = "20260101-000000-aaaaaa"


def account(run=RUN, count=5, before="0" * 64, first=1, **more):
    """Records as they come out of the trail."""
    records = []
    for seq in range(first, first + count):
        fields = {"message": f"what has happened at {seq}", "data": {"ünï": ["é", {"b": 1, "a": None}]}, **more}
        record = AuditRecord(
            seq=seq, id=f"id-{seq}", time=f"2026-01-01T00:00:{seq:02d}.000Z", run=run, iteration=1, type="note",
            severity=Severity.INFO, actor="ralph", **fields,
        )  # fmt: skip
        records.append(chained(record, before))
        before = records[-1].hash
    return records


@pytest.fixture
def made():
    """Makes file sinks, and closes them."""
    all_ = []

    def make(tmp_path, **settings):
        all_.append(FileSink(FileSinkSettings(**settings), Context(tmp_path, tmp_path / ".agent", {})))
        return all_[-1]

    yield make
    for each in all_:
        each.close()


def heads(records):
    return [Anchor(records[-1].seq, records[-1].hash, "the test")]


def problem(data, records, anchors=None):
    """What the check finds in a file with these bytes."""
    lines = [(f"line {number}", line) for number, line in enumerate(io.BytesIO(data), 1)]
    return check(RUN, lines, heads(records) if anchors is None else anchors).problem


class TestRecord:
    def test_is_canonical_json_with_its_hash_last(self):
        (record,) = account(count=1)
        fields = json.loads(record.line)
        assert list(fields)[-1] == "hash"
        digest = fields.pop("hash")
        canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        assert hashlib.sha256(canonical).hexdigest() == digest == record.hash
        assert list(fields) == sorted(fields)

    def test_comes_back_as_it_was(self):
        (record,) = account(count=1)
        again = record_of(record.line)
        assert again == record
        assert again.line == record.line

    def test_of_a_later_version_is_read(self):
        (record,) = account(count=1)
        line = record.line.replace(b'{"actor"', b'{"a_new_field":1,"actor"')
        assert record_of(line) == record

    def test_may_hold_what_is_no_unicode(self):
        (record,) = account(count=1, message="a file named \udcff")
        assert record_of(record.line).message == "a file named \udcff"


class TestCheck:
    def test_finds_nothing_wrong_with_what_was_written(self):
        records = account()
        checked = check(RUN, [("", record.line) for record in records], heads(records))
        assert (checked.problem, checked.records, checked.last, checked.anchored) == ("", 5, 5, 5)

    def test_every_byte_that_is_flipped_is_found(self):
        records = account()
        data = b"".join(record.line for record in records)
        assert problem(data, records) == ""
        for at in range(len(data)):
            for bit in (0x01, 0x20):
                mutated = data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :]
                assert problem(mutated, records), f"byte {at}: {data[at - 20 : at + 20]!r}"

    def test_every_byte_that_is_taken_out_or_added_is_found(self):
        records = account(count=3)
        data = b"".join(record.line for record in records)
        for at in range(len(data)):
            assert problem(data[:at] + data[at + 1 :], records), at
            assert problem(data[:at] + b" " + data[at:], records), at

    def test_every_tail_that_is_cut_off_is_found(self):
        records = account()
        data = b"".join(record.line for record in records)
        for length in range(len(data)):
            assert problem(data[:length], records), length

    def test_a_whole_record_that_is_cut_off_is_found_by_the_anchor_alone(self):
        records = account()
        data = b"".join(record.line for record in records[:-1])
        assert problem(data, records, []) == ""
        assert problem(data, records) == "record 5 is missing at the end: the test vouches for record 5"

    @pytest.mark.parametrize(
        ("order", "says"),
        [
            ((0, 1, 3, 4), "record 3 is missing before record 4"),
            ((0, 3, 4), "records 2 to 3 are missing before record 4"),
            ((1, 2, 3, 4), "record 1 is missing before record 2"),
            ((0, 2, 1, 3, 4), "record 2 is missing before record 3"),
            ((0, 1, 1, 2, 3, 4), "record 2 (line 3) stands after record 2: it was added, or moved"),
            ((0, 1, 2, 3, 4, 2), "record 3 (line 6) stands after record 5"),
        ],
    )
    def test_names_the_first_that_is_missing_added_or_moved(self, order, says):
        records = account()
        assert says in problem(b"".join(records[number].line for number in order), records)

    def test_an_edited_record_with_a_new_hash_breaks_the_chain(self):
        records = account()
        forged = account(count=1, first=3, before=records[1].hash, message="nothing has happened")
        data = b"".join(record.line for record in (*records[:2], *forged, *records[3:]))
        assert problem(data, records) == "record 4 (line 4) does not follow the record 3 that stands before it"

    def test_an_account_that_is_made_anew_is_found_by_the_anchor(self):
        records, forged = account(), account(message="nothing has happened")
        data = b"".join(record.line for record in forged)
        assert problem(data, records, []) == ""
        assert "record 5 (line 5) is not the one that the test vouches for" in problem(data, records)

    def test_records_of_other_runs_stand_between(self):
        records, others = account(), account("20260101-000000-bbbbbb", message=f"about {RUN}")
        both = [record.line for pair in zip(records, others, strict=True) for record in pair]
        assert problem(b"".join(both), records) == ""


class TestFileSink:
    def test_the_chain_goes_over_rotated_files(self, made, tmp_path):
        here, records = made(tmp_path, max_file_size=1024, max_files=50), account(count=20)
        for record in records:
            here.write([record])
        assert len(list((tmp_path / ".agent/audit").glob("*.jsonl"))) > 3
        assert check(RUN, here.lines(), heads(records)).problem == ""

    def test_says_what_rotation_has_dropped(self, made, tmp_path):
        here, records = made(tmp_path, max_file_size=1024, max_files=2), account(count=20)
        for record in records:
            here.write([record])
        dropped = here.dropped(RUN)
        checked = check(RUN, here.lines(), heads(records), dropped)
        assert checked.problem == ""
        assert checked.notes == (
            f"records 1 to {dropped.seq} are gone: dropped when the files were rotated (max_files)",
        )
        assert "missing before record" in check(RUN, here.lines(), heads(records)).problem

    @pytest.mark.parametrize("cut", [1, 2, 100])
    def test_a_torn_last_line_is_mended(self, made, tmp_path, cut):
        here, records = made(tmp_path), account()
        here.write(records)
        here.close()
        with here.path.open("r+b") as stream:
            stream.truncate(here.path.stat().st_size - cut)
        again = made(tmp_path)
        (said,) = again.recover()
        assert ("had no end" if cut == 1 else "was torn") in said
        kept = len(list(again.query(AuditFilter())))
        assert kept == (5 if cut == 1 else 4)
        again.write(records[kept:] or account(count=1, first=6, before=records[-1].hash))
        assert check(RUN, again.lines(), []).problem == ""
        assert again.recover() == ()

    @pytest.mark.parametrize("fsync", ["interval", "batch", "never"])
    def test_writes_under_every_fsync_policy(self, made, tmp_path, fsync):
        here = made(tmp_path, fsync=fsync)
        here.write(account())
        here.flush()
        assert len(here.path.read_bytes().splitlines()) == 5

    def test_the_file_is_private(self, made, tmp_path):
        here = made(tmp_path)
        here.write(account())
        assert here.path.stat().st_mode & 0o777 == 0o600

    def test_prunes_whole_runs_and_remembers_that(self, made, tmp_path):
        here, old, new = made(tmp_path), account("20250101-000000-cccccc"), account()
        here.write([*old[:3], *new[:2], *old[3:], *new[2:]])
        assert here.prune("2026-01-01T00:00:05.000Z") == 0
        here.close()
        assert here.prune("2026-01-01T00:00:06.000Z") == 2
        assert here.path.read_bytes() == b""
        assert here.dropped(RUN).seq == 5
        assert here.dropped("20250101-000000-cccccc").where.startswith("pruned on ")
        assert check(RUN, here.lines(), heads(new), here.dropped(RUN)).problem == ""


class TestRun:
    """Real runs."""

    def verify(self, ralph, *arguments):
        return ralph("audit", "verify", *arguments)

    def test_has_an_account_in_order_that_is_anchored_to_its_end(self, ralph):
        assert ralph.run(ralph.agent("echo x > f", DONE), "--checkpoint-interval", "1").returncode == 0
        done = self.verify(ralph)
        last = ralph.records()[-1]["seq"]
        assert done.returncode == 0, done.stdout
        assert f"{last} records in order, anchored up to record {last}" in done.stdout
        message = ralph.git("log", "-1", "--format=%B", f"refs/ralph/{ralph.folder.name}/account")
        assert ralph.records()[-1]["hash"] in message

    def test_without_git_it_is_anchored_in_the_state(self, ralph):
        assert ralph.run(ralph.agent(DONE), "--no-git").returncode == 0
        done = self.verify(ralph)
        assert f"anchored up to record {len(ralph.records())}" in done.stdout

    @pytest.mark.parametrize("anchor", ["git", "state"])
    def test_a_cut_account_is_found_by_either_anchor(self, ralph, anchor):
        ralph.run(ralph.agent(DONE))
        path = ralph.home / "audit" / "audit.jsonl"
        if anchor == "git":
            shutil.rmtree(ralph.folder)
        else:
            for ref in ralph.git("for-each-ref", "--format=%(refname)", "refs/ralph").split():
                ralph.git("update-ref", "-d", ref)
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
        done = self.verify(ralph)
        assert done.returncode == 1
        assert "missing at the end" in done.stdout
        assert ("refs/ralph" if anchor == "git" else "the saved state") in done.stdout

    def test_names_the_first_bad_record(self, ralph):
        ralph.run(ralph.agent("echo hello; echo LOOP_COMPLETE"))
        path = ralph.home / "audit" / "audit.jsonl"
        lines = path.read_bytes().splitlines(keepends=True)
        (at,) = [at for at, line in enumerate(lines) if b'"message":"hello"' in line and b"agent.text" in line]
        lines[at] = lines[at].replace(b"hello", b"HELLO")
        path.write_bytes(b"".join(lines))
        done = self.verify(ralph)
        assert done.returncode == 1
        assert f"record {at + 1} (audit.jsonl, line {at + 1}) was changed" in done.stdout
        (told,) = json.loads(self.verify(ralph, "--json").stdout)
        assert told["problem"].startswith(f"record {at + 1} ")

    def test_that_is_killed_goes_on_with_the_chain(self, ralph):
        process = ralph.begin(ralph.agent("echo working; sleep 60", DONE))
        ralph.until(lambda: (ralph.home / "audit").exists() and "agent.text" in ralph.types())
        process.send_signal(signal.SIGKILL)
        process.wait()
        with (ralph.home / "audit" / "audit.jsonl").open("ab") as stream:
            stream.write(b'{"actor":"ralph","appro')
        assert self.verify(ralph).returncode == 1
        done = ralph("resume")
        assert done.returncode == 0, done.stderr
        assert "the last line of audit.jsonl was torn: 23 bytes of a record were cut off" in done.stdout
        assert self.verify(ralph).returncode == 0, self.verify(ralph).stdout
        seqs = [record["seq"] for record in ralph.records()]
        assert seqs == list(range(1, len(seqs) + 1))
        assert sorted(t for t in ralph.types() if t.endswith(".abandoned")) == ["agent.abandoned", "iteration.abandoned", "run.abandoned"]  # fmt: skip

    def test_that_is_resumed_after_its_account_was_cut_says_so(self, ralph):
        ralph.run(ralph.agent(":", DONE), "-i", "1")
        path = ralph.home / "audit" / "audit.jsonl"
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-2]))
        done = ralph("resume", "-i", "5")
        assert "the account ends with record" in done.stdout
        done = self.verify(ralph)
        assert done.returncode == 1
        assert "missing before record" in done.stdout

    def test_after_run_verifies_all(self, ralph):
        for _ in range(2):
            ralph.run(ralph.agent(DONE))
        done = self.verify(ralph, "--all")
        assert done.returncode == 0
        assert done.stdout.count("records in order, anchored up to record") == 2

    def test_pruned_checkpoints_take_their_anchor_along(self, ralph):
        ralph.run(ralph.agent(DONE))
        assert ralph("checkpoints", "prune", "--keep", "0").returncode == 0
        assert ralph.git("for-each-ref", "refs/ralph") == ""
        assert "without an anchor" in self.verify(ralph).stdout

    def test_fills_in_who_what_and_how_it_went(self, ralph):
        usage = {"type": "usage", "message_id": "m", "tokens": {"input": 60, "output": 5}, "cost": 0.25}
        says = [
            {"type": "tool_call", "id": "t", "name": "Bash", "input": {"command": "ls"}},
            {"type": "tool_result", "id": "t", "ok": False, "text": "no"},
            usage,
            {"type": "finished", "text": "LOOP_COMPLETE"},
        ]
        ralph.settings("agents: {command: {output: events}}\ngates: ['true']\n")
        assert ralph.run(ralph.agent("\n".join(f"echo '{json.dumps(each)}'" for each in says))).returncode == 0
        found = {record["type"]: record for record in ralph.records()}
        assert (found["tool.failed"]["capability"], found["tool.failed"]["result"]) == ("tool:Bash", "failure")
        assert (found["agent.finished"]["plugin"], found["agent.finished"]["result"]) == ("builtin", "success")
        assert found["agent.finished"]["usage"]["cost_usd"] == 0.25
        assert (found["checkpoint.finished"]["capability"], found["checkpoint.finished"]["plugin"]) == (
            "store",
            "builtin",
        )
        assert found["gate.finished"]["capability"] == "gate"
        assert found["run.finished"]["usage"]["tokens"] == 65


def test_the_example_of_the_docs_checks_a_record_without_ralph(ralph):
    """`docs/audit.md` says how a record is hashed: with the tools of any system."""
    ralph.run(ralph.agent(DONE))
    line = (ralph.home / "audit" / "audit.jsonl").read_bytes().splitlines()[2]
    script = 'import sys,json,hashlib; r=json.loads(sys.stdin.buffer.read()); h=r.pop("hash"); print(hashlib.sha256(json.dumps(r,sort_keys=True,separators=(",",":"),ensure_ascii=False).encode()).hexdigest()==h)'
    done = subprocess.run(["python3", "-c", script], input=line, capture_output=True)
    assert done.stdout == b"True\n"
