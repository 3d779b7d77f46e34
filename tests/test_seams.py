"""No dead seam: what is declared is used, imports point one way, and what is not needed is not imported."""

import ast
import importlib
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from pydantic import BaseModel

import ralph_core
from ralph_core.builtin import plugin as builtin_plugin
from ralph_core.hookspecs import RalphSpec
from ralph_core.plugins.discovery import BUILTIN_MODULE, GROUP, PluginChoice, build_manager
from ralph_core.plugins.registry import KINDS, Plugins
from ralph_core.settings.model import Settings
from ralph_core.settings.tables import GateSettings

ROOT = Path(__file__).parents[1]
CORE = ROOT / "ralph_core"
HOOKS = [name for name in vars(RalphSpec) if name.startswith("ralph_")]
HANDED_ON = ("security",)
"""Tables that `Settings.section` hands on whole, each setting to the policy of its name; that policy's model reads it."""
TABLES = {table for _, table in KINDS.values()}
META = {"test_seams.py", "test_docs.py", "test_contract_golden.py"}

VALUES = ("values", "errors", "events", "records", "state", "verdicts")
CONTRACT = ("contracts", "hookspecs")
CLIMBING = ("run", "consent", "diagnosis", "intake", "attempt", "gates", "loop", "sitting", "session", "cli")
"""From the bottom to the top: the values, the contract, all modules that are not named here (the parts of a run), and then
those that put the parts together. Each imports from its own row or below; of the last ones, each from those before it."""

ROOMS = (("processes",), ("settings",), ("plugins",), ("tracing", "account"), ("monitoring",))
"""The packages among the parts, from the bottom to the top: each imports from those before it alone."""

LAZY = {
    (
        "plugins.registry",
        "settings.validation",
    ): "a provider's section is validated when it is built; pydantic would slow `ralph plugins`",
    (
        "settings.sources",
        "settings.model",
    ): "the names of settings, for a file with a profile of an unusual name; the same reason",
}
"""Imports inside functions that close a circle."""

HEAVY = {
    "asyncio",
    "click",
    "json",
    "opentelemetry",
    "pathlib",
    "pluggy",
    "pydantic",
    "rich",
    "subprocess",
    "typer",
    "yaml",
}


