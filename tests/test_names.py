"""Names of the deployment guides that are more than a setting: ENV_FILE, ENVIRONMENT, `runtime`, `sandbox_enabled`, and
what is counted or kept of an agent: its tools at work, its skills, its probe."""

import importlib
import json

import pytest

from ralph_core.contracts import Context

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
        assert limit(ralph, env={"DEFAULT_MAX_ITERATIONS": "5"}) == 5
        assert limit(ralph, env={"DEFAULT_MAX_ITERATIONS": "5", "RALPH_MAX_ITERATIONS": "4"}) == 4

    def test_has_the_defaults_of_the_guide(self, ralph):
        ralph.settings("runtime: {require_approval_for_high_risk: true}")
        shown = json.loads(ralph("config", "show", "--json").stdout)
        names = ("max_iterations", "max_runtime", "max_concurrent_actions")
        assert [shown[name]["value"] for name in names] == [10, 300, 5]
        assert shown["max_iterations"]["from"] == "ralph.yml, line 1, default of runtime"
        ralph.settings("max_failures: 3")
        shown = json.loads(ralph("config", "show", "--json").stdout)
        assert [shown[name]["value"] for name in names] == [100, 14400, None]

    def test_is_in_the_schema(self, ralph):
        """What an editor says of the guide's tables is what Ralph says."""
        import jsonschema

        schema = json.loads(ralph("config", "schema").stdout)
        good = {
            "runtime": {"max_iterations": 10, "high_risk_tools": ["delete_file"]},
            "audit": {"storage_type": "file", "retention_days": 90},
            "capability": {"cache_ttl": 300, "max_mcp_servers_per_org": 20},
        }
        jsonschema.validate(good, schema)
        jsonschema.validate({"production": good}, schema)
        assert schema["properties"]["runtime"]["properties"]["max_concurrent_actions"]["default"] == 5
        for bad in (
            {"runtime": {"max_iteration": 1}},
            {"audit": {"batch_size": 0}},
            {"capability": {"cache_ttl": "x"}},
        ):
            with pytest.raises(jsonschema.ValidationError):
                jsonschema.validate(bad, schema)
            ralph.settings(json.dumps(bad))
            assert ralph("config", "check").returncode == 2

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("runtime:\n  max_iteration: 2", ["line 2", "unknown setting 'runtime.max_iteration'", "did you mean"]),
            ("runtime:\n  max_iterations: 0", ["line 2", "max_iterations: 0 is not valid"]),
            ("runtime:\n  max_concurrent_actions: 0", ["line 2", "max_concurrent_actions: 0 is not valid"]),
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


ASKER = """
import asyncio, json
from ralph_core import Agent, Finished, Probe, Provider, ToolCall, ToolResult, hookimpl


class Asker(Agent):
    def probe(self):
        return Probe("/bin/true", "1.0")

    async def ask(self, request, name):
        reader, writer = await asyncio.open_unix_connection(request.ask.socket)
        writer.write(json.dumps({"id": name, "name": "Look", "input": {}}).encode() + b"\\n")
        while not (line := (await reader.readline()).strip()):
            pass
        writer.close()
        return json.loads(line)

    async def run(self, request):
        said = []
        for name in "abc":
            yield ToolCall(name, "Look", {})
            answer = await self.ask(request, name) if request.ask else {"verdict": "not asked", "reason": ""}
            said.append(answer["verdict"] + answer["reason"])
            if answer["verdict"] != "allow":
                yield ToolResult(name, ok=False)
        yield ToolResult("a", ok=True)
        yield ToolCall("d", "Look", {})
        said.append((await self.ask(request, "d"))["verdict"] if request.ask else "")
        yield Finished("; ".join(said) + "\\nLOOP_COMPLETE")


@hookimpl
def ralph_agents():
    return [Provider("asker", "asks", "ralph_asker_module:Asker", capabilities=frozenset({"tools", CAPABILITY}))]
"""


