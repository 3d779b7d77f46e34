"""The adapter on a scripted agent: what it says, what it asks, and everything that may go wrong between the two."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path

import pytest
from pydantic import ValidationError

from ralph_acp import conversation, said
from ralph_acp.agent import AcpAgent
from ralph_acp.failures import failure
from ralph_acp.known import ANY, KNOWN, Known
from ralph_acp.plugin import ralph_agents
from ralph_acp.settings import AcpSettings
from ralph_core.contracts import LINE_LIMIT, Context
from ralph_core.events import Failed, FailureKind, Finished, Started, Text, Tokens, ToolCall, ToolResult

COUNTS = Known(usage=True, cost=True)


def of(kind, events):
    return [event for event in events if isinstance(event, kind)]


def notes(driver):
    """What the scripted agent wrote into the file `notes` of the workspace."""
    return (driver.workspace / "notes").read_text()


def allow(asked):
    asked.answer(allowed=True)


def deny(asked):
    asked.answer(allowed=False, reason="not that")


class TestTurn:
    def test_text_plan_tool_and_figures(self, driver):
        events = driver.play(
            """
            greet(session={"models": {"currentModelId": "m-1"}})
            prompt()
            update("agent_thought_chunk", content={"type": "text", "text": "hmm"})
            update("plan", entries=[{"content": "look", "priority": "high", "status": "completed"}, {"content": "write", "priority": "low", "status": "pending"}])
            say("I "); say("look.")
            update("tool_call", toolCallId="t-1", title="Terminal", kind="execute", status="pending", rawInput={})
            update("tool_call_update", toolCallId="t-1", title="ls", rawInput={"command": "ls"})
            update("tool_call_update", toolCallId="t-1", status="completed", content=[{"type": "content", "content": {"type": "text", "text": "a\\nb"}}])
            say("All there.\\n"); say("LOOP_COMPLETE")
            update("usage_update", used=9, size=100, cost={"amount": 0.25, "currency": "USD"})
            answer(usage={"inputTokens": 400, "outputTokens": 100, "cachedReadTokens": 80, "cachedWriteTokens": 40, "totalTokens": 620})
            """,
            known=COUNTS,
        )  # fmt: skip
        assert events == [
            Started("s-1", "m-1"),
            Text("plan:\n[x] look\n[ ] write"),
            Text("I look."),
            ToolCall("t-1", "execute", {"title": "ls", "command": "ls"}),
            ToolResult("t-1", ok=True, text="a\nb"),
            Text("All there.\nLOOP_COMPLETE"),
            Finished("All there.\nLOOP_COMPLETE", Tokens(400, 100, 80, 40), 0.25),
        ]

    def test_what_is_not_said_stays_unknown(self, driver):
        events = driver.play("greet(); prompt(); say('Done.'); answer()", known=COUNTS)
        assert events[-1] == Finished("Done.", None, None)

    def test_cost_in_another_currency_is_unknown(self, driver):
        play = (
            'greet(); prompt(); update("usage_update", used=1, size=2, cost={"amount": 3, "currency": "EUR"}); answer()'
        )
        assert driver.play(play, known=COUNTS)[-1] == Finished("", None, None)

    def test_the_wire_is_on_disk(self, driver):
        driver.play("greet(); prompt(); say('Done.'); answer()")
        lines = (driver.tmp / "output").read_text().splitlines()
        assert [json.loads(line).get("method", "answer") for line in lines] == [
            *["answer"] * 2,
            "session/update",
            "answer",
        ]

    @pytest.mark.parametrize(
        "words",
        ["".join(f"{n:07} Zeile äöü 漢字 😀\r\n" for n in range(40_000)), " \n\ttrailing \n\n", "/etc/hosts is wrong"],
        ids=["1 MB", "white space", "slash"],
    )
    def test_prompt_arrives_unchanged(self, driver, words):
        driver.play("greet(); t = prompt(); open('notes', 'w', newline='').write(t); answer()", words)
        got = (driver.workspace / "notes").read_bytes().decode()
        assert got == (f"\n{words}" if words.startswith("/") else words)

    def test_answer_is_what_is_said_after_the_last_tool_and_before_it_is_told_apart(self, driver):
        events = driver.play(
            """
            greet(); say("[MODE_UPDATE] yolo"); prompt(); say("LOOP_COMPLETE")
            update("tool_call", toolCallId="t", title="x", status="in_progress")
            update("tool_call_update", toolCallId="t", status="failed")
            say("one", messageId="m1"); say("two", messageId="m2"); answer()
            """
        )
        assert events[-1].text == "two"
        assert [event.text for event in of(Text, events)] == ["LOOP_COMPLETE", "one", "two"]
        assert of(ToolResult, events) == [ToolResult("t", ok=False)]

    def test_mode_and_options_are_set_before_the_prompt(self, driver):
        session = {
            "modes": {"currentModeId": "a", "availableModes": [{"id": "a", "name": "A"}, {"id": "b", "name": "B"}]},
            "configOptions": [
                {"id": "model", "name": "M", "category": "model", "type": "select", "currentValue": "x", "options": [{"value": "x", "name": "X"}]},
                {"id": "fast", "name": "F", "type": "boolean", "currentValue": False},
            ],
        }  # fmt: skip
        play = f"""
            greet(session={session!r})
            m = expect("session/set_mode"); send(id=m["id"], result={{}})
            for _ in range(2):
                m = expect("session/set_config_option"); send(id=m["id"], result={{"configOptions": []}})
            prompt(); open("notes", "w").write(repr([each["params"] for each in heard[2:5]])); answer()
            """
        events = driver.play(play, mode="b", options={"model": "y", "fast": True})
        assert events[0] == Started("s-1", "x")
        assert isinstance(events[-1], Finished)
        assert eval(notes(driver)) == [
            {"sessionId": "s-1", "modeId": "b"},
            {"sessionId": "s-1", "configId": "model", "value": "y"},
            {"sessionId": "s-1", "configId": "fast", "value": True, "type": "boolean"},
        ]

    @pytest.mark.parametrize(
        ("settings", "words"),
        [({"mode": "yolo"}, "no mode 'yolo'"), ({"options": {"model": "m"}}, "no option 'model'")],
    )
    def test_mode_or_option_that_is_not_offered(self, driver, settings, words):
        (_, last) = driver.play("greet(); take()", **settings)
        assert last.kind is FailureKind.SPAWN
        assert words in last.message

    def test_login_by_a_method_it_offers(self, driver):
        play = """
            m = expect("initialize"); send(id=m["id"], result={"protocolVersion": 1})
            m = expect("authenticate"); open("notes", "w").write(m["params"]["methodId"]); send(id=m["id"], result={})
            m = expect("session/new"); send(id=m["id"], result={"sessionId": "s"})
            prompt(); answer()
            """
        assert isinstance(driver.play(play, auth="key")[-1], Finished)
        assert notes(driver) == "key"

    def test_attempts_do_not_mix(self, driver):
        play = "greet(); prompt(); say('once'); answer()"
        assert [driver.play(play)[-1] for _ in range(2)] == [Finished("once")] * 2


ASKS = """
greet(); prompt()
open("notes", "w").write(permission(kind="execute", title="rm -rf x", rawInput={"command": "rm -rf x"}))
say("Done."); answer()
"""


class TestPermission:
    def test_without_policies_it_is_given_once(self, driver):
        events = driver.play(ASKS)
        assert notes(driver) == "once"
        assert of(ToolCall, events) == [ToolCall("t-1", "execute", {"title": "rm -rf x", "command": "rm -rf x"})]

    def test_unless_the_settings_say_no(self, driver):
        events = driver.play(ASKS, permissions="deny")
        assert notes(driver) == "no"
        assert of(ToolResult, events) == [
            ToolResult("t-1", ok=False, text="denied: the setting `permissions` is `deny`")
        ]

    @pytest.mark.parametrize(("answers", "chosen"), [(allow, "once"), (deny, "no")])
    def test_policies_decide(self, driver, answers, chosen):
        asked = []
        driver.answers = lambda each: (asked.append(each.call), answers(each))
        events = driver.play(ASKS)
        assert notes(driver) == chosen
        assert asked == of(ToolCall, events)
        assert [each.text for each in of(ToolResult, events)] == (["denied: not that"] if chosen == "no" else [])

    def test_nothing_is_allowed_for_good_while_policies_watch(self, driver):
        play = ASKS.replace("permission(", "permission(options=OPTIONS[:1], ")
        driver.answers = allow
        events = driver.play(play)
        assert notes(driver) == "cancelled"
        assert "for good" in of(ToolResult, events)[0].text
        driver.answers = None
        driver.play(play)
        assert notes(driver) == "for-good"

    def test_what_cannot_be_asked_is_denied(self, driver):
        def lost(asked):
            raise OSError("the line is cut")

        driver.answers = lost
        events = driver.play(ASKS)
        assert notes(driver) == "no"
        assert "could not be asked" in of(ToolResult, events)[0].text

    def test_what_an_earlier_update_said_is_judged(self, driver):
        calls = []
        driver.answers = lambda each: (calls.append(each.call), allow(each))
        driver.play(
            """
            greet(); prompt()
            update("tool_call", toolCallId="t-1", title="Edit", kind="edit", rawInput={"file_path": "/etc/passwd"}, _meta={"claudeCode": {"toolName": "Edit"}})
            permission(); answer()
            """
        )
        assert calls == [ToolCall("t-1", "Edit", {"title": "a tool", "file_path": "/etc/passwd"})]

    def test_without_arguments_what_is_seen_of_them_is_judged(self, driver):
        """As Gemini CLI asks."""
        calls = []
        driver.answers = lambda each: (calls.append(each.call), allow(each))
        driver.play(
            """
            greet(); prompt()
            permission(toolCallId="write_file__write_file_17_0", kind="edit", title="Writing", locations=[{"path": "/w/n"}],
                content=[{"type": "diff", "path": "/w/n", "oldText": "", "newText": "abc"}])
            permission(toolCallId="t-2", kind="execute", title="rm -rf /"); answer()
            """,
            known=KNOWN["gemini"],
        )
        assert calls[0].name == "write_file"
        assert calls[0].input == {
            "title": "Writing",
            "changes": [{"path": "/w/n", "content": "abc"}],
            "paths": ["/w/n"],
        }
        assert (calls[1].name, calls[1].input["command"]) == ("execute", "rm -rf /")

    @pytest.mark.parametrize("name", ["Bash", None])
    def test_a_tool_that_is_named_after_the_question_or_never(self, driver, monkeypatch, name):
        """As claude-agent-acp does now and then."""
        monkeypatch.setattr(conversation, "NAMING", 20.0 if name else 0.3)
        calls = []
        driver.answers = lambda each: (calls.append(each.call), allow(each))
        meta = "_meta={'claudeCode': {'toolName': 'Bash'}}"
        later = f"update('tool_call', toolCallId='t-1', title='Terminal', kind='execute', {meta})" if name else ""
        driver.play(
            f"""
            greet(); prompt()
            send(id="q", method="session/request_permission", params={{"sessionId": "s-1", "options": OPTIONS,
                "toolCall": {{"toolCallId": "t-1", "title": "ls", "kind": "execute", "rawInput": {{"command": "ls"}}}}}})
            import time; time.sleep(0.3)
            {later}
            open("notes", "w").write(take()["result"]["outcome"]["optionId"]); answer()
            """,
            known=Known(announces=True),
        )
        assert notes(driver) == ("once" if name else "no")
        assert [call.name for call in calls] == [name or "execute"]

    def test_a_question_that_is_none_is_refused(self, driver):
        driver.answers = allow
        play = """
            greet(); prompt()
            answers = [ask("session/request_permission", options=[]), ask("no/such_method"), ask("terminal/create", command="ls")]
            open("notes", "w").write(repr([each["error"]["code"] for each in answers])); answer()
            """
        assert isinstance(driver.play(play)[-1], Finished)
        assert notes(driver) == "[-32602, -32601, -32601]"


READS_AND_WRITES = """
greet(); prompt()
import os
here = os.getcwd()
def write(path, text="new"):
    return ask("fs/write_text_file", path=path, content=text)
