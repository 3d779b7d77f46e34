"""`ralph trace`: the waterfall in the terminal, as a page in a genuine browser, and for programs."""

import json
import os
import pty
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

DONE = "cat > /dev/null; echo LOOP_COMPLETE"
EVIL = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\"> \x1b[31m&amp;"
SECRET = "sk-very-secret-0123456789"


def say(event):
    """The step of an agent that reports an event."""
    return f"printf '%s\\n' {shlex.quote(json.dumps(event))}"


def tool(number, name, ok=True):
    return "; ".join([say({"type": "tool_call", "id": str(number), "name": name}), say({"type": "tool_result", "id": str(number), "ok": ok})])  # fmt: skip


FINISHED = say({"type": "finished", "text": f"LOOP {EVIL}"})
COMPLETE = say({"type": "finished", "text": f"{EVIL}\nLOOP_COMPLETE"})
FAILED = say({"type": "failed", "kind": "agent", "message": f"{EVIL} {SECRET}"})
USED = say({"type": "usage", "message_id": "m", "model": EVIL, "tokens": {"input": 100, "output": 20, "cache_read": 7000}, "cost": 0.25})  # fmt: skip


@pytest.fixture(scope="module")
def run(lasting_ralph):
    """A run with all that there may be in one: tools, failures, gates that fail and pass, and hostile words everywhere."""
    ralph = lasting_ralph
    gate = "echo '<script>document.title=1</script>' $ACME_API_KEY; test -e done"
    ralph.settings(f"agents: {{command: {{output: events}}}}\ngates: [{json.dumps(gate)}]\ncheckpoint_interval: 1\n")
    many = "; ".join(tool(number, "Grep") for number in range(20))
    agent = ralph.agent(
        f"echo one > one.txt; {USED}; {tool(100, EVIL)}; {COMPLETE}",
        f"{many}; {tool(101, 'Edit', ok=False)}; {FAILED}",
        f"touch done; echo '<b>' > '<i>two.txt'; {USED}; {COMPLETE}",
    )
    done = ralph.run(agent, task=f"Do it {EVIL.encode('ascii', 'ignore').decode()}", env={"ACME_API_KEY": SECRET})
    assert done.returncode == 0, done.stderr
    return ralph


