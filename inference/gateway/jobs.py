"""What a gateway does to its jobs after admission: cancels them, and asks how they stand."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import psycopg
import structlog

from inference.gateway.link import Link
from inference.models.jobs import JobState
from inference.payloads import Ciphers
from inference.returns import End, cancel_channel
from inference.settlement import Settlement, settle_async
from portal.core.batching import NaturalBatcher
from portal.core.crypto import InvalidCiphertext
from portal.core.resp import FAULTS, RespLink

log = structlog.get_logger(__name__)

# Marked first, whatever the state: if the job is claimed a moment later, the claim sees it.
_MARK: Final = """
UPDATE inference_job j SET cancel_requested_at = coalesce(cancel_requested_at, clock_timestamp())
  FROM inference_deployment d
 WHERE j.id = ANY(%s) AND j.state + 0 IN (0, 1) AND d.id = j.deployment_id
RETURNING j.id, j.state, d.queue
"""

_STATUS: Final = """
SELECT j.id, j.state, j.fence, j.prompt_tokens, j.watermark, j.finish_reason, j.error_code,
       j.error_message, p.answer, j.tenant_id, k.version, k.wrapped
  FROM inference_job j
  LEFT JOIN inference_jobpayload p ON p.job_id = j.id AND p.answer IS NOT NULL
  LEFT JOIN tenants_tenantdatakey k
         ON k.tenant_id = p.tenant_id AND k.version = p.data_key_version
 WHERE j.id = ANY(%s)
"""

_RETRY_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class Status:
    """How a job stands; ``end`` is set once it is terminal, ``answer`` if it was kept."""

    fence: int
    end: End | None
    answer: str | None


class Canceller:
    """Cancels jobs durably, and tells their workers at once."""

    def __init__(self, link: Link, broker: RespLink) -> None:
        self._link = link
        self._broker = broker
        self._batcher: NaturalBatcher[UUID, None] = NaturalBatcher(self._commit)
        self._tasks: set[asyncio.Task[None]] = set()

    def cancel(self, job_id: UUID) -> None:
        """Cancels without being waited for; tries until the database has heard it."""
        task = asyncio.create_task(self._persist(job_id))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def cancel_all(self, job_ids: Sequence[UUID]) -> None:
        for job_id in job_ids:
            self.cancel(job_id)

    async def close(self) -> None:
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=5)
        await self._batcher.close()

    async def _persist(self, job_id: UUID) -> None:
        while True:
            try:
                await self._batcher.submit(job_id)
                return
            except psycopg.Error as fault:
                log.warning("cancel.retried", job_id=str(job_id), error=str(fault))
                await asyncio.sleep(_RETRY_SECONDS)

    async def _commit(self, job_ids: Sequence[UUID]) -> list[None]:
        async def work(connection: psycopg.AsyncConnection[Any]) -> list[tuple[UUID, int, str]]:
            cursor = await connection.execute(_MARK, [list(job_ids)], prepare=True)
            live: list[tuple[UUID, int, str]] = await cursor.fetchall()
            queued = [job_id for job_id, state, _ in live if state == JobState.QUEUED]
            if queued:
                await settle_async(connection, [_cancelled(job_id) for job_id in queued])
            return live

        live = await self._link.use(work)
        running = [(job_id, queue) for job_id, state, queue in live if state == JobState.RUNNING]
        try:
            for job_id, queue in running:
                await self._broker.call("PUBLISH", cancel_channel(queue), job_id.bytes)
        except FAULTS as fault:
            # The worker finds the mark at its next heartbeat.
            log.warning("cancel.unannounced", error=str(fault))
        return [None] * len(job_ids)


def _cancelled(job_id: UUID) -> Settlement:
    return Settlement(
        job_id,
        JobState.QUEUED,
        JobState.CANCELLED,
        error_code="cancelled",
        error_message="The caller went away before the generation began.",
    )


async def statuses(link: Link, ciphers: Ciphers, job_ids: Sequence[UUID]) -> dict[UUID, Status]:
    """How the jobs stand in PostgreSQL, for callers that have heard nothing for a while."""

    async def work(connection: psycopg.AsyncConnection[Any]) -> list[Any]:
        cursor = await connection.execute(_STATUS, [list(job_ids)], prepare=True)
        return await cursor.fetchall()

    return {row[0]: _status(row, ciphers) for row in await link.read(work)}


def _status(row: Any, ciphers: Ciphers) -> Status:
    (job_id, state, fence, prompt, watermark, reason, code, message, answer, tenant, version,
     wrapped) = row  # fmt: skip
    if state in (JobState.QUEUED, JobState.RUNNING):
        return Status(fence, None, None)
    text = None
    if answer is not None:
        try:
            text = ciphers.of(tenant, version, wrapped).decrypt(answer, row_id=job_id).decode()
        except InvalidCiphertext as fault:
            log.error("answer.unreadable", job_id=str(job_id), error=str(fault))
    return Status(
        fence,
        End(job_id.bytes, fence, state, reason, prompt, watermark, code, message),
        text,
    )