def read(path, **more):
    return ask("fs/read_text_file", path=path, **more)
def kept(path):
    return open(path).read()
"""


class TestFiles:
    @pytest.fixture
    def place(self, driver):
        out = driver.tmp / "out"
        for folder in (driver.workspace / "dir", driver.workspace / ".agent" / "runs", out):
            folder.mkdir(parents=True)
        (out / "secret").write_text("secret")
        (driver.workspace / "link").symlink_to(out)
        (driver.workspace / "file-link").symlink_to(out / "secret")
        (driver.workspace / "text").write_text("one\ntwo\nthree\n")
        (driver.workspace / ".agent" / "runs" / "state").write_text("ours")
        os.mkfifo(driver.workspace / "pipe")
        return driver

    def said(self, driver, play, **settings):
        play = READS_AND_WRITES + f"open('notes', 'w').write(json.dumps([{play}])); answer()"
        events = driver.play(play, **{"files": True, **settings})
        assert isinstance(events[-1], Finished), events
        return json.loads(notes(driver)), events

    def test_they_are_not_offered_unless_it_is_set(self, place):
        play = "heard[0]['params']['clientCapabilities']['fs'], write(here + '/new')"
        (offered, answer), _ = self.said(place, play, files=False)
        assert not any(offered.values())
        assert answer["error"]["code"] == -32601
        assert not (place.workspace / "new").exists()
        (offered, _), _ = self.said(place, play)
        assert offered == {"readTextFile": True, "writeTextFile": True}

    def test_reading_and_writing_in_the_workspace(self, place):
        play = "read(here + '/text', line=2, limit=1), read(here + '/text'), write(here + '/a/b/new', 'x\\n'), write(here + '/text', 'short')"
        (part, whole, *_), events = self.said(place, play)
        assert part["result"]["content"] == "two\n"
        assert whole["result"]["content"] == "one\ntwo\nthree\n"
        assert (place.workspace / "a/b/new").read_text() == "x\n"
        assert (place.workspace / "text").read_text() == "short"
        assert [event.name for event in of(ToolCall, events)] == ["read_text_file"] * 2 + ["write_text_file"] * 2
        assert all(event.ok for event in of(ToolResult, events))

    @pytest.mark.parametrize(
        "path",
        [
            "here + '/../out/secret'", "here + '/dir/../../out/secret'", "here + '/link/secret'", "here + '/file-link'",
            "'/etc/hostname'", "'text'", "here + '/.agent/runs/state'", "here", "here + '/dir'", "here + '/pipe'", "here + '/x\\0y'",
            "os.path.dirname(here) + '/workspace-2/x'", "''",
        ],
    )  # fmt: skip
    def test_nothing_else_is_touched(self, place, path):
        answers, events = self.said(place, f"read({path}), write({path})")
        assert [answer["error"]["code"] for answer in answers] == [-32602] * 2
        assert not any(event.ok for event in of(ToolResult, events))
        assert (place.tmp / "out" / "secret").read_text() == "secret"
        assert (place.workspace / ".agent/runs/state").read_text() == "ours"
        assert not (place.tmp / "workspace-2").exists()

    def test_no_such_file(self, place):
        assert self.said(place, "read(here + '/nothing')")[0][0]["error"]["code"] == -32002

    def test_policies_are_asked_first(self, place):
        place.answers = deny
        (answer,), events = self.said(place, "write(here + '/text', 'spoilt')")
        assert "not that" in answer["error"]["message"]
        assert (place.workspace / "text").read_text().startswith("one")
        assert of(ToolResult, events)[0].ok is False

    def test_a_file_that_is_too_large_is_not_read(self, place):
        with open(place.workspace / "text", "r+b") as file:
            file.truncate(11 << 20)
        assert "larger than" in self.said(place, "read(here + '/text')")[0][0]["error"]["message"]


class TestFaults:
    def only(self, driver, play, **settings):
        events = driver.play(play, **settings)
        assert isinstance(events[-1], Failed), events
        return events[-1]

    def test_not_installed(self, driver):
        (failed,) = driver.run("acp", ANY, AcpSettings(command="no-such-agent --acp"), "x", {}, None)
        assert (failed.kind, "no-such-agent" in failed.message) == (FailureKind.SPAWN, True)

    def test_other_version_of_the_protocol(self, driver):
        failed = self.only(driver, "greet(version=7)")
        assert failed.kind is FailureKind.SPAWN
        assert "version 7" in failed.message

    def test_login_is_needed(self, driver):
        failed = self.only(
            driver,
            """
            m = expect("initialize"); send(id=m["id"], result={"protocolVersion": 1, "authMethods": [{"id": "key", "name": "K"}]})
            m = expect("session/new"); send(id=m["id"], error={"code": -32000, "message": "Authentication required"}); take()
            """,
        )
        assert failed.kind is FailureKind.AUTH
        assert "it offers: key" in failed.message

    @pytest.mark.parametrize(
        ("error", "kind"),
        [
            ((401, '{"error":{"code":401}}'), FailureKind.AUTH),
            ((403, "forbidden"), FailureKind.AUTH),
            ((429, "quota"), FailureKind.USAGE_LIMIT),
            ((503, "overloaded"), FailureKind.OVERLOADED),
            ((-32000, "log in"), FailureKind.AUTH),
            ((-32603, "Internal error: no way", {"errorKind": "authentication_failed"}), FailureKind.AUTH),
            ((-32603, "Internal error: API Error: 529 x", {"errorKind": "server_error"}), FailureKind.OVERLOADED),
            ((-32603, "Internal error: Unable to connect to API (ConnectionRefused)", {"errorKind": "server_error"}), FailureKind.NETWORK),
            ((-32603, "Internal error", {"message": "unexpected status 401 Unauthorized"}), FailureKind.AUTH),
            ((-32603, "Internal error", {"details": "connect ECONNREFUSED 127.0.0.1:9"}), FailureKind.NETWORK),
            ((-32603, "Internal error", {"statusCode": 500}), FailureKind.OVERLOADED),
            ((-32603, "Internal error", "odd"), FailureKind.AGENT),
            ((-32603, "wrote 429 lines", None), FailureKind.AGENT),
        ],
    )  # fmt: skip
    def test_errors_of_the_turn(self, driver, error, kind):
        assert failure(*error[:2], error[2] if len(error) > 2 else None).kind is kind
        assert self.only(driver, f"greet(); prompt(); fail(*{error!r}); take()").kind is kind

    @pytest.mark.parametrize("reason", ["max_tokens", "max_turn_requests", "refusal", "cancelled"])
    def test_turn_that_ends_early(self, driver, reason):
        failed = self.only(driver, f"greet(); prompt(); say('LOOP_COMPLETE'); answer({reason!r})")
        assert (failed.kind, reason in failed.message) == (FailureKind.AGENT, True)

    def test_error_that_comes_as_the_answer(self, driver):
        import re

        known = Known(error_text=re.compile(r"Error: (.+)"))
        failed = self.only(
            driver, "greet(); prompt(); say('Error: Authentication failed (HTTP 401).'); answer()", known=known
        )
        assert failed.kind is FailureKind.AUTH
        figures = "usage={'inputTokens': 1, 'outputTokens': 1, 'totalTokens': 2}"
        fine = driver.play(f"greet(); prompt(); say('Error: none left'); answer({figures})", known=known)
        assert isinstance(fine[-1], Finished)

    @pytest.mark.parametrize("when", ["", "greet()", "greet(); prompt(); say('half')"])
    def test_crash(self, driver, when):
        failed = self.only(driver, f"{when}\nsys.stderr.write('the reason\\n'); sys.exit(7)")
        assert failed.kind is FailureKind.CRASH
        assert "exit code 7: the reason" in failed.message

    def test_greeting_that_is_never_answered(self, driver, monkeypatch):
        monkeypatch.setattr(conversation, "GREETING", 0.5)
        failed = self.only(driver, "import time; time.sleep(60)")
        assert failed.kind is FailureKind.TIMEOUT
        assert driver.host.job.ended

    def test_garbage_between_messages_is_passed_over(self, driver):
        events = driver.play(
            r"""
            print("Welcome!\n\n{]\n[]\n42\n" + "[" * 100_000, flush=True)
            os = __import__("os"); os.write(1, b"\xff\xfe\x00\n")
            greet(); prompt()
            for odd in ([], {"id": []}, {"id": 5}, {"id": 5, "error": "text"}, {"method": 7}, {"method": "session/update"},
                        {"method": "session/update", "params": []}, {"method": "session/update", "params": {"sessionId": "s", "update": {"sessionUpdate": "new kind"}}},
                        {"id": {"a": 1}, "result": 1}, {"id": 10**9, "result": 1}, {"method": "_vendor/notice", "params": {}}):
                print(json.dumps(odd), flush=True)
            say("Done."); answer()
            """
        )
        assert events == [Started("s-1"), Text("Done."), Finished("Done.")]

    def test_answers_of_the_wrong_shape(self, driver):
        assert self.only(driver, "greet(); prompt(); answer('tea_time'); take()").kind is FailureKind.INVALID_OUTPUT
        assert (
            self.only(driver, "m = take(); send(id=m['id'], result='hello'); take()").kind is FailureKind.INVALID_OUTPUT
        )

    def test_half_a_line_at_the_end_is_a_crash(self, driver):
        play = 'greet(); prompt(); sys.stdout.write(\'{"jsonrpc": "2.0", "id": 3, "resu\'); sys.stdout.flush(); sys.exit(0)'
        assert self.only(driver, play).kind is FailureKind.CRASH

    def test_line_of_5_mb_is_whole(self, driver):
        events = driver.play("greet(); prompt(); say('x' * 5_000_000 + '\\nLOOP_COMPLETE'); answer()")
        assert len(events[-1].text) == 5_000_014

    def test_line_over_the_limit(self, driver):
        failed = self.only(driver, f"greet(); prompt(); say('x' * {LINE_LIMIT}); answer(); take()")
        assert failed.kind is FailureKind.INVALID_OUTPUT
        assert "MiB" in failed.message

    def test_flood_of_text_keeps_its_end(self, driver, monkeypatch):
        monkeypatch.setattr(said, "LONGEST", 10_000)
        events = driver.play(
            "greet(); prompt()\nfor n in range(5000): say(f'{n:06} ' * 10)\nsay('\\nLOOP_COMPLETE'); answer()"
        )
        assert events[-1].text.endswith("004999 \nLOOP_COMPLETE")
        assert len(events[-1].text) < 100_000

    def test_lingering_process_is_ended(self, driver):
        began = time.monotonic()
        events = driver.play(
            "import os, signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ngreet(); prompt(); say('Done.'); answer()\n"
            "if os.fork() == 0:\n    os.setsid(); time.sleep(60)\ntime.sleep(60)"
        )
        assert events[-1] == Finished("Done.")
        assert driver.host.job.ended
        assert driver.host.job.leftovers >= 1
        assert time.monotonic() - began < 60

    def test_agent_that_leaves_when_its_input_ends_is_not_signalled(self, driver):
        driver.play("greet(); prompt(); answer()\nsys.stdin.read(); open('notes', 'w').write('left')")
        assert notes(driver) == "left"

    def test_stopped_it_is_told_to_cancel_and_may_say_what_it_spent(self, driver):
        play = """
            greet(); prompt(); say("I begin.")
            update("tool_call", toolCallId="t", title="x", status="in_progress")
            open("notes", "w").write(take()["method"])
            update("usage_update", used=9, size=100, cost={"amount": 0.25, "currency": "USD"})
            answer("cancelled"); take()
            """
        events = driver.play(play, known=COUNTS, stop_when=lambda event: isinstance(event, ToolCall))
        assert notes(driver) == "session/cancel"
        assert events[-1] == Failed(FailureKind.AGENT, "the turn ended early: cancelled", None, None, 0.25)
        assert driver.host.job.leftovers == 0

    def test_flood_of_requests_is_not_read_on_while_many_are_open(self, driver, monkeypatch):
        monkeypatch.setattr(conversation, "WAITING", 10)
        waiting, most = [], []

        def later(asked):
            waiting.append(asked)
            most.append(len(waiting))
            if len(waiting) == 1:
                asyncio.get_running_loop().call_later(0.3, release)

        def release():
            while waiting:
                allow(waiting.pop())

        driver.answers = later
        events = driver.play(
            """
            greet(); prompt()
            for n in range(100):
                tool = {"toolCallId": f"t{n}", "title": "x"}
                send(id=n, method="session/request_permission", params={"sessionId": "s", "toolCall": tool, "options": OPTIONS})
            for n in range(100):
                take()
            answer()
            """
        )
        assert isinstance(events[-1], Finished)
        assert len(of(ToolCall, events)) == len(most) == 100
        assert max(most) <= 12


class TestFigures:
    @pytest.mark.parametrize(
        ("usage", "tokens"),
        [
            ({"inputTokens": 400, "outputTokens": 100, "cachedReadTokens": 80, "cachedWriteTokens": 40, "totalTokens": 620}, Tokens(400, 100, 80, 40)),
            ({"inputTokens": 480, "outputTokens": 100, "cachedReadTokens": 80, "totalTokens": 580}, Tokens(400, 100, 80, 0)),
            ({"inputTokens": 100, "outputTokens": 10, "thoughtTokens": 5, "totalTokens": 115}, Tokens(100, 15, 0, 0)),
            ({"inputTokens": 100, "outputTokens": 10, "thoughtTokens": 5, "totalTokens": 110}, Tokens(100, 10, 0, 0)),
        ],
    )  # fmt: skip
    def test_the_total_tells_what_counts_what(self, usage, tokens):
        from acp import schema

        assert said.tokens_of(schema.Usage.model_validate(usage)) == tokens
        assert tokens.total == usage["totalTokens"]

    def test_figures_of_gemini(self):
        meta = {"quota": {"token_count": {"input_tokens": 480, "output_tokens": 100}}}
        assert said.tokens_in_meta(meta) == Tokens(480, 100)
        assert said.tokens_in_meta(None) is None
        assert said.tokens_in_meta({"quota": {"token_count": {"input_tokens": "many"}}}) is None


class TestPlugin:
    def test_providers_have_agents_that_say_what_is_missing(self, tmp_path):
        from importlib import import_module

        providers = ralph_agents()
        assert [each.name for each in providers] == ["acp", *(f"acp-{name}" for name in KNOWN)]
        for provider in providers:
            module, _, name = provider.factory.partition(":")
            agent = getattr(import_module(module), name)(None, Context(tmp_path, tmp_path, {"PATH": str(tmp_path)}))
            assert isinstance(agent, AcpAgent)
            assert agent.name == provider.name
            assert f"agents.{provider.name}.command" in agent.probe().missing[0]

    def test_a_program_that_is_there_is_usable(self, tmp_path):
        program = tmp_path / "gemini"
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
        agent = AcpAgent("acp-gemini", KNOWN["gemini"], None, Context(tmp_path, tmp_path, {"PATH": str(tmp_path)}))
        assert agent.probe().usable
        assert agent.probe().executable == str(program)

    def test_asks_is_what_is_known_or_set(self, tmp_path):
        for setting, able in ((None, {"tools", "asks"}), (False, {"tools"}), (True, {"tools", "asks"})):
            agent = AcpAgent("acp", ANY, AcpSettings(asks=setting), Context(tmp_path, tmp_path, {}))
            assert agent.capabilities({"tools", "asks"}) == able

    def test_settings(self):
        assert AcpSettings(command="goose acp --name 'a b'").command == ("goose", "acp", "--name", "a b")
        with pytest.raises(ValidationError):
            AcpSettings(commnd="x")

    def test_listing_imports_nothing_heavy(self):
        import subprocess
        import sys

        code = "import ralph_acp.plugin, sys; print(sorted({'acp', 'pydantic', 'asyncio'} & set(sys.modules)))"
        assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
        assert not Path("acp").exists()
