"""Deleting in Dify, with a receipt."""

from uuid import UUID

from django.utils import timezone

from audit.services import intent
from knowledge.models import Connection, DeletionReceipt, RemoteObject
from knowledge.sync.events import SyncEvent
from knowledge.sync.kinds import Kind, Session, Want
from knowledge.sync.lease import Lease


def delete_object(
    lease: Lease, session: Session, kind: Kind, link: RemoteObject, *, force: bool = False
) -> None:
    """Deletes an object in Dify with what stands in it, and writes the receipt.

    What was asked for and not answered is looked for first.

    Args:
        force: even where apps use it.

    Raises:
        InUse: apps use it; nothing is deleted.
        DifyFault: it could not be deleted, or nobody knows.
    """
    if not link.remote_id:
        found = find_asked(session, kind, link)
        with lease.scope():
            if not found:
                link.delete()
                return
            link.save(update_fields=["remote_id"])
    kind.delete(session, link, force=force)
    with lease.scope():
        write_receipt(session.connection, link, verified=True)


def write_receipt(connection: Connection, link: RemoteObject, *, verified: bool) -> None:
    """Forgets an object that was deleted, and what stood in it; says so in a receipt and the trail.

    In the open scope, which may cross tenants.
    """
    inside = RemoteObject.objects.filter(
        tenant_id=connection.tenant_id,
        connection_id=connection.pk,
        parent_id=link.local_id or UUID(int=0),
    )
    contained = list(inside.exclude(remote_id="").values_list("remote_id", flat=True))
    now = timezone.now()
    with intent(
        SyncEvent.DELETE,
        object_type=f"knowledge.{link.kind}",
        object_id=link.local_id or "",
        object_label=link.label,
        detail={
            "connection": str(connection.pk),
            "remote_id": link.remote_id,
            "contained": len(contained),
            "verified": verified,
        },
    ):
        DeletionReceipt(
            tenant_id=connection.tenant_id,
            connection_id=connection.pk,
            connection_name=connection.name,
            kind=link.kind,
            local_id=link.local_id,
            label=link.label,
            remote_id=link.remote_id,
            contained=contained,
            deleted_at=now,
            verified_at=now if verified else None,
        ).save(force_insert=True)
        inside.delete()
        link.delete()


def find_asked(session: Session, kind: Kind, link: RemoteObject) -> bool:
    """Whether what was asked for and not answered was made; the link has its id then, unsaved."""
    assert link.local_id is not None, "only what we asked for can lack an id"
    if kind.parent and (kind.parent, link.parent_id) not in session.remote:
        return False
    seen = kind.find(session, Want(link.kind, link.local_id, link.label, {}, link.parent_id))
    if seen is not None:
        link.remote_id = seen.remote_id
    return seen is not None
