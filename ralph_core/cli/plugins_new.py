"""`ralph plugins new`: a whole package to begin with, which passes its own tests, lint and types as it is."""

from __future__ import annotations

from collections.abc import Container
from importlib.util import find_spec
from pathlib import Path
from string import Template

from ralph_core import __version__
from ralph_core.errors import UserError
from ralph_core.hookspecs import CONTRACT_VERSION
from ralph_core.plugins.discovery import GROUP
from ralph_core.plugins.registry import NAME
from ralph_core.verdicts import ExitCode

from .common import say
from .plugins_commands import COMMANDS

SKELETON = Path(__file__).parent / "skeleton"
KINDS = {
    "agent": ("the coding agent {name}, by its JSON lines", 'ralph run -a {name} -p "Mend the tests."'),
    "store": ("state of runs in a SQLite database", "echo 'checkpoint_store: {name}' >> ralph.yml"),
    "sink": ("audit records in a SQLite database", "echo 'audit_sinks: [file, {name}]' >> ralph.yml"),
    "policy": ("lets iterations begin at certain hours alone", "ralph plugins"),
    "commands": ("commands of {name}", "ralph {name} hello"),
}
"""Kind: what the plugin is, and how it is used."""


def write(name: str, kind: str, into: Path, *, taken: Container[str]) -> int:
    """Write the package for a plugin of that name below `into`. Raises `UserError` for a name that can't be."""
    if not NAME.fullmatch(name):
        raise UserError(
            f"{name!r} can't be the name of a plugin", mend="lower-case letters, digits, - and _, a letter first"
        )
    if kind == "commands" and name in taken:
        raise UserError(f"`ralph {name}` is a command of Ralph's own", mend="choose another name")
    words = _words(name, kind)
    if find_spec(words["package"]) is not None:
        raise UserError(f"there is a package {words['package']} already", mend="choose another name")
    top = into / words["distribution"]
    if top.exists():
        raise UserError(f"{top} exists", mend="choose another name, or --into another directory")
    try:
        for path in (path for part in ("common", kind) for path in sorted((SKELETON / part).rglob("*.tmpl"))):
            _write(path, top, words)
    except OSError as error:
        raise UserError(f"{error.filename or top} can't be written: {error.strerror or error}") from None
    say(f"written  {top}")
    say(f"\nNow: cd {top} && pip install -e '.[test]' && pytest")
    return ExitCode.COMPLETED


def _write(template: Path, top: Path, words: dict[str, str]) -> None:
    _, *below = template.relative_to(SKELETON).parts
    path = top.joinpath(*(part.replace("PACKAGE", words["package"]) for part in below)).with_suffix("")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(Template(template.read_text(encoding="utf-8")).substitute(words), encoding="utf-8")


def _words(name: str, kind: str) -> dict[str, str]:
    """What stands for the names in the skeleton."""
    summary, usage = (text.format(name=name) for text in KINDS[kind])
    major, minor = __version__.split(".")[:2]
    plain = name.replace("-", "_")
    return {
        "name": name,
        "Class": "".join(part.capitalize() for part in plain.split("_")),
        "VARIABLE": plain.upper(),
        "package": f"ralph_{plain}",
        "distribution": f"ralph-{name.replace('_', '-')}",
        "summary": summary,
        "description": f"A plugin for Ralph: {summary}.",
        "usage": usage,
        "contract": CONTRACT_VERSION,
        "pin": f"ralph-core>={major}.{minor},<{major}.{int(minor) + 1}",
        "group": COMMANDS if kind == "commands" else GROUP,
        "entry": name,
        "target": "commands:app" if kind == "commands" else "plugin",
    }
