"""Ralph, as the README says that it is installed: with pip, uv or pipx, with and without plugins, and upgraded."""

import json
import re
import shutil
from pathlib import Path

import pytest
import tomli

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/install.md").read_text(encoding="utf-8")
STEP = 'n=$(cat n 2>/dev/null || echo 0); echo $((n + 1)) > n; [ "$n" -lt 2 ] || echo LOOP_COMPLETE'


def plugins(place):
    """All plugins with their versions, by what `ralph plugins` says, and `--check` finds nothing wrong."""
    place.does("ralph", "plugins", "--check")
    rows = json.loads(place.does("ralph", "plugins", "--json"))
    assert {row["status"] for row in rows} == {"active"}
    return {row["name"]: row["version"] for row in rows}


def works(place):
    """A small loop runs, with what was installed."""
    work = place.home / "loop"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    said = place.does("ralph", "run", "-a", "command", "--command", STEP, "-p", "Count.", cwd=work)
    assert "iterations  3 of 100" in said
    assert (work / "n").read_text() == "3\n"


def change(path, old, new):
    """Put another string for the only one of these words in a module."""
    assert path.read_text().count(f'"{old}"') == 1
    path.write_text(path.read_text().replace(f'"{old}"', f'"{new}"'))


@pytest.fixture(scope="module")
def later(shelf, once, wheel, tmp_path_factory):
    """A shelf on which two later versions of the core have come: one of this minor version, one of the next."""

    def fill(folder):
        for path in shelf.iterdir():
            (folder / path.name).symlink_to(path)
        for version in ("0.1.1", "0.2.0"):
            copy = tmp_path_factory.mktemp(version)
            for name in ("pyproject.toml", "README.md", "LICENSE"):
                shutil.copy(ROOT / name, copy / name)
            shutil.copytree(ROOT / "ralph_core", copy / "ralph_core")
            change(copy / "ralph_core/__init__.py", "0.1.0", version)
            if version == "0.2.0":
                change(copy / "ralph_core/hookspecs.py", "0.1", "0.2")
            wheel(copy, folder)

    folder = str(once("later", fill))
    return {"PIP_FIND_LINKS": folder, "UV_FIND_LINKS": folder}


def section(title):
    """What the page says about one of the installers."""
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


class TestPip:
    def test_as_the_page_says(self, clean):
        place = clean("pip")
        place.follow(section("pip"))
        place.env["PATH"] = f"{place.work}/ralph/bin:{place.env['PATH']}"
        assert str(ROOT) not in place.does("python", "-c", "import ralph_core; print(ralph_core.__file__)")
        assert set(plugins(place)) == {"builtin", "claude"}
        works(place)
        place.does("pip", "install", "ralph-core[acp,claude,codex,gemini,qchat]")
        assert set(plugins(place)) == {"acp", "builtin", "claude", "codex", "gemini", "qchat"}
        works(place)


class TestUv:
    def test_as_the_page_says(self, place):
        at = place("uv")
        at.follow(section("uv"))
        assert set(plugins(at)) == {"builtin", "claude", "codex"}
        works(at)

    def test_an_upgrade_keeps_the_plugins_and_what_fits_them(self, place, later):
        at = place("uv")
        at.does("uv", "tool", "install", "ralph-core[claude]", "--with", "ralph-codex")
        before = {"builtin": "0.1.0", "claude": "0.1.0", "codex": "0.1.0"}
        assert plugins(at) == before
        at.does("uv", "tool", "upgrade", "ralph-core", **later)
        assert plugins(at) == {**before, "builtin": "0.1.1"}, "the newest core is not for them"
        works(at)


class TestPipx:
    @pytest.mark.parametrize("backend", ["pip", "uv"])
    def test_as_the_page_says(self, place, backend):
        at = place("pipx")
        at.follow(section("pipx"), PIPX_DEFAULT_BACKEND=backend)
        assert set(plugins(at)) == {"builtin", "claude", "codex"}
        works(at)

    def test_an_upgrade_keeps_an_extra_and_what_fits_it(self, place, later):
        at = place("pipx")
        at.does("pipx", "install", "ralph-core[claude]")
        at.does("pipx", "upgrade", "ralph-core", **later)
        assert plugins(at) == {"builtin": "0.1.1", "claude": "0.1.0"}
        works(at)

    def test_an_upgrade_does_not_look_at_what_was_injected_but_ralph_does(self, place, later):
        at = place("pipx")
        at.does("pipx", "install", "ralph-core")
        at.does("pipx", "inject", "ralph-core", "ralph-claude")
        assert plugins(at) == {"builtin": "0.1.0", "claude": "0.1.0"}
        at.does("pipx", "upgrade", "ralph-core", **later)
        done = at("ralph", "plugins", "--check")
        assert done.returncode == 1
        assert "pip install --upgrade ralph-claude, or 'ralph-core>=0.1,<0.2'" in done.stdout
        works(at)


def test_the_page_names_every_extra():
    extras = tomli.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(
        re.findall(r"`([\w-]+)`", "".join(re.findall(r"^\| (`.*?`) \|", section("Extras"), re.MULTILINE)))
    ) == set(extras)
