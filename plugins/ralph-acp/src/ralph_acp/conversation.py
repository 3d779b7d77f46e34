"""One conversation with an agent: initialize, a new session, one prompt; and what the agent asks of Ralph meanwhile.

The library brings the models of the messages and the correlation of requests with answers; the handler is our own, so that
what an agent gets wrong is passed over or refused, and never a traceback.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeVar

from acp import PROTOCOL_VERSION, RequestError, schema
from acp.connection import Connection
from pydantic import BaseModel, ValidationError

from ralph_core import __version__
from ralph_core.contracts import LINE_LIMIT, Context, Process, Request, tail_of
from ralph_core.events import Event, Failed, FailureKind, Finished, Started, Tokens, ToolCall, ToolResult

from .consent import ask, chosen
from .failures import AUTH_REQUIRED, failure, of_status, status_in
from .files import Files, Refused
from .known import Known
from .said import Said, Tool, tokens_in_meta, tokens_of
from .settings import AcpSettings
from .wire import PAUSE, Wire, encoded

GREETING = 60.0
"""Seconds in which an agent has to answer before it is given the prompt; a program that speaks something else never does."""
NAMING = 5.0
"""Seconds in which an agent has to name a tool for which it asked permission."""
WAITING = 1000
"""Events that may wait for Ralph, and requests of the agent that may wait for their answer, before nothing more is read."""

ModelT = TypeVar("ModelT", bound=BaseModel)


class Conversation:
    """One attempt: iterate over it for its events. `close` has to be called."""

    def __init__(
        self, process: Process, request: Request, settings: AcpSettings, known: Known, context: Context
    ) -> None:
        self._process, self._request, self._settings, self._known = process, request, settings, known
        self._files = Files(request.workspace, context.home)
        self._said = Said(known)
        self._events: deque[Event] = deque()
        self._news = asyncio.Event()
        self._requests = self._served = 0
        self._turn = False
        self._wire = Wire(process, lambda: len(self._events) + self._requests > WAITING)
        self._connection = Connection(self._handle, self._wire)
        self._answers: dict[str, Callable[[Any], Awaitable[dict[str, Any]]]] = {
            "session/request_permission": self._permission,
            "fs/read_text_file": self._read,
            "fs/write_text_file": self._write,
        }
        self._drive = asyncio.create_task(self._talk())
        self._drive.add_done_callback(lambda _: self._news.set())

    async def __aiter__(self) -> AsyncIterator[Event]:
        while True:
            while self._events:
                yield self._events.popleft()
            if self._drive.done():
                break
            await self._news.wait()
            self._news.clear()
        yield self._drive.result()

    async def close(self) -> None:
        """Stop listening, and drop whatever is still to be answered."""
        self._drive.cancel()
        await asyncio.gather(self._drive, return_exceptions=True)
        await self._connection.close()

    # --- what Ralph asks ---

    async def _talk(self) -> Finished | Failed:
        try:
            failed = await asyncio.wait_for(self._greet(), GREETING)
            return failed or await self._prompt()
        except (asyncio.TimeoutError, TimeoutError):
            return Failed(FailureKind.TIMEOUT, f"no answer to the protocol's greeting within {GREETING:.0f} s")
        except RequestError as error:
            return self._with_spend(failure(error.code, str(error), error.data))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            return self._with_spend(
                Failed(FailureKind.INVALID_OUTPUT, f"an answer that is none: {where}: {first['msg']}")
            )
        except ConnectionError:
            return self._with_spend(await self._broken())

    async def _greet(self) -> Failed | None:
        """All up to the prompt."""
        files = self._settings.files
        offered = {"fs": {"readTextFile": files, "writeTextFile": files}, "terminal": False}
        hello = await self._call(
            "initialize",
            {
                "protocolVersion": PROTOCOL_VERSION,
                "clientCapabilities": offered,
                "clientInfo": {"name": "ralph", "version": __version__},
            },
            schema.InitializeResponse,
        )
        if hello.protocol_version != PROTOCOL_VERSION:
            spoken = f"it speaks version {hello.protocol_version} of the protocol, and Ralph version {PROTOCOL_VERSION}"
            return Failed(FailureKind.SPAWN, spoken)
        if self._settings.auth:
            await self._connection.send_request("authenticate", {"methodId": self._settings.auth})
        try:
            new = {"cwd": str(self._request.workspace), "mcpServers": self._servers()}
            answer = await self._connection.send_request("session/new", new)
        except RequestError as error:
            if error.code != AUTH_REQUIRED:
                raise
            methods = ", ".join(method.id for method in hello.auth_methods or []) or "none"
            return Failed(
                FailureKind.AUTH, f"{error} (log in with the agent itself, or set `auth`; it offers: {methods})"
            )
        session = schema.NewSessionResponse.model_validate(answer)
        self._session = session.session_id
        self._process.farewell = encoded(
            {"jsonrpc": "2.0", "method": "session/cancel", "params": {"sessionId": self._session}}
        )
        self._put(Started(self._session, self._settings.model or _model(session, answer)))
        return await self._set_up(session)

    async def _set_up(self, session: schema.NewSessionResponse) -> Failed | None:
        mode, modes = self._settings.mode, session.modes.available_modes if session.modes else []
        if mode is not None:
            if mode not in [each.id for each in modes]:
                offered = ", ".join(each.id for each in modes) or "none"
                return Failed(FailureKind.SPAWN, f"it has no mode {mode!r} (it offers: {offered})")
            await self._connection.send_request("session/set_mode", {"sessionId": self._session, "modeId": mode})
        options = session.config_options or []
        for name, value in self._settings.options.items():
            if name not in [option.id for option in options]:
                offered = ", ".join(option.id for option in options) or "none"
                return Failed(FailureKind.SPAWN, f"it has no option {name!r} (it offers: {offered})")
            await self._set(name, value)
        if self._settings.model is not None:
            named = next((option.id for option in options if option.category == "model"), None)
            if named is not None:
                await self._set(named, self._settings.model)
            else:  # the way of agents that are older than options
                model = {"sessionId": self._session, "modelId": self._settings.model}
                await self._connection.send_request("session/set_model", model)
        return None

    async def _set(self, option: str, value: bool | str) -> None:
        kind = {"type": "boolean"} if isinstance(value, bool) else {}
        fields = {"sessionId": self._session, "configId": option, "value": value, **kind}
        await self._connection.send_request("session/set_config_option", fields)

    def _servers(self) -> list[dict[str, Any]]:
        """The MCP servers in the words of the protocol, which has lists of names and values where the CLIs have tables."""
        mcp = self._request.mcp
        return [
            {"name": name, "args": [], "env": [], **{key: _listed(value) for key, value in server.items()}}
            if "command" in server
            else {"name": name, "headers": [], **{key: _listed(value) for key, value in server.items()}}
            for name, server in (mcp.servers if mcp is not None else {}).items()
        ]

    async def _prompt(self) -> Finished | Failed:
        self._said.begin()
        self._turn = True
        # A first "/" would make it a command of the agent's own.
        text = f"\n{self._request.prompt}" if self._request.prompt.startswith("/") else self._request.prompt
        prompt = {"sessionId": self._session, "prompt": [{"type": "text", "text": text}]}
        answer = await self._call("session/prompt", prompt, schema.PromptResponse)
        await self._settled()
        said, usage = self._said.text, self._usage(answer)
        for event in self._said.flush():
            self._put(event)
        if answer.stop_reason != "end_turn":
            kind, cost = FailureKind.AGENT, self._said.cost
            return Failed(kind, f"the turn ended early: {answer.stop_reason}", None, usage, cost)
        error = self._known.error_text.fullmatch(said.strip()) if self._known.error_text else None
        if error and answer.usage is None:
            words = " ".join(error[1].split())
            return Failed(of_status(status_in(words), words), words, None, usage, self._said.cost)
        return Finished(said, usage, self._said.cost)

    async def _call(self, method: str, params: dict[str, Any], answer: type[ModelT]) -> ModelT:
        return answer.model_validate(await self._connection.send_request(method, params))

    async def _settled(self) -> None:
        """Let what came before the answer be heard first: each message is a task of its own."""
        for _ in range(3):
            await asyncio.sleep(0)

    def _usage(self, answer: schema.PromptResponse) -> Tokens | None:
        if not self._known.usage:
            return None
        return tokens_of(answer.usage) if answer.usage is not None else tokens_in_meta(answer.field_meta)

    def _with_spend(self, failed: Failed) -> Failed:
        # A cost of exactly 0 after a failure is what an agent says that did not count.
        return Failed(failed.kind, failed.message, failed.retry_after, None, self._said.cost or None)

    async def _broken(self) -> Failed:
        if self._wire.cut:
            return Failed(FailureKind.INVALID_OUTPUT, f"a message of more than {LINE_LIMIT >> 20} MiB")
        end = await self._process.wait()
        return Failed(
            FailureKind.CRASH, f"it ended in the middle of the conversation, {end.words}{tail_of(end.stderr)}"
        )

    # --- what the agent asks, and says ---

    async def _handle(self, method: str, params: Any, is_notification: bool) -> dict[str, Any] | None:
        try:
            if is_notification:
                if method == "session/update" and self._turn:
                    for event in self._said.hear(schema.SessionNotification.model_validate(params).update):
                        self._put(event)
                return None
            return await self._answer(method, params)
        except ValidationError as error:
            if is_notification:
                return None  # a kind of update that is younger than this
            raise RequestError.invalid_params({"details": str(error.errors()[0]["msg"])}) from None

    async def _answer(self, method: str, params: Any) -> dict[str, Any]:
        if method not in self._answers or (method.startswith("fs/") and not self._settings.files):
            raise RequestError.method_not_found(method)
        self._requests += 1
        try:
            return await self._answers[method](params)
        finally:
            self._requests -= 1

    async def _permission(self, params: Any) -> dict[str, Any]:
        asked = schema.RequestPermissionRequest.model_validate(params)
        tool = self._said.tool(asked.tool_call)
        named = await self._named(tool)
        self._put_all(self._said.report(tool))
        allowed, reason = await self._allowed(tool.call(self._known))
        if not named and self._request.ask is not None:
            allowed, reason = False, "it was not said which tool this is"
        option = chosen(asked.options, allowed=allowed, for_once=self._request.ask is not None)
        if allowed and option is None:
            allowed, reason = False, "it could only be allowed for good, which policies rule out"
            option = chosen(asked.options, allowed=False, for_once=True)
        if not allowed:
            self._put_all(self._said.end(tool, ok=False, text=f"denied: {reason}"))
        if option is None:
            return {"outcome": {"outcome": "cancelled"}}
        return {"outcome": {"outcome": "selected", "optionId": option}}

    async def _named(self, tool: Tool) -> bool:
        """Whether it is known which tool this is, soon."""
        until = asyncio.get_running_loop().time() + NAMING
        while self._known.announces and not tool.announced and asyncio.get_running_loop().time() < until:  # noqa: ASYNC110 - it comes as a message
            await asyncio.sleep(PAUSE)
        return tool.announced or not self._known.announces

    async def _allowed(self, call: ToolCall) -> tuple[bool, str]:
        if self._settings.permissions == "deny":
            return False, "the setting `permissions` is `deny`"
        return (True, "") if self._request.ask is None else await ask(self._request.ask, call)

    async def _read(self, params: Any) -> dict[str, Any]:
        wanted = schema.ReadTextFileRequest.model_validate(params)
        arguments = {"path": wanted.path}
        text = await self._serve(
            "read_text_file", arguments, lambda: self._files.read(wanted.path, wanted.line, wanted.limit)
        )
        return {"content": text}

    async def _write(self, params: Any) -> dict[str, Any]:
        wanted = schema.WriteTextFileRequest.model_validate(params)
        arguments = {"path": wanted.path, "content": wanted.content}
        await self._serve("write_text_file", arguments, lambda: self._files.write(wanted.path, wanted.content))
        return {}

    async def _serve(self, name: str, arguments: dict[str, Any], do: Callable[[], Any]) -> Any:
        """Do what the agent has Ralph do with a file, as a tool that is judged and reported like its own."""
        self._served += 1
        call = ToolCall(f"{name}-{self._served}", name, arguments)
        self._put(call)
        try:
            allowed, reason = await self._allowed(call)
            if not allowed:
                raise Refused(reason)
            done = do()
        except FileNotFoundError:
            self._put(ToolResult(call.id, ok=False, text="no such file"))
            raise RequestError.resource_not_found(arguments["path"]) from None
        except (Refused, OSError) as error:
            self._put(ToolResult(call.id, ok=False, text=str(error)))
            raise RequestError(-32602, f"refused: {error}") from None
        self._put(ToolResult(call.id))
        return done

    def _put(self, event: Event) -> None:
        self._events.append(event)
        self._news.set()

    def _put_all(self, events: Iterable[Event]) -> None:
        for event in events:
            self._put(event)


def _model(session: schema.NewSessionResponse, answer: Any) -> str | None:
    """The model that the session says it uses: an option of that category, or, before there were options, `models`."""
    for option in session.config_options or []:
        if option.category == "model" and isinstance(option.current_value, str):
            return option.current_value
    models = answer.get("models") if isinstance(answer, dict) else None
    current = models.get("currentModelId") if isinstance(models, dict) else None
    return current if isinstance(current, str) else None


def _listed(value: Any) -> Any:
    if isinstance(value, Mapping):
        return [{"name": name, "value": each} for name, each in value.items()]
    return list(value) if isinstance(value, tuple) else value
