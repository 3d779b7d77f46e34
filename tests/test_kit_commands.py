"""`ralph plugins new` and `ralph plugins verify`: what is written passes everything unedited, and a verdict is right."""

import json
import os
import shutil
import subprocess
import sys
import types
from importlib.metadata import version
from pathlib import Path

import pluggy
import pytest
import tomli

from ralph_core.cli.plugins_new import KINDS
from ralph_core.hookspecs import PROJECT, RalphSpec
from ralph_core.plugins.registry import PluginRow, Plugins

ROOT = Path(__file__).parents[1]
NAMES = {"agent": "acme", "store": "acme-cold-storage", "sink": "x", "policy": "office_hours", "commands": "greet"}


def installed(package, site):
    """Put a package into a directory as pip would, without pip: that takes a build backend, and an index."""
    project = tomli.loads((package / "pyproject.toml").read_text())["project"]
    for path in (package / "src").iterdir():
        shutil.copytree(path, site / path.name)
    info = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    head = {"Metadata-Version": "2.1", "Name": project["name"], "Version": project["version"], "Summary": project["description"]}  # fmt: skip
    lines = [f"{name}: {value}" for name, value in head.items()] + [f"Requires-Dist: {each}" for each in project["dependencies"]]  # fmt: skip
    (info / "METADATA").write_text("\n".join(lines) + "\n\n" + (package / project["readme"]).read_text())
    entries = [f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in table.items()) for group, table in project["entry-points"].items()]  # fmt: skip
    (info / "entry_points.txt").write_text("\n".join(entries))


def tool(ralph, folder, *arguments, **env):
    """Run a tool on a package, as its author would."""
    base = {name: value for name, value in ralph.env.items() if not name.startswith("MYPY")}
    where = {**base, "MYPY_CACHE_DIR": str(ralph.root / "mypy"), "RUFF_CACHE_DIR": str(ralph.root / "ruff"), **env}
    done = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=folder, env=where, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def made(ralph):
    def make(kind, name=None):
        name = name or NAMES[kind]
        done = ralph("plugins", "new", name, "--kind", kind)
        assert done.returncode == 0, done.stderr
        package = ralph.workspace / f"ralph-{name.replace('_', '-')}"
        installed(package, ralph.site)
        return package

    return make


