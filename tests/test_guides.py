"""The deployment guides' own commands, scripts and files, run against Ralph: as they are written, or as docs/reference/guides.md
says why not. What a guide says is in tests/guides/, word for word; paths of a server are replaced by those of the test."""

import hashlib
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from ralph_core.settings.model import Settings
from ralph_core.settings.sources import ENVIRONMENT

HERE = Path(__file__).parent
GUIDES = sorted(path.stem for path in (HERE / "guides").glob("*.md"))
TABLE = HERE.parent / "docs/reference/guides.md"
FATES = ("as written", "corrected", "later", "not Ralph's")
STANDIN = HERE.parent / "plugins/ralph-qchat/tests/standin/q"
DONE = "cat > /dev/null; echo LOOP_COMPLETE"
WAITING = "touch ready; while [ ! -e go ]; do sleep 0.05; done; echo LOOP_COMPLETE"
BOX = """
from dataclasses import replace
from ralph_core import hookimpl
@hookimpl
def ralph_prepare_command(command): return replace(command, argv=("env", "BOXED=1", *command.argv))
"""


def excerpts(guide):
    """The sections of a guide that have code, each with what is kept of it: language, digest and words."""
    found = {}
    for part in re.split(r"^## ", (HERE / f"guides/{guide}.md").read_text(), flags=re.MULTILINE)[1:]:
        found[part.partition("\n")[0]] = re.findall(r"^```(\w+) (\w+)\n(.*?)^```$", part, re.MULTILINE | re.DOTALL)
    return found


def said(guide, section, number=0):
    """What the guide says in a section, which is named by its last heading."""
    (blocks,) = [blocks for name, blocks in excerpts(guide).items() if name.split(" › ")[-1] == section]
    return blocks[number][2]


def exports(text):
    """The variables that lines for a shell set, as that shell has them then."""
    done = subprocess.run(["bash", "-c", f"set -a; {text}\nenv -0"], capture_output=True, text=True, env={}, check=True)
    found = dict(entry.split("=", 1) for entry in done.stdout.split("\0") if entry)
    return {name: value for name, value in found.items() if name not in ("PWD", "SHLVL", "_", "OLDPWD")}


def container(text, **outside):
    """What `docker run` would set and run: variables, and arguments of the image's program."""
    line = next(line for line in text.replace("\\\n", " ").splitlines() if line.strip().startswith("docker run"))
    words = [re.sub(r"\$\{?(\w+)\}?", lambda found: outside.get(found[1], ""), word) for word in shlex.split(line)]
    env = dict(word.split("=", 1) for flag, word in pairwise(words) if flag == "-e")
    image = next(number for number, word in enumerate(words) if word.startswith("ralph-orchestrator:"))
    return env, words[image + 1 :]


def call(*command, **options):
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=60, **options)


def address(process):
    """Where a run that was just started serves its figures."""
    for line in iter(process.stderr.readline, ""):
        if found := re.search(r"/health on (http://127.0.0.1:\d+)", line):
            return found[1]
    pytest.fail("the run does not say where")


def ask(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


def shown(ralph, *names, **options):
    """The values of settings, as `ralph config show` has them."""
    done = ralph("config", "show", "--json", **options)
    assert done.returncode == 0, done.stderr
    values = json.loads(done.stdout)
    return [values[name]["value"] for name in names]


@pytest.fixture
def served(ralph):
    """A text of a guide with the places of the test for those of its server."""
    places = {
        "/opt/ralph-orchestrator/.agent": ralph.home,
        "/opt/ralph-orchestrator": ralph.workspace,
        "/var/ralph/workspace": ralph.workspace,
        "/var/log": ralph.root / "log",
        "/var/run": ralph.root / "run",
        "/backup": ralph.root / "backup",
    }
    for place in ("log/ralph", "log/semibot", "run", "backup/ralph"):
        (ralph.root / place).mkdir(parents=True)

    def served(text):
        for name, place in places.items():
            text = text.replace(name, str(place))
        return text

    return served


# --- the excerpts and the table ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("guide", GUIDES)
def test_excerpts_are_what_the_guide_says(guide):
    """By their digests; and word for word where the guides are (RALPH_TEST_GUIDES is their folder)."""
    blocks = [block for blocks in excerpts(guide).values() for block in blocks]
    assert blocks
    for _, digest, text in blocks:
        assert hashlib.sha256(text.encode()).hexdigest().startswith(digest), text
    if folder := os.environ.get("RALPH_TEST_GUIDES"):
        whole = Path(folder, f"{guide}.md").read_text()
        assert all(text in whole for _, _, text in blocks)
        headings = set(re.findall(r"^#+ (.*)$", whole, re.MULTILINE))
        assert all(heading in headings for name in excerpts(guide) for heading in name.split(" › "))


@pytest.mark.parametrize("guide", GUIDES)
def test_each_section_has_its_row(guide):
    """In the order of the guide; what is kept of it is run here, and is not said to come later."""
    part = TABLE.read_text().partition(f"\n## {guide}\n")[2].partition("\n## ")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines() if line.startswith("| ")
    ]
    names = [name for row in rows[1:] for name in row[0].split("; ")]
    sections = excerpts(guide)
    assert names == [section.split(" › ")[-1] for section in sections]
    fates = {name: row[1] for row in rows[1:] for name in row[0].split("; ")}
    assert set(fates.values()) <= set(FATES)
    (tests,) = [part for part in Path(__file__).read_text().split("\nclass ") if f'\n    GUIDE = "{guide}"\n' in part]
    for section, blocks in sections.items():
        name = section.split(" › ")[-1]
        assert bool(blocks) == (f'"{name}"' in tests), f"{name} is kept and not run, or the other way round"
        assert not blocks or fates[name] in FATES[:2]


