"""The log: the records of a run, and what libraries say, for those who collect logs."""

import json
import re
import socket
import stat

import pytest

DONE = "cat > /dev/null; echo LOOP_COMPLETE"
TALKING = """
import logging
from ralph_core import *
class A(Agent):
    def probe(self): return Probe()
    async def run(self, request):
        logging.getLogger("acme.wire").warning("token %s is refused", "s3cret-s3cret")
        logging.getLogger("acme.wire").info("chatter")
        try:
            raise ValueError("odd")
        except ValueError:
            logging.getLogger("acme.wire").exception("it broke")
        yield Finished("LOOP_COMPLETE")
@hookimpl
def ralph_agents(): return [Provider("acme", "", __name__ + ":A")]
"""
RAISING = """
from ralph_core import *
@hookimpl
def ralph_prompt_sections(state): raise RuntimeError("no sections today")
"""


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def log(ralph):
    return ralph.root / "logs" / "ralph.log"


class TestTheFile:
    def test_has_every_field_of_every_record(self, ralph, log):
        done = ralph.run(ralph.agent("echo one", "echo LOOP_COMPLETE"), "--log-file", log, env={"LOG_FORMAT": "json"})
        assert done.returncode == 0, done.stderr
        found = lines(log)
        account = [record for record in ralph.records() if record["severity"] != "debug"]
        assert [(line["seq"], line["timestamp"], line["logger"]) for line in found] == [
            (record["seq"], record["time"], f"ralph.{record['type']}") for record in account
        ]
        wanted = {"timestamp", "level", "logger", "message", "module", "function", "line", "run", "iteration", "trace_id", "span_id"}  # fmt: skip
        assert all(wanted <= line.keys() for line in found)
        assert {line["run"] for line in found} == {ralph.folder.name}
        begun = [line for line in found if line["logger"] == "ralph.iteration.started"]
        assert [line["iteration"] for line in begun] == [1, 2]
        assert {line["trace_id"] for line in begun} == {ralph.spans()[0]["trace_id"]}
        assert {(line["module"], line["level"]) for line in begun} == {("loop", "INFO")}
        assert "─── iteration 1" in done.stderr

    def test_is_text_unless_it_is_to_be_json(self, ralph, log):
        ralph.run(DONE, "--log-file", log)
        pattern = r"\d{4}-\d\d-\d\dT[\d:.]+Z INFO    ralph\.run\.started \[[\w-]+ 0\] "
        assert re.search(f"^{pattern}", log.read_text(), re.MULTILINE)

    def test_is_private_and_appended_to(self, ralph, log):
        for _ in range(2):
            ralph.run(DONE, "--log-file", log)
        assert stat.S_IMODE(log.stat().st_mode) == 0o600
        assert log.read_text().count(" ralph.run.started ") == 2

    def test_is_rotated(self, ralph, log):
        ralph.settings(f"monitoring: {{log_file: {log}, log_max_size: 1500, log_max_files: 3}}")
        ralph.run("cat > /dev/null; echo more", "-i", "6")
        assert sorted(path.name for path in log.parent.iterdir()) == ["ralph.log", "ralph.log.1", "ralph.log.2"]
        assert all(path.stat().st_size <= 1500 for path in log.parent.iterdir())
        assert " ralph.run.finished " in log.read_text()

    def test_holds_the_exception_of_what_failed(self, ralph, log):
        ralph.plugin("acme", RAISING)
        assert ralph.run(DONE, "--log-file", log, env={"LOG_FORMAT": "json"}).returncode == 1
        failed = [line for line in lines(log) if "exception" in line]
        assert failed
        assert "RuntimeError: no sections today" in failed[-1]["exception"]
        assert failed[-1]["exception"].startswith("Traceback ")

    def test_has_what_libraries_say_without_its_secrets(self, ralph, log):
        ralph.plugin("acme", TALKING)
        env = {"LOG_FORMAT": "json", "ACME_TOKEN": "s3cret-s3cret"}
        done = ralph("run", "-a", "acme", "-p", "x", "--log-file", log, env=env)
        assert done.returncode == 0, done.stderr
        said = [line for line in lines(log) if line["logger"] == "acme.wire"]
        assert [line["message"] for line in said] == ["token [redacted] is refused", "chatter", "it broke"]
        assert [line["level"] for line in said] == ["WARNING", "INFO", "ERROR"]
        assert "ValueError: odd" in said[-1]["exception"]
        assert {(line["run"], line["iteration"], line["function"]) for line in said} == {(ralph.folder.name, 1, "run")}
        assert all(line["trace_id"] for line in said)

    def test_a_line_is_a_line_whatever_an_agent_says(self, ralph, log):
        agent = ralph.agent(r"printf 'a\033[31mb\r2026 ERROR ralph.faked\n\377\nLOOP_COMPLETE\n'")
        assert ralph.run(agent, "--log-file", log, "--debug").returncode == 0
        text = log.read_text()
        assert "\x1b" not in text
        assert r"a\x1b[31mb\r2026 ERROR ralph.faked" in text
        assert all(re.match(r"\d{4}-\d\d-\d\dT", line) for line in text.splitlines())

    def test_that_is_full_does_not_end_the_run(self, ralph):
        done = ralph.run(DONE, "--log-file", "/dev/full")
        assert done.returncode == 0, done.stderr
        assert re.search(r"\d+ lines of the log could not be written: .*No space left", done.stdout)
        assert "Traceback" not in done.stderr

    def test_that_can_not_be_had_is_a_mistake(self, ralph):
        ralph.refuses(*ralph.flags(DONE), "--log-file", "README/x.log", says=["README/x.log can't be written", "--log-file"])  # fmt: skip