class TestNew:
    @pytest.mark.parametrize("kind", KINDS)
    def test_passes_its_own_tests_lint_and_types(self, ralph, made, kind):
        package = made(kind)
        assert " passed" in tool(ralph, package, "pytest", "-q", "-p", "no:cacheprovider", "-W", "error")
        tool(ralph, package, "ruff", "check")
        tool(ralph, package, "ruff", "format", "--check")
        assert "Success" in tool(ralph, package, "mypy")

    @pytest.mark.parametrize("kind", KINDS)
    def test_is_clean_under_a_long_name_too(self, ralph, made, kind):
        package = made(kind, f"a-name-of-thirty-letters-{kind}")
        tool(ralph, package, "ruff", "check")
        tool(ralph, package, "ruff", "format", "--check")

    @pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "commands"])
    def test_is_verified(self, ralph, made, kind):
        made(kind)
        done = ralph("plugins", "verify", NAMES[kind], limit=200)
        assert done.returncode == 0, done.stdout
        assert f"✓ {NAMES[kind]} (ralph-{NAMES[kind].replace('_', '-')} 0.1.0) holds what it has to" in done.stdout

    @pytest.mark.parametrize("kind", KINDS)
    def test_is_complete(self, ralph, made, kind):
        """With a README that says how it is used, what CI runs, and the pin; and nothing is left of the template."""
        package = made(kind)
        files = {str(path.relative_to(package)) for path in package.rglob("*") if path.is_file()}
        module = f"ralph_{NAMES[kind].replace('-', '_')}"
        assert {"README.md", ".gitignore", ".github/workflows/test.yml", f"src/{module}/py.typed"} <= files
        assert any(name.startswith("tests/test_") for name in files)
        assert not [
            path for path in package.rglob("*") if path.is_file() and "$" in path.read_text().replace("${{", "")
        ]
        project = (package / "pyproject.toml").read_text()
        major, minor = version("ralph-core").split(".")[:2]
        assert f'"ralph-core>={major}.{minor},<{major}.{int(minor) + 1}"' in project
        steps = (package / ".github/workflows/test.yml").read_text()
        assert all(words in steps for words in ("pip install -e '.[test]'", "ruff check", "mypy", "pytest"))
        assert package.name in (package / "README.md").read_text()

    @pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "commands"])
    def test_says_which_contract_it_was_made_for(self, ralph, made, kind):
        from ralph_core import CONTRACT_VERSION

        (module,) = (made(kind) / "src").iterdir()
        assert f'RALPH_CONTRACT = "{CONTRACT_VERSION}"' in (module / "plugin.py").read_text()

    def test_a_store_that_was_made_keeps_a_run(self, ralph, made):
        made("store")
        ralph.settings(f"checkpoint_store: {NAMES['store']}\n")
        done = ralph.run("cat > /dev/null; echo LOOP_COMPLETE")
        assert done.returncode == 0, done.stderr
        assert "completed" in ralph("status").stdout

    def test_a_policy_that_was_made_is_asked(self, ralph, made):
        made("policy")
        done = ralph.run("cat > /dev/null; echo LOOP_COMPLETE")
        assert done.returncode == 0
        assert "judge office_hours" in {span["name"] for span in ralph.spans()}

    def test_a_sink_that_was_made_gets_the_account(self, ralph, made):
        made("sink")
        ralph.settings("audit_sinks: [file, x]\n")
        assert ralph.run("cat > /dev/null; echo LOOP_COMPLETE").returncode == 0
        assert (ralph.home / "audit" / "x.db").exists()

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("My Agent", "--kind", "agent"), "'My Agent' can't be the name of a plugin (lower-case letters"),
            (("run", "--kind", "commands"), "`ralph run` is a command of Ralph's own"),
            (("core", "--kind", "agent"), "there is a package ralph_core already"),
            (("acme", "--kind", "robot"), "'robot' is not one of"),
            (("acme", "--kind", "agent", "--into", "README"), "can't be written: Not a directory"),
        ],
    )
    def test_refuses_what_can_not_be(self, ralph, arguments, words):
        ralph.refuses("plugins", "new", *arguments, says=words)

    def test_overwrites_nothing(self, ralph):
        (ralph.workspace / "ralph-acme").mkdir()
        ralph.refuses("plugins", "new", "acme", "--kind", "agent", says="ralph-acme exists")


class TestVerify:
    def test_says_what_does_not_hold_and_what_to_mend(self, ralph):
        ralph.plugin(
            "acme", "import pydantic\nfrom ralph_core import hookimpl\n@hookimpl\ndef ralph_agents(): return []\n"
        )
        done = ralph("plugins", "verify", "acme", limit=200)
        assert done.returncode == 1
        assert "✗ plugin: import budget" in done.stdout
        assert "imports pydantic" in done.stdout
        assert "to mend: import at top level ralph_core, pluggy and the standard library alone" in done.stdout
        assert "✗ acme (ralph-acme 1.2.3) does not hold what it has to" in done.stdout

    def test_has_a_report_for_programs(self, ralph):
        ralph.plugin("acme", "raise RuntimeError('no such luck')\n")
        done = ralph("plugins", "verify", "acme", "--json", limit=200)
        assert done.returncode == 1
        report = json.loads(done.stdout)
        assert (report["plugin"], report["version"], report["passed"]) == ("acme", "1.2.3", False)
        failed = {rule["rule"]: rule["message"] for rule in report["rules"] if rule["outcome"] == "failed"}
        assert "RuntimeError: no such luck" in failed["can be loaded"]
        assert {rule["part"] for rule in report["rules"]} == {"plugin"}

    def test_of_an_unknown_plugin(self, ralph):
        ralph.refuses("plugins", "verify", "clade", says=("unknown plugin 'clade'",))

    def test_says_what_it_left_out(self, ralph):
        done = ralph("plugins", "verify", "claude", "--json", limit=200)
        assert done.returncode == 0, done.stdout
        assert json.loads(done.stdout)["not_run"] == ["agent claude: attempts, for which its author has scenarios"]

    def test_needs_no_checkout_and_heeds_no_settings_of_pytest(self, ralph):
        ralph.write("pytest.ini", "[pytest]\naddopts = --no-such-option\n")
        ralph.write("conftest.py", "raise RuntimeError('not mine')\n")
        ralph.plugin("acme", "raise RuntimeError('no such luck')\n")
        done = ralph("plugins", "verify", "acme", env={"PYTEST_ADDOPTS": "--no-such-option"}, limit=200)
        assert "✗ plugin: can be loaded" in done.stdout


