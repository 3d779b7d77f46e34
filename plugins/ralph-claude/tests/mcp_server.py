"""A small MCP server on standard input and output, with one tool: `mark` writes its word into the file $MARK.

Messages as in the Model Context Protocol, revision 2025-06-18: JSON-RPC, one object a line.
"""

import json
import os
import sys
from pathlib import Path

TOOL = {
    "name": "mark",
    "description": "Writes a word down.",
    "inputSchema": {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]},
}


def answer(method, params):
    if method == "initialize":
        version = params.get("protocolVersion", "2025-06-18")
        return {
            "protocolVersion": version,
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "mark", "version": "1"},
        }
    if method == "tools/list":
        return {"tools": [TOOL]}
    if method == "tools/call":
        Path(os.environ["MARK"]).write_text(params["arguments"]["word"])
        return {"content": [{"type": "text", "text": "marked"}]}
    return {}


for line in sys.stdin:
    message = json.loads(line)
    if "id" in message:
        result = answer(message["method"], message.get("params") or {})
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