@cache
def tree(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def modules():
    """Every module of the core: dotted name below ralph_core ("" is the package itself), and its file."""
    for path in sorted(CORE.rglob("*.py")):
        parts = path.relative_to(CORE).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


NAMES = {name for name, _ in modules()}


def imports(name, path, *, functions=True, types=True):
    """The modules of the core that this one imports, also inside functions, also for type checkers alone."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in walk(tree(path), functions=functions, types=types):
        if isinstance(node, ast.Import):
            bases = [(alias.name, ()) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parents = ["ralph_core", *package.split(".")] if package else ["ralph_core"]
            start = parents[: len(parents) - node.level + 1] if node.level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            bases = [(base, [alias.name for alias in node.names])]
        else:
            continue
        for base, names in bases:
            if base.split(".")[0] != "ralph_core":
                continue
            here = base.removeprefix("ralph_core").removeprefix(".")
            for each in names or [""]:
                full = f"{here}.{each}".strip(".")
                yield full if full in NAMES else here


def walk(node, *, functions, types):
    for child in ast.iter_child_nodes(node):
        if not types and isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        if functions or not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield child
            yield from walk(child, functions=functions, types=types)


def nested(model):
    """The models that the fields of a model are, and those below."""
    for field in model.model_fields.values():
        if isinstance(field.default, BaseModel):
            yield type(field.default)
            yield from nested(type(field.default))


def models():
    """Package, name of the section, and settings model of every provider that is installed here."""
    for kind, table in build_manager(PluginChoice()).providers.items():
        for name, (_, provider) in sorted(table.items()):
            if provider.settings is not None:
                module, _, attribute = provider.settings.partition(":")
                package = "ralph_core.builtin" if module.startswith("ralph_core.") else module.partition(".")[0]
                yield package, f"{KINDS[kind][1]}.{name}", getattr(importlib.import_module(module), attribute)


MODELS = list(models())


class TestHooks:
    @pytest.mark.parametrize("hook", HOOKS)
    def test_is_called(self, hook):
        """By name, in a call or in the table of what is declared; the registry is where hooks are called."""
        calls = [
            node for node in ast.walk(tree(CORE / "plugins" / "registry.py")) if isinstance(node, (ast.Call, ast.Dict))
        ]
        named = {
            leaf.value
            for node in calls
            for leaf in ast.walk(node)
            if isinstance(leaf, ast.Constant) and isinstance(leaf.value, str)
        }
        assert hook in named

    @pytest.mark.parametrize("hook", HOOKS)
    def test_is_tested(self, hook):
        tests = [path for folder in ("tests", "plugins") for path in (ROOT / folder).rglob("test_*.py")]
        assert any(hook in path.read_text(encoding="utf-8") for path in tests if path.name not in META)

    @pytest.mark.parametrize("hook", HOOKS)
    def test_has_a_typed_call_that_something_calls(self, hook):
        """Not only is there a caller of each hook in the registry: the loop uses it, or builds what the hook has declared."""
        callers = {
            node.attr
            for name, path in modules()
            if name != "plugins.registry"
            for node in ast.walk(tree(path))
            if isinstance(node, ast.Attribute)
        }
        declaring = {declared for declared, _ in KINDS.values()}
        call = "build" if hook in declaring else hook.removeprefix("ralph_")
        assert callable(getattr(Plugins, call))
        assert call in callers


class TestSettings:
    @pytest.mark.parametrize("field", Settings.model_fields)
    def test_is_read(self, field):
        assert field in self.read()

    @pytest.mark.parametrize(
        ("place", "field"),
        [
            (f"settings.{name}", field)
            for name, table in Settings.model_fields.items()
            if isinstance(table.default, BaseModel) and name not in ("plugins", *HANDED_ON)
            for field in type(table.default).model_fields
        ]
        + [("gate", field) for field in GateSettings.model_fields],
    )
    def test_of_a_table_is_read(self, place, field):
        assert field in {
            node.attr
            for path in self.readers()
            for node in ast.walk(tree(path))
            if isinstance(node, ast.Attribute) and ast.unparse(node.value).endswith(place)
        }

    @pytest.mark.parametrize(("package", "name", "model"), MODELS, ids=[name for _, name, _ in MODELS])
    def test_of_a_provider_is_read(self, package, name, model):
        """By an attribute of that name, somewhere in the package that brings it."""
        folder = Path(importlib.import_module(package).__file__).parent
        read = {
            node.attr
            for path in folder.rglob("*.py")
            for node in ast.walk(tree(path))
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
        }
        assert not {field for each in (model, *nested(model)) for field in each.model_fields} - read

    @staticmethod
    def readers():
        return [path for name, path in modules() if name not in ("settings.model", "settings.sources")]

    @classmethod
    @cache
    def read(cls):
        """Fields that something reads: from settings, or by a method of the settings that something calls."""
        found = set()
        for path in cls.readers():
            for node in ast.walk(tree(path)):
                if isinstance(node, ast.Attribute) and ast.unparse(node.value).split(".")[-1] == "settings":
                    found.add(node.attr)
                if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("settings.section"):
                    found |= TABLES if "KINDS" in ast.unparse(node.args[0]) else {node.args[0].value}
        own = next(
            node
            for node in tree(CORE / "settings" / "model.py").body
            if isinstance(node, ast.ClassDef) and node.name == "Settings"
        )
        for method in own.body:
            if isinstance(method, ast.FunctionDef) and method.name in found:
                found |= {
                    node.attr
                    for node in ast.walk(method)
                    if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "self"
                }
        # What chooses plugins is read before there are settings, from what the sources say.
        choice = next(
            node
            for node in tree(CORE / "plugins" / "discovery.py").body
            if getattr(node, "name", "") == "plugin_choice"
        )
        if {"plugins", "disable", "require"} <= {n.value for n in ast.walk(choice) if isinstance(n, ast.Constant)}:
            found.add("plugins")
        return found


class TestEntryPoints:
    def test_every_declared_group_has_a_loader(self):
        # By text: the standard library reads TOML only from 3.11 on.
        projects = [ROOT / "pyproject.toml", *ROOT.glob("plugins/*/pyproject.toml")]
        declared = {
            group
            for path in projects
            for group in re.findall(r'^\[project\.entry-points\."?([\w.]+)"?\]', path.read_text(), re.MULTILINE)
        }
        assert declared == {GROUP}
        loaded = {
            ast.unparse(word.value)
            for _, path in modules()
            for node in ast.walk(tree(path))
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("entry_points")
            for word in node.keywords
            if word.arg == "group"
        }
        assert loaded == {"GROUP", "COMMANDS", "groups[signal]"}


class TestPublicNames:
    def test_all_is_what_is_exported(self):
        checked = {
            alias.asname or alias.name
            for node in tree(CORE / "__init__.py").body
            if isinstance(node, ast.If)
            for leaf in node.body
            if isinstance(leaf, ast.ImportFrom)
            for alias in leaf.names
        }
        assert set(ralph_core.__all__) == checked | {"__version__"}
        assert dir(ralph_core) == sorted(ralph_core.__all__)

    @pytest.mark.parametrize("name", [name for name in ralph_core.__all__ if name != "__version__"])
    def test_is_what_its_module_calls_so(self, name):
        module = importlib.import_module(f"ralph_core.{ralph_core._MODULE_OF[name]}")
        assert getattr(ralph_core, name) is getattr(module, name)


class TestImports:
    def test_point_one_way(self):
        level = dict.fromkeys(VALUES, 0) | dict.fromkeys(CONTRACT, 1)
        level |= {name: number for number, name in enumerate(CLIMBING, 3)}
        for name, path in modules():
            family = name.split(".")[0]
            if family not in ("", "__main__", "builtin", "testing"):
                for other in imports(name, path):
                    if other:
                        assert level.get(other.split(".")[0], 2) <= level.get(family, 2), f"{name} imports {other}"

    def test_run_in_no_circle(self):
        graph = {name: set(imports(name, path, types=False)) - {name, ""} for name, path in modules() if name}
        for name, other in LAZY:
            assert other in graph[name], f"{name} no longer imports {other}: take it out of LAZY"
            assert other not in set(imports(name, dict(modules())[name], functions=False, types=False))
            graph[name].discard(other)
        assert not self.circles(graph)

    def test_nor_do_those_of_the_packages_as_wholes(self):
        graph = {}
        for name, path in modules():
            family = name.split(".")[0]
            if family not in ("", "__main__", "builtin", "cli", "testing"):
                others = {other.split(".")[0] for other in imports(name, path, types=False)}
                graph[family] = graph.get(family, set()) | others - {family, ""}
        assert not self.circles(graph)

    def test_of_the_packages_are_in_the_order_of_the_page(self):
        level = {room: number for number, rooms in enumerate(ROOMS) for room in rooms}
        page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
        assert "`" + " → ".join(", ".join(rooms) for rooms in reversed(ROOMS)) + "`" in page
        for name, path in modules():
            for room, other in (
                (name.split(".")[0], other.split(".")[0]) for other in imports(name, path, types=False)
            ):
                if room in level and other in level and room != other:
                    assert level[other] < level[room], f"{name} imports {other}"

    @staticmethod
    def circles(graph):
        """What is left of a graph when all that leads to an end is taken away."""
        while leaves := [name for name, others in graph.items() if not others & graph.keys()]:
            for name in leaves:
                del graph[name]
        return graph

    def test_the_built_ins_are_imported_through_the_plugin_manager_alone(self):
        for name, path in modules():
            if name.split(".")[0] == "builtin":
                continue
            assert not [other for other in imports(name, path) if other.split(".")[0] == "builtin"], name
            words = [node.value for node in ast.walk(tree(path)) if isinstance(node, ast.Constant)]
            assert ("ralph_core.builtin" in str(words)) == (name == "plugins.discovery"), name
        assert builtin_plugin.__name__ == BUILTIN_MODULE

    def test_no_plugin_package_is_imported(self):
        others = ("ralph_acp", "ralph_claude", "ralph_codex", "ralph_gemini", "ralph_qchat")
        assert not [name for name, path in modules() if any(f"import {each}" in path.read_text() for each in others)]
        assert not [name for name, path in modules() if any(f"from {each}" in path.read_text() for each in others)]


class TestStart:
    """The budget of STYLE, as sets of modules: what is not needed is not imported."""

    def loaded(self, code, tmp_path):
        """Top-level names of the modules that are loaded when the code has run."""
        report = "print('\\n' + ' '.join(sorted({name.split('.')[0] for name in sys.modules})), file=sys.stderr)"
        done = subprocess.run(
            [sys.executable, "-c", f"import sys\ntry:\n    {code}\nexcept SystemExit:\n    pass\n{report}"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return set(done.stderr.splitlines()[-1].split())

    def test_version(self, tmp_path):
        loaded = self.loaded("from ralph_core.cli import main; main(['--version'])", tmp_path)
        assert not loaded & {"typer", "click", "rich", "pluggy", "pydantic", "opentelemetry", "yaml", "asyncio"}

    def test_help(self, tmp_path):
        loaded = self.loaded("from ralph_core.cli.app import run_app; run_app(['--help'])", tmp_path)
        assert "typer" in loaded
        assert not loaded & {"pydantic", "opentelemetry", "yaml", "rich"}

    def test_plugins(self, tmp_path):
        """The command itself: Typer imports pydantic when it parses options."""
        arguments = "{}, config=None, no_plugin=(), verbose=True, check=False, as_json=False"
        loaded = self.loaded(f"from ralph_core.cli.plugins import show; show({arguments})", tmp_path)
        assert "pluggy" in loaded
        assert not loaded & {"pydantic", "opentelemetry", "yaml", "rich", "typer", "asyncio"}

    @pytest.mark.parametrize(
        "package", ["ralph_core", *(f"ralph_core.{path.parent.name}" for path in sorted(CORE.glob("*/__init__.py")))]
        + [path.name for path in sorted(ROOT.glob("plugins/*/src/*")) if (path / "__init__.py").exists()]
    )  # fmt: skip
    def test_packages_import_nothing(self, package, tmp_path):
        assert not self.loaded(f"import {package}", tmp_path) & HEAVY