class TestConcurrentActions:
    """Tools of an agent that are at work at once: one too many is denied before it runs, where it can be."""

    def answers(self, ralph, *flags):
        ralph.plugin("asker", ASKER.replace("CAPABILITY", "'asks'"))
        done = ralph("run", "-a", "asker", "-p", "x", *flags)
        assert done.returncode == 0, done.stdout + done.stderr
        return next(record["message"] for record in ralph.records() if record["type"] == "agent.finished")

    def test_one_too_many_is_denied_by_name(self, ralph):
        ralph.env["DEFAULT_MAX_CONCURRENT_ACTIONS"] = "2"
        said = self.answers(ralph)
        reason = "2 tools are at work already, and at most 2 may be (max_concurrent_actions) (Ralph's policy concurrent_actions)"
        assert said == f"allow; allow; deny{reason}; allow"
        verdicts = [(each["actor"], each["data"]["id"]) for each in ralph.records() if each["type"] == "verdict"]
        assert verdicts == [("concurrent_actions", "c")]

    def test_nobody_is_asked_unless_it_is_set(self, ralph):
        assert self.answers(ralph) == "not asked; not asked; not asked;"

    def test_holds_for_the_next_of_a_policy_under_another_limit(self, ralph):
        ralph.settings("max_concurrent_actions: 3")
        assert self.answers(ralph) == "allow; allow; allow; allow"
        done = ralph("replay", "--set", "max_concurrent_actions=1")
        assert (done.returncode, "concurrent_actions" in done.stdout) == (0, True), "a denied tool does not end a run"

    def test_an_agent_that_can_not_be_asked_is_named_and_let_go(self, ralph):
        ralph.plugin("asker", ASKER.replace("CAPABILITY", "'session'"))
        ralph.settings("max_concurrent_actions: 1")
        done = ralph("run", "-a", "asker", "-p", "x")
        assert done.returncode == 0, done.stdout
        assert "agent asker can't be asked before it uses a tool: concurrent_actions can't be enforced" in done.stderr
        assert "afterwards" not in done.stderr


@pytest.fixture
def claude(ralph):
    """Runs Ralph with a program that is called claude; says how often that was asked for its version so far."""
    folder = ralph.claude().parent

    def asked(*arguments, **options):
        command = arguments or ("run", "-a", "claude", "-p", "x")
        done = ralph(*command, **options)
        assert done.returncode == 0, done.stdout + done.stderr
        return (folder / "asked").read_text().count("asked")

    return asked


class TestProbesAreKept:
    """CAPABILITY_CACHE_TTL: a program that has just said what it is need not say so at the next start."""

    def test_for_the_next_start(self, ralph, claude):
        assert [claude(), claude(), claude()] == [1, 1, 1]
        first = [record for record in ralph.records() if record["seq"] == 1]
        assert [each["data"]["agents"]["claude"]["version"] for each in first] == ["2.1.197"] * 3
        assert "sk-ant" not in (ralph.home / "probes.json").read_text()

    def test_until_it_is_too_old(self, ralph, claude):
        claude()
        path = ralph.home / "probes.json"
        kept = json.loads(path.read_text())
        kept["claude"]["time"] -= 301
        path.write_text(json.dumps(kept))
        assert [claude(), claude()] == [2, 2]
        assert claude(env={"CAPABILITY_CACHE_TTL": "0"}) == 3

    def test_by_file_and_by_setting_no_longer(self, ralph, claude):
        ralph.settings("capability: {cache_ttl: 0}")
        assert [claude(), claude()] == [1, 2]
        assert not (ralph.home / "probes.json").exists()

    def test_for_the_same_program_key_and_settings_alone(self, ralph, claude):
        claude()
        program = ralph.root / "bin/claude"
        program.write_text(program.read_text() + "# another\n")
        assert claude() == 2
        other = ralph.root / "other"
        other.mkdir()
        (other / "claude").write_text(program.read_text().replace("${0%/*}", str(program.parent)))
        (other / "claude").chmod(0o755)
        assert claude(env={"PATH": f"{other}:{ralph.env['PATH']}"}) == 3
        ralph.settings("agents: {claude: {model: opus}}")
        assert [claude(), claude()] == [4, 4]
        done = ralph("run", "-a", "claude", "-p", "x", env={"CLAUDE_API_KEY": ""})
        assert (done.returncode, "no credentials" in done.stderr) == (2, True)

    def test_not_for_who_wants_to_know(self, ralph, claude):
        claude()
        assert claude("doctor", "-a", "claude") == 2
        assert claude("run", "-a", "claude", "-p", "x", "--dry-run") == 2

    @pytest.mark.parametrize(
        "text", ["", "[]", '{"claude": 5}', '{"claude": {"probe": {"new": 1}, "mark": "", "time": 0}}']
    )
    def test_a_file_that_is_none_changes_nothing(self, ralph, claude, text):
        ralph.write(".agent/probes.json", text)
        assert [claude(), claude()] == [1, 1]


