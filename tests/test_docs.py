"""The README and the docs say what is so: commands and options exist, generated pages are fresh, links lead somewhere."""

import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import typer

from ralph_core import ExitCode, RalphSpec
from ralph_core.cli import with_command
from ralph_core.cli.app import application
from ralph_core.settings.model import Settings
from ralph_core.settings.sources import ENVIRONMENT, FILES

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted(ROOT.glob("plugins/*/README.md"))]
OTHERS = {
    "--acp",
    "--bare",
    "--build-arg",
    "--hard",
    "--help",
    "--no-session-persistence",
    "--recursive",
    "--resume",
    "--upgrade",
    "--safe-mode",
    "--settings",
    "--user",
} | {"--trust-all-tools"}
"""Options of other programs that the pages speak of, and the one that Typer adds to each command."""
FENCE = re.compile(r"^```(\w*)[^\n`]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)

INSTALL = ROOT / "docs/install.md"
RUN = {ROOT / "docs/tutorial.md", INSTALL, ROOT / "docs/new-adapter.md"}
"""Pages whose commands are all run, in their order: tests/packages."""
SYSTEM = {"systemctl", "journalctl", "docker", "install", "useradd", "chown", "chmod", "cp", "sudo", "systemd-analyze"}
"""Programs of the operator's, in the pages on deployment alone."""


def name(page):
    return str(page.relative_to(ROOT))


@cache
def text(page):
    return page.read_text(encoding="utf-8")


@cache
def script(path):
    return runpy.run_path(str(ROOT / "scripts" / path))


def commands(page):
    """The command lines of a page: of its shell blocks, and those in running text that begin with a program of ours."""
    for language, block in FENCE.findall(text(page)):
        if language in ("sh", "console", "bash"):
            lines = block.replace("\\\n", " ").replace("python -m ralph_core ", "ralph ").splitlines()
            if any(line.startswith("$ ") for line in lines):  # the others are what the commands print
                lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
            yield from (shlex.split(line, comments=True) for line in lines if line.strip())
    for words in re.findall(r"`((?:ralph|make) [^`\n]+)`", FENCE.sub("", text(page))):
        yield shlex.split(words)


def refusal(arguments):
    """Why `ralph ARGUMENTS` is not understood, or None. Options are looked up; values and arguments are not."""
    command, words = typer.main.get_command(application()), with_command(list(arguments))
    while words and hasattr(command, "commands") and not words[0].startswith("-"):
        if words[0] not in command.commands:
            return f"no command {words[0]!r}"
        command = command.commands[words.pop(0)]
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    unknown = [word for word in words if word.startswith("-") and word.split("=")[0] not in {*known, "--help"}]
    return f"no option {unknown[0]!r}" if unknown else None


def options(command):
    """All long options of a command and of those below it."""
    own = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    return own.union(*map(options, getattr(command, "commands", {}).values()))


class TestCommands:
    @pytest.mark.parametrize("page", PAGES, ids=name)
    def test_exist(self, page):
        targets = re.findall(r"^([a-z-]+):", text(ROOT / "Makefile"), re.MULTILINE)
        for words in commands(page):
            if words[0] == "ralph":
                assert refusal(words[1:]) is None, words
            elif words[0] == "make":
                assert set(words[1:]) <= set(targets), words
            elif words[0] in ("uv", "pipx"):
                assert words in list(commands(INSTALL)), f"nobody has tried {words}"
            else:
                tried = ("pip", "cd", "git", "pytest", *(SYSTEM if page.stem in ("deployment", "operations") else ()))
                assert page in RUN or words[0] in tried, f"nobody has tried {words}"

    @pytest.mark.parametrize("page", [page for page in PAGES if page.stem in ("deployment", "operations")], ids=name)
    def test_of_the_system_know_their_options(self, page):
        """By their own words, where they are installed; and the files that they are given exist."""
        for line in commands(page):
            words = line[1:] if line[0] == "sudo" else line
            assert all((ROOT / word).exists() for word in words if word.startswith("deploy/")), words
            if words[0] in SYSTEM and shutil.which(words[0]):
                asked = [words[0], words[1], "--help"] if words[0] == "docker" else [words[0], "--help"]
                done = subprocess.run(asked, capture_output=True, text=True, timeout=30)
                own = words[: words.index("ralph:0.1.0")] if "ralph:0.1.0" in words and words[1] == "run" else words
                for option in [word for word in own if word.startswith("--")]:
                    assert re.search(rf"{option}\b", done.stdout + done.stderr), words

    def test_that_do_not_exist_are_found(self):
        assert refusal(["rum"]) == "no command 'rum'"
        assert refusal(["run", "--max-iteration", "3"]) == "no option '--max-iteration'"
        assert refusal(["checkpoints", "lst"]) == "no command 'lst'"
        assert refusal(["--agent", "auto"]) is None

    def test_of_ralph_are_all_mentioned(self):
        pages = "".join(map(text, PAGES))
        assert not [each for each in typer.main.get_command(application()).commands if f"ralph {each}" not in pages]

    def test_of_the_make_file_are_its_own(self):
        targets = re.findall(r"^([a-z-]+):", text(ROOT / "Makefile"), re.MULTILINE)
        (phony,) = re.findall(r"^\.PHONY: (.*)$", text(ROOT / "Makefile"), re.MULTILINE)
        assert sorted(phony.split()) == sorted(targets)

    def test_options_in_running_text_exist(self):
        for page in PAGES:
            found = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", FENCE.sub("", text(page))))
            assert found <= options(typer.main.get_command(application())) | OTHERS, name(page)

    def test_the_readme_begins_with_the_commands_that_run_and_test(self):
        assert [words[:2] for words in commands(ROOT / "README.md")][:2] == [["make", "run"], ["make", "test"]]

    def test_the_readme_fits_on_a_screen_and_names_tests_that_are_there(self):
        page = text(ROOT / "README.md")
        assert len(page.splitlines()) <= 80
        assert all((ROOT / "tests" / found).is_file() for found in re.findall(r"`(test_\w+\.py)`", page))


class TestReference:
    @pytest.mark.parametrize("page", script("gen_docs.py")["PAGES"])
    def test_is_what_the_code_says(self, page):
        generate = script("gen_docs.py")["PAGES"][page]
        assert text(ROOT / "docs" / page) == generate(), "stale: python scripts/gen_docs.py"

    def test_lists_every_setting(self):
        page = text(ROOT / "docs/reference/settings.md")
        for field in Settings.model_fields:
            assert f"| `{field}`" in page or f"| `{field}." in page
        for variable in ENVIRONMENT:
            assert re.search(rf"[|,] `{variable}`(,| \|)", page)
        for file in FILES:
            assert f"`{file}`" in page

    def test_knows_what_every_option_of_run_sets(self):
        keys = {key.split(".")[0] for key in script("gen_docs.py")["flags"]()}
        assert keys <= set(Settings.model_fields)

    def test_lists_every_hook(self):
        page = text(ROOT / "docs/reference/hooks.md")
        for hook in vars(RalphSpec):
            if hook.startswith("ralph_"):
                assert f"\n### {hook}\n" in page

    def test_lists_every_exit_code(self):
        rows = re.findall(r"^\| (\d+) \| `(\w+)` \|", text(ROOT / "docs/reference/exit-codes.md"), re.MULTILINE)
        assert rows == [(str(int(code)), code.name) for code in ExitCode]

    def test_of_compatibility_lists_every_variable_that_is_read(self):
        page = text(ROOT / "docs/reference/compatibility.md")
        assert not [variable for variable in ENVIRONMENT if f"`{variable}`" not in page]

    def test_of_the_house_names_every_module(self):
        page = text(ROOT / "docs/architecture.md")
        core = ROOT / "ralph_core"
        for path in core.rglob("*.py"):
            room = path.relative_to(core).parts[0]
            if not path.name.startswith("__") and room not in ("builtin", "cli", "testing"):
                assert path.name in page
        for path in core.iterdir():
            if path.is_dir() and path.name != "__pycache__":
                assert f"{path.name}/" in page

    def test_the_plugin_of_the_page_on_hooks_works(self):
        (_, code), _ = FENCE.findall(text(ROOT / "docs/reference/hooks.md"))[:2]
        found = {}
        exec(code, found)
        assert found["ralph_prompt_sections"](None)[0].title == "House rules"


class TestLinks:
    @pytest.mark.parametrize("page", PAGES, ids=name)
    def test_lead_somewhere(self, page):
        for link in re.findall(r"\]\(([^)]+)\)", FENCE.sub("", text(page))):
            if link.startswith("https://"):
                continue
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            assert target.exists(), link
            headings = re.findall(r"^#+ (.*)$", text(target), re.MULTILINE) if anchor else []
            assert not anchor or anchor in [re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return folder


class TestSite:
    """`make site`."""

    def test_has_every_page_in_its_navigation(self, site):
        pages = [page for page in PAGES if page.is_relative_to(ROOT / "docs")]
        front = text(site / "index.html")
        for page in pages:
            address = str(page.relative_to(ROOT / "docs").with_suffix("")).replace("index", "")
            assert (site / address / "index.html").is_file()
            assert f'href="{address}/"' in front or page.stem == "index", address

    def test_fetches_nothing_from_elsewhere(self, site):
        for page in site.rglob("*.html"):
            loaded = re.findall(
                r"<(?:script|img|iframe|link(?! rel=.canonical))[^>]*(?:src|href)=[\"']?(//|https?:)", text(page)
            )
            assert not loaded, page


class TestExample:
    def test_first_run(self, tmp_path):
        ralph = Path(sys.executable).with_name("ralph")
        env = {name: value for name, value in os.environ.items() if not name.startswith(("RALPH_", "OTEL_"))}
        done = subprocess.run(
            [ROOT / "examples/first-run/run.sh"],
            env={**env, "RALPH": str(ralph), "TMPDIR": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        assert "completed: claimed by the agent, not verified" in done.stdout
        assert "iterations  4 of 100" in done.stdout
        assert done.stdout.count("refs/ralph/") >= 2
        assert "run.started" in done.stdout
        (scratch,) = tmp_path.iterdir()
        assert done.stdout.endswith(f"All of it is in {scratch}\n")
        assert (scratch / "report.md").read_text().endswith("\nTotal: 1660\n")


class TestNews:
    def test_has_a_kind(self):
        kinds = ("feature", "bugfix", "doc", "removal", "misc")
        for path in (ROOT / "changelog.d").iterdir():
            assert re.fullmatch(rf"(\d+|\+[\w-]+)\.({'|'.join(kinds)})\.md", path.name), path.name