# --- ralph-production -------------------------------------------------------------------------------------------------


class TestProduction:
    GUIDE = "ralph-production"

    def test_environment_file(self, ralph, served):
        ralph.claude()
        ralph.write("PROMPT.md", "Do what is to be done.\n")
        env = {"ENV_FILE": str(ralph.write("../ralph.env", served(said(self.GUIDE, "环境变量"))))}
        names = ("agent", "max_iterations", "max_runtime", "checkpoint_interval", "retry_delay", "git_enabled", "home")
        values = [["claude"], 100, 14400, 5, 2, True, str(ralph.workspace)]
        assert shown(ralph, *names, env=env) == values
        home = ralph.root / "state"  # RALPH_HOME is where Ralph keeps its state, not where it is installed
        done = ralph("run", env=env | {"RALPH_HOME": str(home)}, cwd=ralph.root)
        assert done.returncode == 0, done.stderr
        assert "\nDo what is to be done.\n" in (ralph.root / "bin/prompt").read_text()
        assert len(list((home / "runs").iterdir())) == 1

    def test_environment_of_compose(self, ralph):
        service = yaml.safe_load(said(self.GUIDE, "Docker Compose"))["services"]["ralph"]
        env = dict(line.split("=") for line in service["environment"])
        assert set(env) <= set(ENVIRONMENT)
        assert shown(ralph, *(ENVIRONMENT[name] for name in env), env=env) == [100, ["auto"], 5]
        assert service["restart"] == "unless-stopped", "which is corrected in deploy/docker/compose.yml"

    def test_settings_file(self, ralph):
        ralph.claude()
        text = said(self.GUIDE, "配置文件").replace("http://metrics.example.com", "http://127.0.0.1:9")
        ralph.write("production.json", text)
        start = ("run", "--config", "production.json", "-p", "x")
        ralph.refuses(*start, says=["security.sandbox_enabled", "ralph_prepare_command"])
        ralph.plugin("box", BOX)
        done = ralph(*start)
        assert done.returncode == 0, done.stderr
        assert "BOXED=1" in (ralph.root / "bin/env").read_text()
        given = json.loads(text)["production"]
        values = shown(ralph, *(name for name in given if name not in ("monitoring", "security", "agent")))
        assert values != list(given.values())[1:8], "only with --config"
        done = ralph("config", "show", "--json", "--given", "--config", "production.json")
        assert {name: each["value"] for name, each in json.loads(done.stdout).items()} == {
            "agent": ["claude"],
            **{name: value for name, value in given.items() if name not in ("monitoring", "security", "agent")},
            **{f"monitoring.{name}": value for name, value in given["monitoring"].items() if name != "log_level"},
            "monitoring.log_level": "info",
            **{f"security.{name}": value for name, value in given["security"].items()},
        }

    @pytest.mark.parametrize(
        ("guide", "section", "number", "program"),
        [
            ("ralph-production", "Systemd 服务", 0, "/opt/ralph-orchestrator/ralph"),
            ("ralph-qchat", "附录：Systemd 服务", 0, "/usr/bin/python3"),
            ("semibot-runtime", "生产环境", 1, "/opt/semibot/runtime/venv/bin/python"),
        ],
    )
    def test_units_are_valid(self, tmp_path, guide, section, number, program):
        if not shutil.which("systemd-analyze") and not os.environ.get("RALPH_TEST_NO_SKIP"):
            pytest.skip("systemd-analyze is not installed")
        path = tmp_path / "ralph.service"
        path.write_text(said(guide, section, number).replace(program, "/bin/true"))
        done = call(
            "systemd-analyze", "verify", "--man=no", path, env=os.environ | {"SYSTEMD_UNIT_PATH": f"{tmp_path}:"}
        )
        assert (done.returncode, done.stderr) == (0, "")

    def test_command_of_the_unit_and_its_reload(self, ralph):
        unit = said(self.GUIDE, "Systemd 服务")
        (line,) = re.findall(r"^ExecStart=\S+ (.*)$", unit, re.MULTILINE)
        assert re.findall(r"^ExecReload=(.*)$", unit, re.MULTILINE) == ["/bin/kill -HUP $MAINPID"]
        agent = ralph.agent(WAITING)
        command = {"agents": {"command": {"command": agent.command}}, "agent": "command"}
        ralph.write("production.json", json.dumps({"production": command}))
        ralph.write("PROMPT.md", "x\n")
        process = ralph.start(*line.split())
        ralph.until((ralph.workspace / "ready").exists)
        ralph.write("production.json", json.dumps({"production": {**command, "max_iterations": 7}}))
        assert call("/bin/sh", "-c", "kill -HUP $MAINPID", env={"MAINPID": str(process.pid)}).returncode == 0
        ralph.until(lambda: any(each["message"] == "settings reloaded" for each in ralph.records()))
        (ralph.workspace / "go").touch()
        assert ralph.end(process).returncode == 0
        assert ralph.state()["limits"]["iterations"] == 7

    def test_backup_by_cron(self, ralph, served):
        """The tar of the state directory, put back where it was; scripts that the guide names, it does not have."""
        ralph.run(ralph.agent("echo more"), "--max-iterations", "2")
        line = next(line for line in served(said(self.GUIDE, "Cron 作业")).splitlines() if " tar " in line)
        done = call("/bin/sh", "-c", line.split(None, 6)[6].replace(r"\%", "%"))
        assert done.returncode == 0, done.stderr
        (archive,) = (ralph.root / "backup").glob("ralph-*.tar.gz")
        shutil.rmtree(ralph.home)
        assert call("tar", "-xzf", archive, "-C", "/").returncode == 0
        done = ralph("resume", "--max-iterations", "3")
        assert (done.returncode, "iterations  3 of 3" in done.stdout) == (3, True)
        assert ralph("audit", "verify").returncode == 0

    def test_exporter(self, ralph):
        """It reads the state file; but adds the totals up again at each look, and its loop ends after the first one."""
        ralph.run(ralph.agent("echo one", "exit 3", "echo LOOP_COMPLETE"))
        code = said(self.GUIDE, "Prometheus 指标")
        end = "from prometheus_client import generate_latest; print(generate_latest().decode())"
        loop = "\nif __name__ == '__main__':"
        seen = call(sys.executable, "-c", code.replace(loop, f"\ncollect_metrics()\n{end}\nif 0:"), cwd=ralph.workspace)
        assert "\nralph_iterations_total 3.0\n" in seen.stdout, seen.stderr
        assert "\nralph_errors_total 1.0\n" in seen.stdout
        assert float(re.search(r"^ralph_runtime_seconds (.*)$", seen.stdout, re.MULTILINE)[1]) > 0
        twice = code.replace(loop, f"\ncollect_metrics()\ncollect_metrics()\n{end}\nif 0:")
        assert "\nralph_iterations_total 6.0\n" in call(sys.executable, "-c", twice, cwd=ralph.workspace).stdout
        whole = call(sys.executable, "-c", code.replace("8000", "0, '127.0.0.1'"), cwd=ralph.workspace)
        assert "NameError: name 'time' is not defined" in whole.stderr

    def test_log(self, ralph, served):
        """The guide's own set-up of a log, and Ralph's: the same fields, in a file and at syslog."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as syslog:
            syslog.settimeout(10)
            syslog.bind(str(ralph.root / "syslog"))
            code = served(said(self.GUIDE, "日志设置")).replace("/dev/log", str(ralph.root / "syslog"))
            log = "\nsetup_production_logging()\ntry: 1 / 0\nexcept ValueError: pass\nexcept Exception: logging.exception('x')"
            assert call(sys.executable, "-c", code + log).returncode == 0
            (line,) = (ralph.root / "log/ralph/ralph.log").read_text().splitlines()
            fields = set(json.loads(line))
            assert set(json.loads(re.sub(rb"^<\d+>|\0$", b"", syslog.recv(100_000)))) == fields
        path = ralph.root / "log/ralph/ours.log"
        ralph.run(DONE, "--log-file", str(path), env={"LOG_FORMAT": "json"})
        assert all(fields - {"exception"} <= set(json.loads(line)) for line in path.read_text().splitlines())
        assert [Settings.model_fields["monitoring"].default.log_max_size, *re.findall(r"backupCount=(\d+)", code)] == [
            100 * 1024 * 1024,
            str(Settings.model_fields["monitoring"].default.log_max_files),
        ]

    def test_key_in_the_keyring(self, ralph):
        """Stored by the guide's own command; the backend here is a file."""
        pytest.importorskip("keyring")
        ralph.claude()
        del ralph.env["CLAUDE_API_KEY"]
        (ralph.site / "ring.py").write_text(
            "import json, pathlib\n"
            "from keyring.backend import KeyringBackend\n"
            f"FILE = pathlib.Path({str(ralph.root / 'ring')!r})\n"
            "class Ring(KeyringBackend):\n"
            "    priority, delete_password = 1, None\n"
            "    def set_password(self, *words): FILE.write_text(json.dumps(words))\n"
            "    def get_password(self, *words):\n"
            "        kept = json.loads(FILE.read_text())\n"
            "        return kept[2] if tuple(kept[:2]) == words else None\n"
        )
        ralph.env["PYTHON_KEYRING_BACKEND"] = "ring.Ring"
        (line,) = [line for line in said(self.GUIDE, "API 密钥管理").splitlines() if line.startswith("python ")]
        assert call(sys.executable, *shlex.split(line)[1:], env=ralph.env).returncode == 0
        ralph.settings("agent: claude\nkeys: {CLAUDE_API_KEY: {keyring: ralph}}\n")
        done = ralph("run", "-p", "x")
        assert done.returncode == 0, done.stderr
        assert "ANTHROPIC_API_KEY=your-key\n" in (ralph.root / "bin/env").read_text()

    def test_limits_of_resources(self, ralph):
        """`process.limits: true` limits the agent as the guide's function limits whoever calls it."""
        show = "import resource as r; print([r.getrlimit(getattr(r, 'RLIMIT_' + n))[0] for n in ('AS','CPU','FSIZE','NPROC')])"
        code = said(self.GUIDE, "资源限制") + "\nset_production_limits()\n" + show
        wanted = call(sys.executable, "-c", code).stdout
        assert wanted == f"{[4 << 30, 3600, 100 << 20, 100]}\n"
        ralph.settings("process: {limits: true}")
        agent = ralph.agent(f"{sys.executable} -c {shlex.quote(show)} > seen; echo LOOP_COMPLETE")
        assert ralph.run(agent).returncode == 0
        assert (ralph.workspace / "seen").read_text() == wanted

    def test_backup_script_and_restore_script(self, ralph, served):
        """The archive holds what is needed to go on; but the last lines of the restore take the work away."""
        ralph.write("PROMPT.md", "x\n")
        ralph.write("production.json", "{}")
        ralph.program("aws", "#!/bin/sh\nexit 0\n")
        ralph.program("systemctl", f'#!/bin/sh\necho "$@" >> {ralph.root}/systemctl\n')
        done = ralph("run", "-a", "command", "--command", "echo work >> README; echo more", "--max-iterations", "2")
        assert done.returncode == 3
        old = ralph.root / "backup/ralph/ralph_old.tar.gz"
        old.touch()
        os.utime(old, (0, 0))
        done = call("bash", "-c", served(said(self.GUIDE, "自动备份")), env=ralph.env)
        assert done.returncode == 0, done.stderr
        (archive,) = (ralph.root / "backup/ralph").iterdir()
        shutil.rmtree(ralph.home)
        restore = served(said(self.GUIDE, "灾难恢复"))
        corrected = re.sub(r"^git reset.*$", "", restore, flags=re.MULTILINE)
        assert call("bash", "-c", corrected, "restore.sh", archive, env=ralph.env).returncode == 0
        assert (ralph.root / "systemctl").read_text() == "stop ralph\nstart ralph\n"
        assert ralph("resume", "--max-iterations", "3").returncode == 3
        assert (ralph.workspace / "README").read_text() == "hello\n" + "work\n" * 3
        assert call("bash", "-c", restore, "restore.sh", archive, env=ralph.env).returncode == 0
        assert (ralph.workspace / "README").read_text() == "hello\n", "as written, it is reset to the last commit"

    def test_health_server(self, ralph, served):
        """As written each request is answered with 500 (`glob` is not imported); Ralph's own answer has the same fields."""
        (ralph.site / "flask.py").write_text(
            "import json\n"
            "class Flask:\n"
            "    def __init__(self, name): pass\n"
            "    def route(self, path): return lambda function: function\n"
            "def jsonify(value): return json.dumps(value)\n"
        )
        env = {"HEALTH_CHECK_ENABLED": "true", "RALPH_METRICS_PORT": "0"}
        process = ralph.begin(ralph.agent(WAITING), "--pid-file", str(ralph.root / "run/ralph.pid"), env=env)
        where = address(process)
        ralph.until((ralph.workspace / "ready").exists)
        ralph.until(lambda: list((ralph.home / "metrics").glob("state_*.json")))
        code = served(said(self.GUIDE, "HTTP 健康端点")).partition("\nif __name__")[0] + "\nprint(health())"
        asked = call(sys.executable, "-c", code, env=ralph.env, cwd=ralph.workspace)
        assert re.search(r"glob.* is not defined.*, 500\)$", asked.stdout)
        asked = call(sys.executable, "-c", "import glob\n" + code, env=ralph.env, cwd=ralph.workspace)
        theirs, ours = json.loads(asked.stdout), json.loads(ask(f"{where}/health"))
        assert (theirs["status"], theirs["iteration"], theirs["errors"]) == ("healthy", 0, 0)
        assert {name: ours[name] for name in ("status", "iteration", "errors")} == {
            name: theirs[name] for name in ("status", "iteration", "errors")
        }
        assert set(theirs) <= set(ours)
        (ralph.workspace / "go").touch()
        assert ralph.end(process).returncode == 0


