"""Runs that Dify answers: called on a thread of their own, and never twice.

Dify knows no call again. So a run is written down as running before it is called, with a lease that
outlasts the longest call; one that is found running after that was interrupted, and whether Dify
answered is not known. It is said so, and nothing is repeated unasked.
"""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Final

import structlog
from django.db import connection

from knowledge.applications.backends import AppCall
from knowledge.applications.dify.backend import Target
from knowledge.applications.dify.waiting import LONGEST, Answered, whole_answer

log = structlog.get_logger(__name__)

AT_ONCE: Final = 4
"""Calls in one process; further runs wait."""

LEASE: Final = LONGEST + timedelta(minutes=1)

INTERRUPTED: Final = (
    "The worker stopped while Dify was answering, so whether it did is not known: look in Dify's "
    "log, and start the trigger by hand if it did not."
)

_free = threading.BoundedSemaphore(AT_ONCE)
_pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="trigger-call")


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
        then(whole_answer(asked, target))
    except Exception as fault:  # noqa: BLE001 - the lease ends the run; nobody else would see it
        log.error("trigger.unrecorded", run_id=str(asked.message_id), error=type(fault).__name__)
    finally:
        connection.close()
        _free.release()
