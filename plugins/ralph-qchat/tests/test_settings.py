"""Where the settings come from, and what the log and the figures make of them. Their effect on requests is test_requests.py."""

from __future__ import annotations

import json
import socket
import urllib.request

import pytest
from pydantic import ValidationError

from ralph_core.errors import SettingsError
from ralph_core.events import FailureKind
from ralph_qchat import monitoring
from ralph_qchat.agent import KiroAgent, QAgent, QChatAgent
from ralph_qchat.given import VARIABLES
from ralph_qchat.plugin import ralph_agents
from ralph_qchat.settings import ChatSettings

FILE = """\
adapter:
  name: qchat
  timeout: 300
  max_retries: 5
  retry_delay: 2

performance:
  buffer_size: 8192
  poll_interval: 0.2
  max_concurrent: 10

logging:
  level: WARNING
  format: "%(levelname)s %(message)s"
  file: log/qchat.log

monitoring:
  metrics_enabled: true
  metrics_interval: 30
  health_check_port: 8080
"""


def keep(desk, text):
    (desk.workspace / "config").mkdir(exist_ok=True)
    (desk.workspace / "config/qchat.yaml").write_text(text)


class TestSources:
    def test_defaults_are_those_of_the_guide(self, desk):
        got = desk.agent().settings
        assert (got.timeout, got.max_retries, got.retry_delay) == (120, 3, 1)
        assert (got.verbose, got.debug, got.buffer_size, got.poll_interval) == (False, False, 4096, 0.1)
        assert (got.max_concurrent, got.max_memory_mb, got.max_output_size) == (5, None, 10485760)

    def test_file_of_the_guide_is_read(self, desk):
        keep(desk, FILE)
        got = desk.agent().settings
        assert (got.name, got.timeout, got.max_retries, got.retry_delay) == ("qchat", 300, 5, 2)
        assert (got.buffer_size, got.poll_interval, got.max_concurrent) == (8192, 0.2, 10)
        assert got.logging.model_dump() == {
            "level": "WARNING",
            "format": "%(levelname)s %(message)s",
            "file": "log/qchat.log",
        }
        assert got.monitoring.model_dump() == {
            "metrics_enabled": True,
            "metrics_interval": 30,
            "health_check_port": 8080,
        }

    def test_variable_wins_over_section_over_file(self, desk):
        keep(desk, FILE)
        agent = desk.agent(env={"QCHAT_TIMEOUT": "7"}, timeout=8, max_retries=9)
        assert (agent.settings.timeout, agent.settings.max_retries, agent.settings.retry_delay) == (7, 9, 2)

    @pytest.mark.parametrize("name", VARIABLES)
    def test_every_variable_is_read(self, desk, name):
        default = getattr(ChatSettings(), VARIABLES[name])
        assert getattr(desk.agent(env={name: "1"}).settings, VARIABLES[name]) == 1
        assert getattr(desk.agent(env={name: ""}).settings, VARIABLES[name]) == default

    @pytest.mark.parametrize(
        ("name", "value"), [("QCHAT_TIMEOUT", "soon"), ("QCHAT_MAX_CONCURRENT", "0"), ("QCHAT_VERBOSE", "maybe")]
    )
    def test_variable_that_is_wrong_is_an_error_that_names_it(self, desk, name, value):
        with pytest.raises(SettingsError, match=f"environment variable {name}: .*'{value}' is not valid"):
            desk.agent(env={name: value})

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("adapter:\n  timeuot: 3\n", r"config/qchat.yaml, line 2: unknown setting 'adapter.timeuot'"),
            ("adaptor: {}\n", r"line 1: unknown section 'adaptor' \(did you mean 'adapter'\?\)"),
            ("performance: 3\n", "performance has to be a table"),
            ("adapter:\n  timeout: -1\n", "config/qchat.yaml, line 2: timeout: -1"),
            ("logging:\n  level: LOUD\n", "line 2: logging.level: 'LOUD'"),
            ("adapter: {name: gpt}\n", "name: 'gpt'"),
            ("adapter: [\n", "not valid YAML"),
        ],
    )
    def test_file_that_is_wrong_is_an_error_that_says_where(self, desk, text, says):
        keep(desk, text)
        with pytest.raises(SettingsError, match=says):
            desk.agent()

    def test_never_a_resumed_conversation(self):
        for option in ("--resume", "-r", "--resume-id=7"):
            with pytest.raises(ValidationError, match="can't be used"):
                ChatSettings(extra_args=(option,))

    def test_all_are_described(self):
        assert all(field.description for field in ChatSettings.model_fields.values())


class TestLog:
    def test_goes_where_the_file_says(self, desk):
        keep(desk, "logging: {level: INFO, format: '%(name)s|%(message)s', file: log/qchat.log}\n")
        desk.run()
        lines = (desk.workspace / "log/qchat.log").read_text().splitlines()
        assert lines[0] == "ralph.qchat|request begins, 12 characters (qchat)"
        assert lines[1].startswith("ralph.qchat|request finished after ")
        assert "Do the work" not in "".join(lines)

    @pytest.mark.parametrize(
        ("env", "begins", "commands"),
        [({}, False, False), ({"QCHAT_VERBOSE": "1"}, True, False), ({"QCHAT_DEBUG": "1"}, True, True)],
    )
    def test_goes_to_standard_error_if_that_is_wanted(self, desk, capsys, env, begins, commands):
        desk.run("throttle", env=env)
        said = capsys.readouterr().err
        assert ("request begins" in said) is begins
        assert ("--no-interactive" in said) is ("rate limit reached" in said) is commands

    def test_level_is_heeded_and_the_name_is_said(self, desk):
        keep(desk, "adapter: {name: kiro}\nlogging: {level: DEBUG, file: a.log}\n")
        desk.run("throttle")
        assert "overloaded after" in (desk.workspace / "a.log").read_text()
        assert "(kiro)" in (desk.workspace / "a.log").read_text()
        keep(desk, "logging: {level: WARNING, file: b.log}\n")
        desk.run()
        assert (desk.workspace / "b.log").read_text() == ""

    def test_that_can_not_be_written_ends_the_request_before_it_starts(self, desk):
        keep(desk, "logging: {file: /proc/qchat.log}\n")
        (failed,) = desk.run()
        assert "logging.file: /proc/qchat.log can't be written" in failed.message


