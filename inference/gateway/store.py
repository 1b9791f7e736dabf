"""Admission's transaction: two round trips for a whole batch.

READ locks the quota windows in id order, so that two gateways never wait for each other in a
circle, and takes the time after the locks are held, so that time never runs backwards on a
window. WRITE is one statement: counters, jobs, payloads and audit rows stand or fall together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final
from uuid import UUID

import msgspec

from audit.batch import insert_bodies, insert_events
from inference.gateway.admission import Flow, Ledger, Share, Window
from inference.gateway.keys import KeyFacts
from inference.gateway.rows import ROW_COLUMNS, Row
from inference.pipelining import AsyncPipe
from portal.core.crypto import Peppers
from tenants.models.quotas import METRICS, WINDOWS

_LIMITS: Final = [*(f"{m}_{w}" for m in METRICS for w in WINDOWS), "concurrency"]


def _taken(metric: str, window: str) -> str:
    used = f"w.{metric}_{window}_used"
    return used if metric == "requests" else f"{used} + w.{metric}_{window}_held"


_TAKEN: Final = [(f"{m}_{w}", _taken(m, w)) for m in METRICS for w in WINDOWS]

# One look into the index for each: with an OR instead, all quotas of the tenant would be read.
_QUOTAS_OF_KEY: Final = " UNION ALL ".join(
    "SELECT id FROM tenants_quota "
    f"WHERE tenant_id = k.tenant_id AND user_id {user} AND api_key_id {key}"
    for user in ("IS NULL", "= k.user_id")
    for key in ("IS NULL", "= k.id")
)

READ_WINDOWS: Final = f"""
SELECT q.id, q.tenant_id, q.user_id, q.api_key_id, q.model_id, t.time_zone,
       w.minute_start, w.day_start, w.month_start, w.active,
       {", ".join(f"q.{name}" for name in _LIMITS)},
       {", ".join(expression for _, expression in _TAKEN)}
  FROM tenants_quotawindow w
  JOIN tenants_quota q ON q.id = w.quota_id
  JOIN tenants_tenant t ON t.id = w.tenant_id
 WHERE w.quota_id = ANY(ARRAY(
       SELECT q.id FROM tenants_apikey k CROSS JOIN LATERAL ({_QUOTAS_OF_KEY}) q
        WHERE k.public_id = ANY(%s)))
 ORDER BY w.quota_id
   FOR NO KEY UPDATE OF w
"""

# The time is taken when the windows are locked, and once; its subquery can't be merged into the
# outer one, for it is volatile.
READ_KEYS: Final = """
SELECT n.now, n.clocks, n.shares,
       k.public_id, k.id, k.tenant_id, k.user_id, k.name, k.kind, k.secret_hmac, k.pepper_version,
       k.generation, k.former_secret_hmac, k.former_pepper_version, k.former_until,
       k.session_hmac, k.scopes, k.allowed_models, k.allowed_networks, k.expires_at, k.revoked_at,
       k.state, k.time_zone, k.weight, k.is_active, k.version, k.wrapped
  FROM (SELECT clock_timestamp() AS now,
               (SELECT json_object_agg(c.deployment_id, c.virtual_time)::text
                  FROM inference_deploymentclock c
                  JOIN inference_deployment d ON d.id = c.deployment_id AND d.enabled
                 WHERE c.deployment_id = ANY(%(deployments)s)) AS clocks,
               (SELECT json_agg(json_build_array(
                           s.tenant_id, s.deployment_id, s.priority, s.virtual_time))::text
                  FROM inference_fairshare s
                 WHERE s.deployment_id = ANY(%(deployments)s)
                   AND s.tenant_id = ANY(ARRAY(SELECT tenant_id FROM tenants_apikey
                                                WHERE public_id = ANY(%(keys)s)))) AS shares) n
  LEFT JOIN (
       SELECT k.*, t.state, t.time_zone, t.weight, u.is_active, d.version, d.wrapped
         FROM tenants_apikey k
         JOIN tenants_tenant t ON t.id = k.tenant_id
         JOIN tenants_user u ON u.id = k.user_id
         JOIN LATERAL (SELECT version, wrapped FROM tenants_tenantdatakey
                        WHERE tenant_id = k.tenant_id ORDER BY version DESC LIMIT 1) d ON true
        WHERE k.public_id = ANY(%(keys)s)) k ON true
