r"""A stand-in of the Gemini API on loopback, so that a genuine Gemini CLI runs in tests unpaid.

    with GeminiAPI([Reply([text("Done.\nLOOP_COMPLETE")])]) as api:
        run_the_agent(env={**clean_env, **api.env()})
    assert prompt in api.requests[0].texts()

The script is that of `loopback`; an answer is a `Reply`, or a `Refusal`. Questions of Gemini CLI's own, such as which model
to take, come without streaming and with a schema: they are answered with an instance of it, and are not in the script.

The wire is that of https://ai.google.dev/api/generate-content (v1beta), as Gemini CLI 0.61.0 asked for it in November 2026;
errors are those of https://cloud.google.com/apis/design/errors, with the details that its source looks for.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ralph_core.events import Tokens

from . import loopback
from .loopback import Fault, Handler, Loopback, pieces_of

USAGE = Tokens(input=100, output=25, cache_read=20)
"""What a reply reports unless told otherwise: three figures that can't be mistaken for one another."""

Part = Mapping[str, Any]


def text(words: str) -> Part:
    """A part in which the model says something."""
    return {"text": words}


def call(name: str, arguments: Mapping[str, Any]) -> Part:
    """A part in which the model uses a tool."""
    return {"functionCall": {"name": name, "args": dict(arguments)}}


@dataclass(frozen=True)
class Reply:
    """A message of the model. `usage.cache_write` is not known to this API; `thoughts` are tokens beside the output.

    `usage` None: the API does not say. `finish` is the reason for its end.
    """

    parts: Sequence[Part]
    usage: Tokens | None = USAGE
    thoughts: int = 0
    fault: Fault | None = None
    finish: str = "STOP"


@dataclass(frozen=True)
class Refusal:
    """An error answer. `status` is the HTTP status; `code` its word (None: the usual one); `details` as in `retry_in`."""

    status: int
    message: str = "refused by the stand-in"
    code: str | None = None
    details: Sequence[Mapping[str, Any]] = ()
    headers: Mapping[str, str] = field(default_factory=dict)