# --- ralph-docker -----------------------------------------------------------------------------------------------------


class TestDocker:
    """What a container would be given, given to the process that would be in it."""

    GUIDE = "ralph-docker"

    def test_arguments_without_a_command_and_the_key(self, ralph):
        ralph.claude()
        del ralph.env["CLAUDE_API_KEY"]
        ralph.write("PROMPT.md", "x\n")
        env, arguments = container(said(self.GUIDE, "从源代码构建"), CLAUDE_API_KEY="sk-ant-of-the-guide")
        assert arguments == ["--agent", "claude", "--prompt", "PROMPT.md"]
        done = ralph(*arguments, env=env)
        assert done.returncode == 0, done.stderr
        assert "ANTHROPIC_API_KEY=sk-ant-of-the-guide\n" in (ralph.root / "bin/env").read_text()

    def test_compose_file(self, ralph):
        ralph.claude()
        (ralph.root / "prompts").mkdir()
        (ralph.root / "prompts/PROMPT.md").write_text("The task of the guide.\n")
        service = yaml.safe_load(said(self.GUIDE, "Docker Compose 设置"))["services"]["ralph"]
        env = dict(line.split("=") for line in service["environment"] if "$" not in line)
        keys = [line.split("=")[0] for line in service["environment"] if "$" in line]
        assert keys == ["CLAUDE_API_KEY", "GEMINI_API_KEY", "Q_API_KEY"]
        command = [word.replace("/prompts", str(ralph.root / "prompts")) for word in service["command"]]
        done = ralph(*command, env=env)
        assert done.returncode == 0, done.stderr
        assert "\nThe task of the guide.\n" in (ralph.root / "bin/prompt").read_text()
        state = ralph.state()
        assert (state["agent"], state["limits"]["iterations"], state["limits"]["runtime"]) == ("claude", 100, 14400)

    def test_defaults_of_the_variables(self):
        rows = re.findall(r"^\| `(\w+)` \|.*\| (\S+) \|$", said(self.GUIDE, "环境变量"), re.MULTILINE)
        ours = {name: Settings.model_fields[ENVIRONMENT[name]].default for name, _ in rows if name in ENVIRONMENT}
        assert set(ours) == {name for name, _ in rows if name.startswith("RALPH_")}
        told = {name: value for name, value in rows if name in ours}
        assert {name: "auto" if value == ("auto",) else json.dumps(value) for name, value in ours.items()} == {
            **told,
            "RALPH_MAX_RUNTIME": f"{told['RALPH_MAX_RUNTIME']}.0",
        }

    def test_env_file(self, ralph):
        """As ENV_FILE; Docker's own --env-file takes the same lines."""
        ralph.claude()
        del ralph.env["CLAUDE_API_KEY"]
        lines = said(self.GUIDE, "密钥管理").partition("\n\n")[0]
        ralph.write(".env", lines + "\n")
        done = ralph("run", "-a", "claude", "-p", "x", env={"ENV_FILE": ".env"})
        assert done.returncode == 0, done.stderr
        seen = (ralph.root / "bin/env").read_text()
        assert "ANTHROPIC_API_KEY=sk-ant-...\n" in seen
        assert "AIza" not in seen, "each agent is given its own key alone"

    def test_its_check_of_health_can_not_fail(self, tmp_path):
        code = re.search(r'-c "(.*?)"', said(self.GUIDE, "健康检查"))[1]
        assert call(sys.executable, "-c", code, cwd=tmp_path).returncode == 0, "where nothing runs"

    def test_dry_run_from_a_shell(self, ralph):
        (line,) = [line for line in said(self.GUIDE, "交互式 Shell").splitlines() if line.startswith("python ")]
        assert line.split()[2:] == ["--dry-run"]
        ralph.claude()
        ralph.write("PROMPT.md", "x\n")
        before = ralph.tree()
        done = ralph("--dry-run")
        assert (done.returncode, ralph.tree()) == (0, before)
        assert "Dry run" in done.stdout

    def test_secret_of_a_swarm(self, ralph):
        """Docker puts it into a file, /run/secrets/claude_key."""
        names = re.findall(r"docker secret create (\w+) -", said(self.GUIDE, "使用 Docker Swarm"))
        assert names == ["claude_key", "gemini_key"]
        ralph.claude()
        del ralph.env["CLAUDE_API_KEY"]
        (ralph.root / "run").mkdir()
        done = call(
            "sh", "-c", f"echo $CLAUDE_API_KEY > {ralph.root}/run/claude_key", env={"CLAUDE_API_KEY": "of-the-swarm"}
        )
        ralph.settings(f"agent: claude\nkeys: {{CLAUDE_API_KEY: {{file: {ralph.root}/run/claude_key}}}}\n")
        done = ralph("run", "-p", "x")
        assert done.returncode == 0, done.stderr
        assert "ANTHROPIC_API_KEY=of-the-swarm\n" in (ralph.root / "bin/env").read_text()

    def test_metrics(self, ralph):
        """With the variables of the guide (but a port that is free), at the path that its Prometheus scrapes."""
        env, arguments = container(said(self.GUIDE, "导出指标"))
        assert (env, arguments) == ({"RALPH_ENABLE_METRICS": "true", "RALPH_METRICS_PORT": "8080"}, [])
        (scraped,) = yaml.safe_load(said(self.GUIDE, "Prometheus 配置"))["scrape_configs"]
        process = ralph.begin(ralph.agent("echo more", WAITING), env=env | {"RALPH_METRICS_PORT": "0"})
        where = address(process)
        ralph.until((ralph.workspace / "ready").exists)
        figures = ask(where + scraped["metrics_path"])
        (ralph.workspace / "go").touch()
        assert ralph.end(process).returncode == 0
        names = (
            "ralph_iterations_total",
            "ralph_errors_total",
            "ralph_runtime_seconds",
            "ralph_iteration_duration_seconds",
        )
        assert [name for name in names if f"# TYPE {name} " not in figures] == []

    def test_retries(self, ralph):
        env, _ = container(said(self.GUIDE, "网络超时"))
        assert shown(ralph, "retry_delay", "retry_max", env=env) == [5, 10]

    def test_debug_mode(self, ralph):
        env, arguments = container(said(self.GUIDE, "调试模式"))
        assert arguments == ["--verbose", "--dry-run"]
        assert shown(ralph, "monitoring.log_level", "verbose", env=env) == ["debug", True]
        ralph.claude()
        ralph.write("PROMPT.md", "x\n")
        assert ralph(*arguments, env=env).returncode == 0


