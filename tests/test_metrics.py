"""What an operator watches a run by: the state file, `/health`, and metrics that a genuine Prometheus scrapes."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request

import pytest

DONE = "cat > /dev/null; echo LOOP_COMPLETE"
USED = """echo '{"type": "usage", "message_id": "m", "tokens": {"input": 100, "output": 10, "cache_read": 1000}, "cost": 0.5}'; echo '{"type": "finished", "text": "more"}'"""
FAILED = """echo '{"type": "failed", "kind": "agent", "message": "no luck"}'"""
SLEEP = "touch asleep; sleep 60"


@pytest.fixture
def served(ralph):
    """A run that is at work, and what it serves: gives a function from a path to status and body."""

    def start(*steps, flags=("--metrics-port", "0"), settings="", env=None):
        ralph.settings(f"agents: {{command: {{output: events}}}}\n{settings}")
        process = ralph.begin(ralph.agent(*steps), *flags, env=env)
        ralph.until((ralph.workspace / "asleep").exists)
        os.set_blocking(process.stderr.fileno(), False)
        said = process.stderr.read()
        address = re.search(r"on (http://\S+)", said)
        assert address, said

        def get(path):
            try:
                with urllib.request.urlopen(address[1] + path, timeout=10) as answer:
                    return answer.status, answer.read().decode()
            except urllib.error.HTTPError as error:
                return error.code, error.read().decode()

        get.address, get.process = address[1], process
        return get

    return start


def figures(text):
    """The samples of a page: name and labels, and the value."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


class TestMetrics:
    def test_those_that_the_guides_name_and_more(self, served):
        get = served(USED, FAILED, USED, SLEEP)
        found = figures(get("/metrics")[1])
        assert found["ralph_iterations_total"] == 3
        assert found["ralph_errors_total"] == 1
        assert found["ralph_runtime_seconds"] > 0
        assert found['ralph_iteration_duration_seconds_bucket{le="3600",ralph_result="finished"}'] == 2
        assert found['ralph_iteration_duration_seconds_count{ralph_result="failed"}'] == 1
        assert found['ralph_tokens_total{type="cache_read"}'] == 2000
        assert found["ralph_cost_usd_total"] == 1.0
        assert found['ralph_hook_duration_seconds_count{ralph_hook="ralph_choose_agent",ralph_plugin="builtin"}'] == 4
        assert found['ralph_audit_lost_total{ralph_sink="file"}'] == 0
        assert found["process_resident_memory_bytes"] > 0

    def test_what_limits_say_is_counted(self, ralph, served):
        get = served(f"touch asleep; {USED}", settings="max_iterations_per_hour: 1\n")
        name = 'ralph_verdicts_total{ralph_policy="rate",ralph_verdict="pause"}'
        ralph.until(lambda: figures(get("/metrics")[1]).get(name) == 1)

    def test_what_is_not_known_is_no_figure(self, served):
        get = served("""echo '{"type": "finished", "text": "more"}'""", SLEEP)
        text = get("/metrics")[1]
        assert "ralph_cost_usd_total" not in text
        assert "ralph_tokens_total" not in text

    @pytest.mark.parametrize(
        ("flags", "settings", "env"),
        [
            (("--metrics-port", "0"), "", {}),
            ((), "monitoring: {enabled: true, metrics_port: 0}\n", {}),
            ((), "", {"RALPH_ENABLE_METRICS": "true", "RALPH_METRICS_PORT": "0"}),
            (("--metrics-port", "0"), "", {"OTEL_SDK_DISABLED": "true"}),
        ],
    )
    def test_can_be_asked_for(self, served, flags, settings, env):
        get = served(USED, SLEEP, flags=flags, settings=settings, env=env)
        assert figures(get("/metrics")[1])["ralph_iterations_total"] == 1
        assert get.address.startswith("http://127.0.0.1:")
        assert get("/")[0] == 404

    def test_no_metrics_goes_before_all(self, ralph):
        env = {"RALPH_ENABLE_METRICS": "true"}
        done = ralph.run(DONE, "--metrics-port", "0", "--no-metrics", env=env)
        assert done.returncode == 0
        assert "http://" not in done.stderr

    def test_a_port_that_is_taken_is_said_before_anything_is_done(self, ralph):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            done = ralph.refuses(*ralph.flags(DONE, "--metrics-port", str(port)), says=[f"127.0.0.1:{port}", "in use"])
        assert "--no-metrics" in done

    def test_without_the_extra_it_is_said_what_to_install(self, ralph):
        (ralph.site / "prometheus_client.py").write_text("raise ImportError('no such module')\n")
        ralph.refuses(*ralph.flags(DONE, "--metrics-port", "0"), says=["no such module", "ralph-core[metrics]"])

    @pytest.mark.parametrize("flag", ["--metrics-port=70000", "--metrics-interval=0"])
    def test_a_value_that_makes_no_sense(self, ralph, flag):
        ralph.refuses(*ralph.flags(DONE, flag), says=flag.partition("=")[0])


