"""What the package of a plugin has to hold: how it is found, what it imports, what it declares, and what it says of itself.

    class TestPlugin(PluginContract):
        plugin = "acme"

The package has to be installed, `pip install -e .` will do.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, ClassVar

import pluggy
import pytest

from ralph_core import __version__
from ralph_core.contracts import Capability, Provider
from ralph_core.hookspecs import PROJECT, RalphSpec, hookimpl
from ralph_core.plugins.compatibility import contract_of, hooks_of, made_for_another
from ralph_core.plugins.discovery import BUILTIN, BUILTIN_MODULE, GROUP
from ralph_core.plugins.registry import KINDS, NAME
from ralph_core.testing.rules import BASES, broken, holds, imported, plugins_here

IMPORTABLE = ("ralph_core", "pluggy", "importlib_metadata", "zipp")
"""What a plugin may import at top level, beside the standard library and itself; the last two are of Ralph's own discovery."""
FOR_AGENTS = frozenset(Capability) - {Capability.SNAPSHOTS, Capability.QUERY, Capability.VERIFY, Capability.PRUNE}
WORDS = {
    "agent": FOR_AGENTS,
    "store": frozenset({Capability.SNAPSHOTS}),
    "sink": frozenset({Capability.QUERY, Capability.VERIFY, Capability.PRUNE}),
    "policy": frozenset({Capability.TOOLS, Capability.BEFORE}),
}
"""Kind of provider: the capabilities that it can have."""
LOADED = """
import json, sys
import ralph_core.contracts, ralph_core.hookspecs, ralph_core.state, ralph_core.verdicts
before = set(sys.modules)
__import__({module!r})
sys.stdout.flush()
print({mark!r} + json.dumps(sorted(set(sys.modules) - before)))
"""
MARK = "ralph-kit-loaded:"


