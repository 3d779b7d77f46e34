#!/usr/bin/env bash
# An agent in Bash that speaks Ralph's event protocol: one JSON object a line on standard output, the last one `finished`
# or `failed`. The prompt comes on standard input. Try it:
#
#     ralph run -a command --command examples/event-agents/agent.sh -p 'Count the files.'     (agents.command.output: events)
set -euo pipefail

# event TYPE FIELDS: FIELDS is the inside of a JSON object.
event() { printf '{"type": "%s", %s}\n' "$1" "$2"; }

prompt=$(cat)
event started "\"session\": \"bash-$$\", \"model\": \"none\""
event text "\"text\": \"The prompt has ${#prompt} characters.\""
event tool_call '"id": "1", "name": "count", "input": {"what": "files"}'
count=$(find . -path ./.git -prune -o -path ./.agent -prune -o -type f -print | wc -l | tr -d ' ')
event tool_result "\"id\": \"1\", \"ok\": true, \"text\": \"$count files\""
event usage '"message_id": "1", "tokens": {"input": 10, "output": 5}, "cost": 0'
event finished "\"text\": \"There are $count files.\\nLOOP_COMPLETE\""
