"""Natural batching: whatever arrived during the last commit shares the next one."""

import asyncio
import contextvars
import ctypes
import os
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

# After a batch of more than this, the next commit waits a little so that it becomes as large.
_BUSY_BATCH: Final = 4
_BUSY_WAIT_S: Final = 300e-6
_MOST_ITEMS: Final = 128


class NaturalBatcher(Generic[Item, Result]):
    """Gathers items and commits them together, one commit at a time, in order of submission.

    An idle batcher commits at once; a busy one (the last batch held more than 4 items) waits
    300 microseconds for company. When a commit raises, its items are retried one by one, so that
    a bad one fails alone. ``commit`` must therefore be all or nothing, and an item that was
    committed although the answer was lost must be recognised when it comes again.

    An item is committed even if its caller was cancelled meanwhile. Belongs to one event loop.

    Args:
        commit: takes a batch, returns one result or exception an item, in the same order.
        size: how many items the next commit takes at most, given how many wait; 0 counts as 1.
        retry_singly: whether an exception of ``commit`` may be one item's fault; where it says
            no (the database is gone), the whole batch fails at once.
    """

    def __init__(
        self,
        commit: Callable[[Sequence[Item]], Awaitable[Sequence[Result | Exception]]],
        *,
        size: Callable[[int], int] = lambda waiting: _MOST_ITEMS,
        retry_singly: Callable[[Exception], bool] = lambda fault: True,
    ) -> None:
        self._commit = commit
        self._size = size
        self._retry_singly = retry_singly
        self._items: list[Item] = []
        self._futures: list[asyncio.Future[Result]] = []
        self._in_flight: list[asyncio.Future[Result]] = []
        self._runner: asyncio.Task[None] | None = None
        self._last_size = 0
        self._closed = False
        self._pause = _Pause()

    def submit(self, item: Item) -> "asyncio.Future[Result]":
        """Hand in an item; await what comes back for its result.

        Raises:
            RuntimeError: the batcher is closed.
        """
        if self._closed:
            raise RuntimeError("the batcher is closed")
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._items.append(item)
        self._futures.append(future)
        if self._runner is None:
            self._start()
        return future

    async def close(self) -> None:
        """Refuse further items and return when all that were handed in have been answered."""
        self._closed = True
        while self._runner is not None:
            await asyncio.wait([self._runner])
        self._pause.close()

    def _start(self) -> None:
        # An empty context: a batch serves many callers and may carry no one's request id.
        self._runner = asyncio.get_running_loop().create_task(
            self._run(), context=contextvars.Context()
        )
        self._runner.add_done_callback(self._ended)

    async def _run(self) -> None:
        while self._futures:
            waiting = len(self._futures)
            if self._last_size > _BUSY_BATCH and waiting <= self._size(waiting):
                await self._pause.wait(_BUSY_WAIT_S)
            items, self._in_flight = self._take()
            self._last_size = len(items)
            await self._settle(items, self._in_flight)

    def _ended(self, runner: "asyncio.Task[None]") -> None:
        self._runner = None
        if runner.cancelled() or runner.exception() is not None:
            # The loop shuts down, or the commit was cancelled from within: nobody may hang.
            for future in (*self._in_flight, *self._futures):
                future.cancel()
            self._items, self._futures = [], []
        elif self._futures:
            self._start()
        self._in_flight = []

    def _take(self) -> tuple[list[Item], list[asyncio.Future[Result]]]:
        size = max(1, self._size(len(self._futures)))
        items, futures = self._items, self._futures
        self._items, self._futures = items[size:], futures[size:]
        return items[:size], futures[:size]

    async def _settle(self, items: list[Item], futures: list[asyncio.Future[Result]]) -> None:
        try:
            results = await self._commit(items)
        except Exception as fault:  # noqa: BLE001  (goes to the callers it concerns)
            if len(items) > 1 and self._retry_singly(fault):
                for item, future in zip(items, futures, strict=True):
                    await self._settle([item], [future])
                return
            for future in futures:
                _resolve(future, fault)
            return
        if len(results) != len(items):
            # The commit took effect: a retry would do it twice.
            results = [
                RuntimeError(f"the commit answered {len(results)} of {len(items)} items")
                for _ in items
            ]
        for future, result in zip(futures, results, strict=True):
            _resolve(future, result)


def _resolve(future: "asyncio.Future[Result]", result: Result | Exception) -> None:
    if future.done():
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)


class _Pause:
    """Sleeps for less than a millisecond without spinning.

    The loops' own timers count whole milliseconds (epoll's timeout; uvloop rounds 300
    microseconds to none), so on Linux a timerfd, which is an ordinary readable descriptor, is
    the clock. Elsewhere the loop's timer serves.
    """

    def __init__(self) -> None:
        self._descriptor = -1

    async def wait(self, seconds: float) -> None:
        if sys.platform != "linux":
            await asyncio.sleep(seconds)
            return
        if self._descriptor < 0:
            self._descriptor = _timer_create()
        loop = asyncio.get_running_loop()
        fired: asyncio.Future[None] = loop.create_future()
        loop.add_reader(self._descriptor, _fire, fired)
        try:
            _timer_set(self._descriptor, seconds)
            await fired
            os.read(self._descriptor, 8)
        finally:
            loop.remove_reader(self._descriptor)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class _TimerSpec(ctypes.Structure):
    """``struct itimerspec``: the interval of repetition, then the time to the first expiry."""

    _fields_ = [
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("value_s", ctypes.c_long),
        ("value_ns", ctypes.c_long),
    ]


_libc = ctypes.CDLL(None, use_errno=True)


def _timer_create() -> int:
    """A non-blocking monotonic timerfd, closed on exec."""
    descriptor: int = _libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), "timerfd_create")
    return descriptor


def _timer_set(descriptor: int, seconds: float) -> None:
    """Let the timer fire once; what it had counted before is forgotten."""
    spec = _TimerSpec(0, 0, 0, round(seconds * 1e9))
    if _libc.timerfd_settime(descriptor, 0, ctypes.byref(spec), None) < 0:
        raise OSError(ctypes.get_errno(), "timerfd_settime")


def _fire(fired: "asyncio.Future[None]") -> None:
    if not fired.done():
        fired.set_result(None)
