"""The reference for authors of plugins has all of the contract, and says something of each; test_docs.py, that it is current."""

import ast
import dataclasses
import enum
import inspect
import re
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

import ralph_core
from ralph_core import FailureKind

ROOT = Path(__file__).parents[1]
PUBLIC = {name: getattr(ralph_core, name) for name in ralph_core.__all__}
CLASSES = {name: value for name, value in PUBLIC.items() if inspect.isclass(value)}
ENUMS = {name: value for name, value in CLASSES.items() if issubclass(value, enum.Enum)}
DATA = {name: value for name, value in CLASSES.items() if dataclasses.is_dataclass(value)}
PARTS = {  # what a class has that is no public name, and why
    "Provided": "the base of the four base classes, which say all of it",
}
KIT = ("agents", "packages", "policies", "sinks", "stores")


@cache
def text(page):
    return (ROOT / "docs/reference" / f"{page}.md").read_text(encoding="utf-8")


@cache
def entries():
    """Public name: what the pages say of it."""
    found = {}
    for page in ("contract", "values"):
        for title, body in re.findall(r"^### (\w+)\n(.*?)(?=^##{1,2} |\Z)", text(page), re.MULTILINE | re.DOTALL):
            assert title not in found, f"{title} is there twice"
            found[title] = body
    return found


def words(body):
    """What is left of an entry without its code and tables."""
    return re.sub(r"^```.*?^```$|^\|.*$|^#.*$", "", body, flags=re.MULTILINE | re.DOTALL).split()


def rows(body):
    """First cell of each row of its tables, without the marks, to the last cell."""
    cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in body.splitlines() if line.startswith("| `")]
    return {row[0].strip().strip("`"): row[-1].strip() for row in cells}


def test_has_every_public_name_and_no_other():
    assert set(entries()) == set(PUBLIC)


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_says_what_each_public_name_is(name):
    assert len(words(entries()[name])) >= 3


@pytest.mark.parametrize("name", sorted(ENUMS))
def test_says_what_each_member_means(name):
    told = rows(entries()[name])
    known = {member.value if ENUMS[name] is FailureKind else member.name for member in ENUMS[name]}
    assert set(told) == known
    assert all(len(meaning.split()) >= 2 for meaning in told.values())


@pytest.mark.parametrize("name", sorted(DATA))
def test_says_what_each_field_is(name):
    """In a row of its own, or by its name in the words about the class."""
    body = entries()[name]
    told = rows(body)
    for field in dataclasses.fields(DATA[name]):
        assert told.get(field.name) or f"`{field.name}`" in " ".join(words(body)), field.name


@pytest.mark.parametrize("name", sorted({*CLASSES} - {"RalphSpec"}))  # whose methods are hooks, on a page of their own
def test_says_what_each_method_does(name):
    for method, value in vars(CLASSES[name]).items():
        if inspect.isfunction(value) and not method.startswith("_"):
            inherited = any(hasattr(base, method) for base in CLASSES[name].__bases__)
            (body,) = re.findall(rf"^#### {name}\.{method}\n(.*?)(?=^#|\Z)", entries()[name], re.MULTILINE | re.DOTALL) or [""]  # fmt: skip
            assert inherited or len(words(body)) >= 3, method


def test_says_of_each_failure_whether_it_counts_and_what_is_done():
    for kind in FailureKind:
        (row,) = [line for line in entries()["FailureKind"].splitlines() if line.startswith(f"| `{kind.value}` |")]
        _, _, _, counts, done, _ = (cell.strip() for cell in row.split("|"))
        assert counts == ("yes" if kind.agent_fault else "no")
        assert done.startswith(
            "The iteration has failed." if kind.agent_fault else ("Retried", "Not retried", "Waited out")
        )


def test_signatures_are_those_of_the_code():
    """What the page shows, parsed, has the arguments that the function has."""
    for name, cls in CLASSES.items():
        for method, code in re.findall(rf"^#### {name}\.(\w+)\n\n```python\n(.*?)\n```", entries()[name], re.MULTILINE | re.DOTALL):  # fmt: skip
            (node,) = ast.parse(f"{code}: ...").body
            shown = node.args
            real = inspect.signature(vars(cls)[method]).parameters
            keywords = [each.name for each in real.values() if each.kind is each.KEYWORD_ONLY]
            assert [each.arg for each in shown.kwonlyargs] == keywords
            assert [each.arg for each in (*shown.args, *shown.kwonlyargs)] == list(real)
            assert isinstance(node, ast.AsyncFunctionDef) == inspect.iscoroutinefunction(vars(cls)[method])


def test_what_public_names_are_made_of_is_public():
    """No field, argument or answer is of a class of Ralph's that a plugin could not name."""
    for name, cls in CLASSES.items():
        module = import_module(cls.__module__)
        (node,) = [each for each in ast.parse(inspect.getsource(module)).body if getattr(each, "name", "") == name]
        for leaf in ast.walk(node):
            for part in (getattr(leaf, "annotation", None), getattr(leaf, "returns", None)):
                for each in ast.walk(part) if part is not None else ():
                    found = getattr(each, "id", None)
                    known = getattr(module, found or "", None) or getattr(ralph_core, found or "", None)
                    if inspect.isclass(known) and known.__module__.startswith("ralph_core"):
                        assert found in PUBLIC or found in PARTS, f"{name} has a {found}"


class TestKit:
    @pytest.mark.parametrize("module", KIT)
    def test_has_every_rule_with_what_has_to_hold(self, module):
        (cls,) = [value for name, value in vars(import_module(f"ralph_core.testing.{module}")).items() if name.endswith("Contract") and value.__module__.endswith(module)]  # fmt: skip
        section = text("kit").partition(f"\n## {cls.__name__}\n")[2].partition("\n## ")[0]
        told = dict(re.findall(r"^\| ([a-z0-9 ]+) \| (.*) \|$", section, re.MULTILINE))
        rules = {name.removeprefix("test_").replace("_", " ") for name in vars(cls) if name.startswith("test_")}
        assert set(told) == rules
        assert all(len(meaning.split()) >= 5 for meaning in told.values())

    @pytest.mark.parametrize("module", KIT)
    def test_shows_how_it_is_subclassed(self, module):
        assert re.search(r"^    class Test\w+\(\w+Contract\):$", import_module(f"ralph_core.testing.{module}").__doc__, re.MULTILINE)  # fmt: skip

    def test_has_every_field_of_a_scenario(self):
        section = text("kit").partition("\n## Scenario\n")[2].partition("\n## ")[0]
        from ralph_core.testing.scenarios import Scenario

        assert set(rows(section)) == {field.name for field in dataclasses.fields(Scenario)}
        assert all(rows(section).values())

    def test_has_every_fixture(self):
        module = import_module("ralph_core.testing.fixtures")
        known = {name for name, value in vars(module).items() if type(value).__name__ == "FixtureFunctionDefinition"}
        told = dict(re.findall(r"^- `(\w+)`: (.*)$", text("kit"), re.MULTILINE))
        assert known
        assert known <= set(told)
        assert all(told.values())
