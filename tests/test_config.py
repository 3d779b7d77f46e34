"""`ralph config`: what holds, where it comes from, whether it is valid, and what may be set."""

import json

import pytest

SETTINGS = """\
max_cost: 3
keys: {GEMINI_API_KEY: {file: ~/gemini.key}}
environment:
  set: {ACME_TOKEN: canary-0123456789, MODE: test}
agents:
  claude:
    model: opus
production:
  max_runtime: 60
"""


@pytest.fixture
def shown(ralph):
    def shown(*arguments, **options):
        done = ralph("config", "show", "--json", *arguments, **options)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return shown


class TestShow:
    def test_each_value_with_where_it_comes_from(self, ralph, shown):
        ralph.settings(SETTINGS)
        found = shown(env={"RALPH_MAX_ITERATIONS": "7"})
        assert found["max_cost"] == {"value": 3.0, "from": "ralph.yml, line 1"}
        assert found["max_iterations"] == {"value": 7, "from": "environment variable RALPH_MAX_ITERATIONS"}
        assert found["max_tokens"] == {"value": 1_000_000, "from": "default"}
        assert found["max_runtime"] == {"value": 60.0, "from": "ralph.yml, line 9"}, "the profile lies over the rest"
        assert found["agents.claude.model"] == {"value": "opus", "from": "ralph.yml, line 7"}
        assert found["agents.claude.max_retries"] == {"value": 1, "from": "default"}

    def test_no_secret(self, ralph, shown):
        ralph.settings(SETTINGS)
        assert shown()["environment.set.ACME_TOKEN"]["value"] == "[redacted]"
        assert shown()["environment.set.MODE"]["value"] == "test"
        assert shown()["keys.GEMINI_API_KEY.file"]["value"] == "~/gemini.key", "where it is, is none"
        assert "canary" not in ralph("config", "show").stdout

    def test_only_what_is_given(self, ralph, shown):
        ralph.settings("max_cost: 3\nagents: {claude: {model: opus}}\n")
        assert set(shown("--given")) == {"max_cost", "agents.claude.model"}

    def test_for_a_person(self, ralph):
        ralph.settings("agent: [claude, gemini]\n")
        lines = ralph("config", "show").stdout.splitlines()
        assert lines[0].split() == ["SETTING", "VALUE", "FROM"]
        assert '["claude", "gemini"]' in next(line for line in lines if line.startswith("agent "))


class TestCheck:
    def test_good(self, ralph):
        ralph.settings(SETTINGS)
        done = ralph("config", "check")
        assert done.returncode == 0, done.stderr
        assert "ralph.yml" in done.stdout

    @pytest.mark.parametrize(
        ("settings", "words"),
        [
            ("max_csot: 3\n", "did you mean 'max_cost'"),
            ("agents: {gemini: {modle: x}}\n", "did you mean 'model'"),
            ("agents:\n  command:\n    output: json\n", "line 3"),
            ("policies: {iterations: {x: 1}}\n", "has no settings"),
        ],
    )
    def test_a_mistake_also_in_a_section_that_no_run_uses(self, ralph, settings, words):
        ralph.settings(settings)
        assert words in ralph.refuses("config", "check")


class TestSchema:
    @pytest.fixture
    def schema(self, ralph):
        return json.loads(ralph("config", "schema").stdout)

    def test_takes_what_is_right_and_refuses_what_is_not(self, schema):
        """By the reference implementation of JSON schema."""
        jsonschema = pytest.importorskip("jsonschema")
        validator = jsonschema.Draft202012Validator(schema)
        validator.check_schema(schema)
        right = {
            "max_cost": 3,
            "gates": ["make test", {"command": "make lint", "timeout": 5}],
            "agents": {"claude": {"model": "opus"}, "command": {"output": "events"}},
            "policies": {"iterations": False},
            "production": {"max_cost": 50},
        }
        assert [error.message for error in validator.iter_errors(right)] == []
        for wrong in (
            {"max_csot": 1},
            {"agents": {"claude": {"modle": 1}}},
            {"max_cost": "much"},
            {"production": {"x": 1}},
        ):
            assert list(validator.iter_errors(wrong)), wrong

    def test_says_what_a_setting_means(self, schema):
        assert "US dollars" in schema["properties"]["max_cost"]["description"]


class TestLines:
    """Where a setting was made is said with its line, whatever the format."""

    @pytest.mark.parametrize(
        ("name", "text", "line"),
        [
            ("ralph.json", '{\n  "agent": "command",\n  "max_iteration": 3\n}', 3),
            ("ralph.json", '{"production": {\n "monitoring": {\n\n "enable": true}}}', 4),
            ("ralph.toml", "agent = 'command'\n\nmax_iteration = 3", 3),
            ("ralph.toml", "max_cost = 3\n[production.monitoring]  # of a profile\nenable = true", 3),
            ("ralph.toml", 'on_done = """\nmax_iteration = 3\n"""\nmax_iteration = 4', 4),
            ("ralph.toml", "[[gates]]\ncommand = 'true'\n[monitoring]\n'enable' = 3", 4),
        ],
    )
    def test_of_a_mistake(self, ralph, name, text, line):
        ralph.write(name, text)
        ralph.refuses("config", "check", says=[f"{name}, line {line}: unknown setting", "did you mean"])

    def test_of_what_holds(self, ralph):
        ralph.write("ralph.toml", "agent = 'command'\n[agents.command]\ncommand = 'true'\n")
        shown = json.loads(ralph("config", "show", "--json", "--given").stdout)
        assert {key: each["from"] for key, each in shown.items()} == {
            "agent": "ralph.toml, line 1",
            "agents.command.command": "ralph.toml, line 3",
        }
        assert "all 2 settings that are given are valid" in ralph("config", "check").stdout
        ralph.write("tabs.json", '{\n\t"agent": "command",\n\t"max_cost": 5}')
        assert "max_cost" in ralph("config", "show", "--given", "--config", "tabs.json").stdout