class TestCommands:
    def test_of_a_plugin_that_is_broken_is_one_line(self, ralph):
        self.entry(ralph, "greet", "raise RuntimeError('no such luck')")
        ralph.refuses("greet", "hello", says="plugin 'greet' (ralph-greet 1.2.3): RuntimeError: no such luck")

    def test_that_are_no_typer_app_are_refused(self, ralph):
        self.entry(ralph, "greet", "app = 7")
        ralph.refuses("greet", says="greet_module:app is no typer.Typer")

    def test_are_not_imported_by_others(self, ralph):
        self.entry(ralph, "greet", "raise RuntimeError('no such luck')")
        assert "greet" in ralph("--help").stdout
        assert ralph("plugins").returncode == 0

    def test_do_not_take_the_place_of_own_ones(self, ralph):
        self.entry(ralph, "plugins", "raise RuntimeError('no such luck')")
        assert "builtin" in ralph("plugins").stdout

    def test_are_chosen_as_plugins_are(self, ralph):
        self.entry(ralph, "greet", "import typer\napp = typer.Typer()")
        assert "No such command" in ralph("greet", env={"RALPH_PLUGINS": "claude"}).stderr

    @staticmethod
    def entry(ralph, name, code):
        ralph.plugin(name, code, distribution=f"ralph-{name}")
        info = ralph.site / f"ralph_{name}-1.2.3.dist-info"
        (info / "entry_points.txt").write_text(f"[ralph.commands]\n{name} = ralph_{name}_module:app\n")


class TestContract:
    """A plugin may say which version of the contract it was made for."""

    CODE = "from ralph_core import hookimpl\nRALPH_CONTRACT = {!r}\n@hookimpl\ndef ralph_agents(): return []\n"

    @pytest.mark.parametrize(
        ("contract", "words"),
        [
            ("9.9", "it was made for contract 9.9 of Ralph, this is {}: pip install 'ralph-core>=9.9,<9.10', or an older ralph-acme"),
            ("0.0", "it was made for contract 0.0 of Ralph, this is {}: pip install --upgrade ralph-acme, or 'ralph-core>=0.0,<0.1'"),
            ("new", "RALPH_CONTRACT is 'new', which is no version such as '{}'"),
        ],
    )  # fmt: skip
    def test_another_one_is_refused_with_what_to_install(self, ralph, contract, words):
        from ralph_core import CONTRACT_VERSION

        ralph.plugin("acme", self.CODE.format(contract))
        (row,) = [row for row in json.loads(ralph("plugins", "--json").stdout) if row["name"] == "acme"]
        assert row["status"] == "error"
        assert words.format(CONTRACT_VERSION) in row["error"]

    def test_this_one_is_welcome(self, ralph):
        from ralph_core import CONTRACT_VERSION

        ralph.plugin("acme", self.CODE.format(CONTRACT_VERSION))
        assert ralph("plugins", "--check").returncode == 0

    @pytest.mark.parametrize(
        ("requires", "words"),
        [
            ("ralph-core<0.1,>=0.0", "it was made for contract 0.0 of Ralph, this is {}: pip install --upgrade ralph-acme, or 'ralph-core>=0.0,<0.1'"),
            ("ralph-core[prices] (>=9.9,<9.10)", "it was made for contract 9.9 of Ralph, this is {}: pip install 'ralph-core>=9.9,<9.10', or an older ralph-acme"),
            ("ralph-core<0.1", "it requires ralph-core<0.1"),
        ],
    )  # fmt: skip
    def test_that_is_not_the_one_required_is_told_before_the_import_fails(self, ralph, requires, words):
        """A plugin for another contract imports what is not there: what to install is said, not that."""
        from ralph_core import CONTRACT_VERSION

        self.required(ralph, requires, "from ralph_core import LongGone")
        (row,) = [row for row in json.loads(ralph("plugins", "--json").stdout) if row["name"] == "acme"]
        assert (row["status"], row["load_ms"] < 1000) == ("error", True)
        assert words.format(CONTRACT_VERSION) in row["error"]
        assert ralph("plugins", "--check").returncode == 1

    @pytest.mark.parametrize("requires", ["ralph-core", "ralph-core>=0.1,<0.2", "ralph-core<0.3,>=0.0", "ralph-core>=9; extra == 'new'", "ralph-core-more>=9"])  # fmt: skip
    def test_that_is_required_is_welcome(self, ralph, requires):
        self.required(ralph, requires, self.CODE.format(""))
        assert ralph("plugins", "--check").returncode == 0

    @staticmethod
    def required(ralph, requires, code):
        ralph.plugin("acme", code)
        path = ralph.site / "ralph_acme-1.2.3.dist-info" / "METADATA"
        path.write_text(f"{path.read_text()}Requires-Dist: {requires}\n\nRequires-Dist: ralph-core>=7.0\n")

    def test_has_the_number_of_the_minor_version(self):
        from ralph_core import CONTRACT_VERSION

        assert version("ralph-core").split(".")[:2] == CONTRACT_VERSION.split(".")


