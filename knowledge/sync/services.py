"""Verbs of keeping in step."""

from typing import Final
from uuid import UUID

from django.utils import timezone

from audit.services import intent
from knowledge.connections.selectors import get_connection
from knowledge.models import Connection, Decision, RemoteObject, Sync, SyncState
from knowledge.sync.events import SyncEvent
from knowledge.sync.selectors import get_remote_object
from knowledge.sync.wakes import wake
from knowledge.trail import intent_about
from portal.core.actors import Context
from portal.core.errors import Conflict, Invalid
from portal.core.tenancy import tenant_scope
from tenants.permissions import Action, require
from tenants.services.checks import require_tenant

REMOTE_OBJECT: Final = "knowledge.remoteobject"


def sync_now(*, context: Context, connection_id: UUID) -> Sync:
    """Has Dify looked at, and everything tried that waits to be tried again, as soon as may be.

    Raises:
        Forbidden: the caller may not.
        NotFound: no such connection here.
        Conflict: it is paused.
    """
    require(context, Action.KNOWLEDGE_EDIT)
    require_tenant(context)
    with tenant_scope(context):
        connection = get_connection(connection_id)
        with intent_about(SyncEvent.RUN, connection):
            sync = _sync_of(connection)
            if sync.paused:
                raise Conflict("The connection is paused: have it go on first.")
            waiting = RemoteObject.objects.filter(connection_id=connection.pk)
            waiting.exclude(next_at=None).exclude(state=SyncState.INDEXING).update(next_at=None)
            wake(connection.pk, observe=True)
    return sync


def set_paused(*, context: Context, connection_id: UUID, paused: bool) -> Sync:
    """Stops keeping a connection in step, or has it go on; what is to be done waits meanwhile.

    A step that is being taken is taken to its end.

    Raises:
        Forbidden: the caller may not.
        NotFound: no such connection here.
    """
    require(context, Action.CONNECTION_EDIT)
    require_tenant(context)
    with tenant_scope(context):
        connection = get_connection(connection_id)
        sync = _sync_of(connection)
        if sync.paused != paused:
            with intent_about(SyncEvent.PAUSE if paused else SyncEvent.RESUME, connection):
                sync.paused = paused
                sync.save(update_fields=["paused"])
                if not paused:
                    wake(connection.pk)
    return sync


def decide(*, context: Context, remote_object_id: UUID, decision: str) -> RemoteObject:
    """Decides which version of an object holds that was changed in Dify.

    Args:
        decision: a ``Decision``.

    Raises:
        Forbidden: the caller may not.
        NotFound: no such object here.
        Invalid: no such decision.
        Conflict: there is nothing to decide about it.
    """
    require(context, Action.KNOWLEDGE_EDIT)
    require_tenant(context)
    if decision not in Decision.values:
        raise Invalid("'decision' must be ours or theirs.", param="decision")
    with tenant_scope(context):
        link = get_remote_object(remote_object_id)
        if link.state != SyncState.CONFLICT:
            raise Conflict("There is nothing to decide about it any more.")
        with intent(
            SyncEvent.DECIDE,
            object_type=REMOTE_OBJECT,
            object_id=link.pk,
            object_label=link.label,
            detail={"kind": link.kind, "decision": decision},
        ):
            link.decision, link.state = decision, SyncState.WAITING
            link.waiting_since, link.next_at = timezone.now(), None
            link.save(update_fields=["decision", "state", "waiting_since", "next_at"])
            wake(link.connection_id)
    return link


def _sync_of(connection: Connection) -> Sync:
    wake(connection.pk)
    return Sync.objects.get(tenant_id=connection.tenant_id, connection_id=connection.pk)
