"""Wake-ups: telling a deployment's workers that there is work.

A wake-up says only that. What work there is stands in PostgreSQL; a lost wake-up loses nothing,
for the sweeper rings again for every queue that has waiting jobs.
"""

import asyncio
from collections.abc import Iterable
from typing import Final

import redis
import structlog
from celery import current_app
from kombu.exceptions import OperationalError

from portal.core.broker import AsyncDoorbell, Doorbell, Ring
from portal.core.resp import FAULTS, RespLink

log = structlog.get_logger(__name__)

WAKE_TASK: Final = "inference.wake"
BROKER_FAULTS: Final = (redis.RedisError, OperationalError, *FAULTS)
"""What ringing raises when the broker is away: redis-py's, kombu's, ours and the system's words."""

_WAKE_EXPIRES_SECONDS: Final = 30


def send_wake(queue: str) -> None:
    """Sends one Celery message to a queue whose worker has gone quiet."""
    current_app.send_task(
        WAKE_TASK, queue=queue, expires=_WAKE_EXPIRES_SECONDS, ignore_result=True, retry=False
    )


def ring(bell: Doorbell, queue: str) -> None:
    """Rings for one queue, from a worker or the sweeper.

    A broker that is away is no fault of the caller's: workers look for work by themselves too.
    """
    try:
        if bell.ring(queue) is Ring.WAKE:
            send_wake(queue)
    except BROKER_FAULTS as fault:
        log.warning("doorbell.failed", queue=queue, error=str(fault))


class Ringer:
    """Rings from the gateway's event loop without making anyone wait for it."""

    def __init__(self, link: RespLink) -> None:
        self._bell = AsyncDoorbell(link)
        self._tasks: set[asyncio.Task[None]] = set()

    def ring(self, queues: Iterable[str]) -> None:
        for queue in queues:
            task = asyncio.create_task(self._ring(queue))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _ring(self, queue: str) -> None:
        try:
            if await self._bell.ring(queue) is Ring.WAKE:
                await asyncio.to_thread(send_wake, queue)
        except BROKER_FAULTS as fault:
            # The sweeper will ring; the job waits a moment longer.
            log.warning("doorbell.failed", queue=queue, error=str(fault))