# --- ralph-qchat ------------------------------------------------------------------------------------------------------


@pytest.fixture
def chat(ralph):
    """Install the stand-in of Q Chat; with a key, so that it need not log in."""
    ralph.program("q", STANDIN.read_text().replace("#!/usr/bin/env python3", f"#!{sys.executable}"))
    ralph.env["Q_API_KEY"] = "key-of-q"
    ralph.write("PROMPT.md", "Do what is to be done.\n")
    return ralph


def orchestrator(text):
    """The arguments of `python -m ralph_orchestrator` in a script, save --config: the file is read from where it lies."""
    line = re.search(r"python3? -m ralph_orchestrator (.*)", text.replace("\\\n", " "))[1]
    return re.sub(r"--config \S+", "", line).split()


class TestQChat:
    GUIDE = "ralph-qchat"

    def test_variables(self, chat):
        """All of them at once, as a shell has them; the prompt is served within them."""
        env = exports(said(self.GUIDE, "环境变量"))
        assert len(env) == 9
        done = chat("run", "-a", "q", env=env)
        assert done.returncode == 0, done.stderr
        assert "qchat" in done.stderr, "QCHAT_VERBOSE: its log is on standard error, too"
        refused = chat("run", "-a", "q", env={**env, "QCHAT_TIMEOUT": "long"})
        assert (refused.returncode, "QCHAT_TIMEOUT" in refused.stderr) == (2, True)

    def test_file(self, chat, served):
        text = served(said(self.GUIDE, "配置文件"))
        chat.write("config/qchat.yaml", text.replace("8080", "0"))
        done = chat("run", "-a", "q")
        assert done.returncode == 0, done.stderr
        (line, *_) = (chat.root / "log/ralph/qchat.log").read_text().splitlines()
        assert re.match(r"\d{4}-\d\d-\d\d [\d:,]+ - ralph\.qchat - INFO - ", line)
        figures = (chat.home / "metrics/qchat.prom").read_text()
        for name in re.findall(r"'(qchat_\w+)'", said(self.GUIDE, "指标收集")):
            assert f"# TYPE {name.removesuffix('_total')}" in figures
        assert "qchat_requests_total 1.0\n" in figures
        refused = chat("run", "-a", "q", "--config", "config/qchat.yaml")
        assert (refused.returncode, "qchat.yaml, line" in refused.stderr, "unknown setting" in refused.stderr) == (
            2,
            True,
            True,
        )

    def test_single_deployment(self, chat, served):
        script = served(said(self.GUIDE, "1. 单实例部署"))
        chat.write("config/qchat.yaml", "adapter: {timeout: 300, max_retries: 5}\n")
        arguments = orchestrator(script)
        assert "--metrics-interval" in arguments
        done = chat(*arguments, env=exports(script.partition("\n# 启动")[0]))
        assert done.returncode == 0, done.stderr
        assert chat.state()["limits"]["iterations"] == 1000
        assert "run.started" in (chat.root / "log/ralph/orchestrator.log").read_text()

    def test_high_availability(self, chat):
        env = exports(said(self.GUIDE, "2. 高可用性部署").partition("\n# 使用 supervisor")[0])
        assert env["HEALTH_CHECK_ENABLED"] == "true"
        assert shown(chat, "monitoring.health_check_enabled", "monitoring.health_check_interval", env=env) == [True, 30]
        process = chat.start("run", "-a", "q", env=env | {"RALPH_METRICS_PORT": "0"})
        assert address(process)
        assert chat.end(process).returncode == 0

    def test_container(self, chat):
        """Its check of health passes whatever it is told: `requests` raises for no status. The variables work."""
        dockerfile, compose = (said(self.GUIDE, "3. 容器化部署", number) for number in (0, 1))
        env = dict(re.findall(r"^ENV (\w+)=(.*)$", dockerfile, re.MULTILINE))
        service = yaml.safe_load(compose)["services"]["ralph-qchat"]
        env |= dict(line.split("=") for line in service["environment"])
        (command,) = re.findall(r"^CMD (\[.*\])$", dockerfile, re.MULTILINE)
        assert json.loads(command)[3:5] == ["--agent", "q"]
        done = chat(*json.loads(command)[3:5], env=env)
        assert done.returncode == 0, done.stderr
        check = re.search(r"CMD python -c \"(.*)\"$", dockerfile, re.MULTILINE)[1]
        assert "requests.get" in check
        assert "raise_for_status" not in check

    @pytest.mark.parametrize(
        "section", ["1. 死锁预防", "2. 内存泄漏", "3. 进程挂起", "4. 高 CPU 使用率", "3. 资源限制"]
    )
    def test_troubleshooting(self, chat, section):
        """The variables and the limits of a shell that it sets, and the signal: a run works under them."""
        lines = said(self.GUIDE, section).splitlines()
        sets = "\n".join(line for line in lines if line.startswith(("export ", "ulimit ")))
        if "USR1" in said(self.GUIDE, section):
            process = chat.begin(chat.agent(WAITING))
            chat.until((chat.workspace / "ready").exists)
            (line,) = [line for line in lines if line.startswith("kill ")]
            assert call("sh", "-c", line.replace("<PID>", str(process.pid))).returncode == 0
            chat.until(lambda: list(chat.folder.glob("diagnosis*")) or "diagnosis" in " ".join(chat.types()))
            (chat.workspace / "go").touch()
            assert chat.end(process).returncode == 0
            return
        assert sets
        dry = ["--dry-run"] if "TRACEMALLOC" in sets else []  # it takes its time
        ralph = shlex.join([sys.executable, "-m", "ralph_core", "run", "-a", "q", *dry])
        done = call("bash", "-c", f"set -e\n{sets}\n{ralph}", env=chat.env, cwd=chat.workspace)
        assert done.returncode == 0, done.stderr

    def test_debug_mode(self, chat):
        script = said(self.GUIDE, "调试模式")
        arguments = orchestrator(script)
        assert arguments == ["--agent", "q", "--verbose", "--debug", "--log-level", "DEBUG"]
        env = exports(script.partition("\n# 使用调试日志运行")[0])
        assert set(env) == {"QCHAT_DEBUG", "QCHAT_VERBOSE", "PYTHONVERBOSE", "RUST_LOG"}
        done = chat(*arguments, env=env)
        assert done.returncode == 0
        assert "runs ('" in done.stderr
        assert "# cleanup" in done.stderr, "Python's own, by PYTHONVERBOSE"

    def test_check_of_the_prompt(self, chat):
        """What the guide's function refuses, the adapter refuses; a NUL byte, which it drops in silence, is an error here."""
        scope = {"MAX_PROMPT_LENGTH": 50, "BLOCKED_PATTERNS": ["rm -rf /"], "SecurityError": PermissionError}
        exec(said(self.GUIDE, "1. 输入验证"), scope)
        chat.settings("agents: {q: {max_prompt_length: 3000, blocked_patterns: ['rm -rf /']}}\nmax_failures: 1\n")
        for prompt, error, words in (
            ("x" * 3000, ValueError, "max_prompt_length is 3000"),
            ("now rm -rf / it", PermissionError, "one of blocked_patterns"),
            ("a\0b", None, "a NUL byte"),
        ):
            if error is None:
                assert scope["validate_prompt"](prompt) == "ab"
            else:
                with pytest.raises(error):
                    scope["validate_prompt"](prompt)
            chat.write("PROMPT.md", prompt)
            done = chat("run", "-a", "q")
            assert (done.returncode, words in done.stdout) == (1, True), done.stdout

    def test_backup(self, chat):
        """There is no folder `checkpoints/`: snapshots are in git, and `ralph backup` takes both."""
        lines = said(self.GUIDE, "备份和恢复").splitlines()
        chat("run", "-a", "q")
        chat.write("config/qchat.yaml", "adapter: {timeout: 300}\n")
        (chat.workspace / "backup").mkdir()
        tar, copy = (next(line for line in lines if line.startswith(word)) for word in ("tar -czf", "cp -r config/"))
        assert call("sh", "-c", tar, cwd=chat.workspace).returncode != 0
        assert call("sh", "-c", copy, cwd=chat.workspace).returncode == 0
        (kept,) = (chat.workspace / "backup").glob("config-*")
        assert (kept / "qchat.yaml").exists()
        done = chat("backup", "create", "-o", str(chat.root / "kept.tar.gz"))
        assert done.returncode == 0, done.stderr
        assert chat("backup", "verify", str(chat.root / "kept.tar.gz")).returncode == 0

    def test_command_of_the_unit(self, chat):
        unit = said(self.GUIDE, "附录：Systemd 服务")
        env = dict(re.findall(r'^Environment="(\w+)=(.*)"$', unit, re.MULTILINE))
        done = chat(*orchestrator(unit), env=env)
        assert done.returncode == 0, done.stderr
        assert re.findall(r"^Restart=(.*)$", unit, re.MULTILINE) == ["always"], "corrected in deploy/systemd"