"""
_decode_clocks: Final = msgspec.json.Decoder(dict[UUID, int]).decode
_decode_shares: Final = msgspec.json.Decoder(list[tuple[UUID, UUID, int, int]]).decode


def _rolled(column: str, span: str, added: str) -> str:
    """A counter's new value: emptied if its window has ended, then what the batch adds."""
    value = f"w.{column}"
    if span != "total":
        value = f"CASE WHEN w.{span}_start = x.{span}_start THEN {value} ELSE 0 END"
    return f"{column} = {value}{added}"


_COUNTERS: Final = [
    *(_rolled(f"{m}_{w}_used", w, "") for m in ("tokens", "cost") for w in WINDOWS),
    *(_rolled(f"{m}_{w}_held", w, f" + x.{m}") for m in ("tokens", "cost") for w in WINDOWS),
    *(_rolled(f"requests_{w}_used", w, " + x.requests") for w in WINDOWS),
]

# Of a call that is not admitted only the event is written. What ``Row`` leaves out comes as NULL.
_EVENTS: Final = insert_events(
    "calls",
    {
        "id": "event_id",
        "recorded_at": "%(now)s::timestamptz",
        "tenant_id": "tenant_id",
        "category": "CASE WHEN job_id IS NULL THEN 'call' ELSE 'job' END",
        "action": "action",
        "outcome": "outcome",
        "reason": "coalesce(reason, '')",
        "actor_type": "CASE WHEN api_key_id IS NULL THEN 'anonymous' ELSE 'api_key' END",
        "actor_id": "api_key_id",
        "actor_label": "coalesce(key_name, CASE WHEN api_key_id IS NULL THEN 'anonymous' END, '')",
        "api_key_id": "api_key_id",
        "auth_method": "CASE WHEN api_key_id IS NULL THEN '' ELSE 'api_key' END",
        "address": "address",
        "request_id": "request_id",
        "client_request_id": "client_request_id",
        "object_type": "CASE WHEN job_id IS NULL THEN '' ELSE 'inference.job' END",
        "object_id": "coalesce(job_id::text, '')",
        "object_label": "coalesce(sku, '')",
        "occurred_at": "occurred_at",
    },
)
_BODIES: Final = insert_bodies(
    "calls WHERE detail IS NOT NULL",
    {
        "event_id": "event_id",
        "recorded_at": "%(now)s::timestamptz",
        "tenant_id": "tenant_id",
        "detail": "detail",
    },
)


