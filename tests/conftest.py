"""`ralph` as a user has it: a real process, in a workspace and a home of its own, with agents that play a script."""

import ctypes
import fcntl
import json
import os
import pty
import shlex
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

import pyte
import pytest

IDENTITY = {f"GIT_{who}_{what}": f"tester{at}" for who in ("AUTHOR", "COMMITTER") for what, at in (("NAME", ""), ("EMAIL", "@example.org"))}  # fmt: skip

PLAYER = """\
here=${0%/*}
n=1
while [ -e "$here/prompt.$n" ]; do n=$((n + 1)); done
cat > "$here/prompt.$n"
env -0 > "$here/env.$n"
echo $$ > "$here/pid.$n"
step=$here/step.$n
[ -e "$step" ] || step=$here/step.last
. "$step"
"""


CLAUDE = """\
#!/bin/sh
case $1 in
--version) echo asked >> "${0%/*}/asked"; echo "2.1.197 (Claude Code)" ;;
*) cat > "${0%/*}/prompt"; env > "${0%/*}/env"; echo "$@" > "${0%/*}/arguments"
   echo '{"type":"system","subtype":"init","session_id":"s","model":"m"}'
   echo '{"type":"result","subtype":"success","is_error":false,"result":"LOOP_COMPLETE","usage":{},"total_cost_usd":0.01}' ;;
esac
"""
"""A program that `ralph-claude` takes for Claude Code; it notes what it was asked and given, and has done all at once."""


class Agent:
    """A shell script for the command agent: its n-th process plays the n-th step, and every later one the last."""

    def __init__(self, folder, steps):
        folder.mkdir()
        self.folder = folder
        for number, step in enumerate(steps, 1):
            (folder / f"step.{number}").write_text(step)
        (folder / "step.last").write_text(steps[-1])
        (folder / "play").write_text(PLAYER)
        self.command = f"exec sh {shlex.quote(str(folder / 'play'))}"

    @property
    def calls(self):
        """How many processes of it were started."""
        return sum(1 for _ in self.folder.glob("env.*"))

    @property
    def pids(self):
        return [int(path.read_text()) for path in self.folder.glob("pid.*") if path.read_text().strip()]

    def prompt(self, number=1):
        """What the n-th process was given on standard input, byte for byte."""
        return (self.folder / f"prompt.{number}").read_bytes()

    def environment(self, number=1):
        entries = (self.folder / f"env.{number}").read_bytes().decode(errors="replace").split("\0")
        return dict(entry.split("=", 1) for entry in entries if entry)


class Screen:
    """A terminal with a `ralph` on it: what it shows, and a keyboard."""

    def __init__(self, command, columns, rows, **options):
        self.screen = pyte.HistoryScreen(columns, rows, history=10_000)
        self.raw = b""
        self._stream = pyte.ByteStream(self.screen)
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        terminal = {"stdin": theirs, "stderr": theirs, "stdout": theirs} | options
        self.process = subprocess.Popen(command, start_new_session=True, **terminal)
        os.close(theirs)
        self._lock = threading.Lock()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        while True:
            try:
                data = os.read(self._ours, 65536)
            except OSError:  # nobody has it open any more
                return
            with self._lock:
                self.raw += data
                self._stream.feed(data)

    @property
    def lines(self):
        """What is on the screen."""
        with self._lock:
            return [line.rstrip() for line in self.screen.display]

    @property
    def text(self):
        return "\n".join(self.lines)

    def type(self, words):
        os.write(self._ours, words.encode())

    def end(self, *, limit=30.0):
        """The exit code, when all that was written has been read."""
        code = self.process.wait(limit)
        self._reader.join(limit)
        return code

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._reader.join(5)
        os.close(self._ours)