class TestTheLevel:
    @pytest.mark.parametrize(
        ("flags", "env", "least"),
        [
            ([], {}, "INFO"),
            (["--log-level", "WARNING"], {}, "WARNING"),
            (["--log-level", "warning"], {"RALPH_LOG_LEVEL": "DEBUG"}, "WARNING"),
            (["--debug"], {}, "DEBUG"),
            ([], {"LOG_LEVEL": "WARNING"}, "WARNING"),
            ([], {"LOG_LEVEL": "WARNING", "RALPH_LOG_LEVEL": "DEBUG"}, "DEBUG"),
        ],
    )
    def test_is_the_least_that_is_written(self, ralph, log, flags, env, least):
        ralph.run(DONE, "--log-file", log, *flags, env={"LOG_FORMAT": "json", **env})
        levels = {line["level"] for line in lines(log)}
        order = ["DEBUG", "INFO", "WARNING"]
        assert levels == set(order[order.index(least) :])

    def test_of_the_file_of_settings(self, ralph, log):
        ralph.settings(f"monitoring: {{log_level: ERROR, log_file: {log}}}")
        ralph.run(DONE)
        assert log.read_text() == ""

    @pytest.mark.parametrize(
        ("flags", "env", "says"),
        [
            (["--log-level", "loud"], {}, ["--log-level", "'loud'"]),
            ([], {"RALPH_LOG_LEVEL": "loud"}, ["environment variable RALPH_LOG_LEVEL", "'loud'"]),
            ([], {"LOG_FORMAT": "xml"}, ["environment variable LOG_FORMAT", "'xml'"]),
        ],
    )
    def test_that_is_none_is_a_mistake(self, ralph, flags, env, says):
        ralph.refuses(*ralph.flags(DONE), *flags, env=env, says=says)


class TestStandardError:
    """Where it goes when it is asked for, and nothing is said of where to."""

    def test_has_the_log_in_the_place_of_the_display(self, ralph):
        done = ralph.run(DONE, env={"LOG_FORMAT": "json"})
        found = [json.loads(line) for line in done.stderr.splitlines()]
        assert found[-1]["logger"] == "ralph.run.finished"
        assert done.stdout.startswith("\n✓ completed")

    def test_has_the_display_alone_otherwise(self, ralph):
        assert " ralph.run" not in ralph.run(DONE).stderr

    def test_need_not_be_read(self, ralph):
        agent = ralph.agent("sleep 0.3; echo more", "echo LOOP_COMPLETE")
        process = ralph.begin(agent, "--debug")
        process.stderr.close()
        assert process.wait(timeout=30) == 0
        assert agent.calls == 2


class TestSyslog:
    @pytest.mark.parametrize("kind", ["udp", "path"])
    def test_gets_each_line(self, ralph, kind):
        family = socket.AF_INET if kind == "udp" else socket.AF_UNIX
        with socket.socket(family, socket.SOCK_DGRAM) as server:
            server.settimeout(20)
            server.bind(("127.0.0.1", 0) if kind == "udp" else str(ralph.root / "s"))
            address = f"127.0.0.1:{server.getsockname()[1]}" if kind == "udp" else str(ralph.root / "s")
            ralph.settings(f"monitoring: {{log_syslog: '{address}'}}")
            agent = ralph.agent("head -c 200000 /dev/zero | tr '\\0' x; echo; echo LOOP_COMPLETE")
            process = ralph.begin(agent, "--debug")
            got = []
            while not got or b" ralph.run.finished " not in got[-1]:
                got.append(server.recv(100_000))
            done = ralph.end(process)
        assert done.returncode == 0, done.stderr
        assert "could not be written" not in done.stdout
        assert got[0].startswith(b"<15>ralph[") or got[0].startswith(b"<14>ralph[")
        assert max(map(len, got)) < 10_000

    def test_that_is_not_there_is_a_mistake(self, ralph):
        ralph.settings("monitoring: {log_syslog: /nowhere/socket}")
        ralph.refuses(*ralph.flags(DONE), says=["monitoring.log_syslog: /nowhere/socket can't be had"])


def test_nothing_is_imported_for_what_is_not_asked_for(ralph):
    done = ralph.run(DONE, env={"PYTHONPROFILEIMPORTTIME": "1"})
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "ralph_core.sitting" in imported
    unasked = ("logs", "notice", "mcpservers", "cli.machine", "cli.pidfile")
    assert not imported & {"dotenv", "mcp", "logging.handlers", *(f"ralph_core.{name}" for name in unasked)}
