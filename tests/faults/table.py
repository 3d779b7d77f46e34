"""What comes of each fault in each place: `tests/test_faults.py` shows every cell, `scripts/gen_docs.py` makes the page of it."""

FAULTS = {
    "raises": "raises an exception",
    "exits": "calls `sys.exit`",
    "hangs": "does not come back",
    "wrong": "returns a value of the wrong type",
    "unrun": "is an `async def` where it must not be",
    "prints": "prints to standard output",
    "environment": "changes `os.environ` or the working directory",
    "thread": "leaves a thread at work",
}

EFFECTS = {
    "row": "a row of `ralph plugins` with the error; nothing of what the plugin brings is used. A run that needs it is refused "
    "(exit 2), any other goes on",
    "refused": "one line that names the plugin, exit 2; nothing was begun, a run that was to go on is as it was",
    "run": "the run fails (exit 1) by the name of the plugin, and the agent's processes are ended; `ralph resume` goes on with it",
    "attempt": "the attempt has failed (`invalid_output`), with what it has spent; it counts towards `max_failures`, and another "
    "agent goes on if there is one",
    "account": "the run goes on, and so do the other sinks; the account says the error, and how many records wait on disk or are "
    "lost. A run that has the sink in `audit_required` fails",
    "unheeded": "nothing: what it returns is not looked at",
    "stderr": "goes to standard error, from programs that it runs, too: standard output is Ralph's alone",
    "kept": "reaches neither the agent nor Ralph, which go by what was there at the start",
    "cut": "the run is not concerned; 2 s after its end the process ends with its exit code, and the threads are named",
}
"""What comes of it: the word of the table, and what it means."""

HARMLESS = {"prints": "stderr", "environment": "kept", "thread": "cut"}


def _same(effect, **others):
    fatal = dict.fromkeys(("raises", "exits", "hangs", "wrong", "unrun"), effect)
    return fatal | others | HARMLESS


TABLE = {
    "ralph_agents": _same("row"),
    "ralph_checkpoint_stores": _same("row"),
    "ralph_audit_sinks": _same("row"),
    "ralph_limit_policies": _same("row"),
    "ralph_choose_agent": _same("run"),
    "ralph_prompt_sections": _same("run"),
    "ralph_prepare_command": _same("run"),
    "ralph_classify_failure": _same("run"),
    "Agent.probe": _same("refused"),
    "Agent.run": _same("attempt"),
    "Agent.command": _same("attempt"),
    "Agent.parse": _same("attempt"),
    "CheckpointStore.claim": _same("refused"),
    "CheckpointStore.save": _same("run", wrong="unheeded"),
    "CheckpointStore.look": _same("run", wrong="unheeded"),
    "CheckpointStore.snapshot": _same("run"),
    "CheckpointStore.load": _same("refused"),
    "CheckpointStore.restore": _same("refused"),
    "AuditSink.write": _same("account", wrong="unheeded"),
    "AuditSink.flush": _same("account", wrong="unheeded"),
    "AuditSink.close": _same("account", wrong="unheeded"),
    "LimitPolicy.judge": _same("run"),
}
"""Place: what comes of each fault there."""

CELLS = [(place, fault, effect) for place, effects in TABLE.items() for fault, effect in effects.items()]
