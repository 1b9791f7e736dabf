"""Admission's statements as the control plane sends them: the gateway's own, as ``portal_app``.

They run inside a tenant's scope, in which row-level security shows that tenant's rows alone.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from django.db import connection

from inference.backlog import LIVE, Backlog
from inference.gateway import store
from inference.gateway.admission import Ledger
from inference.gateway.rows import ROW_COLUMNS, Row
from inference.models import QueueForecast
from inference.selectors import backlog_of, fresh_forecasts
from portal.core.crypto import Peppers


class JobRow(Row, omit_defaults=True, kw_only=True, gc=False):
    """A row of ``WRITE``: what a business system's job has beyond a gateway's.

    ``idempotency_key``, with the body's HMAC in base64, is kept until ``key_expires_at``.
    """

    deadline: datetime | None = None
    priority: int = 0
    result_seconds: int = 0
    idempotency_key: str = ""
    pepper_version: int = 0
    body_hmac: str = ""
    key_expires_at: datetime | None = None


_COLUMNS: Final = f"""{ROW_COLUMNS}, deadline timestamptz, priority smallint,
    result_seconds integer, fallbacks jsonb, idempotency_key text, pepper_version smallint,
    body_hmac text, key_expires_at timestamptz"""

WRITE: Final = store.write_statement(
    row_columns=_COLUMNS,
    deadline="deadline",
    job_columns={"priority": "coalesce(priority, 0)"},
    payload_columns={"result_seconds": "result_seconds", "fallbacks": "fallbacks"},
    further=""", keys AS (
    INSERT INTO inference_idempotencykey (tenant_id, api_key_id, key, job_id, pepper_version,
        body_hmac, expires_at)
    SELECT tenant_id, api_key_id, idempotency_key, job_id, pepper_version,
           decode(body_hmac, 'base64'), key_expires_at
      FROM calls WHERE job_id IS NOT NULL AND idempotency_key IS NOT NULL
)""",
)

# One after the other, in one order for all: of two that submit under a key the second waits until
# the first has committed, and then finds its job.
_LOCK_KEYS: Final = """
SELECT pg_advisory_xact_lock(lock) FROM (
    SELECT DISTINCT hashtextextended(%s || key, 0) AS lock FROM unnest(%s::text[]) AS key
     ORDER BY 1) locks
"""
_DROP_EXPIRED: Final = """
DELETE FROM inference_idempotencykey
 WHERE tenant_id = %s AND api_key_id = %s AND key = ANY(%s) AND expires_at <= clock_timestamp()
"""
_FIND_KEYS: Final = """
SELECT key, job_id, pepper_version, body_hmac FROM inference_idempotencykey
 WHERE tenant_id = %s AND api_key_id = %s AND key = ANY(%s)
"""


@dataclass(frozen=True, slots=True)
class Submitted:
    """What is kept of a submission under an idempotency key."""

    job_id: UUID
    pepper_version: int
    body_hmac: bytes


def lock_keys(tenant_id: UUID, api_key_id: UUID, keys: Sequence[str]) -> dict[str, Submitted]:
    """What was submitted under these keys; until the transaction ends nobody else may use them."""
    with connection.cursor() as cursor:
        cursor.execute(_LOCK_KEYS, [f"job {api_key_id} ", list(keys)])
        whose = (tenant_id, api_key_id, list(keys))
        cursor.execute(_DROP_EXPIRED, whose)
        cursor.execute(_FIND_KEYS, whose)
        return {key: Submitted(job, version, bytes(h)) for key, job, version, h in cursor}


def read(public_id: str, deployment_ids: Iterable[UUID], peppers: Peppers) -> Ledger:
    """Locks and loads what calls of one key are decided over."""
    deployments = list(deployment_ids)
    with connection.cursor() as cursor:
        cursor.execute(store.READ_WINDOWS, [[public_id]])
        windows = cursor.fetchall()
        cursor.execute(store.READ_KEYS, {"keys": [public_id], "deployments": deployments})
        ledger = store.ledger_of(windows, cursor.fetchall(), peppers)
        cursor.execute(LIVE)
        ledger.live = frozenset(deployment for (deployment,) in cursor.fetchall())
    ledger.backlogs = _backlogs(deployments)
    return ledger


def _backlogs(deployments: Sequence[UUID]) -> dict[UUID, Backlog]:
    """From the sweeper's forecasts: row-level security shows no other tenant's shares."""
    found = QueueForecast.objects.filter(deployment_id__in=deployments)
    return {f.deployment_id: backlog_of(f) for f in fresh_forecasts(found)}


def write(ledger: Ledger, rows: Sequence[Row], *, gateway: str = "") -> None:
    """Writes what was decided: counters, jobs, payloads and audit rows, or nothing at all.

    Args:
        gateway: the process that waits for the jobs, if one does.
    """
    writes = store.Writes(
        windows=store.window_rows(ledger.windows),
        shares=store.share_rows(ledger.shares),
        calls=rows,
        now=ledger.now,
        deadline=ledger.now,
        gateway=gateway,
    )
    with connection.cursor() as cursor:
        cursor.execute(WRITE, writes.parameters())


def job_row(row: Row, **more: Any) -> JobRow:
    """A gateway's row with what a job has beyond it."""
    return JobRow(**{name: getattr(row, name) for name in Row.__struct_fields__}, **more)
