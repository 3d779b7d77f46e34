"""A scripted agent that speaks the protocol, or pretends to: `python fake.py PLAY`, where PLAY is Python that uses these."""

import json
import sys

heard = []


def send(**message):
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)


def take():
    """The next message from Ralph; the end of the input is the end of the agent."""
    line = sys.stdin.readline()
    if not line:
        sys.exit(0)
    heard.append(json.loads(line))
    return heard[-1]


def expect(method):
    message = take()
    assert message.get("method") == method, message
    return message


def greet(version=1, session=None, **capabilities):
    """All up to the prompt."""
    hello = expect("initialize")
    send(
        id=hello["id"],
        result={
            "protocolVersion": version,
            "agentCapabilities": capabilities,
            "authMethods": [{"id": "key", "name": "Key"}],
        },
    )
    new = expect("session/new")
    send(id=new["id"], result={"sessionId": "s-1", **(session or {})})


def prompt():
    """The prompt; `answer` is the answer to it."""
    global asked  # noqa: PLW0603 - plays read it
    asked = expect("session/prompt")
    return asked["params"]["prompt"][0]["text"]


def answer(reason="end_turn", **more):
    send(id=asked["id"], result={"stopReason": reason, **more})


def fail(code, message, data=None):
    send(id=asked["id"], error={"code": code, "message": message, **({} if data is None else {"data": data})})


def update(what, /, **fields):
    send(method="session/update", params={"sessionId": "s-1", "update": {"sessionUpdate": what, **fields}})


def say(text, **more):
    update("agent_message_chunk", content={"type": "text", "text": text}, **more)


def ask(method, **params):
    """A request of the agent's own, and its answer."""
    number = f"own-{len(heard)}"
    send(id=number, method=method, params={"sessionId": "s-1", **params})
    while True:
        message = take()
        if message.get("id") == number:
            return message


OPTIONS = [
    {"optionId": "for-good", "name": "Always", "kind": "allow_always"},
    {"optionId": "once", "name": "Once", "kind": "allow_once"},
    {"optionId": "no", "name": "No", "kind": "reject_once"},
]


def permission(options=OPTIONS, **call):
    """Ask for permission; the id of the option that was chosen, or "cancelled"."""
    tool = {"toolCallId": "t-1", "title": "a tool", **call}
    outcome = ask("session/request_permission", toolCall=tool, options=options)["result"]["outcome"]
    return outcome.get("optionId", outcome["outcome"])


with open(sys.argv[1]) as play:
    exec(compile(play.read(), sys.argv[1], "exec"))