def test_the_skeleton_is_in_the_package():
    names = {path.name for path in (ROOT / "ralph_core/cli/skeleton").iterdir()}
    assert names == {"common", *KINDS}
    assert not os.path.exists(ROOT / "ralph_core/cli/skeleton/__init__.py")


class TestDeprecation:
    """What is to go away says so at the line of the plugin that still uses it."""

    @pytest.mark.parametrize("line", ["from ralph_core import tail_of", "import ralph_core; ralph_core.tail_of"])
    def test_of_a_name_warns_at_the_line_of_the_plugin(self, tmp_path, monkeypatch, line):
        import ralph_core

        monkeypatch.setitem(ralph_core._GOING, "tail_of", "goes away in 0.9: see docs/authors.md")
        monkeypatch.delitem(vars(ralph_core), "tail_of", raising=False)
        path = tmp_path / "late.py"
        for _ in range(2):  # each plugin that uses it is told
            with pytest.warns(DeprecationWarning, match=r"ralph_core\.tail_of goes away in 0\.9") as seen:
                exec(compile(f"\n\n{line}\n", path, "exec"), {})
            assert {(each.filename, each.lineno) for each in seen} == {(str(path), 3)}

    PLUGIN = "from ralph_core import hookimpl\n\n\n@hookimpl\ndef ralph_prompt_sections(state, task):\n    return []\n"

    @pytest.mark.parametrize("how", [{"warn_on_impl": True}, {"warn_on_impl_args": True}])
    def test_warns_at_the_line_of_the_plugin(self, tmp_path, monkeypatch, how):
        words = DeprecationWarning("ralph_prompt_sections goes away in 0.9: see docs/authors.md")
        (option,) = how
        said = words if option == "warn_on_impl" else {"task": words}
        monkeypatch.setitem(RalphSpec.ralph_prompt_sections.ralph_spec, option, said)
        path = tmp_path / "late.py"
        path.write_text(self.PLUGIN)
        plugin = types.ModuleType("late")
        exec(compile(self.PLUGIN, path, "exec"), vars(plugin))
        manager = pluggy.PluginManager(PROJECT)
        manager.add_hookspecs(RalphSpec)
        with pytest.warns(DeprecationWarning, match="goes away in 0.9") as seen:
            Plugins(manager).adopt(PluginRow("late", "ralph-late", "1.0", "active"), plugin)
        assert (seen[0].filename, seen[0].lineno) == (str(path), 4)
