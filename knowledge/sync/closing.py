"""When a tenant is closed, what it has in Dify is deleted there before anything else is erased."""

from datetime import timedelta
from typing import Final
from uuid import UUID

import structlog
from django.db.models import Q, QuerySet
from django.utils import timezone

from knowledge.connections.vault import open_dify
from knowledge.dify.errors import DifyFault
from knowledge.models import Connection, RemoteObject
from knowledge.sync.deleting import find_asked, write_receipt
from knowledge.sync.kinds import CREATE, Session, kinds
from knowledge.sync.observing import remotes_of
from tenants.closing.registry import NotYet
from tenants.models import Tenant, TenantClosure

log = structlog.get_logger(__name__)

NAME: Final = "objects in Dify"
PATIENCE: Final = timedelta(days=7)
"""So long a Dify that can't be reached holds up the deletion; receipts say what is left there."""
_CALL_SECONDS: Final = 10.0
_AT_ONCE: Final = 20


def erase_in_dify(tenant_id: UUID, most: int) -> int:
    """Deletes some of what a tenant has in Dify, whoever uses it; see ``Eraser``.

    Raises:
        NotYet: Dify can't be reached now.
    """
    link = _there(tenant_id).order_by("connection_id").first()
    if link is None:
        return 0
    connection = Connection.objects.get(tenant_id=tenant_id, pk=link.connection_id)
    links = list(RemoteObject.objects.filter(tenant_id=tenant_id, connection=connection))
    slug = Tenant.objects.values_list("slug", flat=True).get(pk=tenant_id)
    try:
        with open_dify(connection, call_seconds=_CALL_SECONDS) as dify:
            session = Session(dify, connection, slug, remotes_of(links))
            return _delete(session, links, min(most, _AT_ONCE))
    except DifyFault as fault:
        log.warning("closing.dify_failed", tenant_id=str(tenant_id), problem=fault.error_code)
        if _since(tenant_id) > PATIENCE:
            return _give_up(connection, links)
        raise NotYet from None


def _there(tenant_id: UUID) -> QuerySet[RemoteObject]:
    """What stands in Dify, or may stand there; what stands in another object goes with it."""
    outer = [kind.name for kind in kinds() if not kind.parent]
    found = RemoteObject.objects.filter(tenant_id=tenant_id, kind__in=outer, gone=False)
    return found.filter(~Q(remote_id="") | Q(asking__contains=[CREATE]))


def _delete(session: Session, links: list[RemoteObject], most: int) -> int:
    deleted = 0
    for kind in reversed(kinds()):
        if kind.parent:
            continue
        for link in links:
            if link.kind != kind.name or link.gone or deleted >= most:
                continue
            if not link.remote_id and not find_asked(session, kind, link):
                link.delete()
            else:
                kind.delete(session, link, force=True)
                write_receipt(session.connection, link, verified=True)
            deleted += 1
    return deleted


def _give_up(connection: Connection, links: list[RemoteObject]) -> int:
    """Forgets what nobody can delete any more; each receipt lacks Dify's word."""
    outer = {kind.name for kind in kinds() if not kind.parent}
    left = [link for link in links if link.kind in outer]
    for link in left:
        write_receipt(connection, link, verified=False)
    return len(left)


def _since(tenant_id: UUID) -> timedelta:
    began = TenantClosure.objects.filter(tenant_id=tenant_id).order_by("-id").first()
    if began is None or began.deletion_began_at is None:
        return timedelta(0)
    return timezone.now() - began.deletion_began_at
