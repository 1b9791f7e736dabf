"""Fallback: a job that failed before its caller saw anything goes on to its route's next target.

A job's payload keeps where else it may run, in order. Whoever is about to end the job moves it
first: one statement that checks the fence and the state, so that of two that try, one wins. What
was moved is queued again under the same id, on another deployment and at its price; ending it no
longer matches, and is done by whoever ends it there. The reservation of its admission goes with
it, for it was made for the dearest target.

What moves: a job whose engine or worker was lost for good, and one that waits where no worker is
live. What is the caller's fault fails everywhere; a job whose time is up has none left; an answer
of which something was shown can't go on in another model's words.
"""

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

import msgspec
import psycopg

from audit.batch import insert_bodies, insert_events
from inference.backlog import READY
from inference.fair_order import EARLIEST_TAG_SQL, FLOW_WEIGHT_SQL, VIRTUAL_UNIT
from inference.models.jobs import JobState
from inference.pipelining import Answer, Connection
from inference.settlement import LOCK_WINDOWS, Settlement
from portal.core.ids import uuid7

MOVING_CODES: Final = frozenset({"engine_failed", "worker_lost"})
"""Errors of a deployment rather than of a request."""

FALLBACK_ACTION: Final = "inference.fallback"

_EVENTS: Final = insert_events(
    "placed p",
    {
        "id": "event_id",
        "recorded_at": "clock_timestamp()",
        "tenant_id": "tenant_id",
        "category": "'job'",
        "action": f"'{FALLBACK_ACTION}'",
        # Not an outcome: the job has that once, at its end.
        "outcome": "'requested'",
        "reason": "reason",
        "actor_type": "'api_key'",
        "actor_id": "api_key_id",
        "actor_label": "(SELECT name FROM tenants_apikey k WHERE k.id = p.api_key_id)",
        "api_key_id": "api_key_id",
        "auth_method": "'api_key'",
        "request_id": "request_id",
        "object_type": "'inference.job'",
        "object_id": "p.id::text",
        "object_label": "target->>'sku'",
        "occurred_at": "clock_timestamp()",
    },
)
_BODIES: Final = insert_bodies(
    "placed",
    {
        "event_id": "event_id",
        "recorded_at": "clock_timestamp()",
        "tenant_id": "tenant_id",
        "detail": """jsonb_build_object('from', jsonb_build_object('deployment', from_deployment,
            'model', sku), 'to', jsonb_build_object('deployment', to_deployment,
            'model', target->>'sku'), 'attempts', attempts, 'fence', fence, 'worker', worker)""",
    },
)

_WEIGHT: Final = FLOW_WEIGHT_SQL.format(weight="t.weight", priority="h.priority")

# The first target left that is enabled and has a live worker; a job that finds none stays. It
# queues behind what its tenant has waiting there in its class, as if it had been admitted now.
MOVE: Final = f"""
WITH x AS (
    SELECT * FROM json_to_recordset(%s) AS x(job_id uuid, fence integer, from_state smallint,
        reason text, lapsed boolean, event_id uuid)
), held AS (
    SELECT j.id, j.tenant_id, j.deployment_id, j.sku, j.api_key_id, j.request_id, j.attempts,
           j.fence, j.worker, j.reserved_tokens, j.priority, x.reason, x.event_id
      FROM x JOIN inference_job j ON j.id = x.job_id
     WHERE j.state + 0 = x.from_state AND (x.fence IS NULL OR j.fence = x.fence)
       AND (x.lapsed IS NULL OR j.lease_until < clock_timestamp())
       AND j.cancel_requested_at IS NULL AND j.deadline > clock_timestamp()
       AND NOT (j.stream AND (j.watermark > 0 OR j.first_token_at IS NOT NULL))
     ORDER BY j.id
       FOR NO KEY UPDATE OF j
), found AS (
    SELECT h.*, n.target, n.rest, n.to_id, n.to_deployment, n.queue,
           (SELECT name FROM inference_deployment WHERE id = h.deployment_id) AS from_deployment,
           (h.reserved_tokens * {VIRTUAL_UNIT} / ({_WEIGHT}))::bigint AS virtual_length
      FROM held h
     CROSS JOIN LATERAL (SELECT fallbacks FROM inference_jobpayload
                          WHERE job_id = h.id AND fallbacks IS NOT NULL OFFSET 0) p
     CROSS JOIN LATERAL (
           SELECT f.target, p.fallbacks - (f.n - 1)::integer AS rest, d.id AS to_id,
                  d.name AS to_deployment, d.queue
             FROM jsonb_array_elements(p.fallbacks) WITH ORDINALITY AS f(target, n)
             JOIN inference_deployment d
               ON d.id = (f.target->>'deployment_id')::uuid AND d.enabled
            WHERE EXISTS (SELECT 1 FROM inference_worker w
                           WHERE w.deployment_id = d.id AND {READY} OFFSET 0)
            ORDER BY f.n LIMIT 1) n
      JOIN tenants_tenant t ON t.id = h.tenant_id
), placed AS (
    SELECT f.*, {EARLIEST_TAG_SQL.format(tag="at::bigint")} | priority AS start_tag
      FROM (SELECT f.*, greatest(
               (SELECT virtual_time FROM inference_deploymentclock WHERE deployment_id = f.to_id),
               (SELECT max(s.virtual_time) FROM inference_fairshare s
                 WHERE s.tenant_id = f.tenant_id AND s.deployment_id = f.to_id
                   AND s.priority = f.priority),
               (SELECT max(q.start_tag) FROM inference_job q
                 WHERE q.deployment_id = f.to_id AND q.state = {JobState.QUEUED.value}
                   AND q.tenant_id = f.tenant_id AND q.priority = f.priority))
           + sum(f.virtual_length) OVER (PARTITION BY f.tenant_id, f.to_id, f.priority
                                         ORDER BY f.id)
           - f.virtual_length AS at
      FROM found f) f
), moved AS (
    UPDATE inference_job j SET state = {JobState.QUEUED.value}, deployment_id = p.to_id,
        model_id = (p.target->>'model_id')::uuid, sku = p.target->>'sku',
        prompt_tokens = (p.target->>'prompt_tokens')::integer,
        prompt_price = (p.target->>'prompt_price')::bigint,
        completion_price = (p.target->>'completion_price')::bigint, start_tag = p.start_tag,
        lease_until = NULL, worker = '', claimed_at = NULL, first_token_at = NULL
      FROM placed p WHERE j.id = p.id
), payloads AS (
    UPDATE inference_jobpayload y SET fallbacks = p.rest,
        prompt = coalesce(decode(p.target->>'prompt', 'base64'), y.prompt)
      FROM placed p
     WHERE y.job_id = p.id AND y.job_id = ANY(ARRAY(SELECT id FROM placed))
), events AS ({_EVENTS}), bodies AS ({_BODIES})
SELECT id, queue FROM placed
"""


