"""What a stranger installs: the built wheels, in a clean environment, far from this repository."""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples/plugins").iterdir())
SANDBOX = "ralph_bubblewrap"
pytestmark = pytest.mark.xdist_group("wheels")  # built and installed once, not by each worker
UNREACHABLE = ("Could not find a version", "No matching distribution", "connection", "Max retries")


def pip(python, *arguments):
    """Run pip; without a package index the test is skipped, since nothing can be installed then."""
    command = [python, "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300)
    if done.returncode and any(words in done.stderr for words in UNREACHABLE):
        pytest.skip(f"no package index can be reached: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    """The wheels of the core, of one plugin, and of the example packages."""
    folder = tmp_path_factory.mktemp("wheels")
    projects = (ROOT, ROOT / "plugins" / "ralph-claude", *EXAMPLES)
    pip(sys.executable, "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, *projects)
    return folder


@pytest.fixture(scope="module")
def installed(wheels, tmp_path_factory):
    """A clean environment with them, but for the sandbox: that one is in force where it is installed."""
    folder = tmp_path_factory.mktemp("clean") / "venv"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True, timeout=120)
    pip(
        folder / "bin" / "python",
        "install",
        "--quiet",
        *(path for path in wheels.glob("*.whl") if SANDBOX not in path.name),
    )
    return folder / "bin"


def run(program, *arguments, cwd, **env):
    """Run a program in an environment that knows nothing of this repository."""
    clean = {"PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}", "HOME": str(cwd), "LANG": "C.UTF-8", **env}
    return subprocess.run([program, *arguments], cwd=cwd, env=clean, capture_output=True, text=True, timeout=60)


def test_a_loop_runs_from_the_wheels(installed, tmp_path):
    where = run(installed / "python", "-c", "import ralph_core; print(ralph_core.__file__)", cwd=tmp_path)
    assert str(ROOT) not in where.stdout
    step = 'n=$(cat n 2>/dev/null || echo 0); echo $((n + 1)) > n; [ "$n" -lt 2 ] || echo LOOP_COMPLETE'
    done = run(installed / "ralph", "run", "-a", "command", "--command", step, "-p", "Count.", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "iterations  3 of 100" in done.stdout
    assert (tmp_path / "n").read_text() == "3\n"
    assert "refs/ralph" in run(installed / "ralph", "checkpoints", "list", cwd=tmp_path).stdout


def test_the_plugin_is_discovered(installed, tmp_path):
    done = run(installed / "ralph", "plugins", "--check", cwd=tmp_path)
    assert done.returncode == 0
    (row,) = [line.split() for line in done.stdout.splitlines() if line.startswith("claude ")]
    assert row[1:4] == ["ralph-claude", "0.1.0", "active"]


def test_the_supervisor_and_the_types_are_in_the_wheel(wheels):
    (core,) = wheels.glob("ralph_core-*.whl")
    names = set(zipfile.ZipFile(core).namelist())
    assert {"ralph_core/supervisor.py", "ralph_core/py.typed", "ralph_core/builtin/git.py"} <= names
    assert {"ralph_core/testing/agents.py", "ralph_core/cli/skeleton/common/.gitignore.tmpl"} <= names
    assert not [name for name in names if name.startswith(("tests", "plugins", "docs"))]


# --- the example packages, as a stranger would use them -----------------------------------------------------------------


@pytest.fixture
def stranger(installed, tmp_path):
    """Somebody with the wheels, in a directory with settings and a task."""
    workspace = tmp_path / "work"
    workspace.mkdir()
    (tmp_path / "home").mkdir()
    (workspace / "PROMPT.md").write_text("Do it.\n")

    def stranger(*arguments, settings=None, **env):
        if settings is not None:
            (workspace / "ralph.yml").write_text(settings)
        return run(installed / "ralph", *arguments, cwd=workspace, **{"HOME": str(tmp_path / "home"), **env})

    stranger.workspace, stranger.home = workspace, tmp_path / "home"
    return stranger


def records(workspace):
    return [json.loads(line) for line in (workspace / ".agent/audit/audit.jsonl").read_text().splitlines()]


def test_all_examples_are_discovered(stranger):
    rows = {row["name"]: row for row in json.loads(stranger("plugins", "--json").stdout)}
    assert {"copilot", "sqlite", "webhook", "office-hours"} <= set(rows)
    assert {row["status"] for row in rows.values()} == {"active"}


def test_the_copilot_example_is_the_one_in_the_docs():
    page = (ROOT / "docs/new-adapter.md").read_text()
    assert (ROOT / "examples/plugins/ralph-copilot/ralph_copilot.py").read_text() in page


def test_sqlite_keeps_a_run_that_is_cut_short(stranger):
    settings = "checkpoint_store: sqlite\n"
    ralph = """$(sed 's/.*"pid": \\([0-9]*\\).*/\\1/' .agent/holder.json)"""
    step = f'echo x >> n; [ "$(wc -l < n)" = 2 ] && kill -9 {ralph}; [ "$(wc -l < n)" -lt 3 ] || echo LOOP_COMPLETE'
    assert stranger("run", "-a", "command", "--command", step, settings=settings).returncode == -9
    (cut,) = json.loads(stranger("runs", "--json").stdout)
    assert (cut["condition"], cut["iterations"]) == ("cut short", 1)
    done = stranger("resume")
    assert done.returncode == 0, done.stderr
    (ended,) = json.loads(stranger("runs", "--json").stdout)
    assert (ended["run"], ended["condition"], ended["iterations"]) == (cut["run"], "completed", 2)
    assert (stranger.workspace / ".agent/runs.sqlite").exists()
    assert not list(stranger.workspace.glob(".agent/runs/*/state.json"))


@pytest.mark.parametrize("away", [False, True], ids=["there", "away"])
def test_webhook_gets_every_record_or_the_account_says_how_many_not(stranger, away):
    got = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            got.extend(json.loads(self.rfile.read(int(self.headers["content-length"])))["records"])
            self.send_response(204)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    if away:
        server.shutdown()
        server.server_close()
    settings = f"audit_sinks: [file, webhook]\nsinks: {{webhook: {{url: '{url}'}}}}\n"
    done = stranger("run", "-a", "command", "--command", "echo LOOP_COMPLETE", settings=settings)
    assert done.returncode == 0, "a sink that is away ends no run"
    kept = [record["seq"] for record in records(stranger.workspace)]
    if away:
        assert "sink webhook: 0 written" in done.stdout
        return
    server.shutdown()
    server.server_close()
    assert [record["seq"] for record in got] == kept == list(range(1, len(kept) + 1))
    assert "sink webhook" not in done.stdout


def test_office_hours_let_nothing_begin(stranger):
    always = "policies: {office_hours: {begin: '00:00', end: '23:59:59.999999', days: [mon, tue, wed, thu, fri, sat, sun]}}\n"
    arguments = ("run", "-a", "command", "--command", "echo LOOP_COMPLETE", "--max-runtime", "1")
    done = stranger(*arguments, settings=always)
    assert done.returncode == 3, done.stdout
    assert "office hours, until" in done.stderr
    assert "agent.started" not in {record["type"] for record in records(stranger.workspace)}
    done = stranger(*arguments, settings="policies: {office_hours: {days: []}}\n")
    assert done.returncode == 0, done.stdout


class TestBubblewrap:
    @pytest.fixture
    def stranger(self, stranger, wheels, tmp_path):
        if shutil.which("bwrap") is None:
            pytest.skip("no bwrap on PATH (Debian: apt install bubblewrap)")
        site = tmp_path / "site"
        pip(
            sys.executable,
            "install",
            "--quiet",
            "--no-deps",
            "--no-index",
            "--target",
            site,
            *wheels.glob(f"{SANDBOX}*"),
        )
        plain = stranger

        def stranger(*arguments, **env):
            return plain(*arguments, PYTHONPATH=str(site), **env)

        stranger.workspace, stranger.home = plain.workspace, plain.home
        return stranger

    def test_the_agent_writes_its_workspace_and_nothing_else(self, stranger):
        (stranger.home / "secret").write_text("s")
        (stranger.home / "shown").write_text("shown")
        step = (
            "echo in > made; echo x > /etc/ralph-was-here; ls -A ~ > homes; cat ~/shown >> homes; echo y > ~/kept;"
            "ls /proc | grep -c '^[0-9]' > processes; echo LOOP_COMPLETE"
        )
        done = stranger("run", "-a", "command", "--command", step, RALPH_SANDBOX_HOME="shown")
        assert done.returncode == 0, done.stdout + done.stderr
        assert (stranger.workspace / "made").read_text() == "in\n"
        assert not Path("/etc/ralph-was-here").exists()
        assert (stranger.workspace / "homes").read_text() == "shown\nshown"
        assert int((stranger.workspace / "processes").read_text()) < 8, "it sees its own alone"
        assert not (stranger.home / "kept").exists()

    def test_no_network_if_so_chosen(self, stranger):
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            step = f"bash -c '</dev/tcp/127.0.0.1/{port}' && echo LOOP_COMPLETE"
            arguments = ("run", "-a", "command", "--command", step, "-i", "1")
            assert stranger(*arguments).returncode == 0
            assert stranger(*arguments, RALPH_SANDBOX_NETWORK="0").returncode == 3
