"""`ralph audit query | tail | export | prune`: the account is found, filtered, paged and handed on."""

import csv
import io
import json

import pytest

CALL = {"type": "tool_call", "id": "t1", "name": "Bash", "input": {"command": "ls"}}
EVENTS = [
    CALL,
    {"type": "tool_result", "id": "t1", "ok": True, "text": ""},
    {**CALL, "id": "t2", "name": "Write"},
    {"type": "tool_result", "id": "t2", "ok": False, "text": "no"},
    {"type": "text", "text": '=1+2, "quoted"\n[/x] 你好 \x1b[31m'},
    {"type": "finished", "text": "LOOP_COMPLETE"},
]


@pytest.fixture
def done(ralph):
    """A run with two tools, one of which failed."""
    ralph.settings("agents: {command: {output: events}}\n")
    steps = "\n".join(f"cat <<'EOF'\n{json.dumps(event)}\nEOF" for event in EVENTS)
    assert ralph.run(ralph.agent(steps)).returncode == 0
    return ralph


def query(ralph, *arguments):
    answer = ralph("audit", "query", "--json", *arguments)
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout)


def types(ralph, *arguments):
    return [record["type"] for record in query(ralph, *arguments)["records"]]


def test_of_logs_each_line_is_a_record_for_programs(ralph):
    ralph.run("cat > /dev/null; echo LOOP_COMPLETE")
    for command in (("logs", "--json", "-n", "1000"), ("audit", "tail", "--json", "-n", "1000", "-f")):
        done = ralph(*command)
        assert done.returncode == 0, done.stderr
        assert [json.loads(line) for line in done.stdout.splitlines()] == ralph.records()


class TestQuery:
    def test_gives_the_records_of_the_latest_run(self, done):
        answer = query(done)
        assert answer["records"] == done.records()
        assert (answer["run"], answer["next"]) == (done.folder.name, None)

    def test_prints_a_line_for_each_that_no_text_can_spoil(self, done):
        said = done("audit", "query").stdout
        assert len(said.splitlines()) == len(done.records())
        assert "\x1b" not in said
        assert "你好" in said
        assert "tool:Write Write: no" in said

    @pytest.mark.parametrize(
        ("arguments", "wanted"),
        [
            (("--type", "run.started"), ["run.started"]),
            (("--type", "tool.*"), ["tool.started", "tool.finished", "tool.started", "tool.failed"]),
            (("--tool", "Write"), ["tool.started", "tool.failed"]),
            (("--tool", "Write", "--failure"), ["tool.failed"]),
            (("--type", "tool.*", "--success"), ["tool.finished"]),
            (("--type", "tool.*", "--severity", "warning"), ["tool.failed"]),
            (("--type", "tool.*", "--until", "1h"), []),
            (("--type", "tool.*", "--since", "2199-01-01"), []),
            (("--type", "run.*", "--since", "1h", "--until", "2199-01-01T00:00:00Z"), ["run.started", "run.finished"]),
        ],
    )
    def test_filters(self, done, arguments, wanted):
        assert types(done, *arguments) == wanted

    def test_pages_by_the_number_of_the_last_record(self, done):
        seen, after = [], 0
        while after is not None:
            answer = query(done, "--limit", "4", "--after", str(after))
            seen += answer["records"]
            after = answer["next"]
        assert seen == done.records()
        assert "(there are more: --after 4)" in done("audit", "query", "--limit", "4").stderr

    def test_over_all_runs(self, done):
        first = done.folder.name
        done.run(done.agent("echo"), "-i", "1")
        (second,) = {folder.name for folder in done.folders} - {first}
        assert len({record["run"] for record in query(done, "--all", "--limit", "500")["records"]}) == 2
        assert types(done, first, "--type", "tool.*")
        assert types(done, second, "--type", "tool.*") == []

    def test_finds_a_run_of_which_only_the_account_is_left(self, done):
        run = done.folder.name
        done("checkpoints", "prune", "--keep", "0")
        assert query(done, run)["run"] == query(done, run[:10])["run"] == run

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            (("--severity", "warn"), ["unknown severity 'warn'", "did you mean 'warning'?"]),
            (("--since", "yesterday"), ["--since: 'yesterday' is no time", "90m, 12h, 7d"]),
            (("--all", "--after", "3"), ["--after continues the page of one run"]),
            (("20990101",), ["'20990101' is not the id of a run"]),
            (("20990101-000000-aaaaaa",), ["unknown run '20990101-000000-aaaaaa'"]),
        ],
    )
    def test_refuses_what_makes_no_sense(self, done, arguments, says):
        done.refuses("audit", "query", *arguments, says=says)

    def test_of_a_sink_that_can_not_be_asked(self, done):
        done.settings("audit_sinks: [counts]\n")
        done.plugin(
            "counts",
            "from ralph_core import *\nclass S(AuditSink):\n  def write(self, batch): pass\n@hookimpl\ndef ralph_audit_sinks(): return [Provider('counts', '', __name__ + ':S')]",
        )
        done.refuses(
            "audit", "query", says=["no audit sink is chosen that has the capability query", "audit_sinks: [file]"]
        )


