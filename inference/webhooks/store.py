"""The statements of webhooks, across tenants, as ``portal_gateway``."""

from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec

from audit.batch import insert_bodies, insert_events
from inference.models.webhooks import WebhookState
from inference.webhooks.events import WebhookEvent

# One step of the index for each tenant with something pending, however much that is. Then the
# oldest of all, at most so many of each tenant. ``state + 0`` keeps the look-up by id off the
# partial index. Two senders skip each other's rows; an attempt has one of them.
CLAIM: Final = f"""
WITH RECURSIVE tenants AS (
    (SELECT tenant_id FROM inference_webhookdelivery WHERE state = {WebhookState.PENDING.value}
      ORDER BY tenant_id LIMIT 1)
    UNION ALL
    SELECT (SELECT w.tenant_id FROM inference_webhookdelivery w
             WHERE w.state = {WebhookState.PENDING.value} AND w.tenant_id > t.tenant_id
             ORDER BY w.tenant_id LIMIT 1)
      FROM tenants t WHERE t.tenant_id IS NOT NULL
), busy AS (
    SELECT * FROM json_each_text(%(busy)s)
), due AS MATERIALIZED (
    SELECT d.id, d.due_at
      FROM (SELECT t.tenant_id, greatest(0, %(a_tenant)s
                   - coalesce((SELECT value::integer FROM busy WHERE key = t.tenant_id::text), 0))
                   AS room
              FROM tenants t WHERE t.tenant_id IS NOT NULL) r
     CROSS JOIN LATERAL (
           SELECT id, due_at FROM inference_webhookdelivery
            WHERE tenant_id = r.tenant_id AND state = {WebhookState.PENDING.value}
              AND due_at <= statement_timestamp()
            ORDER BY due_at LIMIT r.room) d
     ORDER BY d.due_at LIMIT %(slots)s
), free AS MATERIALIZED (
    SELECT id FROM inference_webhookdelivery
     WHERE id = ANY(ARRAY(SELECT id FROM due)) AND state + 0 = {WebhookState.PENDING.value}
       AND due_at <= statement_timestamp()
       FOR UPDATE SKIP LOCKED
), claimed AS (
    UPDATE inference_webhookdelivery w SET attempts = attempts + 1, tries = tries + 1,
        lease_until = clock_timestamp() + %(lease)s * interval '1 second',
        due_at = clock_timestamp() + %(lease)s * interval '1 second'
     WHERE id = ANY(ARRAY(SELECT id FROM free))
    RETURNING id, tenant_id, job_id, told, data_key_version, sealed_url, origin, attempts, tries
)
SELECT c.id, c.tenant_id, c.job_id, c.data_key_version, k.wrapped, c.sealed_url, c.origin,
       c.attempts, c.tries, j.state, j.sku, j.finished_at, j.finish_reason, j.prompt_tokens,
       j.watermark, j.error_code, j.error_message, j.parameters -> 'metadata', c.told
  FROM claimed c
  LEFT JOIN inference_job j ON j.id = c.job_id
  JOIN tenants_tenantdatakey k ON k.tenant_id = c.tenant_id AND k.version = c.data_key_version
"""

SECRETS: Final = """
SELECT s.tenant_id, s.id, s.data_key_version, k.wrapped, s.sealed
  FROM inference_webhooksecret s
  JOIN tenants_tenantdatakey k ON k.tenant_id = s.tenant_id AND k.version = s.data_key_version
 WHERE s.tenant_id = ANY(%s) AND (s.valid_until IS NULL OR s.valid_until > clock_timestamp())
 ORDER BY s.generation DESC
"""

_EVENTS: Final = insert_events(
    "ended e",
    {
        "id": "e.event_id",
        "recorded_at": "statement_timestamp()",
        "tenant_id": "e.tenant_id",
        "category": "'intent'",
        "action": f"'{WebhookEvent.DELIVER}'",
        "outcome": f"CASE e.state WHEN {WebhookState.DELIVERED.value} THEN 'success' "
        "ELSE 'failure' END",
        "reason": "e.last_error",
        "actor_type": "'system'",
        "actor_label": "'webhooks'",
        "auth_method": "'internal'",
        "object_type": "'inference.webhookdelivery'",
        "object_id": "e.id::text",
        "object_label": "e.origin",
        "occurred_at": "e.finished_at",
    },
)
_BODIES: Final = insert_bodies(
    "ended e",
    {
        "event_id": "e.event_id",
        "recorded_at": "statement_timestamp()",
        "tenant_id": "e.tenant_id",
        "detail": "jsonb_build_object('job', e.job_id, 'receiver', e.origin, 'status', "
        "e.last_status, 'attempts', e.attempts)",
    },
)

# The log keeps every attempt. The delivery itself moves only for the attempt that holds it: a
# sender whose lease ran out changes nothing.
OUTCOME: Final = f"""
WITH moved AS (
    UPDATE inference_webhookdelivery SET state = %(state)s, lease_until = NULL,
        due_at = CASE WHEN %(state)s = {WebhookState.PENDING.value}
                      THEN clock_timestamp() + %(delay)s * interval '1 second' END,
        finished_at = CASE WHEN %(state)s <> {WebhookState.PENDING.value}
                           THEN clock_timestamp() END,
        last_attempt_at = %(sent_at)s, last_status = %(status)s, last_error = %(error)s
     WHERE id = %(id)s AND attempts = %(attempt)s AND state + 0 = {WebhookState.PENDING.value}
    RETURNING *
), ended AS (
    SELECT m.*, %(event_id)s::uuid AS event_id FROM moved m
     WHERE m.state <> {WebhookState.PENDING.value}
), log AS (
    INSERT INTO inference_webhookattempt (id, tenant_id, delivery_id, number, sent_at,
        milliseconds, status, error)
    VALUES (%(attempt_id)s, %(tenant_id)s, %(id)s, %(attempt)s, %(sent_at)s, %(milliseconds)s,
        %(status)s, %(error)s)
), events AS ({_EVENTS}), bodies AS ({_BODIES})
SELECT count(*) FROM moved
"""


class Due(msgspec.Struct, frozen=True):
    """A claimed delivery, with what it tells of; columns of ``CLAIM``.

    Attributes:
        told: of no job; then everything of a job is None.
    """

    id: UUID
    tenant_id: UUID
    job_id: UUID | None
    data_key_version: int
    wrapped: bytes
    sealed_url: bytes
    origin: str
    attempt: int
    tries: int
    state: int
    model: str
    finished_at: datetime
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    error_code: str
    error_message: str
    metadata: dict[str, Any] | None
    told: dict[str, Any] | None
