"""What is in deploy/: checked by the programs that read it, and run where that needs no server."""

import configparser
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ralph_core import ExitCode
from ralph_core.settings.sources import ENVIRONMENT

DEPLOY = Path(__file__).parents[1] / "deploy"
UNIT = "ralph@.service"


def needed(program):
    """The path of a program; the test is skipped without it, but not where all of them have to be there."""
    found = shutil.which(program, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin")
    if not found and not os.environ.get("RALPH_TEST_NO_SKIP"):
        pytest.skip(f"{program} is not installed")
    assert found, f"{program} is not installed"
    return found


def call(*command, **options):
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=60, **options)


def unit(path):
    """The settings of a unit file; of one that is given several times, the last."""
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str
    parser.read(path)
    return parser


class TestSystemd:
    @pytest.fixture
    def folder(self, tmp_path):
        """The units as they are, but with a program that is on this machine."""
        for path in (DEPLOY / "systemd").iterdir():
            (tmp_path / path.name).write_text(path.read_text().replace("/opt/ralph/venv/bin/ralph", "/bin/true"))
        return tmp_path

    def test_units_are_valid(self, folder):
        program = needed("systemd-analyze")
        paths = folder / "ralph@run.service", folder / "ralph@resume.service", folder / "ralph.timer"
        done = call(program, "verify", "--man=no", *paths, env={**os.environ, "SYSTEMD_UNIT_PATH": f"{folder}:"})
        assert (done.returncode, done.stderr) == (0, "")

    def test_a_mistake_in_a_unit_would_be_found(self, folder):
        program = needed("systemd-analyze")
        path = folder / UNIT
        path.write_text(path.read_text().replace("OOMPolicy=", "OOMPolitics="))
        done = call(
            program,
            "verify",
            "--man=no",
            folder / "ralph@run.service",
            env={**os.environ, "SYSTEMD_UNIT_PATH": f"{folder}:"},
        )
        assert "OOMPolitics" in done.stderr

    def test_service_is_hardened(self, folder):
        program = needed("systemd-analyze")
        path = folder / "ralph@run.service"
        assert call(program, "security", "--offline=true", "--threshold=20", path).returncode == 0
        (folder / UNIT).write_text(
            re.sub(r"^(Protect|Restrict|Private).*$", "", (folder / UNIT).read_text(), flags=re.MULTILINE)
        )
        assert call(program, "security", "--offline=true", "--threshold=20", path).returncode != 0

    def test_no_outcome_is_paid_for_again(self):
        """`on-abnormal` is never for an exit code; what a person asked for is not shown as a failure."""
        service = unit(DEPLOY / "systemd" / UNIT)["Service"]
        assert service["Restart"] == "on-abnormal"
        assert "RestartForceExitStatus" not in service
        stopped = {str(int(ExitCode.INTERRUPTED)), str(int(ExitCode.TERMINATED))}
        assert set(service["SuccessExitStatus"].split()) == stopped

    def test_what_it_starts_is_understood(self, ralph):
        words = unit(DEPLOY / "systemd" / UNIT)["Service"]["ExecStart"].split()
        assert words[1:] == ["%i"]
        for instance in ("run", "resume"):
            assert ralph(instance, "--help").returncode == 0

    def test_after_kill_the_run_goes_on_and_after_its_end_it_is_not_begun_again(self, ralph):
        """As systemd does it: `run`, killed, `run` again; and after the next boot, `resume`."""
        agent = ralph.agent("echo one", "touch ready; sleep 60", "echo LOOP_COMPLETE")
        ralph.settings(f"agent: command\nagents: {{command: {{command: {json.dumps(agent.command)}}}}}\n")
        ralph.write("PROMPT.md", "Do what is to be done.\n")
        process = ralph.start("run")
        ralph.until((ralph.workspace / "ready").exists)
        process.kill()
        process.communicate()
        done = ralph("run")
        assert done.returncode == 0, done.stderr
        assert "going on with run" in done.stderr + done.stdout
        assert agent.calls == 3
        done = ralph("resume")
        assert (done.returncode, agent.calls) == (0, 3)
        assert len(json.loads(ralph("runs", "--json").stdout)) == 1


