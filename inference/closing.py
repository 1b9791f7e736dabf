"""What the model's floor does when a tenant is closed: ends its jobs, then erases them."""

from typing import Final
from uuid import UUID

import psycopg

from portal.core.env import env
from tenants.closing.registry import erase_rows, export_part, quiesce_with

# Windows first, as admission locks them. An admission that held them has committed its jobs, and
# one that comes after reads that the tenant is closing: nothing is admitted behind the mark.
_LOCK_WINDOWS: Final = """
SELECT 1 FROM tenants_quotawindow WHERE tenant_id = %s ORDER BY quota_id FOR NO KEY UPDATE
"""
_MARK: Final = """
UPDATE inference_job SET cancel_requested_at = clock_timestamp()
 WHERE tenant_id = %s AND state + 0 IN (0, 1) AND cancel_requested_at IS NULL
"""
_LIVE: Final = "SELECT count(*) FROM inference_job WHERE tenant_id = %s AND state + 0 IN (0, 1)"

# Erased from the last to the first: a batch refers to its files, an attempt to its delivery.
_ERASED: Final = (
    "inference_job",
    "inference_jobpayload",
    "inference_fairshare",
    "inference_routeoverride",
    "inference_idempotencykey",
    "inference_webhooksecret",
    "inference_webhookdelivery",
    "inference_webhookattempt",
    "inference_file",
    "inference_filechunk",
    "inference_batch",
    "inference_batchline",
)

_BATCHES: Final = """
SELECT id, api_key_id, user_id, endpoint, model, input_file_id, output_file_id, error_file_id,
       state, total, completed, failed, prompt_tokens, completion_tokens, created_at, expires_at,
       ended_at
  FROM inference_batch WHERE tenant_id = %(tenant)s ORDER BY id
"""
_JOBS: Final = """
SELECT id, kind, sku, model_id, api_key_id, user_id, state, stream, parameters, request_id,
       prompt_tokens, watermark AS completion_tokens, finish_reason, error_code, attempts,
       admitted_at, claimed_at, first_token_at, finished_at
  FROM inference_job WHERE tenant_id = %(tenant)s ORDER BY id
"""


def register() -> None:
    """Says it, once, when the app starts."""
    quiesce_with("inference_job", cancel_jobs)
    for table in _ERASED:
        erase_rows(table)
    export_part("jobs.jsonl", _JOBS)
    export_part("batches.jsonl", _BATCHES)


def cancel_jobs(tenant_id: UUID) -> int:
    """Asks for the cancellation of a tenant's live jobs, as ``portal_gateway``.

    They end where every job ends: a queued one in the sweeper, a running one in its worker, which
    reads the mark at its next heartbeat. Each is settled once.

    Returns:
        How many are still live; 0 only if no further one can be admitted.
    """
    with psycopg.connect(
        env().database_url("gateway"), application_name="closing", connect_timeout=5
    ) as connection:
        connection.execute(_LOCK_WINDOWS, [tenant_id])
        connection.execute(_MARK, [tenant_id])
        row = connection.execute(_LIVE, [tenant_id]).fetchone()
    return int(row[0]) if row else 0
