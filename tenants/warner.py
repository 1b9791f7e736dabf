"""Warnings: limits of a day, a month or in total that were drawn on to a level.

One round reads the quota windows as they stand, without a lock, and records each level that is
reached and was not yet: a row and an audit event, in one statement. The row's unique key decides
between rounds that run at once, so that a level is told once however many workers there are.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
import psycopg

from audit.batch import insert_bodies, insert_events
from portal.core.ids import uuid7
from tenants.events import TenantsEvent
from tenants.models import LEVELS, METRICS, WARNED_WINDOWS
from tenants.windows import window_starts

_BATCH: Final = 1000

# Windows are past a hundred days after their warning: the longest is a month.
_FORGET: Final = """
DELETE FROM tenants_quotawarning
 WHERE warned_at < %s - interval '100 days' AND limit_name NOT LIKE '%%\\_total'
"""

_ZONES: Final = """
SELECT coalesce(%s, clock_timestamp()), array_agg(DISTINCT time_zone) FROM tenants_tenant
"""


_WHOLE_TABLES: Final = """
SELECT set_config('enable_seqscan', 'on', true), set_config('enable_hashjoin', 'on', true)
"""


def _taken(metric: str, span: str) -> str:
    used = f"w.{metric}_{span}_used"
    return used if metric == "requests" else f"{used} + w.{metric}_{span}_held"


_LIMITS: Final = [(metric, span) for metric in METRICS for span in WARNED_WINDOWS]
_START: Final = {"day": "n.day_start", "month": "n.month_start", "total": "n.created_at"}
_UNDER_WAY: Final = {
    "day": "n.day_start >= z.day_start",
    "month": "n.month_start >= z.month_start",
    "total": "true",
}


def _threshold(limit: str, level: str) -> str:
    """SQL of the least that is ``level`` percent of ``limit``, rounded up, without overflow."""
    rest = f"(100 - {level})"
    return f"{limit} - ({limit} / 100 * {rest} + {limit} %% 100 * {rest} / 100)"


# Most windows are below the first level: the cheap look at each comes before the rows of a limit.
_NEAR: Final = " OR ".join(
    f"{_taken(m, s)} >= {_threshold(f'q.{m}_{s}', str(min(LEVELS)))}" for m, s in _LIMITS
)
_NUMBERS: Final = ", ".join(
    f"q.{m}_{s} AS {m}_{s}_limit, {_taken(m, s)} AS {m}_{s}_taken" for m, s in _LIMITS
)
_BOUNDS: Final = ", ".join(
    f"('{m}_{s}', {_START[s]}, {_UNDER_WAY[s]}, n.{m}_{s}_limit, n.{m}_{s}_taken)"
    for m, s in _LIMITS
)
_LEVEL_ROWS: Final = ", ".join(f"({level}::smallint)" for level in LEVELS)

# When a day or a month began is reckoned in Python, as admission does it; the rule of PostgreSQL
# differs where clocks go back at midnight.
CROSSED: Final = f"""
WITH near AS MATERIALIZED (
    SELECT q.tenant_id, q.id, q.created_at, w.day_start, w.month_start, {_NUMBERS}
      FROM tenants_quotawindow w
      JOIN tenants_quota q ON q.id = w.quota_id
     WHERE {_NEAR}
)
SELECT n.tenant_id, n.id, b.name, b.started, l.level, b.maximum, b.taken
  FROM near n
  JOIN tenants_tenant t ON t.id = n.tenant_id
  JOIN json_to_recordset(%s) AS z(time_zone text, day_start timestamptz, month_start timestamptz)
       ON z.time_zone = t.time_zone
 CROSS JOIN LATERAL (VALUES {_BOUNDS}) AS b(name, started, under_way, maximum, taken)
 CROSS JOIN (VALUES {_LEVEL_ROWS}) AS l(level)
 WHERE b.under_way AND b.maximum > 0
   AND b.taken >= {_threshold("b.maximum", "l.level")}
   AND NOT EXISTS (
       SELECT 1 FROM tenants_quotawarning old
        WHERE old.tenant_id = n.tenant_id AND old.quota_id = n.id AND old.limit_name = b.name
          AND old.window_start = b.started AND old.level = l.level)
 LIMIT {_BATCH}
