"""An MCP server with one tool, over standard input and output (https://modelcontextprotocol.io, 2025-06-18)."""

import json
import sys

TOOL = {
    "name": "ping",
    "description": "Answers pong.",
    "inputSchema": {"type": "object", "properties": {"word": {"type": "string"}}},
}


def answer(request):
    method, given = request["method"], request.get("params", {})
    if method == "initialize":
        told = {"tools": {}}
        return {
            "protocolVersion": given["protocolVersion"],
            "capabilities": told,
            "serverInfo": {"name": "echo", "version": "1"},
        }
    if method == "tools/list":
        return {"tools": [TOOL]}
    if method == "tools/call":
        return {"content": [{"type": "text", "text": f"pong {given['arguments']['word']}"}]}
    return {}


for line in sys.stdin:
    request = json.loads(line)
    if "id" in request:
        print(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": answer(request)}), flush=True)
