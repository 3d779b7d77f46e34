"""What the pages say of settings, variables and exit codes is so: each that is named exists, each example is accepted."""

import re
from functools import cache
from pathlib import Path

import pytest

from ralph_core import ExitCode
from ralph_core.plugins.discovery import PluginChoice, build_manager
from ralph_core.plugins.registry import KINDS
from ralph_core.settings.model import Settings

ROOT = Path(__file__).parents[1]
GENERATED = ROOT / "docs/reference"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted(ROOT.glob("plugins/*/README.md"))]
EXAMPLES = sorted(ROOT.glob("examples/plugins/*/README.md"))
FENCE = re.compile(r"^```(\w*)[^\n`]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ROWS = re.findall(r"^\| `([^`]+)` \|", (GENERATED / "settings.md").read_text(), re.MULTILINE)
KNOWN = {row.replace("[]", "") for row in ROWS}
SECTIONS = {
    f"{KINDS[kind][1]}.{each}" for kind, table in build_manager(PluginChoice()).providers.items() for each in table
}
TABLES = {*Settings.model_fields, *(table for _, table in KINDS.values())}
HEADS = {row.partition(".")[0] for row in KNOWN if "." in row}
"""What a name with a dot begins with, if it is one of a setting."""
NO_SETTINGS_FILE = "# config/qchat.yaml"
"""First line of an example that is a file of another program's format, which ralph-qchat reads."""
OTHERS = ("contract", "values", "kit", "guides")
"""Pages in which `name: ...` is an attribute and its type, or a quotation of the deployment guides."""
FILES = [(page, number, block) for page in PAGES for number, (language, block) in enumerate(FENCE.findall(page.read_text())) if language == "yaml" and not block.startswith(NO_SETTINGS_FILE)]  # fmt: skip


def name(page):
    return str(page.relative_to(ROOT))


@cache
def prose(page):
    """The page without its blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def known(path):
    """Whether there is a setting of that name, also without the table that it is in, or a table of settings."""
    whole = any(f".{row}.".endswith(f".{path}.") or row.startswith(f"{path}.") for row in KNOWN)
    return whole or path in TABLES or path in SECTIONS or _free(path)


def _free(path):
    """Below a setting that is a table without a model of its own."""
    return path.startswith(("keys.", "mcp.servers.", "environment.set.", "policies.", "profiles.", "process.limits."))


def unknown_settings(text):
    """Names in running text that begin as settings do, `table.name` or `name: value`, and are none."""
    words = re.findall(r"`([a-z_]+(?:\.[a-z_]+)+)(?:: [^`]+)?`", text)
    dotted = [word for word in words if word.partition(".")[0] in HEADS]
    valued = [word for word in re.findall(r"`([a-z]+(?:_[a-z]+)+): [^`]+`", text) if not word.startswith("ralph_")]
    columns = [cell for heading, cell in cells(text) if heading == "Setting"]
    tabled = [word for cell in columns for word in re.findall(r"`([a-z_.]+)(?:\[\][a-z_.]*)?`", cell)]
    return [word for word in (*dotted, *valued, *tabled) if not known(word)]


def cells(text):
    """Heading of the column, and cell, of all tables."""
    headings = []
    for line in text.splitlines():
        row = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] if line.startswith("|") else []
        if not row or not headings:
            headings = row
        elif set(row) != {"---"}:
            yield from zip(headings, row, strict=False)


@cache
def sources():
    """All of the code that reads variables."""
    files = [
        path
        for folder in ("ralph_core", "plugins", "tests", "deploy", "examples")
        for path in (ROOT / folder).rglob("*")
    ]
    return "".join(path.read_text(errors="replace") for path in files if path.suffix in (".py", ".service", ".yml", ".tmpl", "") and path.is_file())  # fmt: skip


class TestSettings:
    @pytest.mark.parametrize(
        ("page", "number", "block"), FILES, ids=[f"{name(page)}-{number}" for page, number, _ in FILES]
    )
    def test_of_an_example_are_accepted(self, ralph, page, number, block):
        ralph.write("example.yml", block)
        done = ralph("config", "check", "--config", "example.yml")
        assert done.returncode == 0, done.stderr

    @pytest.mark.parametrize("page", [page for page in PAGES if page.stem not in OTHERS], ids=name)
    def test_in_running_text_exist(self, page):
        assert not unknown_settings(prose(page))

    def test_that_do_not_exist_are_found(self):
        assert unknown_settings("`budget.unmeterd: refuse`") == ["budget.unmeterd"]
        assert unknown_settings("`checkpoint_stroe: git`") == ["checkpoint_stroe"]
        assert unknown_settings("| Setting | |\n|---|---|\n| `max_iteration` | 7 |\n") == ["max_iteration"]
        assert not unknown_settings("`plugins.require`, `checkpoint_store: git`, `stores.git.commit`, `pack.json`")


class TestVariables:
    @pytest.mark.parametrize("page", [*PAGES, *EXAMPLES], ids=name)
    def test_that_are_named_are_read(self, page):
        named = set(re.findall(r"\b(?:RALPH|QCHAT)_[A-Z][A-Z_]*[A-Z]\b", page.read_text()))
        assert not {each for each in named if not re.search(rf"\b{each}\b", sources())}


class TestExitCodes:
    @pytest.mark.parametrize("page", PAGES, ids=name)
    def test_that_are_named_exist(self, page):
        """Those of Ralph, that is, or what a shell makes of a signal."""
        named = re.findall(r"\b[Ee]xit(?:s with)?(?: code)?s? (\d+)\b|退出码[为是]? ?(\d+)", prose(page))
        assert {int(each) for pair in named for each in pair if each} <= {*map(int, ExitCode)}
