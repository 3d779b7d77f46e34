"""Where settings come from: the file, the environment and the command line, merged into one table with origins.

No pydantic here: what only needs to know which plugins are wanted (`ralph plugins`) stays light.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import field
from io import StringIO
from pathlib import Path
from typing import Any

from ralph_core.errors import SettingsError, UnknownName, UserError
from ralph_core.values import dataclass

from .file import read_file

FILES = ("ralph.yml", "ralph.yaml", "ralph.json", "ralph.toml")
"""Names under which a settings file is found in the workspace, in this order."""

PROFILES = ("production", "staging", "development", "testing")
"""Top-level keys of the settings file that are profiles without being listed under `profiles:`."""
DEFAULT_PROFILE = "development"
"""The profile that holds when there are several and ENVIRONMENT names none."""

GUIDE_TABLES = {
    "runtime": {
        "max_iterations": "max_iterations",
        "timeout_seconds": "max_runtime",
        "max_concurrent_actions": "max_concurrent_actions",
        "require_approval_for_high_risk": "require_approval_for_high_risk",
        "high_risk_tools": "high_risk_tools",
    },
    "audit": {
        "storage_type": "audit_sinks",
        "batch_size": "audit_batch_size",
        "flush_interval": "audit_flush_interval",
        "retention_days": "audit_retention_days",
    },
    "capability": {
        "cache_ttl": "capability_cache_ttl",
        "max_skills_per_agent": "max_skills_per_agent",
        "max_mcp_servers_per_org": "mcp.max_servers",
    },
}
"""Tables of the settings file whose names the deployment documents use, and the settings that they mean."""
RUNTIME_DEFAULTS = {"max_iterations": 10, "timeout_seconds": 300, "max_concurrent_actions": 5}
"""What holds in a table `runtime` that does not say it."""

ENVIRONMENT = {
    "DEFAULT_MAX_ITERATIONS": "max_iterations",
    "DEFAULT_TIMEOUT_SECONDS": "max_runtime",
    "DEFAULT_MAX_CONCURRENT_ACTIONS": "max_concurrent_actions",
    "CAPABILITY_CACHE_TTL": "capability_cache_ttl",
    "MAX_SKILLS_PER_AGENT": "max_skills_per_agent",
    "RALPH_AGENT": "agent",
    "RALPH_MAX_ITERATIONS": "max_iterations",
    "RALPH_MAX_RUNTIME": "max_runtime",
    "RALPH_MAX_TOKENS": "max_tokens",
    "RALPH_MAX_COST": "max_cost",
    "RALPH_CHECKPOINT_INTERVAL": "checkpoint_interval",
    "RALPH_RETRY_DELAY": "retry_delay",
    "RALPH_MAX_RETRIES": "retry_max",
    "RALPH_VERBOSE": "verbose",
    "RALPH_DRY_RUN": "dry_run",
    "RALPH_HOME": "home",
    "RALPH_WORKSPACE": "workspace",
    "RALPH_GIT_ENABLED": "git_enabled",
    "RALPH_ARCHIVE_ENABLED": "archive_enabled",
    "MCP_CONNECTION_TIMEOUT": "mcp.connection_timeout",
    "MCP_CALL_TIMEOUT": "mcp.call_timeout",
    "MCP_MAX_RETRIES": "mcp.max_retries",
    "MAX_MCP_SERVERS_PER_ORG": "mcp.max_servers",
    "RALPH_ENABLE_METRICS": "monitoring.enabled",
    "RALPH_METRICS_PORT": "monitoring.metrics_port",
    "HEALTH_CHECK_ENABLED": "monitoring.health_check_enabled",
    "HEALTH_CHECK_INTERVAL": "monitoring.health_check_interval",
    "LOG_LEVEL": "monitoring.log_level",
    "RALPH_LOG_LEVEL": "monitoring.log_level",
    "LOG_FORMAT": "monitoring.log_format",
    "AUDIT_STORAGE_TYPE": "audit_sinks",
    "AUDIT_BATCH_SIZE": "audit_batch_size",
    "AUDIT_FLUSH_INTERVAL": "audit_flush_interval",
    "AUDIT_RETENTION_DAYS": "audit_retention_days",
    "AUDIT_ENCRYPTION_ENABLED": "sinks.file.encryption.enabled",
    "AUDIT_LOG_DIR": "sinks.file.directory",
    "AUDIT_MAX_FILE_SIZE": "sinks.file.max_file_size",
    "AUDIT_MAX_FILES": "sinks.file.max_files",
}
"""Variable: the setting that it sets. A dotted one lies in a table. Of two for one setting, the later one wins."""


@dataclass
class Sources:
    """Settings as written, before validation. `origins` says for each key where its value came from."""

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    file: Path | None = None

    def put(self, key: str, value: Any, origin: str) -> None:
        """Set a key, which may be dotted, over what an earlier source said."""
        *parents, last = key.split(".")
        table = self.values
        for depth, parent in enumerate(parents, 1):
            table = table.setdefault(parent, {})
            if not isinstance(table, dict):
                path = tuple(parents[:depth])
                what = f"{self.origin(path)}: {'.'.join(path)} has to be a table"
                raise SettingsError(what, mend=f"{origin} sets {key}")
        table[last] = value
        self.origins[key] = origin

    def says(self, key: str) -> bool:
        """Whether a key, which may be dotted, is set."""
        table: Any = self.values
        for name in key.split("."):
            if not isinstance(table, dict) or name not in table:
                return False
            table = table[name]
        return True

    def origin(self, path: tuple[str, ...]) -> str:
        """Where the value at `path`, or the nearest table around it, came from."""
        for end in range(len(path), 0, -1):
            found = self.origins.get(".".join(path[:end]))
            if found:
                return found
        return str(self.file) if self.file else "settings"


def gather(
    overrides: Mapping[str, Any], env: Mapping[str, str], *, config: Path | None = None, cwd: Path | None = None
) -> Sources:
    """Command line (`overrides`, named by flag) over environment over file. Raises `SettingsError`."""
    cwd = cwd or Path.cwd()
    sources = Sources()
    workspace = Path(overrides.get("workspace") or env.get("RALPH_WORKSPACE") or cwd)
    sources.file = _find(config, cwd / workspace)
    if sources.file is not None:
        table, lines = read_file(sources.file)
        sources.values, profile = _with_profile(table, env.get("ENVIRONMENT"), sources.file)
        for path, line in lines.items():
            sources.origins[".".join(path)] = f"{sources.file.name}, line {line}"
        for path, line in lines.items():  # what the profile says lies over what the file says outside of it
            if profile and path[: len(profile)] == profile:
                sources.origins[".".join(path[len(profile) :])] = f"{sources.file.name}, line {line}"
    for guided in GUIDE_TABLES:
        _take_guide_table(sources, guided)
    for name, key in ENVIRONMENT.items():
        if env.get(name, "") != "":
            sources.put(key, env[name], f"environment variable {name}")
    for key, value in overrides.items():
        if value is not None:
            sources.put(key, value, f"--{key.rpartition('.')[2].replace('_', '-')}")
    return sources


def _take_guide_table(sources: Sources, table: str) -> None:
    """Read a table of `GUIDE_TABLES`; what is said by Ralph's own names goes before it."""
    if table not in sources.values:
        return
    names, found, place = GUIDE_TABLES[table], sources.values.pop(table), sources.origin((table,))
    if not isinstance(found, dict):
        raise SettingsError(f"{place}: {table} has to be a table")
    given = {name: (value, sources.origin((table, str(name)))) for name, value in found.items()}
    if table == "runtime":
        given = {name: (value, f"{place}, default of runtime") for name, value in RUNTIME_DEFAULTS.items()} | given
    for name, (value, origin) in given.items():
        if name not in names:
            raise UnknownName("setting", f"{table}.{name}", [f"{table}.{each}" for each in names], where=origin)
        if not sources.says(names[name]):
            sources.put(names[name], value, origin)