class Ralph:
    """`ralph` in one workspace, a git repository with one commit."""

    def __init__(self, root):
        self.root, self.workspace, self.site = root, root / "work", root / "site"
        for folder in (self.workspace, self.site, root / "home"):
            folder.mkdir()
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(root / "home"),
            "LANG": "C.UTF-8",
            "PYTHONPATH": os.pathsep.join([str(self.site), *filter(None, [os.environ.get("PYTHONPATH")])]),
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
            **IDENTITY,
        }
        self.processes = []
        self.screens = []
        self.git("init", "-q", "-b", "main")
        self.write("README", "hello\n")
        self.git("add", ".")
        self.git("commit", "-q", "-m", "begin")

    # --- doing ---

    def __call__(self, *arguments, env=None, cwd=None, limit=60, **options):
        """Run `ralph` to its end."""
        process = self.start(*arguments, env=env, cwd=cwd, **options)
        try:
            out, err = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGUSR1)
            time.sleep(0.5)
            process.kill()
            out, err = process.communicate()
            pytest.fail(f"`ralph {' '.join(map(str, arguments))}` took more than {limit} s:\n{out}\n{err}")
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def start(self, *arguments, env=None, cwd=None, **options):
        """Start `ralph` and return at once."""
        process = subprocess.Popen(
            [sys.executable, "-m", "ralph_core", *map(str, arguments)],
            env=self.env | (env or {}),
            cwd=cwd or self.workspace,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="surrogateescape",
            **options,
        )
        self.processes.append(process)
        return process

    def on_screen(self, *arguments, env=None, cwd=None, columns=80, rows=24, **options):
        """Start `ralph` on a terminal."""
        command = [sys.executable, "-m", "ralph_core", *map(str, arguments)]
        env = self.env | {"TERM": "xterm-256color"} | (env or {})
        self.screens.append(Screen(command, columns, rows, env=env, cwd=cwd or self.workspace, **options))
        return self.screens[-1]

    def flags(self, agent, *more, task="Do what is to be done."):
        """The command line of a run with the command agent."""
        command = agent.command if isinstance(agent, Agent) else agent
        return ["run", "-a", "command", "--command", command, *([] if task is None else ["-p", task]), *more]

    def run(self, agent, *more, task="Do what is to be done.", **options):
        """A run with the command agent, to its end."""
        return self(*self.flags(agent, *more, task=task), **options)

    def begin(self, agent, *more, task="Do what is to be done.", **options):
        """A run with the command agent, just started."""
        return self.start(*self.flags(agent, *more, task=task), **options)

    def agent(self, *steps):
        return Agent(self.root / f"agent{len(list(self.root.glob('agent*')))}", steps)

    def program(self, name, text):
        """Put a program on PATH, before others of its name."""
        folder = self.root / "bin"
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
        if str(folder) not in self.env["PATH"].split(os.pathsep):
            self.env["PATH"] = f"{folder}{os.pathsep}{self.env['PATH']}"
        return folder / name

    def claude(self):
        """Install a stand-in of Claude Code, with a key; its path."""
        self.env["CLAUDE_API_KEY"] = "sk-ant-test-key"
        return self.program("claude", CLAUDE)

    def write(self, name, text):
        path = self.workspace / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    def settings(self, text):
        return self.write("ralph.yml", text)

    def plugin(self, name, code, *, distribution=None, version="1.2.3", entry=None):
        """Install a plugin: a module in a distribution of its own, with its entry point."""
        distribution = distribution or f"ralph-{name}"
        module = f"{distribution.replace('-', '_')}_module"
        (self.site / f"{module}.py").write_text(code)
        info = self.site / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[ralph.plugins]\n{name} = {module}{entry or ''}\n")

    def git(self, *arguments):
        done = subprocess.run(["git", *arguments], cwd=self.workspace, env=self.env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    # --- looking ---

    @property
    def home(self):
        return self.workspace / ".agent"

    @property
    def folders(self):
        """The folders of the runs, the oldest first."""
        return sorted((self.home / "runs").glob("2*"))

    @property
    def folder(self):
        """The folder of the only run."""
        (folder,) = self.folders
        return folder

    def state(self):
        return json.loads((self.folder / "state.json").read_text())["state"]

    def records(self):
        """The account, in order, as far as it is there: it may be asked for while a run goes on."""
        path = self.home / "audit" / "audit.jsonl"
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        return [json.loads(line) for line in lines if line]

    def types(self):
        return [record["type"] for record in self.records()]

    def spans(self, phase="end"):
        lines = [json.loads(line) for line in (self.folder / "trace.jsonl").read_text().split("\n") if line]
        return [line for line in lines if line["phase"] == phase]

    def snapshots(self):
        """The refs of all snapshots."""
        refs = self.git("for-each-ref", "--format=%(refname)", "refs/ralph").split()
        return [ref for ref in refs if not ref.endswith("/account")]

    def repository(self):
        """All of the user's own that Ralph must not touch: refs, HEAD, index, stash, status."""
        index = self.workspace / ".git" / "index"
        return {
            "refs": [line for line in self.git("for-each-ref").splitlines() if "\trefs/ralph/" not in line],
            "head": (self.workspace / ".git" / "HEAD").read_text(),
            "index": index.read_bytes(),
            "stash": self.git("stash", "list"),
            "status": self.git("--no-optional-locks", "status", "--porcelain=v2", "--branch"),
            "config": (self.workspace / ".git" / "config").read_bytes(),
            "hooks": sorted(path.name for path in (self.workspace / ".git" / "hooks").glob("*")),
        }

    def tree(self, top=None):
        """Every file and folder below the workspace, with size and time."""
        top = top or self.workspace
        seen = {str(path.relative_to(top)): path.lstat() for path in top.rglob("*")}
        return {name: (stat.st_size if not os.path.isdir(top / name) else 0, stat.st_mtime_ns) for name, stat in seen.items()}  # fmt: skip

    def refuses(self, *arguments, says=(), code=2, **options):
        """It ends at once, with one line that says all of `says`, and has written nothing."""
        before = self.tree()
        done = self(*arguments, **options)
        assert done.returncode == code, (done.stdout, done.stderr)
        assert done.stdout == ""
        assert done.stderr.count("\n") == 1, done.stderr
        assert done.stderr.startswith("ralph: ")
        for words in [says] if isinstance(says, str) else says:
            assert words in done.stderr
        assert self.tree() == before
        return done.stderr

    def until(self, condition, *, limit=20.0):
        """What the condition comes to, once it is true."""
        deadline = time.monotonic() + limit
        while not (result := condition()):
            assert time.monotonic() < deadline, "it did not come true in time"
            time.sleep(0.02)
        return result

    def end(self, process, *, limit=20.0):
        """Wait for a started `ralph`."""
        out, err = process.communicate(timeout=limit)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    @staticmethod
    def alive(pid):
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
        except OSError:
            return False

    @staticmethod
    def without_privilege():
        """For `preexec_fn`: root loses what lets it write where permissions forbid it."""
        libc = ctypes.CDLL(None)
        for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
            libc.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP


@pytest.fixture
def ralph(tmp_path):
    yield from used(Ralph(tmp_path))


@pytest.fixture(scope="module")
def lasting_ralph(tmp_path_factory):
    """One for all tests of a module that look at the same run."""
    yield from used(Ralph(tmp_path_factory.mktemp("lasting")))


@pytest.fixture(scope="module")
def lasting_ralphs(tmp_path_factory):
    """Makes as many of them as are asked for."""
    made = []

    def make(name):
        made.append(used(Ralph(tmp_path_factory.mktemp(name))))
        return next(made[-1])

    yield make
    for each in made:
        next(each, None)


def used(ralph):
    yield ralph
    for screen in ralph.screens:
        screen.close()
    for process in ralph.processes:
        if process.poll() is None:
            process.kill()
            process.wait()
        for stream in (process.stdout, process.stderr):
            stream.close()
