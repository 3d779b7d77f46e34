"""Looks whether the MCP servers of the settings are there, and what they offer, before an agent is handed them."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from .errors import UserError
from .values import dataclass

if TYPE_CHECKING:
    from .settings.model import Settings
    from .settings.tables import McpServerSettings

SAID = 300
"""Characters that are kept of the last line on a server's standard error."""


@dataclass(frozen=True)
class Looked:
    """What was found of a server: its tools, or in `error` why there are none to be had; and how often it was tried."""

    tools: tuple[str, ...] = ()
    error: str = ""
    tries: int = 1


def look(settings: Settings, workspace: Path) -> dict[str, Looked]:
    """Connect to each of `mcp.servers`, all at once, and list its tools. Raises `UserError` without the extra `mcp`."""
    try:
        import mcp  # noqa: F401 - heavy, and for this alone
    except ImportError:
        raise UserError("MCP servers can't be looked at", mend="pip install 'ralph-core[mcp]'") from None

    async def all_of_them() -> list[Looked]:
        return await asyncio.gather(*(_patiently(each, settings, workspace) for each in settings.mcp.servers.values()))

    return dict(zip(settings.mcp.servers, asyncio.run(all_of_them()), strict=True))


async def _patiently(server: McpServerSettings, settings: Settings, workspace: Path) -> Looked:
    """Try again as often as `mcp.max_retries` says; a program that does not exist will not come to be."""
    for tried in range(1, settings.mcp.max_retries + 2):
        if tried > 1:
            await asyncio.sleep(settings.mcp.reconnect_delay)
        with tempfile.TemporaryFile("w+", errors="replace") as said:
            try:
                return Looked(tools=await _tools(server, settings, workspace, said), tries=tried)
            except Exception as raised:
                error = _innermost(raised)
                said.seek(0)
                last = next((line.strip()[:SAID] for line in reversed(said.readlines()) if line.strip()), "")
        words = f"{str(error) or type(error).__name__}{f': {last}' if last else ''}"
        if isinstance(error, (FileNotFoundError, PermissionError)):
            break
    return Looked(error=words, tries=tried)


async def _tools(server: McpServerSettings, settings: Settings, workspace: Path, said: TextIO) -> tuple[str, ...]:
    """The names of the tools of a server. Raises what the SDK raises, and TimeoutError."""
    import anyio
    from mcp import Client

    names: list[str] = []
    stage = f"not there after {settings.mcp.connection_timeout:g} s (mcp.connection_timeout)"
    try:
        with anyio.fail_after(settings.mcp.connection_timeout) as limit:
            async with Client(_transport(server, workspace, said)) as client:
                stage = f"no tools after {settings.mcp.call_timeout:g} s (mcp.call_timeout)"
                cursor: str | None = ""
                while cursor is not None:
                    limit.deadline = anyio.current_time() + settings.mcp.call_timeout
                    page = await client.list_tools(cursor=cursor or None)
                    names += [tool.name for tool in page.tools]
                    cursor = page.next_cursor
    except TimeoutError:
        raise TimeoutError(stage) from None
    return tuple(names)


@asynccontextmanager
async def _transport(server: McpServerSettings, workspace: Path, said: TextIO) -> AsyncIterator[Any]:
    """The way to a server: its program's standard streams, or its address."""
    from mcp.client.sse import sse_client
    from mcp.client.stdio import StdioServerParameters, stdio_client
    from mcp.client.streamable_http import streamable_http_client
    from mcp.shared._httpx_utils import create_mcp_http_client

    if server.command is not None:
        program = StdioServerParameters(
            command=server.command, args=list(server.args), env=server.env, cwd=str(workspace)
        )
        async with stdio_client(program, said) as streams:
            yield streams
    elif server.type == "sse":
        async with sse_client(str(server.url), headers=server.headers) as streams:
            yield streams
    else:
        async with (
            create_mcp_http_client(headers=server.headers) as http,
            streamable_http_client(str(server.url), http_client=http) as streams,
        ):
            yield streams


def _innermost(error: BaseException) -> BaseException:
    """The first of a group of errors: what the SDK raises is wrapped in the groups of its tasks."""
    while (inner := getattr(error, "exceptions", None)) is not None:
        error = inner[0]
    return error