@pytest.fixture
def chromium(tmp_path):
    """Opens a page in a genuine browser: gives the document as it then is, and takes its picture.

    With RALPH_TEST_PICTURES=FOLDER the picture is left there, for a person to look at.
    """
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if not program:
        pytest.skip("no Chromium (Debian package chromium)")

    def look(page, what):
        command = [
            program,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
        ]
        command += [f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1280,1600", what, page.as_uri()]
        done = subprocess.run(command, capture_output=True, timeout=120, cwd=tmp_path, env={**os.environ, "HOME": str(tmp_path)})  # fmt: skip
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        return done.stdout.decode()

    def open_(page):
        picture = Path(os.environ.get("RALPH_TEST_PICTURES") or page.parent) / f"{page.stem}.png"
        look(page, f"--screenshot={picture}")
        assert picture.read_bytes().startswith(b"\x89PNG")
        assert picture.stat().st_size > 20_000, "an empty page is a small picture"
        return look(page, "--dump-dom")

    return open_


def check_page(text):
    """It stands by itself, and what others wrote in it is text."""
    assert text.startswith("<!doctype html>")
    assert "default-src 'none'" in text
    assert not re.search(r"<script|<img|<iframe|<link|@import|url\(", text)
    assert not re.search(r"(?:src|href)=.?(?:https?:|//|javascript:)", text)
    assert SECRET not in text
    assert "\x1b" not in text
    assert "&lt;script&gt;" in text


class TestInTheTerminal:
    def test_is_a_tree_with_bars(self, run):
        done = run("trace")
        assert (done.returncode, done.stderr) == (0, "")
        lines = done.stdout.splitlines()
        assert lines[0].startswith(f"run {run.folder.name} · completed · ")
        shown = "\n".join(line[:30] for line in lines)
        for name in ("run ", "├ iteration 1", "│ ├ command", "├ iteration 2", "└ gate echo", "│ │ └ "):
            assert name in shown, shown
        assert all("█" in line or any(part in line for part in "▏▎▍▌▋▊▉") for line in lines[2:-1])
        assert "$0.25" in done.stdout

    def test_is_plain_and_narrow_when_piped(self, run):
        done = run("trace")
        assert "\x1b" not in done.stdout
        assert max(map(len, done.stdout.splitlines())) <= 80
        assert SECRET not in done.stdout

    @pytest.mark.parametrize("columns", ["60", "100", "200", "nonsense", "1"])
    def test_is_as_wide_as_the_terminal(self, run, columns):
        done = run("trace", env={"COLUMNS": columns})
        widest = max(map(len, done.stdout.splitlines()))
        assert widest <= {"60": 60, "100": 100, "200": 160}.get(columns, 80)

    def test_characters_that_a_terminal_has_not_are_not_needed(self, run):
        done = run("trace", env={"PYTHONIOENCODING": "ascii"})
        assert "#" in done.stdout
        assert "|-iteration 1" in done.stdout

    def test_tools_are_summed_up_and_calls_left_out(self, run):
        few, all_ = run("trace").stdout, run("trace", "--all").stdout
        assert "more: Grep" in few
        assert "judge (" not in few
        assert few.count("Grep") < 15
        assert all_.count("Grep") == 20
        assert "judge (iteration)" in all_
        assert re.search(r"  ├ iterations  .* allow", all_)

    def test_a_failed_tool_is_never_summed_up(self, run):
        assert re.search(r"Edit .* failed", run("trace").stdout)

    @pytest.mark.parametrize(("env", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
    def test_colours_on_a_terminal_alone(self, run, env, coloured):
        assert ("\x1b[" in self.on_a_terminal(run, env)) == coloured

    @staticmethod
    def on_a_terminal(run, env):
        ours, theirs = pty.openpty()
        command = [sys.executable, "-m", "ralph_core", "trace"]
        process = subprocess.Popen(command, stdout=theirs, stderr=theirs, stdin=theirs, cwd=run.workspace, env=run.env | {"TERM": "xterm"} | env)  # fmt: skip
        os.close(theirs)
        said = b""
        while select.select([ours], [], [], 30)[0]:
            try:
                said += os.read(ours, 65536)
            except OSError:
                break
        os.close(ours)
        assert process.wait(30) == 0
        return said.decode()

    def test_json_is_for_programs(self, run):
        found = json.loads(run("trace", "--json").stdout)
        assert {span["span_id"] for span in found} == {span["span_id"] for span in run.spans()}
        (top,) = [span for span in found if span["name"] == "ralph.run"]
        assert top["ended"]
        assert top["seconds"] > 0

    def test_a_run_that_was_killed_is_drawn_up_to_the_kill(self, ralph):
        ralph.settings("agents: {command: {output: events}}")
        agent = ralph.agent(say({"type": "tool_call", "id": "1", "name": "Bash"}) + "; sleep 60", FINISHED.replace("LOOP", "LOOP_COMPLETE"))  # fmt: skip
        process = ralph.begin(agent)
        ralph.until(lambda: any("execute_tool Bash" in path.read_text() for path in ralph.home.glob("runs/*/trace.jsonl")))  # fmt: skip
        assert "not ended" in ralph("trace").stdout  # while it is at work, too
        process.send_signal(signal.SIGKILL)
        ralph.end(process)
        lines = ralph("trace").stdout.splitlines()
        assert len([line for line in lines if line.endswith("not ended")]) == 4
        assert ralph("resume", "-i", "2").returncode in (0, 3)
        assert "run, resumed (sitting 2)" in ralph("trace").stdout

    def test_there_is_no_run(self, ralph):
        ralph.refuses("trace", says="no run")

    def test_there_is_no_trace(self, ralph):
        ralph.run(DONE)
        (ralph.folder / "trace.jsonl").unlink()
        ralph.refuses("trace", says="there is no trace of this run")

    def test_what_is_no_trace_is_passed_over(self, ralph):
        ralph.run(DONE)
        with (ralph.folder / "trace.jsonl").open("ab") as stream:
            stream.write(b'\xff\xfe\n[]\n{}\n{"phase": 1}\nnull\n{"phase": "end", "name"')
        assert ralph("trace").returncode == 0
        (ralph.folder / "trace.jsonl").write_text("nothing\n")
        ralph.refuses("trace", says="there is no trace of this run")


class TestAsAPage:
    def test_stands_by_itself(self, run, tmp_path):
        page = tmp_path / "trace.html"
        done = run("trace", "--html", page)
        assert done.returncode == 0
        assert done.stdout.startswith(f"{page} (")
        text = page.read_text()
        check_page(text)
        assert text.count('<details class="span') == len(run.spans())
        assert "iteration 3" in text
        assert "judge iterations" in text

    def test_in_a_browser(self, run, tmp_path, chromium):
        page = tmp_path / "trace.html"
        run("trace", "--html", page)
        dom = chromium(page)
        assert f"<title>Trace of {run.folder.name}</title>" in dom
        assert dom.count("<details") >= len(run.spans())
        assert "<script" not in dom
        assert "<img" not in dom

    def test_where_it_can_not_be_written(self, run, tmp_path):
        done = run("trace", "--html", tmp_path / "no" / "trace.html")
        assert done.returncode == 2
        assert done.stderr == f"ralph: {tmp_path}/no/trace.html can't be written: No such file or directory\n"


class TestTheReport:
    def test_stands_by_itself(self, run, tmp_path):
        page = tmp_path / "night.html"
        done = run("report", "-o", page)
        assert done.returncode == 0, done.stderr
        text = page.read_text()
        check_page(text)
        for words in ("completed", "verified by 1 gate", "Timeline", "Cost of each iteration", "Tokens of each iteration", "Gates", "Files", "agent: &lt;script&gt;", "$0.50", "one.txt", "&lt;i&gt;two.txt", "exit code 1", "and unknown, 1×"):  # fmt: skip
            assert words in text, words
        assert text.count("<svg") == 3

    def test_the_links_lead_to_what_the_agent_wrote(self, run, tmp_path):
        for flags, page in (((), run.folder / "report.html"), (("-o", tmp_path / "deep.html"), tmp_path / "deep.html")):
            assert run("report", *flags).returncode == 0
            links = re.findall(r'href="([^"]+)"', page.read_text())
            assert len(links) == 3
            assert all((page.parent / link).resolve() in list((run.folder / "output").iterdir()) for link in links)

    def test_the_files_of_each_iteration(self, run, tmp_path):
        run("report", "-o", tmp_path / "r.html")
        rows = re.findall(
            r"<tr>(.*?)</tr>", (tmp_path / "r.html").read_text().partition("<h2>Files</h2>")[2], re.DOTALL
        )
        first, second = rows[1:3]
        assert first.startswith("<td>1</td><td class=num>1</td>")
        assert "one.txt" in first
        assert second.startswith("<td>3</td><td class=num>2</td>")
        assert "done" in second

    def test_in_a_browser(self, run, tmp_path, chromium):
        page = tmp_path / "report.html"
        run("report", "-o", page)
        dom = chromium(page)
        assert f"<title>Run {run.folder.name}</title>" in dom
        assert dom.count("<svg") == 3
        assert dom.count("<rect") > 10
        assert "<script" not in dom
        assert "<img" not in dom

    def test_of_a_run_that_was_killed(self, ralph):
        agent = ralph.agent("sleep 60")
        process = ralph.begin(agent)
        ralph.until(lambda: agent.calls)
        process.kill()
        ralph.end(process)
        assert ralph("report").returncode == 0
        assert "not ended" in (ralph.folder / "report.html").read_text()

    def test_of_a_run_without_trace_account_or_snapshots(self, ralph):
        ralph.settings("audit_sinks: [memory]\n")
        ralph.run(DONE, "--no-git")
        (ralph.folder / "trace.jsonl").unlink()
        assert (
            ralph("report", "--config", ralph.settings("audit_sinks: [memory]\ngit_enabled: false\n")).returncode == 0
        )
        assert "completed" in (ralph.folder / "report.html").read_text()

    def test_of_a_run_with_many_iterations(self, ralph, tmp_path):
        ralph.settings("max_no_progress: null\n")
        ralph.run("echo more", "-i", "40", "--no-git", limit=120)
        assert ralph("report", "-o", tmp_path / "r.html").returncode == 0
        text = (tmp_path / "r.html").read_text()
        assert text.count("<td class=num>?</td>") >= 80, "unknown is not zero"
        assert "$0" not in text.partition("Iterations</h2>")[2]

    def test_there_is_no_run(self, ralph):
        ralph.refuses("report", says="no run")
