"""Celery tasks of the model's floor: thin shells over services."""

from functools import cache

import structlog
from celery import shared_task

from inference import dispatch
from inference.sweeper import Sweeper
from portal.core.broker import Doorbell
from portal.core.env import env
from portal.core.resp import RespClient

log = structlog.get_logger(__name__)


@shared_task(name=dispatch.WAKE_TASK)
def wake() -> None:
    """Wakes this worker's runtime: there is work in PostgreSQL."""
    from inference.worker.bootstep import current_runtime

    runtime = current_runtime()
    if runtime is not None:
        runtime.wake()


@cache
def _sweeper() -> Sweeper:
    """This process's sweeper."""
    settings = env()
    return Sweeper(
        settings.database_url("gateway"),
        settings.redis_url.get_secret_value(),
        max_attempts=settings.max_attempts,
    )


@shared_task(name="inference.sweep")
def sweep_jobs() -> None:
    """One round of the sweeper, then a ring for every queue with waiting jobs."""
    result = _sweeper().sweep()
    if result.requeued or result.ended or result.moved:
        log.info("jobs.swept", requeued=result.requeued, ended=result.ended, moved=result.moved)
    with RespClient(env().redis_url.get_secret_value()) as client:
        bell = Doorbell(client)
        for queue in result.waiting_queues:
            dispatch.ring(bell, queue)
