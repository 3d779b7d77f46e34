"""The example packages, as a stranger would use them: from wheels, in a clean environment, far from this repository."""

import json
import shutil
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples/plugins").iterdir())
SANDBOX = "ralph_bubblewrap"


@pytest.fixture(scope="module")
def examples(once, wheel):
    """The wheels of the example packages."""
    return once("examples", lambda folder: [wheel(project, folder) for project in EXAMPLES])


@pytest.fixture(scope="module")
def installed(clean, examples):
    """A clean environment with Ralph and them, but for the sandbox: that one is in force where it is installed."""
    wanted = [path for path in examples.glob("*.whl") if SANDBOX not in path.name]
    return clean("examples-installed", lambda place: place.does("pip", "install", "ralph-core[testing]", *wanted))


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
        return installed("ralph", *arguments, cwd=workspace, limit=60, **{"HOME": str(tmp_path / "home"), **env})

    stranger.workspace, stranger.home = workspace, tmp_path / "home"
    return stranger


@pytest.fixture(scope="module")
def sandbox(installed, examples, once):
    """Where the sandbox is installed, for who has it on the path."""
    install = ("pip", "install", "--no-deps", "--target")
    return once("sandbox", lambda folder: installed.does(*install, folder, *examples.glob(f"{SANDBOX}*")))


@pytest.mark.parametrize("package", EXAMPLES, ids=lambda path: path.name)
def test_passes_its_own_tests(installed, sandbox, package, tmp_path):
    """Those that its author runs, on the conformance kit: in its folder, with what is installed."""
    if package.name == SANDBOX.replace("_", "-") and shutil.which("bwrap") is None:
        pytest.skip("no bwrap on PATH (Debian: apt install bubblewrap)")
    (tmp_path / "home").mkdir()
    folder = tmp_path / package.name
    shutil.copytree(package / "tests", folder / "tests")  # not its code, which would be found before what is installed
    shutil.copy(package / "pyproject.toml", folder)
    env = {"PYTHONPATH": str(sandbox)} if package.name == SANDBOX.replace("_", "-") else {}
    command = (
        "python",
        "-m",
        "pytest",
        "-q",
        "-ra",
        "-W",
        "error",
        "-p",
        "no:cacheprovider",
        f"--basetemp={tmp_path / 'tmp'}",
    )
    done = installed(*command, cwd=folder, HOME=str(tmp_path / "home"), **env)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped" not in done.stdout, done.stdout


@pytest.mark.parametrize("package", EXAMPLES, ids=lambda path: path.name)
def test_is_what_third_parties_are_told_to_write(package):
    """Entry point, what its tests need, README, tests on the kit."""
    project = (package / "pyproject.toml").read_text()
    assert '[project.entry-points."ralph.plugins"]' in project
    assert 'test = ["ralph-core[testing]"]' in project
    assert "pip install -e '.[test]'" in (package / "README.md").read_text()
    assert "(PluginContract)" in (package / "tests" / "test_contract.py").read_text()


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
    def stranger(self, stranger, sandbox):
        if shutil.which("bwrap") is None:
            pytest.skip("no bwrap on PATH (Debian: apt install bubblewrap)")
        plain = stranger

        def stranger(*arguments, **env):
            return plain(*arguments, PYTHONPATH=str(sandbox), **env)

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
