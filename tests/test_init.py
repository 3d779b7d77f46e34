"""`ralph init`: what it finds in a project, and that what it writes holds."""

import json
import os

import pytest
import yaml

PROJECTS = {
    "pytest": ({"pyproject.toml": "[tool.pytest.ini_options]\n"}, ["python3 -m pytest -q"]),
    "pytest with uv": ({"pyproject.toml": "[dependency-groups]\ndev=['pytest>=8']\n", "uv.lock": ""}, ["uv run pytest -q"]),
    "unittest": ({"setup.py": "", "tests/test_it.py": ""}, ["python3 -m unittest discover -s tests"]),
    "Python without tests": ({"pyproject.toml": "[project]\nname='a'\n"}, []),
    "npm": ({"package.json": '{"scripts": {"test": "jest"}}'}, ["npm test"]),
    "pnpm": ({"package.json": '{"scripts": {"test": "vitest run"}}', "pnpm-lock.yaml": ""}, ["pnpm test"]),
    "npm's placeholder": ({"package.json": json.dumps({"scripts": {"test": 'echo "Error: no test specified" && exit 1'}})}, []),
    "no JSON": ({"package.json": "{"}, []),
    "odd JSON": ({"package.json": '{"scripts": ["test"]}'}, []),
    "cargo": ({"Cargo.toml": ""}, ["cargo test"]),
    "go": ({"go.mod": ""}, ["go test ./..."]),
    "maven": ({"pom.xml": ""}, ["mvn -q test"]),
    "gradle": ({"build.gradle.kts": ""}, ["gradle test"]),
    "make": ({"Makefile": "test := 1\nall:\n\ntest: all\n\ttrue\n"}, ["make test"]),
    "a Makefile without tests": ({"Makefile": "test := 1\nall:\n"}, []),
    "two of them": ({"go.mod": "", "Makefile": "check:\n\ttrue\n"}, ["go test ./...", "make check"]),
    "nothing": ({}, []),
}  # fmt: skip


def settings(ralph):
    return yaml.safe_load((ralph.workspace / "ralph.yml").read_text())


@pytest.mark.parametrize("name", PROJECTS)
def test_the_tests_of_a_project_become_gates_and_the_file_is_valid(ralph, name):
    files, gates = PROJECTS[name]
    for path, words in files.items():
        ralph.write(path, words)
    done = ralph("init")
    assert (done.returncode, done.stderr) == (0, "")
    assert [gate["command"] for gate in settings(ralph).get("gates", [])] == gates
    assert all(f"gate     {gate} (" in done.stdout for gate in gates)
    assert ("none found" in done.stdout) == (not gates)
    checked = ralph("config", "check")
    assert checked.returncode == 0, checked.stderr


def test_the_wrapper_of_a_project_is_preferred(ralph):
    ralph.write("pom.xml", "")
    ralph.write("mvnw", "").chmod(0o755)
    ralph("init")
    assert settings(ralph)["gates"] == [{"command": "./mvnw -q test"}]


def test_the_gate_it_found_is_run(ralph):
    ralph.write("Makefile", "test:\n\ttest -e done\n")
    ralph("init")
    agent = ralph.agent("echo LOOP_COMPLETE", "touch done; echo LOOP_COMPLETE")
    done = ralph.run(agent, task=None)
    assert (done.returncode, agent.calls) == (0, 2)
    assert "verified by 1 gate(s)" in done.stdout


class TestAgents:
    def programs(self, ralph, *names):
        folder = ralph.root / "programs"
        folder.mkdir()
        for name in names:
            (folder / name).write_text("#!/bin/sh\necho 99.0.0\n")
            (folder / name).chmod(0o755)
        for name in ("git", "sh", "env"):
            (folder / name).symlink_to(
                next(f"{at}/{name}" for at in ("/usr/bin", "/bin") if os.path.exists(f"{at}/{name}"))
            )
        return {"PATH": str(folder), "ANTHROPIC_API_KEY": "k", "GEMINI_API_KEY": "k"}

    def test_none_is_found(self, ralph):
        done = ralph("init", env=self.programs(ralph))
        assert settings(ralph)["agent"] == "auto"
        assert "none can be used yet: `ralph doctor`" in done.stdout

    def test_those_that_can_be_used_are_named_in_order(self, ralph):
        env = self.programs(ralph, "gemini", "claude")
        usable = [
            name
            for name, agent in json.loads(ralph("doctor", "--json", env=env).stdout)["agents"].items()
            if agent["usable"]
        ]
        assert {"claude", "gemini"} <= set(usable)
        ralph("init", env=env)
        assert settings(ralph)["agent"] == usable
        assert ralph("config", "check", env=env).returncode == 0


class TestFiles:
    def test_what_is_there_is_kept(self, ralph):
        ralph.write("ralph.yml", "agent: command\n")
        ralph.write("go.mod", "")
        assert "kept" in ralph("init", "--yes").stdout
        assert settings(ralph) == {"agent": "command"}

    def test_a_broken_file_does_not_hinder_it(self, ralph):
        ralph.write("ralph.yml", "agent: [\n")
        assert ralph("init", "--force").returncode == 0
        assert ralph("config", "check").returncode == 0

    def test_a_link_to_nowhere_is_not_followed(self, ralph):
        (ralph.workspace / "PROMPT.md").symlink_to(ralph.root / "elsewhere")
        assert "kept" in ralph("init").stdout
        assert not (ralph.root / "elsewhere").exists()


def test_config_init_writes_the_settings_alone(ralph):
    ralph.write("Makefile", "test:\n\ttrue\n")
    done = ralph("config", "init")
    assert done.returncode == 0, done.stderr
    assert not (ralph.workspace / "PROMPT.md").exists()
    assert settings(ralph)["gates"] == [{"command": "make test"}]
    ralph.settings("max_iteration: 3")
    assert "kept" in ralph("config", "init").stdout
    assert ralph("config", "init", "--force", "--yes").returncode == 0
    assert ralph("config", "check").returncode == 0


@pytest.mark.parametrize(("answer", "gates"), [("n", None), ("y", [{"command": "cargo test"}])])
def test_a_person_is_asked_about_the_gates(ralph, answer, gates):
    ralph.write("Cargo.toml", "")
    screen = ralph.on_screen("init")
    ralph.until(lambda: "use these gates?" in screen.text)
    screen.type(f"{answer}\n")
    assert screen.end() == 0
    assert settings(ralph).get("gates") == gates