class PluginContract:
    """The rules for a plugin's package."""

    plugin: ClassVar[str] = ""
    """The name of the plugin's entry point."""

    @pytest.fixture
    def entry(self) -> Any:
        """The entry point."""
        from importlib_metadata import EntryPoint, entry_points

        if self.plugin == BUILTIN:
            return EntryPoint(BUILTIN, BUILTIN_MODULE, GROUP)
        entries = [entry for entry in entry_points(group=GROUP) if entry.name == self.plugin]
        if not entries:
            pytest.skip("no entry point: see test_is_found")
        return entries[0]

    @pytest.fixture
    def loaded(self, entry: Any) -> Any:
        """What the entry point names."""
        try:
            plugin = entry.load()
            return plugin() if isinstance(plugin, type) else plugin
        except BaseException as error:
            pytest.skip(f"it can't be loaded ({type(error).__name__}): see test_can_be_loaded")

    @pytest.fixture
    def declared(self, loaded: Any) -> list[tuple[str, Provider[Any]]]:
        """Kind and provider of all that it brings, as far as it is declared as it should be."""
        return [(kind, each) for kind, answer in _answers(loaded) if not _wrong(answer) for each in answer]

    @pytest.fixture
    def metadata(self, entry: Any) -> Any:
        """The metadata of its distribution."""
        from importlib_metadata import metadata

        return metadata(entry.dist.name if entry.dist else "ralph-core")

    # --- found, imported ---

    def test_is_found(self) -> None:
        """There is exactly one entry point of that name."""
        from importlib_metadata import entry_points

        entries = [entry for entry in entry_points(group=GROUP) if entry.name == self.plugin]
        wanted = 0 if self.plugin == BUILTIN else 1
        holds(
            len(entries) == wanted,
            f"{len(entries)} installed packages have an entry point {self.plugin!r} of the group {GROUP}",
            mend=f"""write [project.entry-points."{GROUP}"] with `{self.plugin} = "package.module"` in pyproject.toml, """
            "install the package, and choose a name that is not taken",
        )
        holds(
            NAME.fullmatch(self.plugin),
            f"the name {self.plugin!r} can't be typed",
            mend="lower-case letters, digits, - and _, a letter first",
        )

    def test_can_be_loaded(self, entry: Any) -> None:
        """The module that the entry point names can be imported, and its class be made."""
        try:
            plugin = entry.load()
            _ = plugin() if isinstance(plugin, type) else plugin
        except BaseException as error:
            broken(
                f"{entry.value} raised {type(error).__name__}: {error}",
                mend="let the module that the entry point names be imported anywhere: no work, no demands at import",
            )

    def test_import_prints_nothing(self, entry: Any) -> None:
        """Importing it prints nothing, on either stream."""
        out, err, _ = _imported_afresh(entry.module)
        holds(
            not out and not err,
            f"importing {entry.module} prints {(out or err)!r:.200}",
            mend="print nothing at import: `ralph plugins --json` would print it, too",
        )

    def test_import_budget(self, entry: Any) -> None:
        """Every `ralph` command imports every plugin: what is heavy is imported where it is used."""
        _, _, modules = _imported_afresh(entry.module)
        own = entry.module.partition(".")[0]
        heavy = {
            name
            for name in (module.partition(".")[0] for module in modules)
            if name not in (*sys.stdlib_module_names, *IMPORTABLE, own) and not name.startswith(("__editable__", "_"))
        }
        inside = {module for module in modules if module.startswith("ralph_core.cli")}
        holds(
            not heavy | inside,
            f"importing {entry.module} imports {', '.join(sorted(heavy | inside))}",
            mend="import at top level ralph_core, pluggy and the standard library alone; put code that needs more into a "
            "module that a Provider names by its path, or into the function that needs it",
        )

    # --- declared ---

    def test_hooks_are_known(self, loaded: Any) -> None:
        """It implements hooks, all of them known, with arguments that these have."""
        try:
            manager = pluggy.PluginManager(PROJECT)
            manager.add_hookspecs(RalphSpec)
            hooks = hooks_of(manager, loaded)
            manager.register(loaded)
        except Exception as error:
            broken(str(error), mend="see the list of hooks and their arguments in docs/reference/hooks.md")
        holds(
            hooks,
            f"{self.plugin} implements no hook",
            mend="mark functions of the names in ralph_core.hookspecs with @hookimpl",
        )

    def test_answers_are_providers(self, loaded: Any) -> None:
        """The hooks that declare answer sequences of `Provider`, and raise nothing."""
        for kind, answer in _answers(loaded):
            holds(
                not _wrong(answer),
                f"{KINDS[kind][0]} {_wrong(answer)}",
                mend="return a sequence of Provider, and do nothing else: no I/O, nothing that may raise",
            )

    def test_names_are_legal_and_free(self, declared: list[tuple[str, Provider[Any]]]) -> None:
        """The names of its providers can be typed, and nobody else has them."""
        plugins = plugins_here()
        seen: set[tuple[str, str]] = set()
        for kind, provider in declared:
            holds(
                NAME.fullmatch(provider.name),
                f"{kind} {provider.name!r}: that is no name",
                mend="lower-case letters, digits, - and _, a letter first: it is typed on command lines",
            )
            owner = plugins.providers[kind].get(provider.name, (self.plugin,))[0]
            holds(
                owner == self.plugin and (kind, provider.name) not in seen,
                f"{kind} {provider.name!r} is taken"
                + (f" by plugin {owner!r}" if owner != self.plugin else " already"),
                mend="choose another name",
            )
            seen.add((kind, provider.name))

    def test_providers_say_what_they_are(self, declared: list[tuple[str, Provider[Any]]]) -> None:
        """Each provider has a summary of one line, and capabilities that its kind can have."""
        for kind, provider in declared:
            holds(
                provider.summary.strip() and "\n" not in provider.summary,
                f"{kind} {provider.name!r} has no summary, or one of several lines",
                mend="say in one line what it does: `ralph agents` and the docs show it",
            )
            strange = {str(getattr(each, "value", each)) for each in provider.capabilities} - {
                each.value for each in WORDS[kind]
            }
            holds(
                not strange,
                f"{kind} {provider.name!r} has the capabilities {', '.join(sorted(strange))}",
                mend=f"a {kind} can have: {', '.join(sorted(each.value for each in WORDS[kind]))}",
            )

    def test_factories_make_what_they_should(self, declared: list[tuple[str, Provider[Any]]]) -> None:
        """Each factory can be imported, and is a whole subclass of its base class, or a function."""
        for kind, provider in declared:
            try:
                factory = imported(provider.factory)
            except BaseException as error:
                broken(
                    f"{kind} {provider.name!r}: {provider.factory} raised {type(error).__name__}: {error}",
                    mend='write the factory as "package.module:Name"',
                )
            holds(
                callable(factory) and (not isinstance(factory, type) or issubclass(factory, BASES[kind])),
                f"{kind} {provider.name!r}: {provider.factory} is no {BASES[kind].__name__}",
                mend=f"subclass ralph_core.{BASES[kind].__name__}, or name a function that returns one",
            )
            left = getattr(factory, "__abstractmethods__", ())
            holds(
                not left,
                f"{kind} {provider.name!r}: {provider.factory} does not implement {', '.join(sorted(left))}",
                mend="implement all abstract methods of the base class",
            )

    def test_settings_models_are_right(self, declared: list[tuple[str, Provider[Any]]]) -> None:
        """Each settings model is frozen, refuses what it does not know, and says what each field means."""
        for kind, provider in declared:
            if provider.settings is None:
                continue
            where = f"{kind} {provider.name!r}: {provider.settings}"
            try:
                model = imported(provider.settings)
                fields = model.model_fields
            except BaseException as error:
                broken(
                    f"{where} raised {type(error).__name__}: {error}",
                    mend='write the settings as "package.module:Model", the path of a pydantic model',
                )
            holds(
                model.model_config.get("frozen") and model.model_config.get("extra") == "forbid",
                f"{where} can be changed, or takes settings that it does not know",
                mend='model_config = ConfigDict(frozen=True, extra="forbid")',
            )
            from ralph_core.cli.config import docstrings

            silent = [name for name in fields if not fields[name].description and name not in docstrings(model)]
            holds(
                not silent,
                f"{where} does not say what {', '.join(silent)} means",
                mend="write a docstring below each field",
            )

    # --- the distribution ---

    def test_is_made_for_this_contract(self, loaded: Any) -> None:
        """`RALPH_CONTRACT`, if the module has it, is the version of the contract that is installed."""
        words = made_for_another(contract_of(loaded), "the plugin")
        holds(not words, words, mend="set RALPH_CONTRACT in the plugin's module to ralph_core.CONTRACT_VERSION")

    def test_metadata_pin_the_core(self, metadata: Any) -> None:
        """The distribution requires this minor version of ralph-core, and no other."""
        from packaging.requirements import Requirement

        if metadata["Name"] == "ralph-core":
            return
        major, minor, *_ = (int(part) for part in __version__.split(".")[:2])
        wanted = f"ralph-core>={major}.{minor},<{major}.{minor + 1}"
        pins = [Requirement(each) for each in metadata.get_all("Requires-Dist") or ()]
        mine = [each.specifier for each in pins if each.name == "ralph-core" and each.marker is None]
        holds(
            mine
            and mine[0].contains(__version__, prereleases=True)
            and not mine[0].contains(f"{major}.{minor + 1}.0")
            and (not minor or not mine[0].contains(f"{major}.{minor - 1}.0")),
            f"{metadata['Name']} requires {', '.join(f'ralph-core{pin}' for pin in mine) or 'no ralph-core'}",
            mend=f'dependencies = ["{wanted}"]: before 1.0 the contract may change with each minor version',
        )

    def test_metadata_have_a_readme(self, metadata: Any) -> None:
        """The distribution has a description, and a README of some length."""
        words = metadata.get_payload() or metadata.get("Description") or ""
        holds(
            len(str(words).split()) >= 10 and metadata.get("Summary"),
            f"{metadata['Name']} has no README, or no description, in its metadata",
            mend='write `readme = "README.md"` and `description` in pyproject.toml; say what it does and how it is set up',
        )


def _answers(plugin: Any) -> Iterator[tuple[str, Any]]:
    """Kind, and what the plugin's hook for it answers: the exception, if it raises."""
    for kind, (hook, _) in KINDS.items():
        function = getattr(plugin, hook, None)
        if function is None or not hasattr(function, f"{hookimpl.project_name}_impl"):
            continue
        try:
            yield kind, function()
        except BaseException as error:
            yield kind, error


def _wrong(answer: Any) -> str:
    if isinstance(answer, BaseException):
        return f"raised {type(answer).__name__}: {answer}"
    good = isinstance(answer, (list, tuple)) and all(isinstance(each, Provider) for each in answer)
    return "" if good else f"answered {answer!r:.100}"


def _imported_afresh(module: str) -> tuple[str, str, list[str]]:
    """What a fresh process prints that imports the module, on both streams, and the modules that are there then."""
    code = LOADED.format(module=module, mark=MARK)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120, check=False
    )
    out, mark, modules = done.stdout.partition(MARK)
    if not mark:
        pytest.skip(f"{module} can't be imported: see test_can_be_loaded")
    return out, done.stderr, json.loads(modules)
