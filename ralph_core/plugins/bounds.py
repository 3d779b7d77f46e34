"""Calls what plugins bring for no longer than it may take: what hangs becomes an error.

In the main thread a timer interrupts the call, wherever in Python it is; in any other thread the call is made in one more
thread, which is left behind when it hangs. What never comes back to Python (a loop in C) can't be interrupted in the main thread.
"""

from __future__ import annotations

import contextvars
import inspect
import signal
import threading
import time
from collections.abc import Callable, Coroutine
from functools import partial
from queue import Empty, SimpleQueue
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

if TYPE_CHECKING:
    import asyncio

T = TypeVar("T")

STRIKES = 2
"""How often the timer goes off before the call counts as hung: the first time may come at once when a Ralph that was
stopped (SIGSTOP, Ctrl-Z) goes on, however quick the call is."""
CLEANING_UP = 5.0
"""Seconds that tasks of the event loop have to end, once the work is done."""


class Hung(BaseException):
    """What was called did not come back in time. No `Exception`, for code that catches those would hang on."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"did not come back within {seconds:g} s")


def bounded(call: Callable[[], T], seconds: float) -> T:
    """What the call returns, or raises. Raises `Hung` when it takes longer than `seconds`."""
    if threading.current_thread() is not threading.main_thread():
        return _aside(call, seconds)
    with AtMost(seconds):
        return call()


class AtMost:
    """While the block runs in the main thread: raise `Hung` in it when it takes longer than `seconds`. They may be nested."""

    _innermost: AtMost | None = None

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._strikes = 0

    def beat(self) -> None:
        """It moves: the time starts anew."""
        self._strikes = 0

    def __enter__(self) -> AtMost:
        self._outer, AtMost._innermost = AtMost._innermost, self
        if self._outer is None:
            self._handler, self._began = signal.signal(signal.SIGALRM, _struck), time.monotonic()
        self._timer = self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        AtMost._innermost = self._outer
        if self._outer is not None:
            self._outer.beat()
            self._outer.start()
            return
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._handler or signal.SIG_DFL)
        left, again = self._timer  # somebody else's, such as that of a test runner
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - self._began), 0.001), again)

    def start(self) -> tuple[float, float]:
        """Set the timer; what is left of the one before."""
        return signal.setitimer(signal.ITIMER_REAL, self._seconds / STRIKES, self._seconds / STRIKES)

    def strike(self) -> None:
        """The timer went off."""
        self._strikes += 1
        if self._strikes >= STRIKES:
            raise Hung(self._seconds)


def _struck(_number: int, _frame: FrameType | None) -> None:
    if AtMost._innermost is not None:  # noqa: SLF001 - this function is the other half of the class
        AtMost._innermost.strike()  # noqa: SLF001


def to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """What `asyncio.run` does; but what plugins leave in the loop, or in its threads, is not waited for without end."""
    import asyncio  # what only lists plugins does without

    loop = asyncio.new_event_loop()
    try:
        asyncio.set_event_loop(loop)
        return loop.run_until_complete(work)
    finally:
        loop.set_exception_handler(lambda _loop, _what: None)  # how it ends is nobody's concern any more
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        pending = loop.run_until_complete(asyncio.wait(left, timeout=CLEANING_UP))[1] if left else set()
        if not pending:
            loop.run_until_complete(loop.shutdown_asyncgens())
        asyncio.set_event_loop(None)
        loop.close()


def _aside(call: Callable[[], T], seconds: float) -> T:
    came: SimpleQueue[Callable[[], T]] = SimpleQueue()
    aside = _Aside.idle()
    aside.begin(call, came.put)
    try:
        answer = came.get(timeout=seconds)
    except Empty:
        raise Hung(seconds) from None
    aside.rest()
    return answer()


async def bounded_aside(call: Callable[[], T], seconds: float) -> T:
    """As `bounded`, in another thread, while the event loop goes on."""
    import asyncio  # what only lists plugins does without

    loop = asyncio.get_running_loop()
    came: asyncio.Future[Callable[[], T]] = loop.create_future()

    def put(answer: Callable[[], T]) -> None:
        try:
            loop.call_soon_threadsafe(_set, came, answer)
        except RuntimeError:  # the loop is over: nobody waits any more
            pass

    aside = _Aside.idle()
    aside.begin(call, put)
    await asyncio.wait([came], timeout=seconds)
    if not came.done():
        raise Hung(seconds)
    aside.rest()
    return came.result()()


def _set(future: asyncio.Future[T], value: T) -> None:
    if not future.done():
        future.set_result(value)


class _Aside:
    """A thread that does one call at a time, and then waits for the next one: to start one takes longer than most calls."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], None]] = SimpleQueue()
        # A daemon: what hangs must not keep Ralph from ending.
        threading.Thread(target=self._serve, name="ralph-aside", daemon=True).start()

    @staticmethod
    def idle() -> _Aside:
        try:
            return _IDLE.pop()
        except IndexError:
            return _Aside()

    def begin(self, call: Callable[[], T], put: Callable[[Callable[[], T]], None]) -> None:
        """Do the call; what is put returns what it returned, or raises what it raised."""

        def work() -> None:
            try:
                answer = call()
            except BaseException as error:
                put(partial(_raise, error))
            else:
                put(lambda: answer)

        self._calls.put(partial(contextvars.copy_context().run, work))

    def rest(self) -> None:
        """The call has come back: there is room for another one. One that hangs never comes here."""
        _IDLE.append(self)

    def _serve(self) -> None:
        while True:
            self._calls.get()()


_IDLE: list[_Aside] = []


def _raise(error: BaseException) -> NoReturn:
    raise error


def unrun(answer: object) -> str:
    """What an answer is of which nothing was run, in words: what an `async def` or a generator returns; else empty."""
    if inspect.iscoroutine(answer):
        answer.close()  # else Python complains that nobody has awaited it
        return "a coroutine"
    if inspect.isgenerator(answer):
        return "a generator"
    return "an asynchronous generator" if inspect.isasyncgen(answer) else ""