class TestEnvironmentFile:
    def test_names_are_read(self, ralph):
        names = re.findall(r"^#?([A-Z_]+)=", (DEPLOY / "ralph.env").read_text(), re.MULTILINE)
        keys = {"CLAUDE_API_KEY", "GEMINI_API_KEY", "Q_API_KEY"}
        assert set(names) <= {*ENVIRONMENT, *keys, "HOME", "PYTHONUNBUFFERED"}
        assert keys <= set(names)

    def test_is_valid(self, ralph):
        lines = [line for line in (DEPLOY / "ralph.env").read_text().splitlines() if not line.startswith("#")]
        given = dict(line.split("=", 1) for line in lines)
        given |= {"RALPH_WORKSPACE": str(ralph.workspace), "HOME": ralph.env["HOME"]}
        done = ralph("config", "check", env=given)
        assert done.returncode == 0, done.stderr


class TestCron:
    def lines(self):
        text = (DEPLOY / "ralph.cron").read_text()
        for line in text.splitlines():
            if line and not line.startswith(("#", "MAILTO=")):
                *when, user, command = line.split(None, 6)
                yield when, user, command

    def test_lines_have_a_time_a_user_and_no_bare_percent_sign(self):
        for when, user, command in self.lines():
            assert len(when) == 5
            assert all(re.fullmatch(r"\*(/\d+)?|\d+", each) for each in when)
            assert user == "ralph"
            assert not re.search(r"(?<!\\)%", command), "cron makes a new line of it"

    def test_commands_do_what_they_say(self, ralph, tmp_path):
        """In the order of the file, in a workspace with a run that has ended."""
        ralph.run(ralph.agent("echo LOOP_COMPLETE"))
        places = {"/var/ralph/workspace": ralph.workspace, "/var/backups/ralph": tmp_path / "backups",
                  "/opt/ralph/venv/bin/ralph": Path(sys.executable).with_name("ralph"), "/opt/ralph/health-check": DEPLOY / "health-check"}  # fmt: skip
        (tmp_path / "backups").mkdir()
        old = tmp_path / "backups/old.tar.gz"
        old.touch()
        os.utime(old, (0, 0))
        for _, _, command in self.lines():
            here = command.replace(r"\%", "%")
            for name, path in places.items():
                here = here.replace(name, str(path))
            done = call("/bin/sh", "-c", here, env=ralph.env, cwd="/")
            assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), here
        (made,) = (tmp_path / "backups").iterdir()
        assert ralph("backup", "verify", made).returncode == 0


class TestLogrotate:
    def test_file_is_understood(self, tmp_path):
        program = needed("logrotate")
        path = tmp_path / "ralph"
        logs = tmp_path / "logs"
        logs.mkdir(mode=0o755)
        (logs / "ralph.log").write_text("one line\n")
        text = (DEPLOY / "ralph.logrotate").read_text()
        text = re.sub(r"^ *su .*$", "", text, flags=re.MULTILINE).replace("/var/log/ralph", str(logs))
        path.write_text(text)
        path.chmod(0o644)
        done = call(program, "--debug", "--state", tmp_path / "state", path)
        assert (done.returncode, "error" in done.stderr) == (0, False), done.stderr
        done = call(program, "--force", "--state", tmp_path / "state", path)
        assert done.returncode == 0, done.stderr
        assert (logs / "ralph.log").read_text() == ""
        assert (logs / "ralph.log.1").read_text() == "one line\n"