def retry_in(seconds: float) -> Mapping[str, Any]:
    """The detail that says when a refused request is worth trying again."""
    return {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{seconds:g}s"}


def quota(name: str) -> Mapping[str, Any]:
    """The detail that says which quota is used up, as in `GenerateRequestsPerDayPerProjectPerModel`."""
    return {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaId": name}]}


def reason(word: str) -> Mapping[str, Any]:
    """The detail that gives the reason of an error, as in `API_KEY_INVALID`."""
    domain = "googleapis.com"
    return {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": word, "domain": domain}


Answer = Reply | Refusal

CODES = {
    400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED", 500: "INTERNAL", 503: "UNAVAILABLE", 504: "DEADLINE_EXCEEDED",
}  # fmt: skip
"""The words of the statuses (https://ai.google.dev/gemini-api/docs/troubleshooting)."""


@dataclass(frozen=True)
class Received(loopback.Received):
    """A request of this API."""

    @property
    def model(self) -> str:
        return self.endpoint.rpartition("/")[2].partition(":")[0]

    def texts(self, role: str = "user") -> list[str]:
        """The text parts of all contents of `role`, in order."""
        contents = [each for each in self.body.get("contents", ()) if each.get("role") == role]
        return [part["text"] for each in contents for part in each.get("parts", ()) if "text" in part]

    def tools(self) -> set[str]:
        """The names of the tools that the model is offered."""
        offered = [each for tool in self.body.get("tools", ()) for each in tool.get("functionDeclarations", ())]
        return {each["name"] for each in offered}


Script = Sequence[Answer] | Callable[[Received], Answer]


class _Handler(Handler):
    def respond(self, request: Received) -> None:
        method = request.endpoint.rpartition(":")[2]
        schema = request.body.get("generationConfig", {}).get("responseJsonSchema")
        if method == "countTokens":
            self.json(200, {"totalTokens": USAGE.input})
        elif method == "generateContent" and schema:
            instance = json.dumps(_instance(schema))
            self.json(200, next(_Message(request.model, "side", Reply([text(instance)])).chunks(whole=True)))
        elif method in ("generateContent", "streamGenerateContent"):
            self._answer(request, *self.server.api.answer(request), streamed=method == "streamGenerateContent")
        else:
            self._refuse(Refusal(404, f"no such endpoint: {request.endpoint}"))

    def _answer(self, request: Received, number: int, answer: Answer | Exception, *, streamed: bool) -> None:
        if isinstance(answer, Exception):
            self._refuse(Refusal(500, f"the script failed: {answer!r}"))
        elif isinstance(answer, Refusal):
            self._refuse(answer)
        elif answer.fault is Fault.HANG:
            self.hang()
        else:
            message = _Message(request.model, f"response-{number}", answer)
            if streamed:
                self.stream(message.pieces(self.server.api.closing), {}, whole=answer.fault is None)
            else:
                self.json(200, next(message.chunks(whole=True)))

    def _refuse(self, refusal: Refusal) -> None:
        code = refusal.code or CODES.get(refusal.status, "UNKNOWN")
        error = {"code": refusal.status, "message": refusal.message, "status": code, "details": list(refusal.details)}
        self.json(refusal.status, {"error": error}, refusal.headers)


class GeminiAPI(Loopback[Received, Answer]):
    """The server."""

    handler = _Handler
    request = Received

    def env(self, key: str = "test-key") -> dict[str, str]:
        """The variables that lead Gemini CLI to this server."""
        return {"GOOGLE_GEMINI_BASE_URL": self.url, "GEMINI_API_KEY": key}

    @property
    def requests(self) -> list[Received]:
        """The requests for a message so far."""
        return [each for each in self.received if each.endpoint.endswith(":streamGenerateContent")]


@dataclass(frozen=True)
class _Message:
    """One message on its way: as a whole, or as the chunks of a stream."""

    model: str
    name: str
    reply: Reply

    def pieces(self, closing: threading.Event) -> Iterator[bytes]:
        chunks = self._endless(closing) if self.reply.fault is Fault.ENDLESS else self.chunks(whole=False)
        for chunk in chunks:
            yield f"data: {json.dumps(chunk)}\r\n\r\n".encode()
            if self.reply.fault is Fault.DROP:
                return

    def chunks(self, *, whole: bool) -> Iterator[dict[str, Any]]:
        """The chunks, the last one with the reason for its end and the figures; `whole`: all in that one."""
        parts = list(self.reply.parts)
        if not whole:
            parts = [piece for part in parts for piece in _split(part)]
            for part in parts[:-1]:
                yield self._chunk([part])
            parts = parts[-1:]
        last = self._chunk(parts)
        last["candidates"][0]["finishReason"] = self.reply.finish
        yield last if self.reply.usage is None else {**last, "usageMetadata": self._usage(self.reply.usage)}

    def _endless(self, closing: threading.Event) -> Iterator[dict[str, Any]]:
        number = 0
        while not closing.wait(0.02):
            number += 1
            yield self._chunk([text(f"{number} ")])

    def _chunk(self, parts: Sequence[Part]) -> dict[str, Any]:
        candidate = {"content": {"role": "model", "parts": list(parts)}, "index": 0}
        return {"candidates": [candidate], "modelVersion": self.model, "responseId": self.name}

    def _usage(self, told: Tokens) -> dict[str, int]:
        """The prompt's figure includes what was cached of it; that of the candidates excludes the thoughts."""
        prompt = told.input + told.cache_read
        cached = {"cachedContentTokenCount": told.cache_read} if told.cache_read else {}
        thoughts = {"thoughtsTokenCount": self.reply.thoughts} if self.reply.thoughts else {}
        total = prompt + told.output + self.reply.thoughts
        counts = {"promptTokenCount": prompt, "candidatesTokenCount": told.output, "totalTokenCount": total}
        return {**counts, **cached, **thoughts}


def _split(part: Part) -> list[Part]:
    return [{**part, "text": piece} for piece in pieces_of(part["text"])] if part.get("text") else [part]


def _instance(schema: Mapping[str, Any]) -> Any:
    """Some value that the schema allows."""
    if "enum" in schema:
        return schema["enum"][0]
    kinds: Mapping[str, Any] = {"string": "because", "number": 1, "integer": 1, "boolean": False, "array": []}
    kind = str(schema.get("type", "object")).lower()
    return kinds[kind] if kind in kinds else {n: _instance(each) for n, each in schema.get("properties", {}).items()}
