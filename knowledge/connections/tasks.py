"""Celery tasks of connections: thin shells."""

import threading

import structlog
from celery import shared_task

from knowledge.connections.health import check_due
from portal.core.env import env

log = structlog.get_logger(__name__)

# A Dify that does not answer takes its time; the worker's other threads are for other work.
_alone = threading.Lock()


@shared_task(name="knowledge.check_connections")
def check_connections() -> None:
    """Looks at the connections that are due; nothing while this process is at it already."""
    if not _alone.acquire(blocking=False):
        return
    try:
        checked = check_due(env().database_url("gateway"))
    finally:
        _alone.release()
    if checked:
        log.info("connections.checked", connections=checked)