# --- semibot-runtime --------------------------------------------------------------------------------------------------


class TestRuntime:
    GUIDE = "semibot-runtime"

    def test_environment_file(self, ralph, served):
        """Comments behind values included; the database comes with another package, and that is said."""
        path = ralph.write("../runtime.env", served(said(self.GUIDE, "环境变量")))
        env = {"ENV_FILE": str(path)}
        refused = ralph.refuses(*ralph.flags(DONE), env=env, says=["database", "ralph-sql"])
        assert refused.count("ralph-sql") == 1
        env["AUDIT_STORAGE_TYPE"] = "file"
        done = ralph.run(DONE, env=env)
        assert done.returncode == 0, done.stderr
        assert (ralph.root / "log/semibot/audit/audit.jsonl").exists()
        values = {
            "audit_batch_size": 1000, "audit_flush_interval": 10, "audit_retention_days": 90, "max_iterations": 10,
            "max_runtime": 300, "max_concurrent_actions": 5, "capability_cache_ttl": 300, "max_skills_per_agent": 50,
            "mcp.max_servers": 20, "mcp.connection_timeout": 10, "mcp.call_timeout": 30, "mcp.max_retries": 3,
            "sinks.file.max_file_size": 104857600, "sinks.file.max_files": 10, "monitoring.log_level": "info",
        }  # fmt: skip
        assert shown(ralph, *values, env=env) == list(values.values())

    def test_settings_file(self, ralph):
        text = said(self.GUIDE, "配置文件")
        ralph.write("config/production.yaml", text)
        start = (*ralph.flags(DONE), "--config", "config/production.yaml")
        ralph.refuses(*start, says=["audit_sinks", "ralph-sql"])
        assert ralph("config", "check", "--config", "config/production.yaml").returncode == 0
        ralph.write("config/production.yaml", text.replace("storage_type: database", "storage_type: file"))
        done = ralph(*start)
        assert done.returncode == 0, done.stderr
        assert "agent command does not say which tools it uses: high_risk_tools, concurrent_actions can't be enforced" in done.stderr  # fmt: skip
        shown = json.loads(ralph("config", "show", "--json", "--given", "--config", "config/production.yaml").stdout)
        assert {name: each["value"] for name, each in shown.items()} == {
            "max_iterations": 10, "max_runtime": 300, "max_concurrent_actions": 5, "require_approval_for_high_risk": True,
            "high_risk_tools": ["delete_file", "execute_code", "modify_database"], "audit_sinks": ["file"],
            "audit_batch_size": 1000, "audit_flush_interval": 10, "audit_retention_days": 90, "mcp.connection_timeout": 10,
            "mcp.call_timeout": 30, "mcp.max_retries": 3, "mcp.reconnect_delay": 5, "capability_cache_ttl": 300,
            "max_skills_per_agent": 50, "mcp.max_servers": 20,
        }  # fmt: skip

    def test_development(self, ralph):
        ralph.write(".env.development", said(self.GUIDE, "开发环境"))
        env = exports(said(self.GUIDE, "开发环境", 1).replace("python -m src.main", ""))
        assert env == {"ENV_FILE": ".env.development"}
        done = ralph.run(DONE, env=env)
        assert done.returncode == 0, done.stderr
        assert (ralph.workspace / "logs/audit/audit.jsonl").exists()
        assert " DEBUG " in done.stderr

    @pytest.mark.parametrize("section", ["测试环境", "生产环境"])
    def test_other_environments_want_a_database(self, ralph, section):
        ralph.write(".env.here", said(self.GUIDE, section))
        env = {"ENV_FILE": ".env.here"}
        ralph.refuses(*ralph.flags(DONE), env=env, says=["database", "ralph-sql"])
        assert ralph.run(DONE, env=env | {"AUDIT_STORAGE_TYPE": "memory"}).returncode == 0

    def test_health_check(self, ralph):
        """The guide's script, word for word but for the port: of a run at work, and when there is none."""
        script = said(self.GUIDE, "健康检查")
        process = ralph.begin(ralph.agent(WAITING), env={"HEALTH_CHECK_ENABLED": "true", "RALPH_METRICS_PORT": "0"})
        script = script.replace("http://localhost:8901", address(process))
        well = call("bash", "-c", script)
        (ralph.workspace / "go").touch()
        assert ralph.end(process).returncode == 0
        assert (well.returncode, well.stdout) == (0, "Service is healthy\n")
        gone = call("bash", "-c", script)
        assert (gone.returncode, gone.stdout) == (1, "Service is unhealthy (HTTP 000)\n")

    def test_old_logs_are_not_deleted_by_name(self, ralph, served):
        """The guide's `find` finds nothing of the account: its files are no *.log. A run is forgotten whole."""
        env = {"AUDIT_LOG_DIR": str(ralph.root / "log/semibot/audit")}
        ralph.run(DONE, env=env)
        account = ralph.root / "log/semibot/audit/audit.jsonl"
        os.utime(account, (0, 0))
        (line,) = [line for line in said(self.GUIDE, "2. 审计日志写入失败").splitlines() if line.startswith("find ")]
        assert call("sh", "-c", served(line)).returncode == 0
        assert account.exists()
        time.sleep(0.01)
        assert ralph("audit", "prune", "--days", "0", env=env).returncode == 0
        assert not account.exists() or account.read_text() == ""

    def test_backup_of_the_account(self, ralph, served):
        ralph.program("sudo", f'#!/bin/sh\necho "$@" >> {ralph.root}/sudo\n')
        env = {"AUDIT_LOG_DIR": str(ralph.root / "log/semibot/audit")}
        ralph.run(DONE, env=env)
        before = (ralph.root / "log/semibot/audit/audit.jsonl").read_bytes()
        done = call("bash", "-c", served(said(self.GUIDE, "备份审计日志")), env=ralph.env)
        assert done.returncode == 0, done.stderr
        (archive,) = (ralph.root / "backup/semibot/audit").iterdir()
        shutil.rmtree(ralph.root / "log/semibot/audit")
        done = call("bash", "-c", served(said(self.GUIDE, "恢复审计日志")), "restore", archive, env=ralph.env)
        assert done.returncode == 0, done.stderr
        assert (ralph.root / "sudo").read_text() == "systemctl stop semibot-runtime\nsystemctl start semibot-runtime\n"
        assert (ralph.root / "log/semibot/audit/audit.jsonl").read_bytes() == before
        assert ralph("audit", "verify", env=env).returncode == 0

    def test_tuning(self, ralph):
        env = exports(said(self.GUIDE, "应用优化"))
        assert shown(ralph, "audit_batch_size", "audit_flush_interval", env=env) == [2000, 15]
        assert ralph.run(DONE, env=env).returncode == 0

    def test_encryption(self, ralph):
        """A password is no key, and that is said; with a key, the account is encrypted."""
        pytest.importorskip("cryptography")
        env = exports(said(self.GUIDE, "4. 审计日志加密"))
        ralph.refuses(*ralph.flags(DONE), env=env, says=["AUDIT_ENCRYPTION_KEY", "32 bytes"])
        env["AUDIT_ENCRYPTION_KEY"] = "0123456789abcdef" * 4
        assert ralph.run(DONE, env=env).returncode == 0
        assert "run.started" not in (ralph.home / "audit/audit.jsonl").read_text()
        assert "run.started" in ralph("audit", "decrypt", env=env).stdout


# --- ai-agent-system-operations ---------------------------------------------------------------------------------------


class TestOperations:
    GUIDE = "ai-agent-system-operations"

    def test_environment_file(self, ralph):
        """What concerns the agents and the log; the server's names do no harm."""
        ralph.claude()
        del ralph.env["CLAUDE_API_KEY"]
        ralph.write(".env", said(self.GUIDE, "环境变量配置"))
        done = ralph("run", "-a", "claude", "-p", "x", env={"ENV_FILE": ".env"})
        assert done.returncode == 0, done.stderr
        assert all(json.loads(line)["level"] for line in done.stderr.splitlines())
        assert "ANTHROPIC_API_KEY=your-anthropic-api-key\n" in (ralph.root / "bin/env").read_text()

    def test_settings_file_is_the_servers(self, ralph):
        path = ralph.write("config/production.yaml", said(self.GUIDE, "配置文件管理"))
        ralph.refuses("config", "check", "--config", str(path), says=["production.yaml, line", "unknown setting"])