def write_statement(
    *,
    row_columns: str = ROW_COLUMNS,
    deadline: str = "%(deadline)s::timestamptz",
    job_columns: Mapping[str, str] = MappingProxyType({}),
    payload_columns: Mapping[str, str] = MappingProxyType({}),
    further: str = "",
) -> str:
    """The statement that writes a batch.

    Args:
        row_columns: a row of ``%(calls)s`` as ``json_to_recordset`` reads it.
        deadline: a job's, as an expression over that row.
        job_columns, payload_columns: column -> expression over that row, of columns that a
            gateway leaves to their defaults.
        further: common table expressions that write more, each with a comma in front.
    """
    jobs, job_values = _more(job_columns)
    payloads, payload_values = _more(payload_columns)
    return f"""
WITH moved AS (
    SELECT * FROM json_to_recordset(%(windows)s) AS x(quota_id uuid, minute_start timestamptz,
           day_start timestamptz, month_start timestamptz, tokens bigint, requests bigint,
           cost bigint)
), windows AS (
    UPDATE tenants_quotawindow w SET
        minute_start = x.minute_start, day_start = x.day_start, month_start = x.month_start,
        active = w.active + x.requests,
        {", ".join(_COUNTERS)}
      FROM moved x
     WHERE w.quota_id = x.quota_id AND w.quota_id = ANY(ARRAY(SELECT quota_id FROM moved))
), shares AS (
    INSERT INTO inference_fairshare (tenant_id, deployment_id, priority, virtual_time)
    SELECT tenant_id, deployment_id, priority, virtual_time
      FROM json_to_recordset(%(shares)s)
        AS x(tenant_id uuid, deployment_id uuid, priority smallint, virtual_time bigint)
    ON CONFLICT (tenant_id, deployment_id, priority)
    DO UPDATE SET virtual_time = EXCLUDED.virtual_time
), calls AS MATERIALIZED (
    SELECT * FROM json_to_recordset(%(calls)s) AS x({row_columns})
), jobs AS (
    INSERT INTO inference_job (id, tenant_id, deployment_id, model_id, api_key_id, user_id, sku,
        kind, state, stream, parameters, request_id, gateway, quota_ids, prompt_tokens,
        reserved_tokens, reserved_cost, prompt_price, completion_price, currency, start_tag,
        attempts, fence, worker, admitted_at, deadline, watermark, finish_reason, error_code,
        error_message{jobs})
    SELECT job_id, tenant_id, deployment_id, model_id, api_key_id, user_id, sku,
        split_part(action, '.', 2), 0, coalesce(stream, false), parameters, request_id, %(gateway)s,
        coalesce(quota_ids, '{{}}'), coalesce(prompt_tokens, 0), coalesce(reserved_tokens, 0),
        coalesce(reserved_cost, 0), coalesce(prompt_price, 0), coalesce(completion_price, 0),
        currency, coalesce(start_tag, 0), 0, 0, '', %(now)s::timestamptz,
        {deadline}, 0, '', '', ''{job_values}
      FROM calls WHERE job_id IS NOT NULL
), payloads AS (
    INSERT INTO inference_jobpayload (job_id, tenant_id, data_key_version, prompt{payloads})
    SELECT job_id, tenant_id, data_key_version, decode(prompt, 'base64'){payload_values}
      FROM calls WHERE job_id IS NOT NULL
), events AS ({_EVENTS}), bodies AS ({_BODIES}){further}
SELECT 1
"""


def _more(columns: Mapping[str, str]) -> tuple[str, str]:
    return "".join(f", {c}" for c in columns), "".join(f", {v}" for v in columns.values())


WRITE: Final = write_statement()
WRITE_FALLBACKS: Final = write_statement(
    row_columns=f"{ROW_COLUMNS}, fallbacks jsonb", payload_columns={"fallbacks": "fallbacks"}
)
"""For batches in which a job has fallbacks: few, and each part of a statement has its price."""

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Writes:
    """Everything one batch writes."""

    windows: list[dict[str, Any]]
    shares: list[dict[str, Any]]
    calls: Sequence[Row]
    now: datetime
    deadline: datetime
    gateway: str

    def parameters(self) -> dict[str, str]:
        return {
            "windows": _encode(self.windows).decode(),
            "shares": _encode(self.shares).decode(),
            "calls": _encode(self.calls).decode(),
            "now": self.now.isoformat(),
            "deadline": self.deadline.isoformat(),
            "gateway": self.gateway,
        }


async def read(
    pipe: AsyncPipe,
    public_ids: Sequence[str],
    deployment_ids: Sequence[UUID],
    peppers: Peppers,
) -> Ledger:
    """Locks and loads what a batch is decided over, in one round trip."""
    ids = list(public_ids)
    windows = pipe.execute(READ_WINDOWS, [ids])
    keys = pipe.execute(READ_KEYS, {"keys": ids, "deployments": list(deployment_ids)})
    await pipe.receive()
    return ledger_of(windows.fetchall(), keys.fetchall(), peppers)