class TestTail:
    def test_shows_the_last(self, done):
        said = done("audit", "tail", "-n", "2").stdout.splitlines()
        assert [line.split()[0] for line in said] == [str(record["seq"]) for record in done.records()[-2:]]
        assert len(done("audit", "tail").stdout.splitlines()) == min(20, len(done.records()))

    def test_follows_a_run_to_its_end(self, ralph):
        process = ralph.begin(ralph.agent("while [ ! -e go ]; do sleep 0.05; done; echo LOOP_COMPLETE"))
        ralph.until(lambda: (ralph.home / "audit").exists() and "agent.started" in ralph.types())
        follower = ralph.start("audit", "tail", "--follow", "-n", "1")
        first = follower.stdout.readline()
        ralph.write("go", "")
        rest = ralph.end(follower).stdout
        assert "agent.started" in first
        assert "run.finished" in rest
        assert "run.started" not in rest
        assert ralph.end(process).returncode == 0


class TestExport:
    def test_json_lines_are_those_of_the_account(self, done):
        plain = (done.home / "audit" / "audit.jsonl").read_text()
        assert done("audit", "export").stdout == plain
        out = done.root / "out.jsonl"
        assert done("audit", "export", "--output", out, "--type", "run.*").returncode == 0
        assert [json.loads(line)["type"] for line in out.read_text().splitlines()] == ["run.started", "run.finished"]
        assert out.stat().st_mode & 0o777 == 0o600

    def test_csv_is_read_back_and_holds_no_formula(self, done):
        rows = list(csv.DictReader(io.StringIO(done("audit", "export", "--csv").stdout)))
        assert [row["hash"] for row in rows] == [record["hash"] for record in done.records()]
        (text,) = [row for row in rows if row["type"] == "agent.text"]
        assert text["message"] == "'" + EVENTS[4]["text"]
        assert json.loads(rows[0]["data"]) == done.records()[0]["data"]
        assert done("audit", "query", "--csv", "--limit", "1").stdout.count("\n") == 2

    def test_to_where_nothing_can_be_written(self, done):
        done.refuses("audit", "export", "--output", "/nowhere/out", says=["/nowhere/out can't be written"])


class TestPrune:
    """`audit_retention_days`, AUDIT_RETENTION_DAYS."""

    def test_forgets_whole_runs_and_verify_says_so(self, done):
        first = done.folder.name
        done.run(done.agent("echo"), "-i", "1")
        assert "0 runs forgotten" in done("audit", "prune").stdout
        assert "2 runs forgotten" in done("audit", "prune", "--days", "0").stdout
        assert (done.home / "audit" / "audit.jsonl").read_text() == ""
        said = done("audit", "verify", first)
        assert said.returncode == 0
        assert "are gone: pruned on " in said.stdout

    @pytest.mark.parametrize("way", ["audit_retention_days", "AUDIT_RETENTION_DAYS"])
    def test_goes_by_the_setting(self, done, way):
        days = "0.00000001"
        if way == "audit_retention_days":
            done.settings(f"audit_retention_days: {days}\n")
        env = {way: days} if way.isupper() else {}
        assert "1 runs forgotten" in done("audit", "prune", env=env).stdout

    def test_not_while_a_run_is_at_work(self, ralph):
        process = ralph.begin(ralph.agent("sleep 60"))
        ralph.until(lambda: (ralph.home / "audit").exists() and "agent.started" in ralph.types())
        done = ralph("audit", "prune", "--days", "0")
        assert done.returncode == 2
        assert "holds the workspace" in done.stderr
        process.kill()
