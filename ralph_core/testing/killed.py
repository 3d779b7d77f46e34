"""A process that lets others save or write, and kills them at random instants: `python -m ralph_core.testing.killed JSON`.

It is apart from the tests, so that it can fork without their threads, and starts up once for all of the kills. For each
of them it prints a line of JSON: what had been acknowledged, and what was found afterwards.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from ralph_core.contracts import CheckpointStore, Context, Provider
from ralph_core.testing.rules import built
from ralph_core.testing.values import records, rich_state, run_id

LONGEST = 0.04
"""Seconds after which a writer is killed at the latest, from its first acknowledgement on."""


def in_another_process(
    job: str, provider: Provider[Any], settings: Mapping[str, Any], context: Context, **more: Any
) -> list[dict[str, Any]]:
    """Do the job with the provider in a process of its own; returns what it has printed. Raises `RuntimeError` if it fails."""
    what = {
        "job": job,
        "provider": {"name": provider.name, "factory": provider.factory, "settings": provider.settings},
        "settings": dict(settings),
        "workspace": str(context.workspace),
        "home": str(context.home),
        "env": dict(context.env),
        **more,
    }
    done = subprocess.run(
        [sys.executable, "-m", __name__, json.dumps(what)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit {done.returncode}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def main(what: Mapping[str, Any]) -> None:
    given = what["provider"]
    provider: Provider[Any] = Provider(given["name"], "", given["factory"], given["settings"])
    context = Context(Path(what["workspace"]), Path(what["home"]), what["env"])

    def make(kind: str) -> Any:
        return built(kind, provider, what["settings"], context)

    if what["job"] == "save":
        store = make("store")
        lease = store.claim(run_id(what["run"]))
        store.save(rich_state(what["run"], step=what["step"]), lease)
        return
    if what["job"] == "kill saving":
        for line in _kill_saving(make, what["times"]):
            print(json.dumps(line), flush=True)
        return
    acknowledged = _killed(lambda done: _write(make("sink"), done), delay=LONGEST)
    print(json.dumps({"acknowledged": acknowledged}))


def _kill_saving(make: Callable[[str], CheckpointStore], times: int) -> Iterator[dict[str, Any]]:
    chance = random.Random(7)  # noqa: S311 - the same instants each time
    step, known = 0, {}
    for number in range(1, times + 1):
        begun = step
        work = partial(_save, make, begun)
        acknowledged = _killed(work, delay=chance.uniform(0, LONGEST))
        known = {"kill": number, "acknowledged": begun + acknowledged}
        try:
            found = make("store").load(run_id(0)).state
            step = found.iteration
            yield {**known, "loaded": step, "whole": found == rich_state(step=step)}
        except Exception as error:
            yield {**known, "error": f"{type(error).__name__}: {error}"}
            return


def _save(make: Callable[[str], CheckpointStore], step: int, done: Callable[[], None]) -> NoReturn:
    store = make("store")
    lease = store.claim(run_id(0))
    while True:
        step += 1
        store.save(rich_state(step=step), lease, durable=step % 2 == 0)
        done()


def _write(sink: Any, done: Callable[[], None]) -> NoReturn:
    sink.recover()
    last = None
    while True:
        batch = records(3, after=last.seq, before=last.hash) if last else records(3)
        sink.write(batch)
        sink.flush()
        last = batch[-1]
        done()


def _tell(pipe: int) -> None:
    os.write(pipe, b".")


def _killed(work: Callable[[Callable[[], None]], None], *, delay: float) -> int:
    """Let a process work until it is killed; returns how often it has called what it is given."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        try:
            work(lambda: _tell(write))
        finally:
            os._exit(1)
    os.close(write)
    got = os.read(read, 1)  # at work; or dead by its own fault: then there is nothing
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    count = len(got)
    while more := os.read(read, 65536):
        count += len(more)
    os.close(read)
    return count


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
