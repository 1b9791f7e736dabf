"""How far the usage rollups are, told to Prometheus. Read as ``portal_app``."""

from typing import Any, Final

import psycopg

from portal.core.metrics import Families, gauge

_WATERMARK: Final = """
SELECT extract(epoch FROM complete_until)::float, extract(epoch FROM seen_at)::float
  FROM tenants_usagewatermark
"""


async def read_usage(connection: psycopg.AsyncConnection[Any]) -> Families:
    """The figures of the rollups.

    Raises:
        psycopg.Error: the database is away.
    """
    rows = await (await connection.execute(_WATERMARK)).fetchall()
    return [
        gauge(
            "freehold_usage_complete_until_timestamp_seconds",
            "Every charge recorded before it is rolled up; absent before the first rollup.",
            (),
            [((), complete) for complete, _ in rows if complete is not None],
        ),
        gauge(
            "freehold_usage_last_rollup_timestamp_seconds",
            "When the ledger was last looked at.",
            (),
            [((), seen) for _, seen in rows],
        ),
    ]
