"""Celery tasks of sources: thin shells."""

import threading
from functools import cache
from typing import Any, Final, LiteralString
from uuid import UUID

import psycopg
import structlog
from celery import shared_task
from django.db import connection as database

from knowledge.sources.runs import LEASE_SECONDS, run_source
from portal.core.env import env

log = structlog.get_logger(__name__)

# The row's tenant is not known before: the control plane, who runs it, sees one alone.
_CLAIM: Final[LiteralString] = """
UPDATE knowledge_documentsource
   SET wake_at = clock_timestamp() + make_interval(secs => %s), fence = fence + 1
 WHERE id IN (
    SELECT s.id FROM knowledge_documentsource s
      JOIN tenants_tenant t ON t.id = s.tenant_id AND t.state = 'active'
     WHERE s.wake_at <= clock_timestamp() ORDER BY s.wake_at LIMIT 1
       FOR UPDATE OF s SKIP LOCKED)
RETURNING tenant_id, id, fence
"""


@cache
def _slots() -> threading.Semaphore:
    return threading.Semaphore(env().source_slots)


@shared_task(name="knowledge.read_sources")
def read_sources() -> None:
    """Runs the sources that are due, one after the other, unless all slots are at it already."""
    if not _slots().acquire(blocking=False):
        return
    try:
        read = run_due(env().database_url("gateway"))
    finally:
        database.close()
        _slots().release()
    if read:
        log.info("sources.read", sources=read)


def run_due(database_url: str) -> int:
    """Runs every source that is due; returns how many there were.

    Args:
        database_url: of ``portal_gateway``, which crosses tenants and reads nothing but ids here.
    """
    read = 0
    with psycopg.connect(
        database_url, autocommit=True, application_name="sources", connect_timeout=5
    ) as claims:
        while (claimed := _claim(claims)) is not None:
            run_source(*claimed)
            read += 1
    return read


def _claim(claims: psycopg.Connection[tuple[Any, ...]]) -> tuple[UUID, UUID, int] | None:
    row = claims.execute(_CLAIM, [LEASE_SECONDS]).fetchone()
    if row is None:
        return None
    tenant_id, source_id, fence = row
    return tenant_id, source_id, fence
