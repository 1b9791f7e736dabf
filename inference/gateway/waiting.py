"""Callers that wait for their jobs, and the events that reach them."""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from uuid import UUID

from inference.gateway.requests import Receive
from inference.models.jobs import JobState
from inference.returns import End, Return, Text


class Waiter:
    """One job's events on their way to one caller.

    It guards what the caller sees: text comes from one claim only (a job that ran again after
    it had shown text must not go on in another's words), in order and without a gap.

    Args:
        stream: whether the caller sees text as it comes; one that waits for the whole answer
            has seen nothing yet when the job runs again, and gets the later run's words.
        wordless: a successful answer has text, but no completion tokens by which to tell
            whether it has arrived.
    """

    __slots__ = (
        "_arrived",
        "broken",
        "end",
        "events",
        "fence",
        "gone",
        "heard",
        "heard_at",
        "job_id",
        "received",
        "stream",
        "wordless",
    )

    def __init__(self, job_id: UUID, *, stream: bool = True, wordless: bool = False) -> None:
        self.job_id = job_id
        self.stream = stream
        self.wordless = wordless
        self.events: deque[Return] = deque()
        self.heard_at = time.monotonic()
        self.fence = 0
        self.received = 0
        self.heard = False
        self.broken = False
        self.gone = False
        self.end: End | None = None
        self._arrived: asyncio.Future[None] | None = None

    def put(self, event: Return) -> None:
        """Takes one event; a stale or repeated one is dropped, a gap breaks the stream."""
        self.heard_at = time.monotonic()
        if isinstance(event, Text):
            if not self._in_order(event):
                return
        elif self.lacks(event) > 0:
            # The broker lost text on the way: silent from now on, so PostgreSQL is asked at once.
            self.heard_at = -math.inf
            return
        else:
            self.end = event
        self.events.append(event)
        self._wake()

    def lacks(self, end: End) -> int:
        """How many tokens of a successful answer have not arrived; one stands for all vectors."""
        if end.state != JobState.SUCCEEDED:
            return 0
        if self.wordless:
            return 0 if self.heard else 1
        return end.completion_tokens - self.received

    def _in_order(self, event: Text) -> bool:
        if event.fence < self.fence or self.broken:
            return False
        if event.fence > self.fence and (self.received == 0 or not self.stream):
            self.fence = event.fence
            self.received = 0
            self.events.clear()
        if event.fence != self.fence or event.offset > self.received:
            self.break_off()
            return False
        if event.offset < self.received:
            return False
        self.received += event.tokens
        self.heard = True
        return True

    def break_off(self) -> None:
        """Marks the stream as one that can't be continued."""
        self.broken = True
        self._wake()

    def hang_up(self) -> None:
        """The caller has gone away."""
        self.gone = True
        self._wake()

    def _wake(self) -> None:
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)

    async def wait(self) -> None:
        """Returns once there is an event, the stream is broken, or the caller has gone."""
        while not (self.events or self.broken or self.gone):
            self._arrived = asyncio.get_running_loop().create_future()
            await self._arrived


def watch(receive: Receive, waiter: Waiter) -> "asyncio.Task[None]":
    """Notices that the caller goes away; to be cancelled when the answer has been sent."""
    return asyncio.create_task(_watch(receive, waiter))


async def _watch(receive: Receive, waiter: Waiter) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    waiter.hang_up()


class WaitingRoom:
    """All waiters of one gateway process, by job.

    Args:
        left: called with each waiter that leaves.
    """

    def __init__(self, left: Callable[[Waiter], None] = lambda waiter: None) -> None:
        self._left = left
        self._waiters: dict[bytes, Waiter] = {}
        # An answer can overtake the verdict: events of jobs not yet known are kept for a moment.
        self._early: dict[bytes, list[Return]] = {}

    def __len__(self) -> int:
        return len(self._waiters)

    def streams(self) -> int:
        """How many of them see text as it comes."""
        return sum(waiter.stream for waiter in self._waiters.values())

    def enter(self, job_id: UUID, *, stream: bool = True, wordless: bool = False) -> Waiter:
        waiter = Waiter(job_id, stream=stream, wordless=wordless)
        self._waiters[job_id.bytes] = waiter
        for event in self._early.pop(job_id.bytes, ()):
            waiter.put(event)
        return waiter

    def leave(self, waiter: Waiter) -> None:
        self._waiters.pop(waiter.job_id.bytes, None)
        self._left(waiter)

    def deliver(self, events: list[Return]) -> None:
        for event in events:
            waiter = self._waiters.get(event.job)
            if waiter is not None:
                waiter.put(event)
            else:
                self._keep_early(event)

    def _keep_early(self, event: Return) -> None:
        if len(self._early) > 1024:
            self._early.pop(next(iter(self._early)))
        self._early.setdefault(event.job, []).append(event)

    def silent(self, seconds: float) -> list[Waiter]:
        """Waiters that have heard nothing for that long."""
        horizon = time.monotonic() - seconds
        return [w for w in self._waiters.values() if w.heard_at < horizon]
