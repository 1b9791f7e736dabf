"""What became of a business system's job: its answer, while it is kept."""

from datetime import datetime
from typing import Final
from uuid import UUID

from django.utils import timezone

from inference.gateway.wire.common import Usage
from inference.jobs.answers import kept_answer
from inference.jobs.ciphers import payload_cipher
from inference.models import Deployment, Job, JobPayload, JobState
from inference.selectors import jobs
from portal.core.actors import Context
from portal.core.errors import Conflict, NotFound, PortalError
from portal.core.tenancy import tenant_scope
from tenants.models import TenantDataKey
from tenants.permissions import Action, allowed, require

_LOOK_AGAIN_SECONDS: Final = 2.0


class Gone(PortalError):
    """What was there is not kept any more."""

    code = "gone"
    status = 410


def visible_job(context: Context, job_id: UUID) -> Job:
    """A job that the caller may see: any of its tenant's, or those of its own API key.

    Raises:
        NotFound: none; another tenant's is this too.
    """
    found = jobs().filter(pk=job_id)
    if not allowed(context, Action.JOB_READ):
        require(context, Action.JOB_SUBMIT)
        found = found.filter(api_key_id=context.api_key_id)
    job = found.first()
    if job is None:
        raise NotFound("There is no such job.")
    return job


def result_expiry(job: Job) -> datetime | None:
    """When the kept result is deleted; None where none is kept."""
    if job.state != JobState.SUCCEEDED:
        return None
    kept = JobPayload.objects.filter(pk=job.pk).values_list("delete_after", flat=True).first()
    return kept if kept is not None and kept > timezone.now() else None


def read_result(*, context: Context, job_id: UUID) -> bytes:
    """The answer as its endpoint gives it, in JSON, for the API key that submitted the job.

    Nobody else reads it, whatever else they may do: who submits work is who gets it back.

    Raises:
        Forbidden: the caller is no API key that may submit jobs.
        NotFound: no such job of this key, or one whose result is not there yet or was never kept.
        Conflict: the job has ended without a result.
        Gone: the result was kept as long as it was asked for.
    """
    require(context, Action.JOB_SUBMIT)
    with tenant_scope(context):
        job = jobs().filter(pk=job_id, api_key_id=context.api_key_id).first()
        if job is None:
            raise NotFound("There is no such job of this API key.")
        _refuse_unanswered(job)
        kept = (
            JobPayload.objects.filter(pk=job.pk, delete_after__gt=timezone.now())
            .values_list("data_key_version", "answer")
            .first()
        )
        if kept is None:
            raise Gone(
                "The result was kept as long as 'result_ttl' asked for and is deleted: submit the "
                "job again if you still need it.",
                code="result_expired",
            )
        version, answer = kept
        wrapped = TenantDataKey.objects.values_list("wrapped", flat=True).get(version=version)
        served = Deployment.objects.filter(pk=job.deployment_id)
        artefact = served.values_list("version__path", flat=True).first()
    assert answer is not None, "row-level security shows none without an answer"
    cipher = payload_cipher(job.tenant_id, version, bytes(wrapped))
    text = cipher.decrypt(bytes(answer), row_id=job.pk).decode()
    return kept_answer(
        job_id=job.pk,
        admitted_at=job.admitted_at,
        model=job.sku.rpartition("@")[0],
        text=text,
        finish_reason=job.finish_reason,
        usage=Usage(job.prompt_tokens, job.watermark),
        parameters=job.parameters,
        artefact=artefact,
    )


def _refuse_unanswered(job: Job) -> None:
    if job.gateway:
        raise NotFound(
            "This call was answered at once, to its caller; its answer is not kept.",
            code="result_not_kept",
        )
    if job.state in (JobState.QUEUED, JobState.RUNNING):
        raise NotFound(
            "The job has not ended: ask again later, or follow its events.",
            code="result_not_ready",
            retry_after=_LOOK_AGAIN_SECONDS,
        )
    if job.state != JobState.SUCCEEDED:
        state = JobState(job.state).name.lower()
        raise Conflict(
            f"The job has ended without a result: it is {state}. {job.error_message}".strip(),
            code="job_without_result",
            data={"state": state, "error_code": job.error_code},
        )