class TestSkills:
    """MAX_SKILLS_PER_AGENT: what an agent's program would find in the workspace is counted before it starts."""

    def put(self, ralph, *names, top=".claude"):
        for name in names:
            ralph.write(f"{top}/skills/{name}/SKILL.md", "---\nname: x\ndescription: y\n---\n")

    def test_more_than_are_allowed_is_an_error(self, ralph, claude):
        self.put(ralph, "one", "two", "three")
        start = ("run", "-a", "claude", "-p", "x")
        says = [
            "agent claude would find 3 skills, and max_skills_per_agent is 2",
            str(ralph.workspace / ".claude/skills"),
        ]
        ralph.refuses(*start, env={"MAX_SKILLS_PER_AGENT": "2"}, says=says)
        ralph.settings("capability: {max_skills_per_agent: 2}")
        ralph.refuses(*start, says=says)
        claude(env={"MAX_SKILLS_PER_AGENT": "3"})

    def test_fifty_are_allowed_and_are_in_the_first_record(self, ralph, claude):
        names = [f"skill-{number:02}" for number in range(50)]
        self.put(ralph, *names)
        claude()
        first = ralph.records()[0]
        assert (first["seq"], first["data"]["agents"]["claude"]["skills"]) == (1, names)
        assert "usage-live" in first["data"]["agents"]["claude"]["capabilities"]
        self.put(ralph, "skill-50")
        ralph.refuses("run", "-a", "claude", "-p", "x", says="51 skills, and max_skills_per_agent is 50")

    @pytest.mark.parametrize(
        ("factory", "settings", "found"),
        [
            ("ralph_claude.agent:ClaudeAgent", None, ["work/.claude"]),
            ("ralph_claude.agent:ClaudeAgent", {"setting_sources": ("user",)}, ["home/.claude"]),
            ("ralph_codex.agent:CodexAgent", None, ["work/.agents", "home/.agents"]),
            ("ralph_gemini.agent:GeminiAgent", None, ["home/.gemini", "home/.agents", "work/.gemini", "work/.agents"]),
        ],
    )
    def test_are_looked_for_where_the_program_does(self, tmp_path, factory, settings, found):
        for number, folder in enumerate((".claude", ".agents", ".gemini")):
            for top in ("work", "home"):
                path = tmp_path / top / folder / "skills" / f"{top}-{number}"
                path.mkdir(parents=True)
                (path / "SKILL.md").touch()
                (path.parent / "no-skill").mkdir()
        module, _, name = factory.partition(":")
        made = getattr(importlib.import_module(module), name)(
            None, Context(tmp_path / "work", tmp_path / "work/.agent", {"HOME": str(tmp_path / "home")})
        )
        if settings:
            made.settings = made.settings.model_copy(update=settings)
        assert sorted(str(path.parents[2].relative_to(tmp_path)) for path in made.skills()) == sorted(found)
