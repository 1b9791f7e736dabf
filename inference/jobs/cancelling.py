"""Cancelling jobs on the control plane."""

from uuid import UUID

import structlog
from celery import current_app
from django.db import transaction
from django.utils import timezone

from audit.services import intent
from inference.dispatch import BROKER_FAULTS
from inference.models import Job, JobState
from inference.returns import cancel_channel
from inference.selectors import get_job, jobs
from portal.core.actors import Context
from portal.core.env import env
from portal.core.errors import NotFound
from portal.core.resp import RespClient
from portal.core.tenancy import tenant_scope
from tenants.permissions import Action, allowed, require

log = structlog.get_logger(__name__)

SWEEP_TASK = "inference.sweep"
_BROKER_SECONDS = 1.0


def cancel_job(*, context: Context, job_id: UUID) -> Job:
    """Asks for the end of a job; one that has ended, or is being cancelled, stays as it is.

    A waiting job ends in the sweep that is called for at once, a running one after the engine's
    next step. What was not delivered is not charged.

    Raises:
        Forbidden: the caller is neither an owner nor an API key that may submit jobs.
        NotFound: no such job that the caller may cancel.
    """
    if not allowed(context, Action.JOB_CANCEL):
        require(context, Action.JOB_SUBMIT)
    with tenant_scope(context):
        found = jobs().select_related("deployment").filter(pk=job_id)
        if not allowed(context, Action.JOB_CANCEL):
            found = found.filter(api_key_id=context.api_key_id)
        job = found.first()
        if job is None:
            raise NotFound("There is no such job.")
        if job.state in (JobState.QUEUED, JobState.RUNNING) and job.cancel_requested_at is None:
            with intent(
                "job.cancel", object_type="inference.job", object_id=job.pk, object_label=job.sku
            ):
                # Marked whatever the state: if it is claimed a moment later, the claim sees it.
                Job.objects.filter(pk=job.pk, cancel_requested_at=None).update(
                    cancel_requested_at=timezone.now()
                )
            queue = job.deployment.queue
            transaction.on_commit(lambda: _announce(job_id, queue))
        return get_job(job_id)


def _announce(job_id: UUID, queue: str) -> None:
    """Tells the worker, if one runs it, and the sweeper, which ends it if it waits."""
    try:
        with RespClient(env().redis_url.get_secret_value(), timeout_s=_BROKER_SECONDS) as client:
            client.call("PUBLISH", cancel_channel(queue), job_id.bytes)
        current_app.send_task(SWEEP_TASK, expires=_BROKER_SECONDS, ignore_result=True, retry=False)
    except BROKER_FAULTS as fault:
        # The worker finds the mark at its next heartbeat, and the sweeper sweeps every second.
        log.warning("cancel.unannounced", error=str(fault))