class TestHealth:
    def test_is_good(self, served):
        status, body = served(USED, SLEEP)("/health")
        found = json.loads(body)
        assert (status, found["status"], found["reasons"]) == (200, "healthy", [])
        assert (found["iteration"], found["errors"], found["cost"]) == (1, 0, 0.5)
        assert found["version"]

    def test_is_bad_when_the_agent_fails(self, served):
        status, body = served(FAILED, SLEEP)("/health")
        found = json.loads(body)
        assert (status, found["status"], found["errors"]) == (503, "unhealthy", 1)
        assert found["reasons"] == ["the agent has failed 1 times in a row"]

    def test_alone_needs_no_metrics(self, ralph, served):
        (ralph.site / "prometheus_client.py").write_text("raise ImportError('not wanted')\n")
        env = {"HEALTH_CHECK_ENABLED": "true", "RALPH_METRICS_PORT": "0"}
        get = served(USED, SLEEP, flags=(), env=env)
        assert get("/health")[0] == 200
        assert get("/metrics")[0] == 404

    def test_is_bad_when_ralph_does_not_move(self, ralph, served):
        """A hook that never comes back holds the loop."""
        ralph.plugin("stuck", "import pathlib, time\nfrom ralph_core import hookimpl\n@hookimpl\ndef ralph_prompt_sections(state):\n  if state.finished:\n    pathlib.Path('asleep').touch()\n    time.sleep(60)\n  return []\n")  # fmt: skip
        get = served(USED, env={"HEALTH_CHECK_INTERVAL": "0.5"})
        ralph.until(lambda: "has not moved" in get("/health")[1])
        assert get("/health")[0] == 503


class TestTheStateFile:
    def state(self, ralph):
        (path,) = (ralph.home / "metrics").glob("state_*.json")
        return json.loads(path.read_text())

    def test_is_what_the_guides_read(self, ralph):
        ralph.settings("agents: {command: {output: events}}\n")
        assert ralph.run(ralph.agent(USED, FAILED, USED), "-i", "3").returncode == 3
        state = self.state(ralph)
        assert state["iteration_count"] == 3
        assert state["runtime"] > 0
        assert [error["message"] for error in state["errors"]] == ["agent: no luck"]
        assert (state["run"], state["status"], state["cost"], state["tokens"]) == (ralph.folder.name, "stopped", 1.0, 2220)  # fmt: skip

    def test_what_is_not_known_is_null(self, ralph):
        ralph.run(DONE)
        state = self.state(ralph)
        assert (state["cost"], state["tokens"], state["errors"]) == (None, None, [])

    def test_is_there_while_the_run_goes_on_and_goes_on_with_it(self, ralph):
        ralph.settings("agents: {command: {output: events}}\n")
        finished = """echo '{"type": "finished", "text": "LOOP_COMPLETE"}'"""
        process = ralph.begin(ralph.agent(FAILED, SLEEP, FAILED, finished), "--metrics-interval", "0.1")
        ralph.until(lambda: list(ralph.home.glob("metrics/state_*.json")) and self.state(ralph)["iteration_count"] == 1)
        first = self.state(ralph)
        assert first["status"] == "running"
        ralph.until(lambda: self.state(ralph)["runtime"] > first["runtime"])
        process.send_signal(signal.SIGKILL)
        ralph.end(process)
        assert ralph("resume").returncode == 0
        state = self.state(ralph)
        assert (state["iteration_count"], len(state["errors"]), state["status"]) == (3, 2, "completed")


PROMETHEUS = """\
global: {{scrape_interval: 200ms}}
scrape_configs:
  - job_name: ralph
    static_configs: [{{targets: ["{target}"]}}]
"""


def test_a_genuine_prometheus_scrapes_it(ralph, served, tmp_path):
    program = shutil.which("prometheus")
    if not program:
        pytest.skip("no Prometheus (Debian package prometheus)")
    get = served(USED, FAILED, SLEEP)
    config = tmp_path / "prometheus.yml"
    config.write_text(PROMETHEUS.format(target=get.address.removeprefix("http://")))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    flags = [
        f"--config.file={config}",
        f"--storage.tsdb.path={tmp_path / 'db'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen([program, *flags], stdout=log, stderr=log, cwd=tmp_path)
    try:
        assert ask(port, "ralph_iterations_total") == "2"
        assert ask(port, "ralph_errors_total") == "1"
        assert float(ask(port, "ralph_runtime_seconds")) > 0
        assert ask(port, "histogram_quantile(0.5, sum by (le) (ralph_iteration_duration_seconds_bucket)) < 3600")
    finally:
        server.terminate()
        server.wait(20)


def ask(port, query):
    """The value of a query, as soon as there is one."""
    deadline = time.monotonic() + 40
    url = f"http://127.0.0.1:{port}/api/v1/query?query={urllib.request.quote(query)}"
    while True:
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                if result := json.load(answer)["data"]["result"]:
                    return result[0]["value"][1]
        except OSError:
            pass  # it is not up yet
        assert time.monotonic() < deadline, query
        time.sleep(0.1)
