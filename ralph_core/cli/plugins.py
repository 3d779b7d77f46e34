"""`ralph plugins`. Imports neither pydantic nor the OpenTelemetry SDK."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ralph_core.plugins.discovery import plugin_choice
from ralph_core.plugins.registry import PluginRow
from ralph_core.settings.sources import environment, gather
from ralph_core.verdicts import ExitCode

from .common import load_plugins, printable, say, say_json, table


def show(
    overrides: Mapping[str, Any],
    *,
    config: Path | None,
    no_plugin: Sequence[str],
    verbose: bool,
    check: bool,
    as_json: bool,
) -> int:
    """Print a row for every plugin. With `check`, exit code 1 if one is broken."""
    env = environment()
    sources = gather(overrides, env, config=config)
    rows = load_plugins(plugin_choice(sources, env, disabled=tuple(no_plugin))).rows
    if as_json:
        say_json([{**asdict(row), "provides": [f"{kind} {name}" for kind, name in row.provides]} for row in rows])
    else:
        for line in table([("PLUGIN", "DISTRIBUTION", "STATUS", "PROVIDES"), *map(_cells, rows)]):
            say(line.rstrip())
        for row in rows if verbose else ():
            say(f"\n{row.name}: loaded in {row.load_ms:.1f} ms; hooks: {', '.join(row.hooks) or 'none'}")
    broken = any(row.status == "error" for row in rows)
    return ExitCode.FAILED if check and broken else ExitCode.COMPLETED


def _cells(row: PluginRow) -> tuple[str, str, str, str]:
    provides = ", ".join(f"{kind} {name}" for kind, name in row.provides)
    return row.name, f"{row.distribution} {row.version}", row.status, printable(row.error) or provides
