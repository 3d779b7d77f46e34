"""The stand-in of the Messages API, asked directly; that the genuine Claude Code takes it for real is test_genuine.py."""

from __future__ import annotations

import http.client
import json
import threading
from typing import Any

import pytest

from ralph_core.events import Tokens
from ralph_core.testing.messages_api import Fault, MessagesAPI, Refusal, Reply, text, tool_use


def ask(api: MessagesAPI, method: str = "POST", path: str = "/v1/messages?beta=true", **body: Any):
    connection = http.client.HTTPConnection("127.0.0.1", int(api.url.rpartition(":")[2]), timeout=10)
    try:
        connection.request(method, path, json.dumps(body) if body else None, {"X-Api-Key": "k"})
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


def events(raw: bytes) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in raw.decode().splitlines() if line.startswith("data: ")]


def test_stream_has_the_figures_at_its_start_and_end():
    call = tool_use("Write", {"file_path": "a", "content": "b"})
    with MessagesAPI([Reply([text("Hello."), call], Tokens(1, 2, 3, 4))]) as api:
        status, headers, raw = ask(api, model="m", stream=True)
    found = events(raw)
    assert (status, headers["Content-Type"]) == (200, "text/event-stream")
    assert found[0]["message"]["usage"] == {
        "input_tokens": 1,
        "output_tokens": 1,
        "cache_read_input_tokens": 3,
        "cache_creation_input_tokens": 4,
    }
    assert found[-2] == {
        "type": "message_delta",
        "delta": {"stop_reason": "tool_use", "stop_sequence": None},
        "usage": {"output_tokens": 2},
    }
    assert found[-1] == {"type": "message_stop"}
    deltas = [each["delta"] for each in found if each["type"] == "content_block_delta"]
    assert "".join(each.get("text", "") for each in deltas) == "Hello."
    assert json.loads("".join(each.get("partial_json", "") for each in deltas)) == call["input"]


def test_whole_answer():
    with MessagesAPI([Reply([text("Hello.")])]) as api:
        _, _, raw = ask(api, model="m")
    answer = json.loads(raw)
    assert answer["content"] == [{"type": "text", "text": "Hello."}]
    assert (answer["stop_reason"], answer["usage"]["output_tokens"], answer["model"]) == ("end_turn", 25, "m")


def test_answers_come_in_order_and_the_last_stays():
    with MessagesAPI([Refusal(529), Reply([text("a")], headers={"x-a": "1"})]) as api:
        found = [ask(api, model="m") for _ in range(3)]
    assert [status for status, _, _ in found] == [529, 200, 200]
    assert json.loads(found[0][2])["error"]["type"] == "overloaded_error"
    assert found[1][1]["x-a"] == "1"


def test_function_sees_the_request_and_requests_are_recorded():
    with MessagesAPI(lambda request: Reply([text(request.texts()[-1].upper())])) as api:
        messages = [{"role": "user", "content": "one"}, {"role": "user", "content": [text("two")]}]
        _, _, raw = ask(api, messages=messages)
        ask(api, "HEAD", "/")
        ask(api, path="/v1/messages/count_tokens", messages=messages)
    assert json.loads(raw)["content"][0]["text"] == "TWO"
    (request,) = api.requests
    assert (request.texts(), request.headers["x-api-key"]) == (["one", "two"], "k")
    assert [each.endpoint for each in api.received] == ["/v1/messages", "/", "/v1/messages/count_tokens"]


@pytest.mark.parametrize("stream", [True, False])
def test_drop_breaks_the_answer(stream):
    with (
        MessagesAPI([Reply([text("Hello, hello.")], fault=Fault.DROP)]) as api,
        pytest.raises(http.client.IncompleteRead),
    ):
        ask(api, stream=stream)


def test_script_that_fails_is_the_tests_own_error():
    with pytest.raises(KeyError, match="mine"), MessagesAPI(lambda _: {}["mine"]) as api:  # type: ignore[return-value]
        assert ask(api, model="m")[0] == 500


@pytest.mark.parametrize("fault", [Fault.HANG, Fault.ENDLESS])
def test_end_waits_for_nobody(fault):
    before = threading.active_count()
    with MessagesAPI([Reply([text("a")], fault=fault)]) as api:
        connection = http.client.HTTPConnection("127.0.0.1", int(api.url.rpartition(":")[2]))
        connection.request("POST", "/v1/messages", json.dumps({"stream": True}))
        while not api.requests:
            pass
    connection.close()
    assert threading.active_count() == before