class TestFigures:
    """They are the process's, as they are in prometheus-client: what counts is by how much they grow."""

    def value(self, name, **labels):
        from prometheus_client import REGISTRY

        return REGISTRY.get_sample_value(name, labels) or 0.0

    def test_count_and_time_requests_and_errors_by_kind(self, desk):
        on = {"monitoring": {"metrics_enabled": True}}
        desk.run(**on)
        before = self.value("qchat_requests_total"), self.value("qchat_request_duration_seconds_count")
        failed = self.value("qchat_errors_total", error_type="usage_limit")
        desk.run(**on)
        desk.run("monthly", **on)
        desk.run("monthly")
        assert self.value("qchat_requests_total") == before[0] + 2
        assert self.value("qchat_request_duration_seconds_count") == before[1] + 2
        assert self.value("qchat_errors_total", error_type="usage_limit") == failed + 1
        assert self.value("qchat_active_requests") == 0

    def test_active_ones_are_those_under_way(self, desk):
        seen = []

        def look(event):
            seen.append(self.value("qchat_active_requests"))
            return False

        desk.run(stop_when=look, monitoring={"metrics_enabled": True})
        assert seen[0] == 1

    def test_are_written_now_and_then(self, desk):
        path = desk.home / "metrics/qchat.prom"
        desk.run(monitoring={"metrics_enabled": True, "metrics_interval": 1e-9})
        first = path.read_text()
        assert "\nqchat_requests_total " in first
        desk.run(monitoring={"metrics_enabled": True, "metrics_interval": 3600})
        assert path.read_text() == first
        desk.run(monitoring={"metrics_enabled": True, "metrics_interval": 1e-9})
        assert path.read_text() != first

    def test_are_served_with_the_health(self, desk):
        desk.run(monitoring={"metrics_enabled": True, "health_check_port": 0}, name="qchat")
        url = f"http://127.0.0.1:{monitoring.figures().port}"
        with urllib.request.urlopen(f"{url}/health", timeout=10) as answer:
            health = json.load(answer)
        assert (health["status"], health["adapter"]) == ("healthy", "qchat")
        with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:
            assert b"qchat_request_duration_seconds_bucket" in answer.read()
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(f"{url}/else", timeout=10)

    def test_port_that_is_taken_ends_the_request_before_it_starts(self, desk, monkeypatch):
        monkeypatch.setattr(monitoring.figures(), "_server", None)
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            (failed,) = desk.run(monitoring={"metrics_enabled": True, "health_check_port": port})
        assert failed.kind is FailureKind.SPAWN
        assert f"monitoring.health_check_port: {port} can't be used" in failed.message

    def test_are_not_kept_unless_they_are_wanted(self, desk):
        desk.run()
        assert not desk.home.exists()


class TestProbe:
    @pytest.mark.parametrize(
        ("kind", "name", "version"),
        [(QChatAgent, "q", "1.19.7"), (QAgent, "kiro-cli", "2.21.2"), (KiroAgent, "kiro-cli", "2.21.2")],
    )
    def test_program_that_is_logged_in(self, desk, kind, name, version):
        (desk.tmp / "bin/q").unlink()
        desk.install(name)
        probe = desk.agent(kind).probe()
        assert probe.usable, probe.missing
        assert (probe.executable, probe.version) == (str(desk.tmp / "bin" / name), version)

    def test_kiro_is_not_q(self, desk):
        assert "kiro-cli" in desk.agent(KiroAgent).probe().missing[0]

    def test_another_program_of_that_name(self, desk):
        desk.program("q", "echo q version 3.1.6")
        assert "another program" in desk.agent().probe().missing[0]

    def test_no_login(self, desk):
        assert desk.agent(env={"Q_STANDIN": "no-login"}).probe().missing == ("not logged in: run `q login`",)

    @pytest.mark.parametrize("key", ["KIRO_API_KEY", "Q_API_KEY"])
    def test_key_is_as_good_as_a_login(self, desk, key):
        desk.install("kiro-cli")
        assert desk.agent(KiroAgent, env={"Q_STANDIN": "no-login", key: "k"}).probe().usable

    def test_program_that_fails(self, desk):
        desk.program("q", "exit 3")
        assert "exit code 3" in desk.agent().probe().missing[0]


def test_providers_lead_to_their_agents():
    module = QChatAgent.__module__
    factories = {provider.name: provider.factory for provider in ralph_agents()}
    assert factories == {"q": f"{module}:QAgent", "qchat": f"{module}:QChatAgent", "kiro": f"{module}:KiroAgent"}
    assert {provider.settings for provider in ralph_agents()} == {f"{ChatSettings.__module__}:ChatSettings"}