class Move(msgspec.Struct, frozen=True):
    """A job that may go on elsewhere.

    Attributes:
        fence: the claim that speaks; None where nobody holds it.
        reason: the error that would have ended it.
        lapsed: only if its lease has run out.
    """

    job_id: UUID
    from_state: JobState
    reason: str
    fence: int | None = None
    lapsed: bool = False


class _Row(msgspec.Struct, omit_defaults=True, kw_only=True, gc=False):
    job_id: UUID
    from_state: int
    reason: str
    event_id: UUID
    fence: int | None = None
    lapsed: bool = False


_encode = msgspec.json.Encoder().encode


def move_of(settlement: Settlement) -> Move | None:
    """The move that is tried before a job ends like that; None where it has to end."""
    if settlement.shown or settlement.error_code not in MOVING_CODES:
        return None
    if settlement.to_state not in (JobState.FAILED, JobState.DEAD):
        return None
    return Move(
        settlement.job_id,
        settlement.from_state,
        settlement.error_code,
        settlement.fence,
        settlement.lapsed,
    )


def send_moves(
    connection: Connection, moves: Sequence[Move], *, with_windows_of: Sequence[UUID]
) -> Answer:
    """Sends moves, inside a transaction; ``moved`` reads which of them took place.

    Args:
        with_windows_of: every job of the transaction. Its quota windows are locked first, though a
            move changes none: whoever ends jobs afterwards would lock them behind the jobs.
    """
    rows = [
        _Row(
            job_id=m.job_id,
            from_state=m.from_state.value,
            reason=m.reason,
            event_id=uuid7(),
            fence=m.fence,
            lapsed=m.lapsed,
        )
        for m in sorted(moves, key=lambda m: m.job_id)
    ]
    connection.execute(LOCK_WINDOWS, [sorted(with_windows_of)], prepare=True)
    return connection.execute(MOVE, [_encode(rows).decode()], prepare=True)


def moved(cursor: Answer) -> dict[UUID, str]:
    """The jobs that were moved, and the queue each waits in now."""
    return dict(cursor.fetchall())


# Jobs that wait where no worker takes work, and could go on elsewhere.
_STRANDED: Final = f"""
SELECT j.id FROM inference_deployment d
  JOIN inference_job j ON j.deployment_id = d.id AND j.state = {JobState.QUEUED.value}
  JOIN inference_jobpayload p ON p.job_id = j.id AND p.fallbacks IS NOT NULL
 WHERE NOT EXISTS (SELECT 1 FROM inference_worker w WHERE w.deployment_id = d.id AND {READY})
 LIMIT %s
"""


def stranded(connection: psycopg.Connection[Any], limit: int) -> list[Move]:
    """Moves of jobs that wait where no worker is live."""
    rows = connection.execute(_STRANDED, [limit]).fetchall()
    return [Move(job_id, JobState.QUEUED, "worker_lost") for (job_id,) in rows]
