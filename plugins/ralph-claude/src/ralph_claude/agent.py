"""Claude Code as an agent: one headless process an attempt, prompt on standard input, events by streamed JSON.

The command line rather than the SDK: the SDK (claude-agent-sdk 0.2.186) brings a second copy of the CLI, 166 MB and 30
dependencies, and takes a second to import; what it adds (callbacks before a tool runs) is done by a hook (`asking`).
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ralph_core.contracts import Command, CommandAgent, Context, McpServers, Probe, Request
from ralph_core.events import Event
from ralph_core.programs import ask_program, find_program

from .asking import ASKING_ENV, asking
from .credentials import credentials
from .settings import ClaudeSettings
from .stream import Stream

TESTED = "2.1.197"
"""Version of Claude Code (npm, November 2026) that all of this was tried with."""

LEAST_BUDGET = 0.000001
"""US dollars; it refuses to start with a budget of 0."""

FIXED_ENV = {
    # Without it Claude Code looks up and contacts hosts that have nothing to do with the work.
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    # A run that starts with one version should end with it.
    "DISABLE_AUTOUPDATER": "1",
}

TRACING_ENV = {
    "CLAUDE_CODE_ENABLE_TELEMETRY": "1",
    "CLAUDE_CODE_ENHANCED_TELEMETRY_BETA": "1",
    # The standard defaults; Claude Code has none of its own, and exports nothing without them.
    "OTEL_TRACES_EXPORTER": "otlp",
    "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
    # Milliseconds for which it waits at its end for a collector that does not answer; its own default is 2000.
    "CLAUDE_CODE_OTEL_SHUTDOWN_TIMEOUT_MS": "500",
}
"""With it Claude Code sends spans, below the one that TRACEPARENT names. What the user says of any of these goes first."""

STOP = ((signal.SIGINT, 2.0), (signal.SIGTERM, 2.0))
"""It ends cleanly on INT, with a result and its tools killed, within 0.1 to 1.6 s. Together 4 s: Ralph stops within 5."""


class ClaudeAgent(CommandAgent):
    """Runs `claude -p`. Settings: `ClaudeSettings`."""

    settings: ClaudeSettings

    def __init__(self, settings: Any, context: Context) -> None:
        super().__init__(settings or ClaudeSettings(), context)
        self._stream = Stream()

    def probe(self) -> Probe:
        name = self.settings.executable
        executable = find_program(name, self.context.env)
        if executable is None:
            advice = "install Claude Code (npm install -g @anthropic-ai/claude-code), or set agents.claude.executable"
            return Probe(missing=(f"no program {name!r} on PATH: {advice}",), notes=self._notes())
        version, complaint = ask_program([executable, "--version"], {**self.context.env, **FIXED_ENV})
        version = version.partition(" ")[0]
        missing, notes = [complaint] if complaint else [], list(self._notes())
        if version and version.split(".", 1)[0] != TESTED.split(".", 1)[0]:
            notes.append(f"version {version} is untested; this adapter was tried with {TESTED}")
        env = {**self.context.env, **self.settings.env}
        found = credentials(env, self.context.workspace, user="user" in self.settings.setting_sources)
        if found:
            notes.append(f"credentials: {found} (found, not tried)")
        elif os.uname().sysname == "Darwin":
            notes.append("no credentials found, but the keychain, where macOS keeps logins, was not looked at")
        elif credentials(env, self.context.workspace):
            missing.append(
                "no credentials but those in the user's settings file, which is not read: set "
                "agents.claude.setting_sources to [user, project, local]"
            )
        else:
            missing.append(
                "no credentials: set ANTHROPIC_API_KEY or CLAUDE_API_KEY, or log in once (run claude, then /login), or set "
                "CLAUDE_CODE_OAUTH_TOKEN to what `claude setup-token` prints"
            )
        return Probe(executable, version, tuple(missing), tuple(notes))

    def skills(self) -> Sequence[Path]:
        # Where Claude Code looks (https://code.claude.com/docs/en/agent-sdk/skills), by the settings that it reads.
        places = [self.context.workspace / ".claude"] if "project" in self.settings.setting_sources else []
        if "user" in self.settings.setting_sources:
            env = {**self.context.env, **self.settings.env}
            places.append(Path(env.get("CLAUDE_CONFIG_DIR") or Path(env.get("HOME") or Path.home(), ".claude")))
        return [path for place in places for path in sorted(place.glob("skills/*/SKILL.md"))]

    def begin(self, request: Request) -> None:
        self._stream = Stream()

    def command(self, request: Request) -> Command:
        # A first "/" would make the prompt a command of Claude Code's own ("Unknown command", no model call, exit code 0).
        prompt = f"\n{request.prompt}" if request.prompt.startswith("/") else request.prompt
        return Command(
            argv=(os.path.expanduser(self.settings.executable), *self._options(request)),  # noqa: PTH111 - as in probe
            env={**self._env(request.env), **(ASKING_ENV if request.ask else {}), **_mcp_env(request.mcp)},
            cwd=str(request.workspace),
            stdin=prompt.encode(),
            stop=STOP,
        )

    def parse(self, line: bytes) -> Iterable[Event]:
        return self._stream.events(line)

    def _options(self, request: Request) -> Iterable[str]:
        settings, mode, last = self.settings, self.settings.permission_mode, self.settings.extra_args
        if request.ask is not None:
            last = asking(request.ask, last, request.workspace, allows=mode == "bypassPermissions")
            # What fails to ask is then denied by Claude Code itself, where the mode that was asked for would let it run.
            mode = "dontAsk" if mode == "bypassPermissions" else mode
        yield from ("-p", "--output-format", "stream-json", "--verbose", "--include-partial-messages")
        yield from ("--permission-mode", mode)
        if settings.model:
            yield from ("--model", settings.model)
        if settings.allowed_tools:
            yield from ("--allowedTools", *settings.allowed_tools)
        if settings.disallowed_tools:
            yield from ("--disallowedTools", *settings.disallowed_tools)
        yield from ("--setting-sources", ",".join(settings.setting_sources))
        if not settings.keep_sessions:
            yield "--no-session-persistence"
        if request.mcp is not None:  # and no others: what the user set up for themselves may want to log in
            yield from ("--mcp-config", json.dumps({"mcpServers": request.mcp.servers}), "--strict-mcp-config")
        if settings.system_prompt:
            yield from ("--system-prompt", settings.system_prompt)
        if settings.append_system_prompt:
            yield from ("--append-system-prompt", settings.append_system_prompt)
        if settings.max_turns:
            yield from ("--max-turns", str(settings.max_turns))
        if request.budget is not None:  # it sees what its sub-agents cost, which is not in the stream before the end
            yield from ("--max-budget-usd", f"{max(request.budget, LEAST_BUDGET):.6f}")
        yield from last

    def _env(self, base: Mapping[str, str]) -> dict[str, str]:
        """The environment of the process: the base, over it what this adapter needs, over that the user's own."""
        tracing = TRACING_ENV if _exports(base) else {}
        env = {**tracing, **base, **FIXED_ENV, "CLAUDE_CODE_MAX_RETRIES": str(self.settings.max_retries)}
        if self._sandbox_needed():
            env["IS_SANDBOX"] = "1"
        env.update(self.settings.env)
        # Set where Ralph itself was started by Claude Code; versions since 2.1.39 refuse to start then
        # (https://github.com/anthropics/claude-agent-sdk-python/issues/573).
        env.pop("CLAUDECODE", None)
        # Ralph's own name for the key wins over the general one, which may be meant for something else.
        key = env.pop("CLAUDE_API_KEY", "")
        if key:
            env["ANTHROPIC_API_KEY"] = key
        return env

    def _sandbox_needed(self) -> bool:
        return os.geteuid() == 0 and self.settings.permission_mode == "bypassPermissions"

    def _notes(self) -> tuple[str, ...]:
        if not self._sandbox_needed():
            return ()
        return ("runs as root: IS_SANDBOX=1 is set for it, without which it refuses the mode bypassPermissions",)


def _mcp_env(mcp: McpServers | None) -> dict[str, str]:
    """How long MCP servers may take, in Claude Code's words: milliseconds."""
    if mcp is None:
        return {}
    return {
        "MCP_TIMEOUT": str(round(mcp.connection_timeout * 1000)),
        "MCP_TOOL_TIMEOUT": str(round(mcp.call_timeout * 1000)),
    }


def _exports(env: Mapping[str, str]) -> bool:
    """Whether spans are sent to a collector by OTLP, as the standard variables say it."""
    off = env.get("OTEL_SDK_DISABLED", "").lower() == "true" or env.get("OTEL_TRACES_EXPORTER", "otlp") != "otlp"
    return not off and any(env.get(f"OTEL_EXPORTER_OTLP_{kind}ENDPOINT") for kind in ("", "TRACES_"))