class TestContainer:
    def test_dockerfile_is_clean(self):
        done = call(needed("hadolint"), DEPLOY / "docker/Dockerfile")
        assert (done.returncode, done.stdout) == (0, ""), done.stdout

    def test_compose_file_is_clean(self):
        tools = Path(os.environ.get("RALPH_TEST_DCLINT") or "dclint")
        done = call(needed(str(tools)), "--max-warnings", "0", DEPLOY / "docker")
        assert done.returncode == 0, done.stdout + done.stderr

    def test_check_of_health_asks_ralph(self, ralph):
        """The image's own command, against a run that is well and after its end."""
        text = (DEPLOY / "docker/Dockerfile").read_text()
        _, code = json.loads(re.search(r"CMD (\[\"python\", .*\])$", text, re.MULTILINE)[1])[1:]
        agent = ralph.agent("touch ready; while [ ! -e go ]; do sleep 0.05; done; echo LOOP_COMPLETE")
        process = ralph.begin(agent, env={"HEALTH_CHECK_ENABLED": "true", "RALPH_METRICS_PORT": "0"})
        ralph.until((ralph.workspace / "ready").exists)
        (port,) = re.findall(r"/health on http://127.0.0.1:(\d+)", self.said(process))
        asked = [sys.executable, "-c", code]
        env = {**ralph.env, "RALPH_METRICS_PORT": port}
        assert call(*asked, env=env).returncode == 0
        (ralph.workspace / "go").touch()
        process.communicate(timeout=60)
        assert call(*asked, env=env).returncode != 0

    def said(self, process):
        """What the run says until it names its address."""
        for stream in (process.stderr, process.stdout):
            for line in iter(stream.readline, ""):
                if "/health on" in line:
                    return line
        return ""

    def test_commands_are_understood(self, ralph):
        import yaml

        compose = yaml.safe_load((DEPLOY / "docker/compose.yml").read_text())
        service = compose["services"]["ralph"]
        assert service["restart"] == "no"
        assert set(service["environment"]) <= set(ENVIRONMENT)
        assert ralph(*service["command"], "--help").returncode == 0
        dockerfile = (DEPLOY / "docker/Dockerfile").read_text()
        assert (DEPLOY.parent / service["build"]["dockerfile"]).is_file()
        assert re.search(r"^USER 1000$", dockerfile, re.MULTILINE)


class TestHealthCheck:
    def check(self, ralph, **state):
        """What the script says of a run with this in its state file."""
        folder = ralph.workspace / ".agent/metrics"
        if state:
            folder.mkdir(parents=True, exist_ok=True)
            whole = {"run": "R", "status": "running", "updated": time.time(), "consecutive_failures": 0, **state}
            (folder / "state_20990101-000000-000000.json").write_text(json.dumps(whole))
        done = call(DEPLOY / "health-check", cwd=ralph.workspace)
        assert done.stdout == ""
        return done.returncode, done.stderr

    def test_of_real_runs(self, ralph):
        assert self.check(ralph) == (0, "")
        ralph.run(ralph.agent("echo LOOP_COMPLETE"))
        assert self.check(ralph) == (0, "")
        ralph.settings("max_failures: 1\nretry_max: 0\n")
        ralph.run(ralph.agent("exit 3"))
        code, said = self.check(ralph)
        assert code == 1
        assert re.match(r"ralph: run \S+ has failed", said)

    def test_of_a_run_that_is_silent_or_failing(self, ralph):
        assert self.check(ralph, status="running") == (0, "")
        assert "not been heard of" in self.check(ralph, updated=time.time() - 4000)[1]
        assert "failed 2 times" in self.check(ralph, consecutive_failures=2)[1]
        assert self.check(ralph, status="completed", updated=0) == (0, "")


class TestExporter:
    def test_shows_totals_however_often_it_is_asked(self, ralph):
        ralph.run(ralph.agent("echo one", "exit 3", "echo LOOP_COMPLETE"))
        code = (
            f"import runpy; from prometheus_client import CollectorRegistry, generate_latest as text; r = CollectorRegistry();"
            f"r.register(runpy.run_path({str(DEPLOY / 'metrics_exporter.py')!r})['Runs']('.agent'));"
            "text(r); print(text(r).decode())"
        )
        done = call(sys.executable, "-c", code, cwd=ralph.workspace)
        assert done.returncode == 0, done.stderr
        state = json.loads(next((ralph.workspace / ".agent/metrics").glob("state_*.json")).read_text())
        assert f"ralph_iterations_total {float(state['iteration_count'])}\n" in done.stdout
        assert f"ralph_errors_total {float(len(state['errors']))}\n" in done.stdout
        assert state["iteration_count"] >= 2
        assert len(state["errors"]) == 1
        assert "\nralph_runtime_seconds " in done.stdout