def ledger_of(
    windows: Sequence[Sequence[Any]], keys: Sequence[Sequence[Any]], peppers: Peppers
) -> Ledger:
    """The ledger in the rows of READ_WINDOWS and READ_KEYS."""
    now, clocks, shares = keys[0][:_COMMON]
    found = [_key(row[_COMMON:]) for row in keys if row[_COMMON] is not None]
    return Ledger(
        keys={key.public_id: key for key in found},
        windows=[_window(row) for row in windows],
        clocks=_decode_clocks(clocks or "{}"),
        shares={(t, d, p): Share(v) for t, d, p, v in _decode_shares(shares or "[]")},
        now=now,
        peppers=peppers,
    )


_COMMON: Final = 3


def _key(row: Sequence[Any]) -> KeyFacts:
    (public_id, key_id, tenant_id, user_id, name, kind, secret, pepper, generation, former_secret,
     former_pepper, former_until, session, scopes, allowed, networks, expires, revoked, state, zone,
     weight, active, version, wrapped) = row  # fmt: skip
    return KeyFacts(
        public_id=public_id,
        id=key_id,
        tenant_id=tenant_id,
        user_id=user_id,
        name=name,
        kind=kind,
        secret_hmac=secret,
        pepper_version=pepper,
        generation=generation,
        former_secret_hmac=former_secret,
        former_pepper_version=former_pepper,
        former_until=former_until,
        session_hmac=session,
        scopes=frozenset(scopes),
        # An empty list means every model and every network, as in the form.
        allowed_models=frozenset(allowed) if allowed else None,
        allowed_networks=tuple(networks) if networks else None,
        expires_at=expires,
        revoked_at=revoked,
        tenant_state=state,
        time_zone=zone,
        weight=weight,
        user_active=active,
        data_key_version=version,
        data_key=wrapped,
    )


_FIXED: Final = 10


def _window(row: Sequence[Any]) -> Window:
    quota_id, tenant_id, user_id, api_key_id, model_id, zone, minute, day, month, active = row[
        :_FIXED
    ]
    limits = row[_FIXED : _FIXED + len(_LIMITS)]
    taken = row[_FIXED + len(_LIMITS) :]
    return Window(
        quota_id=quota_id,
        tenant_id=tenant_id,
        user_id=user_id,
        api_key_id=api_key_id,
        model_id=model_id,
        limits={
            name: value for name, value in zip(_LIMITS, limits, strict=True) if value is not None
        },
        starts={"minute": minute, "day": day, "month": month},
        taken={name: value for (name, _), value in zip(_TAKEN, taken, strict=True)},
        active=active,
        time_zone=zone,
    )


def window_rows(windows: Sequence[Window]) -> list[dict[str, Any]]:
    """The windows that the batch adds to, as rows of WRITE."""
    return [
        {
            "quota_id": w.quota_id,
            "minute_start": w.starts["minute"],
            "day_start": w.starts["day"],
            "month_start": w.starts["month"],
            "tokens": w.added_tokens,
            "requests": w.added_requests,
            "cost": w.added_cost,
        }
        for w in windows
        if w.added_requests
    ]


def share_rows(shares: Mapping[Flow, Share]) -> list[dict[str, Any]]:
    """The fair shares that the batch moved, as rows of WRITE."""
    return [
        {
            "tenant_id": tenant,
            "deployment_id": deployment,
            "priority": priority,
            "virtual_time": share.virtual_time,
        }
        for (tenant, deployment, priority), share in shares.items()
        if share.moved
    ]


def write(pipe: AsyncPipe, writes: Writes) -> None:
    """Adds one batch's rows to what is sent next; the end of the pipeline commits them."""
    fallbacks = any(row.fallbacks is not None for row in writes.calls)
    pipe.execute(WRITE_FALLBACKS if fallbacks else WRITE, writes.parameters())
