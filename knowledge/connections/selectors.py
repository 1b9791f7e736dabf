"""Reads of connections, inside the caller's scope."""

from uuid import UUID

from django.db.models import QuerySet

from knowledge.models import Connection
from portal.core.errors import NotFound
from portal.core.tenancy import current_context


def connections() -> QuerySet[Connection]:
    """The connections of the scope's tenant, without their keys."""
    tenant_id = current_context().tenant_id
    assert tenant_id is not None, "connections are read in a tenant's scope"
    return Connection.objects.filter(tenant_id=tenant_id).defer("sealed")


def get_connection(connection_id: UUID) -> Connection:
    """A connection of the scope's tenant.

    Raises:
        NotFound: none; another tenant's is this too.
    """
    found = connections().filter(pk=connection_id).first()
    if found is None:
        raise NotFound("There is no such connection.")
    return found


def licence_needed(connection: Connection) -> bool:
    """Whether the instance has several workspaces, and nobody has confirmed that it may."""
    known = connection.capabilities
    confirmed = known["licensed"] or connection.licence_confirmed_at is not None
    return int(known["workspaces"]) > 1 and not confirmed
