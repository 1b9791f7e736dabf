"""Whether connections work: looked at one after the other, told to the trail when it changes."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any, Final, LiteralString
from uuid import UUID

import msgspec
import psycopg
import structlog
from django.db import connection as database
from django.utils import timezone

from audit.models import Outcome
from knowledge.connections.events import ConnectionEvent
from knowledge.connections.vault import endpoint_of
from knowledge.dify.channel import Endpoint
from knowledge.dify.client import Dify
from knowledge.dify.errors import DifyFault
from knowledge.dify.probe import Report, examine
from knowledge.models import Connection, Health
from knowledge.trail import record_about
from portal.core.actors import Context
from portal.core.tenancy import tenant_scope

log = structlog.get_logger(__name__)

CHECK_SECONDS: Final = 60.0
"""How long after a check the next is due."""
CALL_SECONDS: Final = 10.0
"""How long each call of a check may take."""
_AT_ONCE: Final = 4

# Whoever claims a connection has the pause until the next check to look at it.
_CLAIM: Final[LiteralString] = """
UPDATE knowledge_connection SET check_at = now() + make_interval(secs => %(pause)s)
 WHERE id IN (
    SELECT c.id FROM knowledge_connection c
      JOIN tenants_tenant t ON t.id = c.tenant_id AND t.state = 'active'
     WHERE c.check_at <= now() ORDER BY c.check_at LIMIT %(most)s
       FOR UPDATE OF c SKIP LOCKED)
RETURNING tenant_id, id
"""


def check_due(database_url: str) -> int:
    """Looks at every connection that is due, a few at a time; returns how many there were.

    Args:
        database_url: of ``portal_gateway``, which crosses tenants and reads nothing but ids here.
    """
    checked = 0
    with (
        psycopg.connect(
            database_url, autocommit=True, application_name="connections", connect_timeout=5
        ) as claims,
        ThreadPoolExecutor(_AT_ONCE) as pool,
    ):
        while due := _claim(claims):
            list(pool.map(lambda row: _check(*row), due))
            checked += len(due)
    return checked


def _claim(claims: psycopg.Connection[tuple[Any, ...]]) -> list[tuple[UUID, UUID]]:
    rows = claims.execute(_CLAIM, {"pause": CHECK_SECONDS, "most": _AT_ONCE}).fetchall()
    return [(tenant_id, connection_id) for tenant_id, connection_id in rows]


def _check(tenant_id: UUID, connection_id: UUID) -> None:
    """One look at one connection; no scope is open while Dify is asked."""
    context = Context.system("connections", tenant_id=tenant_id)
    try:
        with tenant_scope(context):
            found = Connection.objects.filter(tenant_id=tenant_id, pk=connection_id).first()
            if found is None:
                return
            endpoint = endpoint_of(found)
        outcome = look(endpoint)
        with tenant_scope(context):
            again = Connection.objects.select_for_update().filter(pk=connection_id).first()
            # One that leads elsewhere by now, or is gone, was not looked at.
            if again is not None and endpoint_of(again) == endpoint:
                write_outcome(again, outcome)
    finally:
        database.close()


def look(endpoint: Endpoint) -> Report | DifyFault:
    """What a check finds; raises nothing that Dify does."""
    try:
        with Dify(endpoint, call_seconds=CALL_SECONDS) as dify:
            return examine(dify)
    except DifyFault as fault:
        return fault


def write_outcome(connection: Connection, outcome: Report | DifyFault) -> Connection:
    """Writes down what a check found at a connection that is locked; tells what has changed."""
    was, version, now = connection.health, connection.version, timezone.now()
    apply_outcome(connection, outcome, now)
    connection.save(update_fields=[*OUTCOME_FIELDS])
    if connection.health != was:
        failed = connection.health == Health.FAILING
        _tell(ConnectionEvent.FAIL if failed else ConnectionEvent.RECOVER, connection)
    if connection.version != version:
        _tell(ConnectionEvent.UPGRADE, connection, was=version)
    return connection


OUTCOME_FIELDS: Final = (
    "health", "problem_code", "problem", "since", "checked_at", "check_at", "version",
    "workspace_name", "capabilities",
)  # fmt: skip


def apply_outcome(connection: Connection, outcome: Report | DifyFault, now: datetime) -> None:
    """Puts a check's outcome into the row's fields, without saving it."""
    healthy = isinstance(outcome, Report)
    health = Health.HEALTHY if healthy else Health.FAILING
    if connection.health != health:
        connection.health, connection.since = health, now
    connection.checked_at, connection.check_at = now, now + timedelta(seconds=CHECK_SECONDS)
    if isinstance(outcome, Report):
        connection.problem_code = connection.problem = ""
        connection.version = outcome.version
        connection.workspace_name = outcome.workspace_name[:255]
        connection.capabilities = msgspec.to_builtins(outcome.capabilities)
    else:
        connection.problem_code, connection.problem = outcome.error_code, outcome.message[:400]


def _tell(event: ConnectionEvent, connection: Connection, **detail: str) -> None:
    failed = event == ConnectionEvent.FAIL
    record_about(
        event,
        connection,
        Outcome.FAILURE if failed else Outcome.SUCCESS,
        reason=connection.problem_code,
        detail={"version": connection.version, **detail},
    )
    log.info(event.value, connection_id=str(connection.id), problem=connection.problem_code)
