"""Writes the reference pages that come from the code: `python scripts/gen_docs.py`, or `--check` to say which are stale."""

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from runpy import run_path
from typing import Any, get_args

import typer
from pydantic import BaseModel

from ralph_core import contracts
from ralph_core.account.pipeline import CLOSING
from ralph_core.cli import GRACE
from ralph_core.cli.agents import rows as capability_rows
from ralph_core.cli.app import application
from ralph_core.cli.config import docstrings
from ralph_core.plugins.discovery import PluginChoice, build_manager
from ralph_core.plugins.registry import KINDS
from ralph_core.settings.model import Settings
from ralph_core.settings.sources import ENVIRONMENT

DOCS = Path(__file__).resolve().parents[1] / "docs"
REFERENCE = run_path(str(Path(__file__).with_name("gen_reference.py")))
"""The pages for authors of plugins."""
OURS = ("ralph-core", "ralph-claude", "ralph-gemini", "ralph-qchat", "ralph-acp", "ralph-codex", "ralph-opencode")

FLAGS = {
    "no_git": "git_enabled",
    "no_archive": "archive_enabled",
    "no_plugin": "plugins.disable",
    "command": "agents.command.command",
    "metrics_port": "monitoring.metrics_port",
    "metrics_interval": "monitoring.metrics_interval",
    "no_metrics": "monitoring.enabled",
    "log_file": "monitoring.log_file",
    "log_level": "monitoring.log_level",
    "commit": "stores.git.commit",
    "from_": "agents.replay.run",
}
"""Options of `ralph run` that set a setting of another name."""
NO_SETTINGS = ("worktree", "text", "config", "quiet", "events", "debug")
"""Options of `ralph run` that are no settings: the prompt itself, the settings file, what is printed, and a short form."""

SETTINGS_HEAD = """\
# Settings

The command line wins over the environment, the environment over the settings file, and that over the defaults. The file
is `--config FILE`, or the first of `ralph.yml`, `ralph.yaml`, `ralph.json` and `ralph.toml` in the workspace. A table
`production`, `staging`, `development` or `testing` in it, or any under `profiles`, is a profile: laid over the rest when
`ENVIRONMENT` names it; without `ENVIRONMENT`, the only one, or `development` of several. Lists may be written as comma lists.
An unknown setting is an error. Times are in seconds.

"""
SETTINGS_TAIL = """
## Variables that are no settings

| Variable | Meaning |
|---|---|
| `ENVIRONMENT` | The profile of the settings file. |
| `ENV_FILE` | A file of variables; those that are set go before it. |
| `AUDIT_ENCRYPTION_KEY` | Keys of the account, see [encryption](../audit.md#encryption). |
| `RALPH_PLUGINS` | A comma list: only these plugins are loaded; empty, none. |
| `RALPH_STRICT_PLUGINS` | `1`: a broken plugin is raised with its traceback. |
| `OTEL_*`, `TRACEPARENT` | See [traces](../tracing.md#exporting-it). |
"""
AGENTS_HEAD = """\
# What agents can do

As each plugin declares it; `ralph agents` prints the same of what is installed. USAGE says when tokens are known, so whether
`max_tokens` and `max_cost` can hold in the middle of an iteration.

"""
FAULTS_HEAD = """\
# How a plugin fails, and what the user sees

A line for each place where a run calls a plugin's code, a column for what may go wrong there. Each cell is a test of
`tests/test_faults.py`, which reads the same table as this page is made of.

"""
FAULTS_TAIL = """
## How long a plugin may take

Nothing that hangs holds a run for ever. What takes longer is a fault as in the column "does not come back":

| What | Seconds | Set by |
|---|---|---|
| to be loaded, to build a provider, `probe`, `capabilities`, each hook, `AuditSink.recover` and `query` before a run | {deadline:g} | the user: `plugins.deadline` |
| an agent's adapter, between two awaits: in `command`, `parse`, `finish` | {deadline:g} | the user: `plugins.deadline` |
| an agent that waits and says nothing | {silence:g} | the user: `timeout_per_iteration` |
| `LimitPolicy.judge` | {policy:g} | the plugin: `LimitPolicy.deadline` |
| a store's `claim`, `save`, `load`, `runs`, `history`, `anchor` | {store:g} | the plugin: `CheckpointStore.deadline` |
| what a store does with files: `snapshot`, `restore`, `prune`, ... | {files:g} | the plugin: `CheckpointStore.files_deadline` |
| `AuditSink.write`, `flush` | no bound: each sink has a thread of its own | for a sink in `audit_required`, the user: `audit_deadline` |
| all sinks together, at the end of a run | {closing:g} | |
| threads and `atexit` functions, once Ralph is through | {grace:g} | |

A hang is ended by an exception (a `BaseException`) in the plugin's code, or, where that has a thread of its own, by leaving the thread
behind. A loop in C that never returns to Python can be interrupted in neither way: then `kill -9` is left, after which
`ralph resume` goes on.

## More

- An agent event whose type is none of Ralph's is a fault of the adapter, too: the attempt has failed.
- `auto` passes over an agent that can't be probed; `ralph doctor` says why.
- A failing `LimitPolicy.judge` stops the run: policies fail closed.
- With `RALPH_STRICT_PLUGINS=1` what is raised while a plugin is loaded is shown with its traceback.
"""


