"""What the steps of a batch read and write, inside its tenant's scope."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec
from django.db import connection

from inference.models import Batch, BatchLine, LineState
from inference.models.jobs import ENDED

_WAITING: Final = f"""
SELECT number, custom_id, start, length FROM inference_batchline
 WHERE tenant_id = %s AND batch_id = %s AND number > %s AND state = {LineState.WAITING.value}
 ORDER BY number LIMIT %s
"""

# Answers that business systems asked to keep are all that the control plane reads of payloads.
_ENDED: Final = f"""
SELECT number, custom_id, id, state, sku, admitted_at, prompt_tokens, watermark, finish_reason,
       error_code, error_message, answer, data_key_version, parameters, path
  FROM (
    SELECT l.number, l.custom_id, j.id, j.state, j.sku, j.admitted_at, j.prompt_tokens,
           j.watermark, j.finish_reason, j.error_code, j.error_message, p.answer,
           p.data_key_version, j.parameters::text AS parameters, v.path,
           sum(coalesce(octet_length(p.answer), 0)) OVER (ORDER BY l.number)
               - coalesce(octet_length(p.answer), 0) AS bytes_before
      FROM inference_batchline l
      JOIN inference_job j ON j.id = l.job_id
      LEFT JOIN inference_jobpayload p ON p.job_id = j.id
      LEFT JOIN inference_deployment d ON d.id = j.deployment_id
      LEFT JOIN inference_modelversion v ON v.id = d.version_id
     WHERE l.tenant_id = %s AND l.batch_id = %s AND l.state = {LineState.RUNNING.value}
       AND j.state = ANY(%s)) ended
 WHERE bytes_before < %s
 ORDER BY number LIMIT %s
"""

_ADD: Final = f"""
INSERT INTO inference_batchline (tenant_id, batch_id, number, custom_id, custom_id_hmac, start,
                                 length, state)
SELECT %s, %s, x.number, x.custom_id, x.hmac, x.start, x.length, {LineState.WAITING.value}
  FROM unnest(%s::integer[], %s::bytea[], %s::bytea[], %s::bigint[], %s::integer[])
       AS x(number, custom_id, hmac, start, length)
"""

_SET: Final = """
UPDATE inference_batchline l SET state = %s, job_id = x.job_id
  FROM unnest(%s::integer[], %s::uuid[]) AS x(number, job_id)
 WHERE l.tenant_id = %s AND l.batch_id = %s AND l.number = x.number
"""

_DONE: Final = f"""
UPDATE inference_batchline SET state = {LineState.DONE.value}
 WHERE tenant_id = %s AND batch_id = %s AND number = ANY(%s)
"""

# By id, as settlement locks them.
_CANCEL: Final = f"""
UPDATE inference_job SET cancel_requested_at = clock_timestamp()
 WHERE id = ANY(ARRAY(
       SELECT j.id FROM inference_batchline l JOIN inference_job j ON j.id = l.job_id
        WHERE l.tenant_id = %s AND l.batch_id = %s AND l.state = {LineState.RUNNING.value}
          AND j.state + 0 IN (0, 1) AND j.cancel_requested_at IS NULL
        ORDER BY j.id FOR NO KEY UPDATE OF j))
"""


class WaitingLine(msgspec.Struct, frozen=True):
    """A line that has not been handed on; ``custom_id`` is encrypted."""

    number: int
    custom_id: bytes
    start: int
    length: int


class EndedLine(msgspec.Struct, frozen=True):
    """A line whose job has ended; ``custom_id`` and ``answer`` are encrypted.

    ``parameters`` is JSON, ``artefact`` the path of the model that served.
    """

    number: int
    custom_id: bytes
    job_id: UUID
    state: int
    sku: str
    admitted_at: datetime
    prompt_tokens: int
    completion_tokens: int
    finish_reason: str
    error_code: str
    error_message: str
    answer: bytes | None
    data_key_version: int | None
    parameters: str
    artefact: str | None


def add_lines(batch: Batch, lines: Sequence[WaitingLine], hmacs: Sequence[bytes]) -> None:
    """Adds lines that wait, each with the HMAC of its custom id."""
    values = [
        [line.number for line in lines],
        [line.custom_id for line in lines],
        list(hmacs),
        [line.start for line in lines],
        [line.length for line in lines],
    ]
    _execute(_ADD, [batch.tenant_id, batch.id, *values])


def waiting_lines(batch: Batch, limit: int) -> list[WaitingLine]:
    """The next lines that wait, in the order of the file."""
    rows = _rows(_WAITING, [batch.tenant_id, batch.id, batch.fed_through, limit])
    return [WaitingLine(n, bytes(custom), start, length) for n, custom, start, length in rows]


def ended_lines(batch: Batch, limit: int, *, most_bytes: int) -> list[EndedLine]:
    """Lines whose jobs have ended and whose results have not been written down.

    Args:
        most_bytes: of all answers but the last one.
    """
    rows = _rows(
        _ENDED, [batch.tenant_id, batch.id, [state.value for state in ENDED], most_bytes, limit]
    )
    return [EndedLine(*row) for row in rows]


def count_running(batch: Batch) -> int:
    """How many lines have jobs that were not written down as ended."""
    return BatchLine.objects.filter(
        tenant_id=batch.tenant_id, batch_id=batch.id, state=LineState.RUNNING
    ).count()


def set_running(batch: Batch, jobs: dict[int, UUID]) -> None:
    """Notes the job of each line; in the transaction that admits it."""
    values = [LineState.RUNNING.value, list(jobs), list(jobs.values()), batch.tenant_id, batch.id]
    _execute(_SET, values)


def set_done(batch: Batch, numbers: Sequence[int]) -> None:
    """Notes that the results of lines are written; in the transaction that writes them."""
    _execute(_DONE, [batch.tenant_id, batch.id, list(numbers)])


def cancel_running(batch: Batch) -> None:
    """Asks for the end of every job of the batch that has not ended."""
    _execute(_CANCEL, [batch.tenant_id, batch.id])


def known_ids(batch: Batch, hmacs: Sequence[bytes]) -> set[bytes]:
    """Which of these custom ids the batch has already."""
    found = BatchLine.objects.filter(
        tenant_id=batch.tenant_id, batch_id=batch.id, custom_id_hmac__in=hmacs
    )
    return {bytes(h) for h in found.values_list("custom_id_hmac", flat=True)}


def _rows(query: str, values: list[Any]) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(query, values)
        rows: list[tuple[Any, ...]] = cursor.fetchall()
        return rows


def _execute(query: str, values: list[Any]) -> None:
    with connection.cursor() as cursor:
        cursor.execute(query, values)
