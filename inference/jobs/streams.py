"""Server-sent events of jobs: open streams, all of which share one look at the database a second.

A stream holds neither a transaction nor a thread: it sleeps on the event loop, and what it shows
is read by one thread for all streams of the process at once.
"""

import asyncio
import threading
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence
from typing import Final
from uuid import UUID
from weakref import WeakKeyDictionary

import structlog
from asgiref.sync import sync_to_async
from django.db import Error as DatabaseFault
from django.db import close_old_connections, connection
from django.utils import timezone

from inference.jobs.events import Position, Snapshot, events_of, is_over
from inference.selectors import jobs
from portal.core.actors import Context
from portal.core.batching import NaturalBatcher
from portal.core.errors import TooMany
from portal.core.tenancy import tenant_scope

log = structlog.get_logger(__name__)

LOOK_SECONDS: Final = 1.0
KEEP_ALIVE_SECONDS: Final = 15.0
LONGEST_SECONDS: Final = 900.0
"""A stream ends after this; the client comes again with its key, which is asked for anew."""

MOST_STREAMS: Final = 200
MOST_OF_A_TENANT: Final = 50

_Wanted = tuple[UUID, UUID]


class Slots:
    """How many streams are open in this process, in all and of each tenant; thread-safe.

    Args:
        most, of_tenant: how many may be open, in all and of one tenant.
    """

    def __init__(self, most: int = MOST_STREAMS, of_tenant: int = MOST_OF_A_TENANT) -> None:
        self._most = most
        self._of_tenant = of_tenant
        self._lock = threading.Lock()
        self._open: Counter[UUID] = Counter()

    def take(self, tenant_id: UUID) -> None:
        """Counts a stream in.

        Raises:
            TooMany: as many as may be are open.
        """
        with self._lock:
            if self._open.total() >= self._most or self._open[tenant_id] >= self._of_tenant:
                raise TooMany(
                    "Too many answers are streamed at once: end one, or try again in a moment.",
                    code="too_many_streams",
                    retry_after=LOOK_SECONDS,
                )
            self._open[tenant_id] += 1

    def give_back(self, tenant_id: UUID) -> None:
        with self._lock:
            self._open[tenant_id] -= 1
            if not self._open[tenant_id]:
                del self._open[tenant_id]

    def __len__(self) -> int:
        return self._open.total()


SLOTS: Final = Slots()


class EventStream:
    """The events of one job, as chunks of a response.

    Args:
        seen: the last event that the client has seen.

    Raises:
        TooMany: too many streams are open.
    """

    def __init__(self, tenant_id: UUID, job_id: UUID, seen: Position | None) -> None:
        self._wanted = (tenant_id, job_id)
        self._seen = seen
        self._closing = threading.Lock()
        self._closed = False
        SLOTS.take(tenant_id)

    def close(self) -> None:
        """Counts the stream out; the response calls it, however it ends."""
        with self._closing:
            if not self._closed:
                self._closed = True
                SLOTS.give_back(self._wanted[0])

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._chunks():
                yield chunk
        finally:
            self.close()

    async def _chunks(self) -> AsyncIterator[bytes]:
        began = told = time.monotonic()
        yield b"retry: 2000\n\n"
        while time.monotonic() < began + LONGEST_SECONDS:
            snapshot = await _look(self._wanted)
            for event in events_of(snapshot, self._seen) if snapshot is not None else ():
                self._seen, told = event.position, time.monotonic()
                yield event.encode()
            if is_over(self._seen):
                return
            if time.monotonic() >= told + KEEP_ALIVE_SECONDS:
                told = time.monotonic()
                yield b": keep-alive\n\n"
            # All streams wake together, so that one look serves them all.
            await asyncio.sleep(LOOK_SECONDS - time.monotonic() % LOOK_SECONDS)


_batchers: WeakKeyDictionary[
    asyncio.AbstractEventLoop, NaturalBatcher[_Wanted, Snapshot | None]
] = WeakKeyDictionary()


async def _look(wanted: _Wanted) -> Snapshot | None:
    """The job as it is now; None where it can't be read at the moment."""
    loop = asyncio.get_running_loop()
    batcher = _batchers.get(loop)
    if batcher is None:
        batcher = _batchers[loop] = NaturalBatcher(_read)
    try:
        return await batcher.submit(wanted)
    except DatabaseFault as fault:
        log.warning("events.unread", error=str(fault))
        return None


async def _read(batch: Sequence[_Wanted]) -> Sequence[Snapshot | None]:
    return await sync_to_async(_read_all, thread_sensitive=False)(batch)


def _read_all(batch: Sequence[_Wanted]) -> Sequence[Snapshot | None]:
    by_tenant: defaultdict[UUID, set[UUID]] = defaultdict(set)
    for tenant_id, job_id in batch:
        by_tenant[tenant_id].add(job_id)
    found: dict[_Wanted, Snapshot] = {}
    close_old_connections()
    try:
        for tenant_id, job_ids in by_tenant.items():
            with tenant_scope(Context.system("job events", tenant_id=tenant_id)):
                at = timezone.now()
                for job in jobs().filter(pk__in=job_ids).prefetch_related(None):
                    found[tenant_id, job.pk] = Snapshot.of(job, at)
    finally:
        connection.close()
    return [found.get(wanted) for wanted in batch]
