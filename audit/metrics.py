"""Whether the trail has room, told to Prometheus. Read as ``portal_app``, which reads no event."""

from typing import Any, Final

import psycopg

from portal.core.metrics import Families, gauge

_PARTITIONS: Final = """
SELECT extract(epoch FROM min(until) AT TIME ZONE 'UTC')::float
  FROM (SELECT max(to_date(right(c.relname, 7), 'YYYY_MM') + interval '1 month') AS until
          FROM pg_inherits i
          JOIN pg_class c ON c.oid = i.inhrelid
          JOIN pg_class p ON p.oid = i.inhparent
         WHERE p.relname IN ('audit_event', 'audit_body', 'audit_leaf')
           AND c.relname ~ '_[0-9]{4}_[0-9]{2}$'
         GROUP BY p.relname) ends
"""


async def read_trail(connection: psycopg.AsyncConnection[Any]) -> Families:
    """The figures of the trail's tables.

    Raises:
        psycopg.Error: the database is away.
    """
    rows = await (await connection.execute(_PARTITIONS)).fetchall()
    return [
        gauge(
            "freehold_audit_partitions_until_timestamp_seconds",
            "The trail has partitions for everything before it.",
            (),
            [((), until) for (until,) in rows if until is not None],
        )
    ]
