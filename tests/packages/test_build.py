"""`make build`: what is in the files, and that they are the same whoever builds them, where and when."""

import hashlib
import os
import re
import shutil
import tarfile
import zipfile
from importlib import import_module
from pathlib import Path

import pytest
import tomli

from ralph_core import CONTRACT_VERSION, __version__

ROOT = Path(__file__).parents[2]
PROJECTS = [ROOT, *sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))]


def project(folder):
    return tomli.loads((folder / "pyproject.toml").read_text())["project"]


def name(folder):
    return project(folder)["name"]


def stem(folder):
    """What the names of its files begin with; the core's version is in its code."""
    return f"{name(folder).replace('-', '_')}-{project(folder).get('version', __version__)}"


def members_of_wheel(path):
    with zipfile.ZipFile(path) as wheel:
        return {each: wheel.read(each) for each in wheel.namelist()}


def members_of_sdist(path):
    """By their names below the folder that each source distribution has."""
    with tarfile.open(path) as sdist:
        files = [each for each in sdist.getmembers() if each.isfile()]
        return {each.name.partition("/")[2]: sdist.extractfile(each).read() for each in files}


def code_of(folder):
    """The package of a project in this checkout, as it is to be in its wheel."""
    (top,) = [folder / "ralph_core"] if folder == ROOT else (folder / "src").iterdir()
    files = [path for path in top.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return {str(path.relative_to(top.parent)): path.read_bytes() for path in files}


def digests(files):
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}


class TestFiles:
    def test_are_a_wheel_and_a_source_distribution_of_each_package(self, built):
        assert set(built) == {f"{stem(each)}{end}" for each in PROJECTS for end in ("-py3-none-any.whl", ".tar.gz")}

    @pytest.mark.parametrize("folder", PROJECTS, ids=name)
    def test_hold_the_same_code_as_the_checkout(self, built, folder):
        wheel = members_of_wheel(built[f"{stem(folder)}-py3-none-any.whl"])
        sdist = members_of_sdist(built[f"{stem(folder)}.tar.gz"])
        code = code_of(folder)
        inside = "" if folder == ROOT else "src/"
        assert {each: data for each, data in wheel.items() if ".dist-info/" not in each} == code
        assert {each: sdist.get(inside + each) for each in code} == code

    @pytest.mark.parametrize("folder", PROJECTS, ids=name)
    def test_bring_what_a_stranger_needs(self, built, folder):
        wheel = members_of_wheel(built[f"{stem(folder)}-py3-none-any.whl"])
        sdist = members_of_sdist(built[f"{stem(folder)}.tar.gz"])
        (package,) = {each.partition("/")[0] for each in wheel if ".dist-info/" not in each}
        info = f"{stem(folder)}.dist-info"
        assert f"{package}/py.typed" in wheel
        assert wheel[f"{info}/licenses/LICENSE"] == sdist["LICENSE"] == (ROOT / "LICENSE").read_bytes()
        assert {"pyproject.toml", "README.md"} <= set(sdist)
        assert any(each.startswith("tests/") for each in sdist)
        assert f"{info}/entry_points.txt" in wheel


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """A copy of the checkout as another person has it: another folder, other permissions and times."""
    copy = tmp_path_factory.mktemp("elsewhere") / "a folder of another name"
    litter = (".git", ".venv", ".tools", "dist", "site", "__pycache__", ".*_cache", ".agent", "*.egg-info")
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*litter))
    for path in copy.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.chmod(path.stat().st_mode & 0o700)
            os.utime(path, (1e9, 1e9))
    return copy


class TestReproducible:
    def test_by_another_person_at_another_time(self, build, built, elsewhere, tmp_path):
        again = build(elsewhere, tmp_path / "dist", umask=0o077, TZ="Asia/Shanghai", LC_ALL="C", PYTHONHASHSEED="7")
        assert digests(again) == digests(built)

    @pytest.mark.parametrize("folder", PROJECTS, ids=name)
    def test_a_wheel_from_the_tree_is_the_one_from_the_source_distribution(self, built, wheel, folder, tmp_path):
        """`make build` makes it from the source distribution, as an installer does that finds no wheel."""
        wheel(folder, tmp_path)
        (made,) = tmp_path.iterdir()
        assert made.read_bytes() == built[made.name].read_bytes()


class TestMetadata:
    def test_plugins_are_extras_of_the_core(self):
        extras = project(ROOT)["optional-dependencies"]
        found = {each for each, wanted in extras.items() if any(words.startswith("ralph-") for words in wanted)}
        assert found == {name(folder).removeprefix("ralph-") for folder in PROJECTS[1:]}
        assert all(extras[each] == [f"ralph-{each}"] for each in found)

    @pytest.mark.parametrize("folder", [*PROJECTS[1:], *sorted((ROOT / "examples/plugins").iterdir())], ids=name)
    def test_plugins_pin_the_core_that_they_were_made_for(self, folder):
        major, minor = map(int, __version__.split(".")[:2])
        (core,) = [each for each in project(folder)["dependencies"] if each.startswith("ralph-core")]
        assert re.fullmatch(rf"ralph-core(\[\w+\])?>={major}\.{minor},<{major}\.{minor + 1}", core)

    @pytest.mark.parametrize("folder", PROJECTS[1:], ids=name)
    def test_plugins_say_so_themselves_where_an_installer_overrules_the_pin(self, folder):
        (entry,) = project(folder)["entry-points"]["ralph.plugins"].values()
        assert import_module(entry).RALPH_CONTRACT == CONTRACT_VERSION
