"""What the outside may ask of a run while it works: by signals, or by a library user's call."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .verdicts import Outcome, OutcomeKind


class Interrupts:
    """Requests that the loop looks at: `finish` ends the run after the iteration in hand, `now` ends it at once."""

    def __init__(self) -> None:
        self.finish: Outcome | None = None
        self.now: Outcome | None = None
        self.listeners: set[asyncio.Event] = set()

    def interrupt(self) -> None:
        """SIGINT: the first time, finish this iteration; the second time, now."""
        outcome = Outcome(OutcomeKind.INTERRUPTED, "interrupted", by="SIGINT")
        if self.finish is None:
            self.finish = outcome
        else:
            self.now = outcome
        self._wake()

    def terminate(self) -> None:
        """SIGTERM: end in good order, without waiting for the agent."""
        self.now = Outcome(OutcomeKind.TERMINATED, "asked to end", by="SIGTERM")
        self._wake()

    async def sleep(self, seconds: float) -> None:
        """Sleep, but no longer than until something is asked that ends the run."""
        if self.asked is not None:
            return
        woken = asyncio.Event()
        self.listeners.add(woken)
        try:
            await asyncio.wait_for(woken.wait(), seconds)
        except asyncio.TimeoutError:
            pass
        finally:
            self.listeners.discard(woken)

    @property
    def asked(self) -> Outcome | None:
        """The outcome that is asked for, now or after the iteration in hand."""
        return self.now or self.finish

    def _wake(self) -> None:
        for event in self.listeners:
            event.set()

    @contextmanager
    def on_signals(self, *, reload: Callable[[], None], diagnose: Callable[[], None]) -> Iterator[None]:
        """Take the signals of this process while the block runs: INT, TERM, HUP (`reload`), USR1 (`diagnose`)."""
        loop = asyncio.get_running_loop()
        table = {
            signal.SIGINT: self.interrupt,
            signal.SIGTERM: self.terminate,
            signal.SIGHUP: reload,
            signal.SIGUSR1: diagnose,
        }
        for number, handler in table.items():
            loop.add_signal_handler(number, handler)
        try:
            yield
        finally:
            for number in table:
                loop.remove_signal_handler(number)
