"""The runner: one at a time looks at a connection, plans, and takes the steps one by one.

A step is a call to Dify between two transactions. The first says what is being asked, the second
what came of it; a runner that is killed between them is followed by another, which finds what was
asked and not answered, and looks whether it was done. No scope is open while Dify is called.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any, Final, LiteralString

import psycopg
import structlog
from django.db import DatabaseError
from django.db import connection as database
from django.utils import timezone

from knowledge.connections.vault import endpoint_of
from knowledge.dify.channel import Endpoint
from knowledge.dify.client import Dify
from knowledge.dify.errors import DifyFault
from knowledge.models import Connection, Sync, SyncState
from knowledge.sync.events import SyncEvent
from knowledge.sync.failures import note_connection_failure, note_end
from knowledge.sync.kinds import Session, kinds
from knowledge.sync.lease import LEASE, Lease, LostLease
from knowledge.sync.observing import links_of, observe, remotes_of, wants_of
from knowledge.sync.planning import Step, Verb, Why, plan
from knowledge.sync.steps import Steps, note_steps
from knowledge.trail import record_about
from tenants.models import Tenant

log = structlog.get_logger(__name__)

RUN_SECONDS: Final = 20.0
"""After so long another connection has its turn."""
CALL_SECONDS: Final = 60.0
_IDLE: Final = timedelta(days=1)
_MOST_NAMES: Final = 20

# Who holds a connection is found out and written across tenants; ids are all that is read.
_CLAIM: Final[LiteralString] = """
UPDATE knowledge_sync SET fence = fence + 1, lease_until = now() + make_interval(secs => %(lease)s)
 WHERE id IN (
    SELECT s.id FROM knowledge_sync s
      JOIN tenants_tenant t ON t.id = s.tenant_id AND t.state = 'active'
     WHERE s.due_at <= now() AND NOT s.paused
       AND (s.lease_until IS NULL OR s.lease_until <= now())
     ORDER BY s.due_at LIMIT 1 FOR UPDATE OF s SKIP LOCKED)
RETURNING tenant_id, connection_id, fence
"""


def sync_due(database_url: str, slots: int) -> int:
    """Keeps every connection that is due in step, a few at a time; returns how many runs it took.

    Args:
        database_url: of ``portal_gateway``.
        slots: so many at once; 0 for none.
    """
    if not slots:
        return 0
    with ThreadPoolExecutor(slots) as pool:
        return sum(pool.map(lambda _: _work(database_url), range(slots)))


def claim(claims: psycopg.Connection[Any]) -> Lease | None:
    """The lease of the connection that has been due longest; None if none is."""
    row = claims.execute(_CLAIM, {"lease": LEASE.total_seconds()}).fetchone()
    return None if row is None else Lease(*row)


def _work(database_url: str) -> int:
    runs = 0
    try:
        with psycopg.connect(
            database_url, autocommit=True, application_name="sync", connect_timeout=5
        ) as claims:
            while (lease := claim(claims)) is not None:
                _run(lease)
                runs += 1
    finally:
        database.close()
    return runs


def _run(lease: Lease) -> None:
    """One run; what the database refuses leaves the lease to lapse, so that others go on."""
    try:
        run(lease)
    except LostLease:
        log.info("sync.lease_lost", connection_id=str(lease.connection_id))
    except DatabaseError as fault:
        log.error("sync.failed", connection_id=str(lease.connection_id), error=type(fault).__name__)


def run(lease: Lease, *, seconds: float = RUN_SECONDS) -> None:
    """Takes a connection's steps until nothing is due or the time is over.

    Raises:
        LostLease: another runner has it, or it is gone.
    """
    until = time.monotonic() + seconds
    with lease.scope() as sync:
        connection = Connection.objects.get(pk=lease.connection_id)
        slug = Tenant.objects.values_list("slug", flat=True).get(pk=lease.tenant_id)
        endpoint = endpoint_of(connection)
        look_first = sync.observe_at <= timezone.now()
    try:
        due_at = _run_at(lease, connection, slug, endpoint, look_first, until)
    except DifyFault as fault:
        note_connection_failure(lease, fault)
    else:
        note_end(lease, due_at)


def _run_at(
    lease: Lease,
    connection: Connection,
    slug: str,
    endpoint: Endpoint,
    look_first: bool,
    until: float,
) -> Any:
    """Plans and takes steps; returns when the next one is due."""
    with Dify(endpoint, call_seconds=CALL_SECONDS) as dify:
        session = Session(dify, connection, slug)
        if look_first:
            observe(lease, session)
        while True:
            steps = _planned(lease, session, tell=look_first)
            look_first = False
            if not steps.take(until):
                return steps.next_due() or timezone.now() + _IDLE
            if time.monotonic() >= until:
                return timezone.now()


def _planned(lease: Lease, session: Session, *, tell: bool) -> Steps:
    """The steps by what is wanted and known now, written into the objects' rows."""
    with lease.scope() as sync:
        # Whoever changes something from here on wakes us anew.
        Sync.objects.filter(pk=sync.pk).update(due_at=timezone.now() + LEASE)
        links = links_of(session.connection)
        session.remote.clear()
        session.remote.update(remotes_of(links))
        wants = wants_of(session.connection, session.slug)
        order = [kind.name for kind in kinds()]
        policy = Connection.objects.values_list("drift_policy", flat=True).get(
            pk=session.connection.pk
        )
        steps = plan(policy, wants, links, order)
        if tell:
            _tell_drift(session.connection, steps)
        steps = note_steps(session, steps, links)
    return Steps(lease, session, steps, links)


def _tell_drift(connection: Connection, steps: list[Step]) -> None:
    """Records what was found changed in Dify; what is to be decided still is not told again."""
    drifted = [
        step
        for step in steps
        if step.why in (Why.DRIFTED, Why.GONE, Why.STRANGER)
        and not (step.verb == Verb.CONFLICT and step.link and step.link.state == SyncState.CONFLICT)
    ]
    if not drifted:
        return
    record_about(
        SyncEvent.DRIFT,
        connection,
        detail={
            "objects": len(drifted),
            "named": [
                {"kind": step.kind, "name": step.label, "step": step.verb, "why": step.why}
                for step in drifted[:_MOST_NAMES]
            ],
        },
    )
