"""Runs that Dify answers: called on a thread of their own, and never twice.

Dify knows no call again. So a run is written down as running before it is called, with a lease that
outlasts the longest call; one that is found running after that was interrupted, and whether Dify
answered is not known. It is said so, and nothing is repeated unasked.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import structlog
from django.db import connection

from knowledge.applications.backends import AppCall, Delta
from knowledge.applications.dify.backend import Channels, DifyBackend, Target
from knowledge.applications.dify.faults import AppAway
from portal.core.errors import PortalError

log = structlog.get_logger(__name__)

AT_ONCE: Final = 4
"""Calls in one process; further runs wait."""

LONGEST: Final = timedelta(minutes=10)
LEASE: Final = LONGEST + timedelta(minutes=1)

INTERRUPTED: Final = (
    "The worker stopped while Dify was answering, so whether it did is not known: look in Dify's "
    "log, and start the trigger by hand if it did not."
)
_TOO_LONG: Final = "Dify did not end its answer within ten minutes; look in its log."

_free = threading.BoundedSemaphore(AT_ONCE)
_pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="trigger-call")


@dataclass(frozen=True, slots=True)
class Answered:
    """What came of a call: the answer, or why there is none."""

    text: str = ""
    refusal: PortalError | None = None


def reserve() -> bool:
    """Takes a place among the calls of this process; ``call`` or ``give_back`` gives it back."""
    return _free.acquire(blocking=False)


def give_back() -> None:
    """Gives back a place that no call was made on."""
    _free.release()


def call(asked: AppCall, target: Target, then: Callable[[Answered], None]) -> None:
    """Calls the app on a thread, outside any scope, and hands on what came of it.

    Args:
        then: called on that thread.
    """
    _pool.submit(_work, asked, target, then)


def _work(asked: AppCall, target: Target, then: Callable[[Answered], None]) -> None:
    try:
        then(_answered(asked, target))
    except Exception as fault:  # noqa: BLE001 - the lease ends the run; nobody else would see it
        log.error("trigger.unrecorded", run_id=str(asked.message_id), error=type(fault).__name__)
    finally:
        connection.close()
        _free.release()


def _answered(asked: AppCall, target: Target) -> Answered:
    try:
        return Answered(asyncio.run(_read(asked, target)))
    except PortalError as refusal:
        return Answered(refusal=refusal)
    except TimeoutError:
        return Answered(refusal=AppAway(_TOO_LONG))


async def _read(asked: AppCall, target: Target) -> str:
    channels = Channels()
    try:
        async with asyncio.timeout(LONGEST.total_seconds()):
            told = DifyBackend(channels, target).answer(asked)
            return "".join([event.text async for event in told if isinstance(event, Delta)])
    finally:
        await channels.aclose()