"""

_EVENTS: Final = insert_events(
    "told",
    {
        "id": "event_id",
        "recorded_at": "statement_timestamp()",
        "tenant_id": "tenant_id",
        "category": "'intent'",
        "action": f"'{TenantsEvent.QUOTA_WARN}'",
        "outcome": "'success'",
        "reason": "limit_name || ' at ' || level || ' percent'",
        "actor_type": "'system'",
        "actor_label": "'quota warnings'",
        "auth_method": "'internal'",
        "object_type": "'tenants.quota'",
        "object_id": "quota_id::text",
        "object_label": "label",
        "occurred_at": "warned_at",
    },
)
_BODIES: Final = insert_bodies(
    "told",
    {
        "event_id": "event_id",
        "recorded_at": "statement_timestamp()",
        "tenant_id": "tenant_id",
        "detail": "jsonb_build_object('limit', limit_name, 'level', level, 'maximum', maximum, "
        "'taken', taken, 'window_start', window_start)",
    },
)

# In the order of the quotas, as limits are set: two rounds never wait for each other in a circle.
# A quota that was deleted meanwhile has nobody to warn.
RECORD: Final = f"""
WITH x AS (
    SELECT * FROM json_to_recordset(%s) AS x(id uuid, event_id uuid, tenant_id uuid,
           quota_id uuid, limit_name text, window_start timestamptz, level smallint,
           maximum bigint, taken bigint)
), warned AS (
    INSERT INTO tenants_quotawarning (id, tenant_id, quota_id, limit_name, window_start, level,
        maximum, taken, warned_at)
    SELECT x.id, q.tenant_id, q.id, x.limit_name, x.window_start, x.level, x.maximum, x.taken, %s
      FROM x JOIN tenants_quota q ON q.id = x.quota_id
     ORDER BY q.id, x.limit_name, x.window_start, x.level
        ON CONFLICT DO NOTHING
    RETURNING *
), told AS MATERIALIZED (
    SELECT w.*, x.event_id, coalesce(q.api_key_id::text, q.user_id::text, t.name) AS label
      FROM warned w
      JOIN x ON x.id = w.id
      JOIN tenants_quota q ON q.id = w.quota_id
      JOIN tenants_tenant t ON t.id = w.tenant_id
), events AS ({_EVENTS}), bodies AS ({_BODIES})
SELECT count(*) FROM told
"""


class _Zone(msgspec.Struct):
    time_zone: str
    day_start: datetime
    month_start: datetime


def warn(connection: psycopg.Connection[Any], now: datetime | None = None) -> int:
    """One round as ``portal_gateway``; answers how many warnings it recorded.

    Args:
        connection: in autocommit, so that each batch of warnings commits by itself.
        now: the database's time if not given.

    Raises:
        psycopg.Error: the database refused something or is away; the next round makes up for it.
    """
    row = connection.execute(_ZONES, [now]).fetchone()
    assert row is not None
    moment, names = row
    zones = _encode([_zone(name, moment) for name in names or ()])
    recorded = 0
    while True:
        with connection.transaction():
            # This reads every window; the role's own settings are for look-ups of a request.
            connection.execute(_WHOLE_TABLES)
            crossed = connection.execute(CROSSED, [zones]).fetchall()
        if crossed:
            recorded += _record(connection, crossed, moment)
        if len(crossed) < _BATCH:
            break
    connection.execute(_FORGET, [moment])
    return recorded


def _zone(name: str, now: datetime) -> _Zone:
    starts = window_starts(now, name)
    return _Zone(name, starts["day"], starts["month"])


def _record(
    connection: psycopg.Connection[Any], crossed: Sequence[tuple[Any, ...]], now: datetime
) -> int:
    rows = [
        {
            "id": uuid7(),
            "event_id": uuid7(),
            "tenant_id": tenant_id,
            "quota_id": quota_id,
            "limit_name": name,
            "window_start": start,
            "level": level,
            "maximum": maximum,
            "taken": taken,
        }
        for tenant_id, quota_id, name, start, level, maximum, taken in crossed
    ]
    told = connection.execute(RECORD, [_encode(rows), now]).fetchone()
    return 0 if told is None else int(told[0])


def _encode(rows: Any) -> str:
    return msgspec.json.encode(rows).decode()
