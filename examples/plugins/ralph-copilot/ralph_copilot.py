"""GitHub Copilot CLI as an agent for Ralph."""

import json

import ralph_core as ralph

KINDS = {
    401: ralph.FailureKind.AUTH,
    403: ralph.FailureKind.AUTH,
    429: ralph.FailureKind.OVERLOADED,
    503: ralph.FailureKind.OVERLOADED,
}


class Copilot(ralph.CommandAgent):
    def probe(self):
        found = ralph.find_program("copilot", self.context.env)
        return ralph.Probe(found, missing=() if found else ("copilot on PATH: npm install -g @github/copilot",))

    def begin(self, request):
        self.answer, self.failure = "", None

    def command(self, request):
        argv = ("copilot", "--output-format", "json", "--allow-all-tools", "--no-color")
        return ralph.Command(argv, request.env, str(request.workspace), stdin=request.prompt.encode())

    def parse(self, line):
        try:
            entry = json.loads(line)
            kind, data = entry["type"], entry.get("data", {})
        except (ValueError, TypeError, KeyError):  # whatever else it prints means nothing
            return
        if kind == "assistant.message" and data["content"]:
            self.answer = data["content"]
            yield ralph.Text(self.answer)
        elif kind == "tool.execution_start":
            yield ralph.ToolCall(data["toolCallId"], data["toolName"], data["arguments"])
        elif kind == "tool.execution_complete":
            yield ralph.ToolResult(data["toolCallId"], data["success"], str(data.get("result", {}).get("content", "")))
        elif kind == "session.error":
            self.failure = ralph.Failed(KINDS.get(data.get("statusCode"), ralph.FailureKind.AGENT), data["message"])
        elif kind == "result":
            yield self.failure or ralph.Finished(self.answer)


@ralph.hookimpl
def ralph_agents():
    able, environment = frozenset({"tools"}), ("COPILOT_*", "GH_*", "GITHUB_*")
    return [ralph.Provider("copilot", "GitHub Copilot CLI", "ralph_copilot:Copilot", None, able, environment)]
