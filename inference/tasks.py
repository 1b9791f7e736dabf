"""Celery tasks of the model's floor: thin shells over services."""

from functools import cache

import structlog
from celery import shared_task

from inference import dispatch
from inference.batches.sweep import sweep_files
from inference.batches.turns import Turns
from inference.file_checks import FileChecks
from inference.sweeper import Sweeper
from inference.webhooks.deliverer import Deliverer, DelivererThread
from inference.webhooks.services import ciphers
from inference.webhooks.targets import targets
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


@cache
def _turns() -> Turns:
    """This process's turns at batches."""
    return Turns(env().database_url("gateway"))


@shared_task(name="inference.run_batches")
def run_batches() -> None:
    """Steps of batches that are due; nothing while this process is at it already."""
    taken = _turns().take()
    if taken:
        log.info("batches.moved", steps=taken)


@shared_task(name="inference.sweep_files")
def sweep_old_files() -> None:
    """Drops the content of files that have expired, and uploads that never ended."""
    dropped = sweep_files(env().database_url("gateway"))
    if dropped:
        log.info("files.swept", files=dropped)


@cache
def _file_checks() -> FileChecks:
    """This process's checks of models' files."""
    return FileChecks(env().database_url("gateway"))


@shared_task(name="inference.check_files")
def check_files() -> None:
    """Begins to read a version's files that are to be verified; it goes on when this returns."""
    _file_checks().begin()


@cache
def _deliverer() -> DelivererThread:
    """This process's sender of webhooks."""
    settings = env()
    deliverer = Deliverer(
        settings.database_url("gateway"),
        ciphers=ciphers(),
        targets=targets(),
        slots=settings.webhook_slots,
    )
    return DelivererThread(deliverer)


@shared_task(name="inference.deliver_webhooks")
def deliver_webhooks() -> None:
    """Begins to send the webhooks that are due; calls go on when this has returned."""
    _deliverer().round()
