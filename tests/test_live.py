"""The live view, on a terminal of 80 columns: the screen is what is compared, not the bytes."""

import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest

SAYS = r"printf 'look \033[31mred\033[2J\033]0;title\007 [/x] [bold]\n'; echo 世界"
SPENDER = """
from ralph_core import *
import asyncio
class Spender(Agent):
    def probe(self): return Probe()
    async def run(self, request):
        yield Started()
        yield Usage("m", Tokens(input=1000), cost=0.5)
        for name, tokens, cost in (("more", 2500, 0.75), ("go", 0, 0.0)):
            while not (request.workspace / name).exists():
                await asyncio.sleep(0.05)
            yield Usage(name, Tokens(input=tokens), cost=cost)
        yield Finished("LOOP_COMPLETE", cost=1.25)
@hookimpl
def ralph_agents():
    return [Provider("spender", "spends", factory=f"{__name__}:Spender", capabilities=frozenset({"usage", "usage-live"}))]
"""
WAITS = 'cat > /dev/null; touch begun; while [ ! -e "$here/go" ]; do sleep 0.05; done'


def waiting(ralph, *before, after="echo LOOP_COMPLETE"):
    """An agent that says something, and then waits until the test goes on."""
    return ralph.agent("\n".join([*before, WAITS, after]))


def go(agent):
    (agent.folder / "go").touch()


def picture(lines):
    """The rows below the rule, by their label; none while they are being drawn, which a terminal gets in pieces."""
    rules = [number for number, line in enumerate(lines) if re.fullmatch("─+", line)]
    if not rules:
        return {}
    rows = [line for line in lines[rules[-1] + 1 :] if line]
    labels = {line[:10].strip(): re.sub(r"^[━╺╸? ]+", "", line[11:]).strip() for line in rows}
    return labels if labels.get("snapshot", "").endswith(("none", " ago")) else {}


def seen(ralph, screen, label, words):
    """Wait until a row of the picture says that; the lines of the screen at that moment."""
    lines = []

    def look():
        lines[:] = screen.lines
        return re.search(words, picture(lines).get(label, ""))

    ralph.until(look, limit=60)
    return lines


def shown(ralph, screen, label, words):
    """Wait until a row of the picture says that; the picture."""
    return picture(seen(ralph, screen, label, words))


def plan(ralph, agent, *more, task="- [x] one\n- [ ] two\n", **options):
    ralph.settings("gates: ['test -e README']\n")
    return ralph.on_screen(*ralph.flags(agent, *more, task=task), **options)


class TestPicture:
    def test_says_all_that_a_person_asks_for_and_makes_way_for_the_account(self, ralph):
        agent = waiting(ralph, SAYS)
        screen = plan(ralph, agent, "-v", "-i", "7", "--max-runtime", "7200", rows=40)
        now = shown(ralph, screen, "now", "says: 世界")
        assert list(now) == ["now", "iterations", "time", "tokens", "cost", "tasks", "gates", "snapshot"]
        assert now["iterations"] == "0 of 7 done"
        assert re.fullmatch(r"[\d.:]+( s)?, 1:5\d:\d\d left of 2:00:00", now["time"])
        assert (now["tokens"], now["cost"]) == ("unknown", "unknown")
        assert now["tasks"] == "1 of 2 done, 1 left"
        assert now["gates"] == "not asked yet"
        assert re.fullmatch(r"0000, [\d.:]+( s)? ago", now["snapshot"])
        assert "look" in screen.text
        assert "[/x] [bold]" in screen.text
        assert "─── iteration 1 of 7" in screen.text
        go(agent)
        assert screen.end() == 0
        assert not any(re.fullmatch("─+", line) for line in screen.lines), "the picture made way"
        assert "✓ gate test -e README: passed" in screen.text
        assert "✓ completed: verified by 1 gate(s)" in screen.text
        assert not screen.screen.cursor.hidden
        assert screen.screen.title == ""

    def test_is_brought_up_to_date_while_nothing_happens(self, ralph):
        agent = waiting(ralph)
        screen = plan(ralph, agent)
        before = shown(ralph, screen, "now", "command at work")["time"]
        ralph.until(lambda: picture(screen.lines).get("time", before) != before)
        go(agent)
        screen.end()

    def test_shows_what_a_gate_said_and_the_next_snapshot(self, ralph):
        agent = ralph.agent("echo LOOP_COMPLETE", f"{WAITS}; echo LOOP_COMPLETE; touch made")
        ralph.settings("gates: ['test -e README', 'test -e made']\ncheckpoint_interval: 1\n")
        screen = ralph.on_screen(*ralph.flags(agent))
        now = shown(ralph, screen, "gates", "made")
        assert now["gates"] == "✓ test -e README  ✗ test -e made"
        assert shown(ralph, screen, "iterations", "1 of 100 done")["snapshot"].startswith("0001")
        go(agent)
        assert screen.end() == 0

    @pytest.mark.parametrize("columns", [40, 80, 200])
    def test_fits_the_terminal(self, ralph, columns):
        agent = waiting(ralph, f"echo {'long ' * 100}")
        screen = plan(ralph, agent, columns=columns)
        now = shown(ralph, screen, "now", "says: ")
        assert len(now) == 8
        assert "…" in now["now"]
        go(agent)
        assert screen.end() == 0

    def test_shows_spend_as_far_as_it_is_known(self, ralph):
        code = (
            "from ralph_core import *\n"
            "import asyncio, pathlib\n"
            "class Spender(Agent):\n"
            "    def probe(self): return Probe()\n"
            "    async def run(self, request):\n"
            "        yield Started()\n"
            "        yield Usage('m', Tokens(input=1000), cost=0.5)\n"
            "        yield ToolCall('1', 'Bash', {'command': 'make all'})\n"
            "        while not (request.workspace / 'go').exists(): await asyncio.sleep(0.05)\n"
            "        yield ToolResult('1')\n"
            "        yield Finished('LOOP_COMPLETE', cost=0.5)\n"
            "@hookimpl\n"
            "def ralph_agents(): return [Provider('spender', 'spends', factory=f'{__name__}:Spender')]\n"
        )
        ralph.plugin("spender", code)
        screen = ralph.on_screen("run", "-a", "spender", "-p", "x", "--max-cost", "2")
        now = shown(ralph, screen, "now", "spender uses Bash make all")
        assert (now["tokens"], now["cost"]) == ("1,000 of 1,000,000", "$0.5000 of $2")
        assert "  ⚙ Bash make all" in screen.lines
        (ralph.workspace / "go").touch()
        assert screen.end() == 0

    def test_shows_what_is_spent_as_it_is_reported(self, ralph):
        """No record is made of that, so nothing else would have the picture drawn anew."""
        ralph.plugin("spender", SPENDER)
        screen = ralph.on_screen("run", "-a", "spender", "-p", "x", "--max-cost", "2")
        shown(ralph, screen, "cost", r"^\$0\.5000 of \$2$")
        (ralph.workspace / "more").touch()
        now = shown(ralph, screen, "cost", r"^\$1\.2500 of \$2$")
        assert now["tokens"] == "3,500 of 1,000,000"
        (ralph.workspace / "go").touch()
        assert screen.end() == 0


