"""How many requests are under way, over all runs of this process: they may be in several threads, each with its own loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Slots:
    """Counts who is in; whoever is one too many waits, in no particular order."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.taken = 0

    @asynccontextmanager
    async def one(self, most: int, interval: float) -> AsyncIterator[None]:
        """Be one of at most `most`; looks every `interval` seconds whether there is room."""
        while not self._take(most):  # noqa: ASYNC110 - those who wait may be in several loops, which no event spans
            await asyncio.sleep(interval)
        try:
            yield
        finally:
            with self._lock:
                self.taken -= 1

    def _take(self, most: int) -> bool:
        with self._lock:
            room = self.taken < most
            self.taken += room
        return room


SLOTS = Slots()
"""Those of this process."""
