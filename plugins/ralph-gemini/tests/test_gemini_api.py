"""The stand-in of the Gemini API, asked directly; that the genuine Gemini CLI takes it for real is test_genuine.py."""

from __future__ import annotations

import http.client
import json
import threading
from typing import Any

import pytest

from ralph_core.events import Tokens
from ralph_core.testing.gemini_api import GeminiAPI, Refusal, Reply, call, retry_in, text
from ralph_core.testing.loopback import Fault

STREAM = "/v1beta/models/m:streamGenerateContent?alt=sse"
WHOLE = "/v1beta/models/m:generateContent"


def ask(api: GeminiAPI, path: str = STREAM, **body: Any):
    connection = http.client.HTTPConnection("127.0.0.1", int(api.url.rpartition(":")[2]), timeout=10)
    try:
        connection.request("POST", path, json.dumps(body), {"X-Goog-Api-Key": "k"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def chunks(raw: bytes) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in raw.decode().splitlines() if line.startswith("data: ")]


def test_stream_has_the_figures_at_its_end():
    use = call("write_file", {"content": "b"})
    with GeminiAPI([Reply([text("Hello."), use], Tokens(1, 2, 3), thoughts=4)]) as api:
        status, raw = ask(api)
    *before, last = chunks(raw)
    assert status == 200
    assert "".join(each["candidates"][0]["content"]["parts"][0]["text"] for each in before) == "Hello."
    assert not [each for each in before if "usageMetadata" in each]
    assert last["candidates"][0]["content"]["parts"] == [use]
    assert last["candidates"][0]["finishReason"] == "STOP"
    assert last["usageMetadata"] == {
        "promptTokenCount": 4,
        "candidatesTokenCount": 2,
        "totalTokenCount": 10,
        "cachedContentTokenCount": 3,
        "thoughtsTokenCount": 4,
    }


def test_whole_answer():
    with GeminiAPI([Reply([text("Hello.")])]) as api:
        _, raw = ask(api, WHOLE)
    assert json.loads(raw)["candidates"][0]["content"]["parts"] == [{"text": "Hello."}]


def test_question_with_a_schema_is_answered_by_an_instance_and_is_not_in_the_script():
    schema = {"type": "object", "properties": {"why": {"type": "string"}, "model": {"enum": ["flash", "pro"]}}}
    with GeminiAPI([Reply([text("scripted")])]) as api:
        _, raw = ask(api, WHOLE, generationConfig={"responseJsonSchema": schema})
        assert json.loads(json.loads(raw)["candidates"][0]["content"]["parts"][0]["text"])["model"] == "flash"
        assert not api.requests
        assert chunks(ask(api)[1])[0]["candidates"][0]["content"]["parts"][0]["text"] == "scri"


def test_refusal_has_its_details():
    with GeminiAPI([Refusal(429, "wait", details=[retry_in(7)])]) as api:
        status, raw = ask(api)
    error = json.loads(raw)["error"]
    assert (status, error["status"], error["details"][0]["retryDelay"]) == (429, "RESOURCE_EXHAUSTED", "7s")


def test_requests_are_recorded():
    contents = [{"role": "user", "parts": [{"text": "one"}, {"functionResponse": {}}]}]
    tools = [{"functionDeclarations": [{"name": "a"}, {"name": "b"}]}]
    with GeminiAPI(lambda request: Reply([text(request.texts()[-1].upper())])) as api:
        _, raw = ask(api, contents=contents, tools=tools)
        ask(api, "/v1beta/models/m:countTokens")
        assert ask(api, "/v1/else")[0] == 404
    (request,) = api.requests
    assert (request.texts(), request.tools(), request.model) == (["one"], {"a", "b"}, "m")
    assert request.headers["x-goog-api-key"] == "k"
    assert len(api.received) == 3
    assert "ON" in raw.decode()


def test_drop_breaks_the_answer():
    with (
        GeminiAPI([Reply([text("Hello, hello.")], fault=Fault.DROP)]) as api,
        pytest.raises(http.client.IncompleteRead),
    ):
        ask(api)


def test_script_that_fails_is_the_tests_own_error():
    with pytest.raises(KeyError, match="mine"), GeminiAPI(lambda _: {}["mine"]) as api:  # type: ignore[return-value]
        assert ask(api)[0] == 500


@pytest.mark.parametrize("fault", [Fault.HANG, Fault.ENDLESS])
def test_end_waits_for_nobody(fault):
    before = threading.active_count()
    with GeminiAPI([Reply([text("a")], fault=fault)]) as api:
        connection = http.client.HTTPConnection("127.0.0.1", int(api.url.rpartition(":")[2]))
        connection.request("POST", STREAM, "{}")
        while not api.requests:
            pass
    connection.close()
    assert threading.active_count() == before