def _find(config: Path | None, workspace: Path) -> Path | None:
    if config is not None:
        if not config.is_file():
            raise UserError(f"settings file {config} does not exist", mend="see --config")
        return config
    return next((workspace / name for name in FILES if (workspace / name).is_file()), None)


def _with_profile(
    table: dict[str, Any], wanted: str | None, path: Path
) -> tuple[dict[str, Any], tuple[str, ...] | None]:
    """The table with the chosen profile laid over it and the profiles taken out, and where that profile stands.

    The profile is the one that ENVIRONMENT names; without ENVIRONMENT, the only one in the file, or `development` of several.
    """
    listed = table.get("profiles") or {}
    if not isinstance(listed, dict):
        raise SettingsError(f"{path}: profiles has to be a table of profiles")
    profiles = {**listed, **{name: table[name] for name in PROFILES if name in table}}
    if wanted and isinstance(table.get(wanted), dict) and wanted not in profiles and not _is_setting(wanted):
        profiles[wanted] = table[wanted]
    plain = {key: value for key, value in table.items() if key not in profiles and key != "profiles"}
    if not wanted:
        wanted = next(iter(profiles)) if len(profiles) == 1 else DEFAULT_PROFILE
    chosen = wanted if wanted in profiles else None
    if chosen is None:
        return plain, None
    if not isinstance(profiles[chosen], dict):
        raise SettingsError(f"{path}: the profile {chosen!r} has to be a table of settings")
    place = (chosen,) if chosen in table else ("profiles", chosen)
    return _laid_over(plain, profiles[chosen]), place


def _laid_over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """One table over another: tables in both are merged, anything else is replaced."""
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(below.get(key), dict)
        merged[key] = _laid_over(below[key], value) if both else value
    return merged


def _is_setting(name: str) -> bool:
    from .model import Settings  # only for a file with a profile of an unusual name

    return name in Settings.model_fields


def environment() -> dict[str, str]:
    """The environment of the process, as a plain table; what the file ENV_FILE sets lies below it. Raises `UserError`.

    It is added to the environment itself: exporters of OpenTelemetry and other libraries read that.
    """
    if file := os.environ.get("ENV_FILE"):
        for name, value in _env_file(Path(file)).items():
            os.environ.setdefault(name, value)
    return dict(os.environ)


def _env_file(path: Path) -> dict[str, str]:
    from dotenv import dotenv_values  # only where there is such a file
    from dotenv.parser import parse_stream

    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"ENV_FILE {path}: byte {error.start} is not UTF-8", mend="save the file as UTF-8") from None
    except OSError as error:
        raise UserError(f"ENV_FILE {path} can't be read: {error.strerror}") from None
    for binding in parse_stream(StringIO(text)):
        if binding.error or "\0" in binding.original.string:  # the parser alone would only log it
            raise UserError(f"ENV_FILE {path}: line {binding.original.line} is not NAME=value")
    return {name: value for name, value in dotenv_values(stream=StringIO(text)).items() if value is not None}
