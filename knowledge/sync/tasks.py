"""Celery tasks of keeping in step: thin shells."""

import threading

import structlog
from celery import shared_task

from knowledge.sync.running import sync_due
from portal.core.env import env

log = structlog.get_logger(__name__)

# A Dify that does not answer takes its time; the worker's other threads are for other work.
_alone = threading.Lock()


@shared_task(name="knowledge.sync")
def sync() -> None:
    """Keeps connections in step that are due; nothing while this process is at it already."""
    if not _alone.acquire(blocking=False):
        return
    try:
        settings = env()
        runs = sync_due(settings.database_url("gateway"), settings.sync_slots)
    finally:
        _alone.release()
    if runs:
        log.info("sync.ran", runs=runs)
