"""Puts together what is given: `QCHAT_…` variables over the section of the settings over `config/qchat.yaml`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ralph_core.errors import SettingsError, UnknownName

from .settings import ChatSettings

FILE = Path("config/qchat.yaml")
"""In the workspace."""

VARIABLES = {
    "QCHAT_TIMEOUT": "timeout",
    "QCHAT_MAX_RETRIES": "max_retries",
    "QCHAT_RETRY_DELAY": "retry_delay",
    "QCHAT_VERBOSE": "verbose",
    "QCHAT_DEBUG": "debug",
    "QCHAT_BUFFER_SIZE": "buffer_size",
    "QCHAT_POLL_INTERVAL": "poll_interval",
    "QCHAT_MAX_CONCURRENT": "max_concurrent",
    "QCHAT_MAX_MEMORY_MB": "max_memory_mb",
    "QCHAT_MAX_OUTPUT_SIZE": "max_output_size",
}
"""Variable: the setting that it sets."""

SECTIONS = {
    "adapter": {name: name for name in ("name", "timeout", "max_retries", "retry_delay")},
    "performance": {
        name: name for name in ("buffer_size", "poll_interval", "max_concurrent", "max_memory_mb", "max_output_size")
    },
    "logging": {name: f"logging.{name}" for name in ("level", "format", "file")},
    "monitoring": {name: f"monitoring.{name}" for name in ("metrics_enabled", "metrics_interval", "health_check_port")},
}
"""Section of the file: its names, and the settings that they set."""


def given(section: ChatSettings, env: Mapping[str, str], workspace: Path) -> ChatSettings:
    """The settings that hold. Raises `SettingsError` that says which one is wrong, and where it was made."""
    from ralph_core.settings.sources import Sources
    from ralph_core.settings.validation import validated

    sources = Sources()
    for key, value, origin in _of_file(workspace / FILE):
        sources.put(key, value, origin)
    for key, value in _flat(section.model_dump(exclude_unset=True)):
        sources.put(key, value, "the section of the settings")
    for name, key in VARIABLES.items():
        if env.get(name):
            sources.put(key, env[name], f"environment variable {name}")
    return validated(ChatSettings, sources.values, sources)


def _flat(table: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        if name in ("logging", "monitoring"):
            yield from ((f"{name}.{inner}", each) for inner, each in value.items())
        else:
            yield name, value


def _of_file(path: Path) -> Iterator[tuple[str, Any, str]]:
    """The settings of the file, by their own names, each with the place that it was made at; none without a file."""
    if not path.is_file():
        return
    from ralph_core.settings.file import read_file

    table, lines = read_file(path)
    for section, values in table.items():
        place = f"{FILE}, line {lines.get((section,), 1)}"
        if section not in SECTIONS:
            raise SettingsError(str(UnknownName("section", section, SECTIONS, where=place)))
        if not isinstance(values, dict):
            raise SettingsError(f"{place}: {section} has to be a table")
        for name, value in values.items():
            place = f"{FILE}, line {lines.get((section, name), 1)}"
            if name not in SECTIONS[section]:
                raise SettingsError(str(UnknownName("setting", f"{section}.{name}", SECTIONS[section], where=place)))
            if value is not None:
                yield SECTIONS[section][name], value, place
