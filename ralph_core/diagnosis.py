"""Says what a run is doing right now, for someone who wonders why it does not go on."""

from __future__ import annotations

import asyncio
import faulthandler
import time
from collections.abc import Iterator
from typing import Any

from .run import Run


def diagnose(run: Run) -> None:
    """SIGUSR1: write what the run is doing right now, state and every thread's stack, into its folder."""
    path = run.parts.folder / f"diagnosis-{time.strftime('%H%M%S', time.gmtime())}.txt"
    with path.open("w", encoding="utf-8") as stream:
        stream.write(run.parts.redactor.text(f"{run.state}\n\n"))
        for task in asyncio.all_tasks():
            stream.write(f"Task {task.get_name()}\n")
            stream.writelines(f"  {line}\n" for line in _awaited(task.get_coro()))
        stream.flush()
        faulthandler.dump_traceback(stream)
    run.parts.trail.record("note", message=f"diagnosis written to {path}")


def _awaited(waiting: Any) -> Iterator[str]:
    """Where a coroutine is, then where what it waits for is, and so on. (`Task.print_stack` shows the outermost alone.)"""
    while waiting is not None:
        frame = getattr(waiting, "cr_frame", None) or getattr(waiting, "gi_frame", None)
        if frame is not None:
            yield f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"
        waiting = getattr(waiting, "cr_await", None) or getattr(waiting, "gi_yieldfrom", None)
