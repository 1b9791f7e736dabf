"""Celery tasks of closings and exports: thin shells. What there is to do stands in PostgreSQL."""

from typing import Any, Final, LiteralString

import psycopg
import structlog
from celery import shared_task

from portal.core.env import env
from tenants.closing.deletion import work_on
from tenants.closing.exporting import expire_export, make_export

log = structlog.get_logger(__name__)

_CLOSINGS: Final[LiteralString] = """
SELECT tenant_id, id FROM tenants_tenantclosure
 WHERE state = 'deleting' OR (state = 'closing' AND (settled_at IS NULL OR delete_after < now()))
 ORDER BY id
"""
_EXPIRED: Final[LiteralString] = """
SELECT tenant_id, id FROM tenants_tenantexport WHERE state = 'ready' AND expires_at < now()
"""
# One at a time, whoever asks: an io worker has few threads, and other tasks that can't wait.
_NEXT_EXPORT: Final[LiteralString] = """
SELECT tenant_id, id FROM tenants_tenantexport e
 WHERE state IN ('waiting', 'running') AND (lease_until IS NULL OR lease_until < now())
   AND NOT EXISTS (
       SELECT 1 FROM tenants_tenantexport r WHERE r.state = 'running' AND r.lease_until > now())
 ORDER BY asked_at LIMIT 1
"""


# Of all io workers one deletes: the digests of a large tenant take longer than the beat's pause,
# and threads that all made them would leave none for the sweeper.
_ALONE: Final[LiteralString] = "SELECT pg_try_advisory_lock(4919131752989213698)"


def _connect() -> psycopg.Connection[tuple[Any, ...]]:
    """As ``portal_gateway``: it crosses tenants, and reads nothing but ids here."""
    return psycopg.connect(
        env().database_url("gateway"),
        autocommit=True,
        application_name="closing",
        connect_timeout=5,
    )


@shared_task(name="tenants.close")
def work_on_closings() -> None:
    """A few seconds' steps for each tenant that is closing."""
    with _connect() as connection:
        if connection.execute(_ALONE).fetchone() == (True,):
            for tenant_id, _ in connection.execute(_CLOSINGS).fetchall():
                work_on(tenant_id)


@shared_task(name="tenants.export")
def work_on_exports() -> None:
    """Makes the export that has waited longest, and deletes the files whose time is over."""
    with _connect() as connection:
        expired = connection.execute(_EXPIRED).fetchall()
        following = connection.execute(_NEXT_EXPORT).fetchall()
    for tenant_id, export_id in expired:
        expire_export(tenant_id, export_id)
    for tenant_id, export_id in following:
        try:
            make_export(tenant_id, export_id)
        except OSError as fault:
            # The disk is full or away: another attempt begins when the lease has run out.
            log.error("export.failed", export_id=str(export_id), error=str(fault))