def steady(lines):
    """Lines without what differs from one run to the next: times."""
    return [re.sub(r"\d+:[\d:]+|\d+\.\d s", "TIME", line) for line in lines]


class Tmux:
    """A terminal of 80 columns in tmux, with a `ralph` on it."""

    def __init__(self, ralph, command, rows):
        self._tmux = ["tmux", "-S", str(ralph.root / "tmux"), "-f", "/dev/null"]
        self._env = ralph.env | {"TERM": "xterm-256color"}
        shell = f"{shlex.join(command)}; exec sleep 60"  # a session without a process would be gone
        self("new-session", "-d", "-x", "80", "-y", str(rows), "-c", str(ralph.workspace), shell)

    def __call__(self, *words):
        done = subprocess.run([*self._tmux, *words], env=self._env, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def close(self):
        self("kill-server")

    @property
    def lines(self):
        return [line.rstrip() for line in self("capture-pane", "-p").split("\n")[:-1]]


def test_in_tmux_it_is_what_it_is_on_a_plain_terminal(ralph):
    if not shutil.which("tmux") and not os.environ.get("RALPH_TEST_NO_SKIP"):
        pytest.skip("tmux is not installed")
    agent = waiting(ralph, SAYS)
    screen = plan(ralph, agent, "-v", rows=40)
    plain = steady(seen(ralph, screen, "now", "says: 世界"))
    go(agent)
    assert screen.end() == 0
    (agent.folder / "go").unlink()
    flags = ralph.flags(agent, "-v", task="- [x] one\n- [ ] two\n")
    tmux = Tmux(ralph, [sys.executable, "-m", "ralph_core", *flags], 40)
    try:
        assert steady(seen(ralph, tmux, "now", "says: 世界")) == plain
        assert any("look" in line for line in plain), "what is before the agent's own escape codes is still there"
        assert tmux("display-message", "-p", "#{pane_title}").strip() != "title"
        assert "\x1b[31m" not in tmux("capture-pane", "-p", "-e")
        assert max(len(line) for line in plain) <= 80
    finally:
        go(agent)
        ralph.until(lambda: ralph.types()[-1] == "run.finished")
        tmux.close()


class TestElsewhere:
    def test_without_colours(self, ralph):
        agent = waiting(ralph, SAYS)
        screen = plan(ralph, agent, env={"NO_COLOR": "1"})
        shown(ralph, screen, "cost", "unknown")
        go(agent)
        assert screen.end() == 0
        assert not re.findall(rb"\x1b\[[0-9;]*(?:3[0-7]|4[0-7]|38|48|9[0-7])[0-9;]*m", screen.raw)

    @pytest.mark.parametrize("how", ["a dumb terminal", "a pipe", "quiet"])
    def test_lines_where_it_can_not_be_shown(self, ralph, how):
        agent = ralph.agent("echo LOOP_COMPLETE")
        if how == "a pipe":
            with open(ralph.root / "lines", "wb") as file:
                done = plan(ralph, agent, stderr=file)
            assert done.end() == 0
            lines = (ralph.root / "lines").read_bytes()
        else:
            more, env = (["-q"], {}) if how == "quiet" else ([], {"TERM": "dumb"})
            done = plan(ralph, agent, *more, env=env, rows=50)
            assert done.end() == 0
            lines = done.raw
        assert b"\x1b" not in lines
        assert (b"iteration 1 of 100" in lines) == (how != "quiet")
        assert "completed" in done.text
