"""`--record` keeps what an agent did, and the agent `replay` does it again."""

import json
import shlex

import pytest

KEY = "sk-canary-0123456789abcdef"
EVENTS = [
    {"type": "started", "session": "s1", "model": "m1"},
    {"type": "text", "text": "Reading."},
    {"type": "tool_call", "id": "t1", "name": "Bash", "input": {"command": "ls"}},
    {"type": "tool_result", "id": "t1", "ok": True, "text": "README"},
    {"type": "usage", "message_id": "m1", "tokens": {"input": 100, "output": 20}, "cost": 0.25},
]


def script(*events, more=""):
    lines = "\n".join(f"printf '%s\\n' {shlex.quote(json.dumps(event))}" for event in events)
    return f"{lines}\n{more}\n"


@pytest.fixture
def recorded(ralph):
    """A run of two iterations, the first of which took a while."""
    ralph.settings("agents: {command: {output: events}}\n")
    agent = ralph.agent(
        script(*EVENTS, {"type": "finished", "text": "Not yet."}),
        script(*EVENTS, more="sleep 1.2")
        + script({"type": "finished", "text": "Done.\nLOOP_COMPLETE"}, more=f"echo {KEY} >&2"),
    )
    done = ralph.run(agent, "--record", env={"ACME_TOKEN": KEY})
    assert done.returncode == 0, done.stderr
    return ralph.folder


def replay(ralph, run, *more, **options):
    return ralph("run", "--from", run, "-p", "again", *more, **options)


class TestRecording:
    def test_holds_lines_events_and_the_end_in_order(self, recorded):
        head, *entries = map(json.loads, (recorded / "recording/0001.jsonl").read_text().splitlines())
        assert head == {"agent": "command"}
        assert [entry["event"]["type"] for entry in entries if "event" in entry] == [
            *(event["type"] for event in EVENTS),
            "finished",
        ]
        assert [json.loads(entry["line"]) for entry in entries if "line" in entry][: len(EVENTS)] == EVENTS
        assert entries[-1]["exit"] == 0
        assert [entry["at"] for entry in entries] == sorted(entry["at"] for entry in entries)

    def test_holds_no_secret(self, recorded):
        text = (recorded / "recording/0002.jsonl").read_text()
        assert KEY not in text
        assert "[redacted]" in text

    def test_is_not_made_unasked(self, ralph):
        ralph.run(ralph.agent("echo LOOP_COMPLETE"))
        assert not (ralph.folder / "recording").exists()


class TestReplay:
    def test_comes_to_the_same(self, ralph, recorded):
        before = json.loads((recorded / "state.json").read_text())["state"]
        done = replay(ralph, recorded.name)
        assert done.returncode == 0, done.stderr
        after = json.loads((ralph.folders[-1] / "state.json").read_text())["state"]
        assert (after["finished"], after["spend"], after["agent"]) == (2, before["spend"], "replay")
        tools = [r["message"] for r in ralph.records() if r["type"] == "tool.finished" and r["run"] == after["run"]]
        assert tools == ["Bash", "Bash"]

    def test_limits_hold_in_it(self, ralph, recorded):
        done = replay(ralph, recorded.name, "--max-cost", "0.1")
        assert done.returncode == 3
        assert "cost" in done.stdout

    def test_takes_its_time_if_told_so(self, ralph, recorded):
        ralph.settings("agents: {replay: {pace: recorded}}\n")
        assert replay(ralph, str(recorded)).returncode == 0
        state = json.loads((ralph.folders[-1] / "state.json").read_text())["state"]
        assert state["elapsed"] > 1.2

    def test_that_goes_on_longer_than_the_recording_fails_and_says_so(self, ralph, recorded):
        (recorded / "recording/0002.jsonl").unlink()
        done = replay(ralph, recorded.name)
        assert done.returncode == 1
        assert "the recording ends here" in done.stdout

    def test_of_what_is_no_recording_fails_and_says_so(self, ralph, recorded):
        path = recorded / "recording/0001.jsonl"
        path.write_text(path.read_text().replace('"type": "text"', '"type": "song"'))
        done = replay(ralph, recorded.name, "--max-iterations", "1")
        assert done.returncode == 3
        assert "0001.jsonl: line 5 is no part of a recording" in done.stdout + done.stderr

    @pytest.mark.parametrize(
        ("run", "words"), [("20200101-000000-aaaaaa", "there is no recording"), ("", "--from RUN")]
    )
    def test_of_a_run_without_one_is_refused(self, ralph, run, words):
        assert words in ralph.refuses("run", "-a", "replay", "--from", run, "-p", "again")
