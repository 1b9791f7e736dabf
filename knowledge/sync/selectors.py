"""Reads of how things are kept in step, inside the caller's scope."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db.models import Count, Min, Q, QuerySet

from knowledge.models import Connection, DeletionReceipt, RemoteObject, Sync, SyncState
from knowledge.sync.kinds import kinds
from knowledge.sync.observing import links_of, wants_of
from knowledge.sync.planning import Step, plan
from portal.core.errors import NotFound
from tenants.models import Tenant


@dataclass(frozen=True, slots=True)
class Queue:
    """What waits to be done at a connection.

    Attributes:
        oldest: since when the one that has waited longest does; None if nothing waits.
    """

    waiting: int
    indexing: int
    failed: int
    conflicts: int
    in_step: int
    oldest: datetime | None


def steps_of(connection: Connection) -> Sequence[Step]:
    """What the runner would do now, by what was last seen in Dify."""
    slug = Tenant.objects.values_list("slug", flat=True).get(pk=connection.tenant_id)
    wants, links = wants_of(connection, slug), links_of(connection)
    return plan(connection.drift_policy, wants, links, [kind.name for kind in kinds()])


def sync_of(connection: Connection) -> Sync | None:
    """The work on a connection; None where nothing has ever been kept in step."""
    return Sync.objects.filter(tenant_id=connection.tenant_id, connection=connection).first()


def remote_objects(connection: Connection) -> QuerySet[RemoteObject]:
    """What stands in a connection's workspace, or is to stand there."""
    return RemoteObject.objects.filter(tenant_id=connection.tenant_id, connection=connection)


def queue_of(connection: Connection) -> Queue:
    """How many objects wait, and for how long."""
    counted = remote_objects(connection).aggregate(
        **{state.value: Count("id", filter=Q(state=state)) for state in SyncState},
        oldest=Min("waiting_since"),
    )
    return Queue(
        waiting=counted["waiting"],
        indexing=counted["indexing"],
        failed=counted["failed"],
        conflicts=counted["conflict"],
        in_step=counted["in_step"],
        oldest=counted["oldest"],
    )


def get_remote_object(remote_object_id: UUID) -> RemoteObject:
    """An object of the scope's tenant.

    Raises:
        NotFound: none; another tenant's is this too.
    """
    found = RemoteObject.objects.select_related("connection").filter(pk=remote_object_id).first()
    if found is None:
        raise NotFound("There is no such object.")
    return found


def receipts() -> QuerySet[DeletionReceipt]:
    """What was deleted in Dify, newest first."""
    return DeletionReceipt.objects.all()
