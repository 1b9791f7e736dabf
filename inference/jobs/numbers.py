"""Embedding and ranking for the portal itself: jobs like any other, whose answers are numbers.

They are admitted, charged and recorded as a call of an API key to ``/v1/embeddings`` or
``/v1/rerank`` is. Work that can wait submits a job and looks later (``numbers_of``); who has a
caller waiting asks and gets the answer (``ask``).
"""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Final, Literal
from uuid import UUID

import msgspec
from django.db import close_old_connections, connection

from inference.engines.vectors import Vector, packed_vectors, unpack_vector
from inference.gateway.answers import error_of
from inference.gateway.calls import EMBEDDING, RERANK
from inference.jobs.ciphers import payload_cipher
from inference.jobs.submission import JobRequest, submit
from inference.models import Job, JobPayload, JobState, Priority
from inference.models.jobs import ENDED
from inference.returns import End
from portal.core.actors import Context
from portal.core.errors import PortalError, Unavailable
from portal.core.tenancy import tenant_scope
from tenants.models import TenantDataKey

_KEPT_SECONDS: Final = 3600
_FIRST_LOOK_SECONDS: Final = 0.005
_LAST_LOOK_SECONDS: Final = 0.05
_ASKERS: Final = 8


@dataclass(frozen=True, slots=True)
class Numbers:
    """An answer: a vector for each text, or one of a score for each document.

    ``sku`` is the model and version that made it; vectors of two can't be compared.
    """

    vectors: list[Vector]
    sku: str


def embedding_job(
    model: str,
    texts: Sequence[str],
    *,
    role: Literal["query", "document"],
    priority: Priority = Priority.BATCH,
    wait_seconds: int = 3600,
) -> JobRequest:
    """A job whose answer is a vector for each text.

    Args:
        model: as a caller names it.
        role: what the texts are to each other; models embed the two differently.
    """
    body = {"model": model, "input": list(texts), "input_type": role}
    return JobRequest(
        msgspec.json.encode(body),
        priority=priority,
        wait_seconds=wait_seconds,
        result_seconds=_KEPT_SECONDS,
        action=EMBEDDING,
        endpoint="/v1/embeddings",
    )


def ranking_job(
    model: str, query: str, documents: Sequence[str], *, wait_seconds: int
) -> JobRequest:
    """A job whose answer is one vector: how well each document answers the query."""
    body = {"model": model, "query": query, "documents": list(documents)}
    return JobRequest(
        msgspec.json.encode(body),
        priority=Priority.INTERACTIVE,
        wait_seconds=wait_seconds,
        result_seconds=_KEPT_SECONDS,
        action=RERANK,
        endpoint="/v1/rerank",
    )


def numbers_of(job_id: UUID) -> Numbers | None:
    """The answer of a job of the open scope's tenant; None while there is none.

    Raises:
        PortalError: it ended without one, or its answer is not kept any more.
    """
    job = Job.objects.filter(pk=job_id).only(*_READ).first()
    if job is not None and job.state not in ENDED:
        return None
    if job is None or job.state == JobState.SUCCEEDED:
        text = None if job is None else kept_text(job)
        if job is None or text is None:
            raise Unavailable("The answer is not kept any more; ask again.", code="answer_lost")
        return Numbers([unpack_vector(packed) for packed in packed_vectors(text)], job.sku)
    ended = End(
        job.pk.bytes, 0, job.state, error_code=job.error_code, error_message=job.error_message
    )
    raise error_of(ended, "input")


_READ: Final = ("state", "sku", "tenant_id", "error_code", "error_message")


def kept_text(job: Job) -> str | None:
    """The text of a job's answer while it is kept; inside its tenant's scope."""
    kept = JobPayload.objects.filter(pk=job.pk).values_list("data_key_version", "answer").first()
    version, answer = kept or (0, None)
    if answer is None:
        return None
    key = TenantDataKey.objects.get(tenant_id=job.tenant_id, version=version)
    cipher = payload_cipher(job.tenant_id, version, bytes(key.wrapped))
    return cipher.decrypt(bytes(answer), row_id=job.pk).decode()


def ask(*, context: Context, request: JobRequest, seconds: float) -> Numbers:
    """Submits a job and waits for its answer, for so many seconds.

    The job is committed on a connection of its own, because a worker runs what it can see: the
    caller's transaction may be open around this.

    Args:
        context: of the API key that is charged, as ``key_context`` makes it.

    Raises:
        PortalError: it was refused, or failed.
        Unavailable: there was no answer in time.
    """
    return _askers().submit(_ask, context, request, seconds).result()


@cache
def _askers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_ASKERS, thread_name_prefix="ask")


def _ask(context: Context, request: JobRequest, seconds: float) -> Numbers:
    until = time.monotonic() + seconds
    close_old_connections()
    try:
        (outcome,) = submit(context=context, requests=[request])
        if outcome.job_id is None:
            raise outcome.error or PortalError("The job was not admitted.")
        return _await(context, outcome.job_id, until)
    finally:
        connection.close()


def _await(context: Context, job_id: UUID, until: float) -> Numbers:
    pause = _FIRST_LOOK_SECONDS
    while time.monotonic() < until:
        with tenant_scope(context):
            numbers = numbers_of(job_id)
        if numbers is not None:
            return numbers
        time.sleep(pause)
        pause = min(2 * pause, _LAST_LOOK_SECONDS)
    raise Unavailable(
        "The model did not answer in time; try again in a moment.",
        code="model_too_slow",
        retry_after=1,
    )