# --- settings ---------------------------------------------------------------------------------------------------------


def settings_page() -> str:
    rows = list(_rows(Settings, ""))
    page = SETTINGS_HEAD + _table(rows)
    sections = list(_sections())
    for model in dict.fromkeys(model for _, model in sections):
        names = [name for name, other in sections if other is model]  # `q` and `kiro` share one
        page += f"\n## {', '.join(names)}\n\n{_table(list(_rows(model, names[0] + '.')))}"
    return page + SETTINGS_TAIL


def flags() -> dict[str, str]:
    """Setting: the option of `ralph run` that sets it."""
    found = {}
    for parameter in typer.main.get_command(application()).commands["run"].params:
        if parameter.name not in NO_SETTINGS:
            found[FLAGS.get(parameter.name, parameter.name)] = ", ".join(parameter.opts)
    return found


def _sections() -> Iterator[tuple[str, type[BaseModel]]]:
    """The providers of this repository that have settings: name of the section, model."""
    plugins = build_manager(PluginChoice())
    ours = {row.name for row in plugins.rows if row.distribution in OURS}
    for kind, table in plugins.providers.items():
        for name, (plugin, provider) in sorted(table.items()):
            if plugin in ours and provider.settings is not None:
                module, _, attribute = provider.settings.partition(":")
                yield f"{KINDS[kind][1]}.{name}", getattr(import_module(module), attribute)


def _rows(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, str, str, str, str]]:
    words, options = docstrings(model), flags()
    variables: dict[str, str] = {}
    for variable, setting in ENVIRONMENT.items():
        variables[setting] = f"{variables[setting]}, `{variable}`" if setting in variables else f"`{variable}`"
    for name, field in model.model_fields.items():
        key = prefix + name
        if isinstance(field.default, BaseModel):
            yield from _rows(type(field.default), key + ".")
            continue
        default = "required" if field.is_required() else _value(field.get_default(call_default_factory=True))
        yield key, default, variables.get(key, ""), options.get(key, ""), words[name]
        for item in get_args(field.annotation):
            if isinstance(item, type) and issubclass(item, BaseModel):
                yield from _rows(item, key + "[].")


def _table(rows: list[tuple[str, str, str, str, str]]) -> str:
    lines = ["| Setting | Default | Variable | Option | Meaning |", "|---|---|---|---|---|"]
    for key, default, variable, flag, words in rows:
        cells = (f"`{key}`", default, variable, f"`{flag}`" if flag else "", words)
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    if value in (None, (), {}, ""):
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{', '.join(value) if isinstance(value, tuple) else format(value, 'g') if isinstance(value, float) else value}`"


# --- agents -----------------------------------------------------------------------------------------------------------


def agents_page() -> str:
    plugins = build_manager(PluginChoice())
    ours = {row.name for row in plugins.rows if row.distribution in OURS}
    agents = [provider for _, (plugin, provider) in sorted(plugins.providers["agent"].items()) if plugin in ours]
    heading, *rest = capability_rows(agents)
    lines = ["| " + " | ".join(cells) + " |" for cells in (heading, tuple("---" for _ in heading), *rest)]
    page = AGENTS_HEAD + "\n".join(lines) + "\n\n## The words\n\n| Capability | Meaning |\n|---|---|\n"
    words = (f"| `{name}` | {text} |\n" for name, text in REFERENCE["words"](contracts.Capability).items())
    page += "".join(words) + "\n## Their environment\n\n"
    page += "Besides what is common and what `environment.allow` names, a process is given these variables:\n\n"
    for agent in agents:
        given = ", ".join(f"`{name}`" for name in agent.environment) or "nothing more"
        page += f"- `{agent.name}`: {given}\n"
    return page


# --- faults -----------------------------------------------------------------------------------------------------------


def faults_page() -> str:
    table = run_path(str(DOCS.parent / "tests" / "faults" / "table.py"))
    faults, effects = table["FAULTS"], table["EFFECTS"]
    rows = [("", *faults.values()), ("---",) * (len(faults) + 1)]
    rows += [(f"`{place}`", *(cells[fault] for fault in faults)) for place, cells in table["TABLE"].items()]
    page = FAULTS_HEAD + "".join(f"| {' | '.join(row)} |\n" for row in rows) + "\n"
    page += "".join(f"- **{word}**: {meaning}.\n" for word, meaning in effects.items())
    return page + FAULTS_TAIL.format(
        deadline=Settings.model_fields["plugins"].default.deadline,
        silence=Settings.model_fields["timeout_per_iteration"].default,
        policy=contracts.LimitPolicy.deadline,
        store=contracts.CheckpointStore.deadline,
        files=contracts.CheckpointStore.files_deadline,
        closing=CLOSING,
        grace=GRACE,
    )


PAGES = {
    "reference/settings.md": settings_page,
    "reference/agents.md": agents_page,
    "reference/faults.md": faults_page,
    **REFERENCE["PAGES"],
}


def stale() -> list[str]:
    """The pages that are not as the code would write them."""
    return [name for name, page in PAGES.items() if (DOCS / name).read_text(encoding="utf-8") != page()]


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        sys.exit(f"stale: {', '.join(stale())}; run `make docs`" if stale() else 0)
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")
        print(f"written  docs/{name}")
