"""Settlement: a job's one way out of the live states.

Worker, sweeper and gateway all end jobs through ``settle``. The statement checks the fence and
the state, so that of two that try, one wins; what it does stands or falls together: the job
terminal, the ledger entry, the reservation released, the audit outcome, the payload gone.

What is charged: the prompt and the completion tokens that were delivered, if any were or the
job succeeded; nothing otherwise. What a crash hid is the operator's loss.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec
import psycopg

from audit.batch import insert_bodies, insert_events
from inference.models.jobs import JobState
from inference.pipelining import Answer, Connection
from inference.returns import End
from portal.core.ids import uuid7
from tenants.models.ledger import Measure
from tenants.models.quotas import WINDOWS

# Windows first, in id order, as admission locks them: no circle of waiting can form.
LOCK_WINDOWS: Final = """
SELECT 1 FROM tenants_quotawindow
 WHERE quota_id = ANY(ARRAY(SELECT unnest(quota_ids) FROM inference_job WHERE id = ANY(%s)))
 ORDER BY quota_id
   FOR NO KEY UPDATE
"""


def _sums() -> str:
    """What each window gives back and takes, over jobs that were admitted in it."""
    parts = []
    for span in WINDOWS:
        within = "" if span == "total" else f" FILTER (WHERE c.admitted_at >= v.{span}_start)"
        for metric in ("tokens", "cost"):
            parts.append(f"coalesce(sum(c.reserved_{metric}){within}, 0) AS {metric}_{span}_back")
            parts.append(f"coalesce(sum(c.charged_{metric}){within}, 0) AS {metric}_{span}_charged")
    return ", ".join(parts)


def _moves() -> str:
    return ", ".join(
        f"{metric}_{span}_held = w.{metric}_{span}_held - s.{metric}_{span}_back, "
        f"{metric}_{span}_used = w.{metric}_{span}_used + s.{metric}_{span}_charged"
        for span in WINDOWS
        for metric in ("tokens", "cost")
    )


_STATE_WORDS: Final = " ".join(f"WHEN {s.value} THEN '{s.name.lower()}'" for s in JobState)

_DETAIL: Final = f"""jsonb_build_object(
        'state', CASE state {_STATE_WORDS} END, 'finish_reason', finish_reason,
        'model_digest', digest, 'parameters', parameters, 'prompt_tokens', prompt,
        'completion_tokens', completion_charged, 'cost', charged_cost, 'currency', currency,
        'measure', measure, 'attempts', attempts, 'fence', fence, 'worker', worker,
        'admitted_at', admitted_at, 'started_at', claimed_at, 'first_token_at', first_token_at)"""

_EVENTS: Final = insert_events(
    "charged c",
    {
        "id": "event_id",
        "recorded_at": "finished_at",
        "tenant_id": "tenant_id",
        "category": "'job'",
        "action": "'inference.' || kind",
        "outcome": f"CASE state WHEN {JobState.SUCCEEDED.value} THEN 'success' ELSE 'failure' END",
        "reason": "error_code",
        "actor_type": "'api_key'",
        "actor_id": "api_key_id",
        "actor_label": "(SELECT name FROM tenants_apikey k WHERE k.id = c.api_key_id)",
        "api_key_id": "api_key_id",
        "auth_method": "'api_key'",
        "request_id": "request_id",
        "object_type": "'inference.job'",
        "object_id": "c.id::text",
        "object_label": "sku",
        "occurred_at": "finished_at",
    },
)
_BODIES: Final = insert_bodies(
    "charged",
    {
        "event_id": "event_id",
        "recorded_at": "finished_at",
        "tenant_id": "tenant_id",
        "detail": _DETAIL,
    },
)

# An answer is kept in its prompt's place: as long as a business system asked for, or for a minute
# if a gateway's caller could not be reached.
_PAYLOADS_KEPT: Final = """
), kept AS (
    UPDATE inference_jobpayload p SET answer = decode(c.answer, 'base64'), prompt = '',
        fallbacks = NULL,
        delete_after = clock_timestamp() + coalesce(p.result_seconds, 60) * interval '1 second'
      FROM charged c
     WHERE p.job_id = c.id AND c.answer IS NOT NULL
       AND p.job_id = ANY(ARRAY(SELECT id FROM charged WHERE answer IS NOT NULL))
"""


# ``state + 0`` keeps the planner off the partial indexes on state, which hold every finished job
# until they are vacuumed. ``= ANY(ARRAY(...))`` and ``OFFSET 0`` bind each look-up to its index:
# a join would be planned by the size that the table had once.
def _settle(payloads_kept: str) -> str:
    return f"""
WITH x AS (
    SELECT * FROM json_to_recordset(%s) AS x(job_id uuid, fence integer, from_state smallint,
        to_state smallint, completion integer, finish_reason text, error_code text,
        error_message text, measure text, lapsed boolean, answer text, ledger_id uuid,
        event_id uuid, digest text, first_token_at timestamptz)
), done AS (
    UPDATE inference_job j SET state = x.to_state, watermark = x.completion,
        finish_reason = coalesce(x.finish_reason, ''), error_code = coalesce(x.error_code, ''),
        error_message = coalesce(x.error_message, ''), finished_at = clock_timestamp(),
        lease_until = NULL, first_token_at = coalesce(j.first_token_at, x.first_token_at)
      FROM x
     WHERE j.id = x.job_id AND j.state + 0 = x.from_state
       AND (x.fence IS NULL OR j.fence = x.fence)
       AND (x.lapsed IS NULL OR j.lease_until < clock_timestamp())
    RETURNING j.id, j.tenant_id, j.model_id, j.api_key_id, j.user_id, j.sku, j.kind, j.state,
        j.parameters, j.request_id, j.gateway, j.quota_ids, j.prompt_tokens, j.reserved_tokens,
        j.reserved_cost, j.prompt_price, j.completion_price, j.currency, j.attempts, j.fence,
        j.worker, j.admitted_at, j.claimed_at, j.first_token_at, j.finished_at, j.finish_reason,
        j.error_code, j.watermark AS completion, x.measure, x.ledger_id, x.event_id,
        coalesce(x.digest, '') AS digest, x.answer
), charged AS (
    SELECT d.*, t.prompt, t.completion_charged, t.prompt + t.completion_charged AS charged_tokens,
           (t.prompt * d.prompt_price + t.completion_charged * d.completion_price + 999) / 1000
               AS charged_cost
      FROM done d, LATERAL (
        SELECT CASE WHEN d.completion > 0 OR d.state = {JobState.SUCCEEDED.value}
                    THEN d.prompt_tokens::bigint ELSE 0 END AS prompt,
               d.completion::bigint AS completion_charged) t
), ledger AS (
    INSERT INTO tenants_ledgerentry (id, tenant_id, job_id, api_key_id, user_id, model_id, sku,
        prompt_tokens, completion_tokens, cost, currency, measure, admitted_at, recorded_at)
    SELECT ledger_id, tenant_id, id, api_key_id, user_id, model_id, sku, prompt,
        completion_charged, charged_cost, currency, measure, admitted_at, finished_at
      FROM charged WHERE charged_tokens > 0
), sums AS (
    SELECT v.quota_id, count(*) AS jobs, {_sums()}
      FROM charged c CROSS JOIN LATERAL unnest(c.quota_ids) AS of_quota(quota_id)
     CROSS JOIN LATERAL (SELECT quota_id, minute_start, day_start, month_start
                           FROM tenants_quotawindow WHERE quota_id = of_quota.quota_id OFFSET 0) v
     GROUP BY v.quota_id
), windows AS (
    UPDATE tenants_quotawindow w SET active = w.active - s.jobs, {_moves()}
      FROM sums s
     WHERE w.quota_id = s.quota_id AND w.quota_id = ANY(ARRAY(SELECT quota_id FROM sums))
), events AS ({_EVENTS}), bodies AS ({_BODIES}
), gone AS (
    DELETE FROM inference_jobpayload
     WHERE job_id = ANY(ARRAY(SELECT id FROM charged WHERE answer IS NULL))
{payloads_kept})
SELECT id, state, gateway, prompt, completion_charged, fence FROM charged
"""


SETTLE: Final = _settle("")
SETTLE_KEEPING: Final = _settle(_PAYLOADS_KEPT)
"""For batches in which an answer is kept: few, and each part of a statement has its price."""


class Settlement(msgspec.Struct, frozen=True):
    """How one job ends.

    Attributes:
        fence: the claim that speaks; None where the job was never claimed.
        from_state: the live state that it must be in.
        completion_tokens: the watermark: completion tokens delivered.
        lapsed: settle only if the lease has run out (the sweeper must not end a job whose
            worker has just renewed it).
        answer: encrypted answer to keep: a business system's, or one whose caller could not be
            reached.
        stop: the place of the stop sequence that ended it, or -1; told to the caller, not kept.
        shown: whether the caller may have seen text; it ends for good then, see `fallback`.
    """

    job_id: UUID
    from_state: JobState
    to_state: JobState
    completion_tokens: int = 0
    fence: int | None = None
    finish_reason: str = ""
    error_code: str = ""
    error_message: str = ""
    measure: Measure = Measure.MEASURED
    lapsed: bool = False
    answer: str | None = None
    digest: str = ""
    first_token_at: datetime | None = None
    stop: int = -1
    shown: bool = True

    def row(self) -> "_Row":
        return _Row(
            job_id=self.job_id,
            fence=self.fence,
            from_state=self.from_state.value,
            to_state=self.to_state.value,
            completion=self.completion_tokens,
            measure=self.measure.value,
            ledger_id=uuid7(),
            event_id=uuid7(),
            finish_reason=self.finish_reason,
            error_code=self.error_code[:60],
            error_message=self.error_message.replace("\x00", "")[:500],
            lapsed=self.lapsed,
            answer=self.answer,
            digest=self.digest,
            first_token_at=self.first_token_at,
        )


class _Row(msgspec.Struct, omit_defaults=True, kw_only=True, gc=False):
    """A settlement as the statement reads it; what has its default is not sent."""

    job_id: UUID
    fence: int | None = None
    from_state: int
    to_state: int
    completion: int
    measure: str
    ledger_id: UUID
    event_id: UUID
    finish_reason: str = ""
    error_code: str = ""
    error_message: str = ""
    lapsed: bool = False
    answer: str | None = None
    digest: str = ""
    first_token_at: datetime | None = None


class Settled(msgspec.Struct, frozen=True):
    """A job that this settlement ended, and what it was charged, in tokens."""

    job_id: UUID
    state: JobState
    gateway: str
    prompt_tokens: int
    completion_tokens: int
    fence: int


def end_of(settled: Settled, asked: Settlement) -> End:
    """What the job's gateway is told of a settlement that was committed."""
    return End(
        settled.job_id.bytes,
        settled.fence,
        settled.state.value,
        asked.finish_reason,
        settled.prompt_tokens,
        settled.completion_tokens,
        asked.error_code,
        asked.error_message,
        asked.stop,
    )


_encode = msgspec.json.Encoder().encode


def statements(settlements: Sequence[Settlement]) -> list[tuple[str, list[Any]]]:
    """The statements that settle a batch, with their parameters; the last one answers."""
    # In id order: the heartbeat locks jobs in the same order.
    ordered = sorted(settlements, key=lambda s: s.job_id)
    query = SETTLE_KEEPING if any(s.answer is not None for s in ordered) else SETTLE
    rows = _encode([s.row() for s in ordered]).decode()
    return [(LOCK_WINDOWS, [[s.job_id for s in ordered]]), (query, [rows])]


def settle(connection: Connection, settlements: Sequence[Settlement]) -> Answer:
    """Sends the settlement of a batch; to be called inside a transaction.

    A pipe waits for nothing here: ``settled`` reads the answer once it has come.
    """
    lock, settling = statements(settlements)
    connection.execute(*lock, prepare=True)
    return connection.execute(*settling, prepare=True)


def settled(cursor: Answer) -> list[Settled]:
    """The jobs that were ended; one that is missing was no longer ours to end."""
    return [
        Settled(job_id, JobState(state), gateway, prompt, completion, fence)
        for job_id, state, gateway, prompt, completion, fence in cursor.fetchall()
    ]


async def settle_async(
    connection: psycopg.AsyncConnection[Any], settlements: Sequence[Settlement]
) -> None:
    """``settle`` in one transaction of an async connection."""
    async with connection.transaction():
        for query, parameters in statements(settlements):
            await connection.execute(query, parameters, prepare=True)
