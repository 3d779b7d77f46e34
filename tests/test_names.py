"""Names of the deployment guides that are more than a setting: ENV_FILE, ENVIRONMENT, `runtime`, `sandbox_enabled`."""

import json

import pytest

DONE = "cat > /dev/null; echo LOOP_COMPLETE"
WRAPPING = """
from dataclasses import replace
from ralph_core import hookimpl
@hookimpl
def ralph_prepare_command(command): return replace(command, argv=("env", "BOXED=1", *command.argv))
"""
LOOKING = """
from ralph_core import hookimpl
@hookimpl
def ralph_prepare_command(command): return None
"""


def limit(ralph, **options):
    done = ralph.run(DONE, "--dry-run", **options)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.partition("iterations ")[2].partition(",")[0])


class TestEnvFile:
    """ENV_FILE names a file of variables; the environment itself goes before it."""

    def test_sets_what_the_environment_does_not(self, ralph):
        ralph.write("night.env", "# at night\nexport RALPH_MAX_ITERATIONS='7'\nENVIRONMENT=fast\n\n")
        ralph.settings("max_iterations: 5\nprofiles: {fast: {max_failures: 9}, slow: {max_failures: 8}}\n")
        assert limit(ralph, env={"ENV_FILE": "night.env"}) == 7
        assert limit(ralph, env={"ENV_FILE": "night.env", "RALPH_MAX_ITERATIONS": "3"}) == 3
        assert limit(ralph) == 5
        assert "failures 9," in ralph.run(DONE, "--dry-run", env={"ENV_FILE": "night.env"}).stdout

    def test_holds_keys_that_are_kept_out_of_what_is_written(self, ralph):
        ralph.write("night.env", "ACME_API_KEY=s3cret-s3cret\nLOG_FORMAT=json")
        ralph.settings("environment: {allow: [ACME_API_KEY]}")
        agent = ralph.agent("echo the key is $ACME_API_KEY; echo LOOP_COMPLETE")
        assert ralph.run(agent, env={"ENV_FILE": "night.env"}).returncode == 0
        assert agent.environment()["ACME_API_KEY"] == "s3cret-s3cret"
        assert "the key is [redacted]" in json.dumps(ralph.records())
        assert "s3cret" not in json.dumps(ralph.records())

    def test_chooses_plugins_for_every_command(self, ralph):
        ralph.write("night.env", "RALPH_PLUGINS=")
        rows = json.loads(ralph("plugins", "--json", env={"ENV_FILE": "night.env"}).stdout)
        assert {row["name"] for row in rows if row["status"] == "active"} == {"builtin"}

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            (None, "can't be read: No such file"),
            (b"A=1\nB=\xff\n", "byte 6 is not UTF-8"),
            (b"A=1\n=2\n", "line 2 is not NAME=value"),
            (b"A=1\nB='2\n", "line 2 is not NAME=value"),
            (b"A=1\nB=\x00\n", "line 2 is not NAME=value"),
        ],
    )
    def test_that_can_not_be_used_is_a_mistake(self, ralph, text, says):
        if text is not None:
            ralph.write("night.env", text)
        ralph.refuses(*ralph.flags(DONE), env={"ENV_FILE": "night.env"}, says=["ENV_FILE night.env", says])

    def test_mistakes_in_it_are_those_of_the_variable(self, ralph):
        ralph.write("night.env", "RALPH_MAX_ITERATIONS=many")
        ralph.refuses(*ralph.flags(DONE), env={"ENV_FILE": "night.env"}, says="RALPH_MAX_ITERATIONS")


def test_without_environment_the_profile_is_development(ralph):
    ralph.settings("max_iterations: 5\ndevelopment: {max_iterations: 6}\nproduction: {max_iterations: 7}\n")
    assert [limit(ralph, env=env) for env in ({}, {"ENVIRONMENT": "production"}, {"ENVIRONMENT": "other"})] == [6, 7, 5]


class TestRuntime:
    """The table `runtime` of the settings file: names of Semibot's guide."""

    def test_limits_a_run(self, ralph):
        ralph.settings("runtime:\n  max_iterations: 2\n  timeout_seconds: 300\n  max_concurrent_actions: 5\n")
        done = ralph.run("cat > /dev/null; echo more")
        assert done.returncode == 3
        assert "2 of 2 iterations are used up" in done.stdout
        assert "runtime 300" in ralph.run(DONE, "--dry-run").stdout

    def test_ends_it_by_time(self, ralph):
        ralph.settings("runtime: {timeout_seconds: 0.5}")
        done = ralph.run("sleep 30", limit=30)
        assert (done.returncode, "(by runtime)" in done.stdout) == (3, True)

    def test_goes_behind_the_other_names(self, ralph):
        ralph.settings("runtime: {max_iterations: 2}\nmax_iterations: 3")
        assert limit(ralph) == 3
        ralph.settings("runtime: {max_iterations: 2}")
        assert limit(ralph, env={"RALPH_MAX_ITERATIONS": "4"}) == 4

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("runtime:\n  max_iteration: 2", ["line 2", "unknown setting 'runtime.max_iteration'", "did you mean"]),
            ("runtime:\n  max_iterations: 0", ["line 2", "max_iterations: 0 is not valid"]),
            ("runtime:\n  max_concurrent_actions: 0", ["line 2", "runtime.max_concurrent_actions: 0 is not valid"]),
            ("runtime: 5", ["line 1", "runtime has to be a table"]),
        ],
    )
    def test_a_mistake_is_said(self, ralph, text, says):
        ralph.settings(text)
        ralph.refuses(*ralph.flags(DONE), says=says)


class TestSandboxEnabled:
    """`security.sandbox_enabled`: the agent's processes run in what a plugin puts around them, or not at all."""

    def test_without_a_plugin_no_run_begins(self, ralph):
        ralph.settings("security: {sandbox_enabled: true}")
        ralph.refuses(*ralph.flags(DONE), says=["security.sandbox_enabled", "ralph_prepare_command"])

    def test_with_one_the_agent_runs_in_it(self, ralph):
        ralph.settings("security: {sandbox_enabled: true}")
        ralph.plugin("box", WRAPPING)
        agent = ralph.agent("echo LOOP_COMPLETE")
        assert ralph.run(agent).returncode == 0
        assert agent.environment()["BOXED"] == "1"

    def test_no_process_is_started_that_a_plugin_left_as_it_was(self, ralph):
        ralph.settings("security: {sandbox_enabled: true}")
        ralph.plugin("box", LOOKING)
        agent = ralph.agent("echo LOOP_COMPLETE")
        done = ralph.run(agent)
        assert (done.returncode, agent.calls) == (1, 0)
        assert "has put no sandbox around the command (security.sandbox_enabled) (by box)" in done.stdout
