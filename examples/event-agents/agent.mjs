#!/usr/bin/env node
// An agent in JavaScript that speaks Ralph's event protocol: one JSON object a line on standard output, the last one
// `finished` or `failed`. The prompt comes on standard input. It looks for TODO in the workspace and fails if there are any.
import { readFileSync, readdirSync, writeSync } from "node:fs";
import { join } from "node:path";

// Written at once: what is left in a buffer when a process ends is lost.
const event = (type, fields) => writeSync(1, JSON.stringify({ type, ...fields }) + "\n");

const prompt = readFileSync(0, "utf8");
event("started", { session: `node-${process.pid}`, model: "none" });
event("text", { text: `The prompt has ${prompt.length} characters.` });

const files = readdirSync(".", { withFileTypes: true }).filter((entry) => entry.isFile()).map((entry) => entry.name);
event("tool_call", { id: "1", name: "search", input: { for: "TODO", in: files } });
const found = files.filter((name) => readFileSync(join(".", name), "utf8").includes("TODO"));
event("tool_result", { id: "1", ok: true, text: found.join(", ") || "nothing" });
event("usage", { message_id: "1", tokens: { input: prompt.length, output: 5 }, cost: 0 });

if (found.length > 0) {
  event("failed", { kind: "agent", message: `TODO is still in ${found.join(", ")}` });
} else {
  event("finished", { text: "Nothing is left to do.\nLOOP_COMPLETE" });
}
