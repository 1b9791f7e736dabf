"""Reads of workers: which are up, what each holds, how a deployment's queue stands."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from django.db.models import Count, Q, QuerySet
from django.utils import timezone

from inference.backlog import WORKER_SECONDS
from inference.models import Deployment, DesiredState, JobState, Worker, WorkerState
from inference.selectors import drain_seconds
from portal.core.errors import NotFound

SILENT_AFTER: Final = timedelta(seconds=WORKER_SECONDS)
"""A worker that has not been heard of for this long counts as gone."""


def live_workers() -> QuerySet[Worker]:
    """Workers whose process is up, whatever they do."""
    heard = Worker.objects.filter(heartbeat_at__gt=timezone.now() - SILENT_AFTER)
    return heard.exclude(state=WorkerState.STOPPED)


def holding_workers(deployment: Deployment) -> QuerySet[Worker]:
    """Live workers of a deployment that hold its model or are about to."""
    empty = (WorkerState.UNLOADED, WorkerState.FAILED)
    return live_workers().filter(deployment=deployment).exclude(state__in=empty)


def workers() -> QuerySet[Worker]:
    """All workers with what their deployment wants loaded."""
    return Worker.objects.select_related("deployment__version", "deployment__model")


def get_worker(worker_id: UUID) -> Worker:
    """A worker with its deployment.

    Raises:
        NotFound: there is none.
    """
    worker = workers().filter(pk=worker_id).first()
    if worker is None:
        raise NotFound("There is no such worker.")
    return worker


def is_silent(worker: Worker, now: datetime | None = None) -> bool:
    """Whether a worker that should be up has not been heard of."""
    at = now or timezone.now()
    return worker.state != WorkerState.STOPPED and at - worker.heartbeat_at >= SILENT_AFTER


def stale_reasons(worker: Worker) -> list[str]:
    """What its deployment has otherwise than what the worker holds; nothing where it holds none.

    Of ``version``, ``engine``, ``options`` and ``context_length``.
    """
    if not worker.loaded:
        return []
    deployment = worker.deployment
    wanted = {
        "engine": deployment.engine,
        "options": deployment.options,
        "context_length": deployment.context_length,
    }
    found = ["version"] if worker.version_digest != deployment.version.digest else []
    return found + [name for name, value in wanted.items() if worker.loaded.get(name) != value]


def is_stale(worker: Worker) -> bool:
    """Whether the worker would hold something else if it loaded now."""
    return bool(stale_reasons(worker))


def pending(worker: Worker) -> bool:
    """Whether the worker is on its way to what is wanted of it."""
    arrived = {
        DesiredState.SERVING: {WorkerState.READY, WorkerState.FAILED},
        DesiredState.DRAINED: {WorkerState.DRAINED, WorkerState.FAILED},
        DesiredState.UNLOADED: {WorkerState.UNLOADED},
    }
    return WorkerState(worker.state) not in arrived[DesiredState(worker.desired_state)]


@dataclass(frozen=True, slots=True)
class Load:
    """How busy a deployment is.

    Attributes:
        queued: jobs that wait, of all tenants.
        wait_seconds: until what waits now is worked off; 0 if nothing waits, None if not known.
        ready: workers that take work.
        tokens_per_second: what their engines generate together.
        memory_bytes: main memory of all of its live workers.
    """

    queued: int
    wait_seconds: float | None
    ready: int
    workers: int
    running: int
    slots: int
    tokens_per_second: float
    memory_bytes: int


def load_of(deployment: Deployment, queued: int, rows: Sequence[Worker]) -> Load:
    """The figures of a deployment from its count of waiting jobs and its workers' rows."""
    now = timezone.now()
    live = [w for w in rows if w.state != WorkerState.STOPPED and not is_silent(w, now)]
    ready = [w for w in live if w.state == WorkerState.READY]
    return Load(
        queued=queued,
        wait_seconds=drain_seconds(deployment.pk) if queued else 0.0,
        ready=len(ready),
        workers=len(live),
        running=sum(w.running for w in live),
        slots=sum(w.slots for w in ready),
        tokens_per_second=math.fsum(w.tokens_per_second or 0 for w in live),
        memory_bytes=sum(w.resident_bytes for w in live),
    )


def loaded_deployments() -> QuerySet[Deployment]:
    """All deployments with their workers and, as ``queued``, how many jobs wait."""
    return (
        Deployment.objects.select_related("model", "version")
        .prefetch_related("workers")
        .annotate(queued=Count("jobs", filter=Q(jobs__state=JobState.QUEUED)))
    )


def get_deployment(deployment_id: UUID) -> Deployment:
    """A deployment as ``loaded_deployments`` has it.

    Raises:
        NotFound: there is none.
    """
    found = loaded_deployments().filter(pk=deployment_id).first()
    if found is None:
        raise NotFound("There is no such deployment.")
    return found
