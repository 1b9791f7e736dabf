"""Wake-ups: whoever changes what is wanted in Dify has it looked at soon."""

from datetime import datetime
from uuid import UUID

from django.utils import timezone

from knowledge.models import RemoteObject, Sync, SyncState
from portal.core.tenancy import current_context


def wake(
    connection_id: UUID | None, *, local_id: UUID | None = None, observe: bool = False
) -> None:
    """Has a connection's runner look, in the open scope's transaction; None has nobody look.

    Args:
        local_id: of an object that is tried at once, however often it failed.
        observe: whether the runner is to look at Dify first.
    """
    if connection_id is None:
        return
    tenant_id = current_context().tenant_id
    assert tenant_id is not None, "connections are woken in a tenant's scope"
    now = timezone.now()
    Sync.objects.bulk_create(
        [Sync(tenant_id=tenant_id, connection_id=connection_id, due_at=now, observe_at=now)],
        ignore_conflicts=True,
    )
    sync = Sync.objects.filter(tenant_id=tenant_id, connection_id=connection_id)
    if local_id is not None:
        RemoteObject.objects.filter(
            tenant_id=tenant_id, connection_id=connection_id, local_id=local_id
        ).exclude(next_at=None).exclude(state=SyncState.INDEXING).update(next_at=None, attempts=0)
    if observe:
        sync.filter(observe_at__gt=now).update(observe_at=now)
    bring_forward(tenant_id, connection_id, now)


def bring_forward(tenant_id: UUID, connection_id: UUID, when: datetime) -> None:
    """It is due no later than this."""
    Sync.objects.filter(tenant_id=tenant_id, connection_id=connection_id, due_at__gt=when).update(
        due_at=when
    )
