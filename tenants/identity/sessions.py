"""Sessions: who is logged in, and in which tenant."""

from dataclasses import dataclass, replace
from typing import Final
from uuid import UUID

from django.contrib.sessions.backends.base import SessionBase

from audit.services import intent
from portal.core.actors import Actor, ActorType, Context, PlatformRole, TenantRole
from portal.core.errors import Conflict, NotFound
from portal.core.tenancy import platform_scope, tenant_scope, user_scope
from tenants.errors import TenantNotActive
from tenants.events import TenantsEvent
from tenants.models import Membership, Tenant, User
from tenants.models.tenant import TenantState
from tenants.permissions import Action, require

ACTIVE_TENANT: Final = "portal.active_tenant"
"""Session key of the tenant that was chosen."""


@dataclass(frozen=True, slots=True)
class OwnTenant:
    """A tenant that the user is a member of."""

    tenant: Tenant
    role: TenantRole


def own_tenants(context: Context) -> list[OwnTenant]:
    """The tenants that the context's user belongs to and can be in, by name."""
    if context.user_id is None:
        return []
    with user_scope(context):
        found = Membership.objects.filter(user_id=context.user_id).select_related("tenant")
        memberships = list(found.order_by("tenant__name", "tenant_id"))
    return [OwnTenant(m.tenant, TenantRole(m.role)) for m in memberships if _is_open_to(m)]


def _is_open_to(membership: Membership) -> bool:
    """An active tenant is open to all its members, a closing one to those who see it out."""
    if membership.tenant.state == TenantState.CLOSING:
        return membership.role in (TenantRole.OWNER, TenantRole.AUDITOR)
    return membership.tenant.state == TenantState.ACTIVE


def session_context(user: User, session: SessionBase, *, base: Context) -> Context:
    """The context of a logged-in user: roles are read anew at each request.

    An administrator of the platform acts in the tenant that was entered; a member in the one
    that was chosen, or in the only one there is.
    """
    known = replace(
        base,
        actor=Actor(ActorType.USER, user.id, user.email),
        user_id=user.id,
        auth_method="session",
    )
    chosen = _chosen(session)
    if user.platform_role is not None:
        return _administrator(known, PlatformRole(user.platform_role), chosen)
    tenants = own_tenants(known)
    for own in tenants:
        if own.tenant.id == chosen or len(tenants) == 1:
            closing = own.tenant.state == TenantState.CLOSING
            return replace(
                known, tenant_id=own.tenant.id, tenant_role=own.role, tenant_read_only=closing
            )
    return known


def _administrator(known: Context, role: PlatformRole, chosen: UUID | None) -> Context:
    found = replace(known, platform_role=role, tenant_id=chosen)
    if chosen is None:
        return found
    with tenant_scope(found):
        ending = Tenant.objects.filter(
            pk=chosen, state__in=[TenantState.CLOSING, TenantState.CLOSED]
        ).exists()
    return replace(found, tenant_read_only=ending)


def enter_tenant(
    *, context: Context, session: SessionBase, tenant_id: UUID, reason: str = ""
) -> Tenant:
    """Makes a tenant the session's active one.

    A member picks among the own memberships. An administrator of the platform may enter any
    tenant, which stands in that tenant's audit trail with the reason.

    Raises:
        Forbidden: an administrator whose role may not.
        NotFound: no such tenant, or not a member of it.
        TenantNotActive: a member of a tenant that is suspended.
    """
    if context.platform_role is None:
        tenant = _own_tenant(context, tenant_id)
    else:
        require(context, Action.TENANT_ENTER)
        tenant = _record(context, tenant_id, TenantsEvent.TENANT_ENTER, reason)
    session[ACTIVE_TENANT] = str(tenant.id)
    return tenant


def leave_tenant(*, context: Context, session: SessionBase) -> None:
    """Leaves the session's active tenant.

    Raises:
        Conflict: none is active.
    """
    chosen = _chosen(session)
    if chosen is None:
        raise Conflict("No tenant is active.")
    if context.platform_role is not None:
        _record(context, chosen, TenantsEvent.TENANT_LEAVE)
    del session[ACTIVE_TENANT]


def _own_tenant(context: Context, tenant_id: UUID) -> Tenant:
    if context.user_id is None:
        raise NotFound("There is no such tenant.")
    with user_scope(context):
        membership = (
            Membership.objects.filter(user_id=context.user_id, tenant_id=tenant_id)
            .select_related("tenant")
            .first()
        )
    if membership is None:
        raise NotFound("There is no such tenant.")
    if not _is_open_to(membership):
        raise TenantNotActive
    return membership.tenant


def _record(context: Context, tenant_id: UUID, event: TenantsEvent, reason: str = "") -> Tenant:
    inside = replace(context, tenant_id=tenant_id)
    with platform_scope(inside, reason=event.value):
        tenant = Tenant.objects.filter(pk=tenant_id).first()
        if tenant is None:
            raise NotFound("There is no such tenant.")
        with intent(
            event,
            object_type="tenants.tenant",
            object_id=tenant.id,
            object_label=tenant.name,
            reason=reason,
        ):
            return tenant


def _chosen(session: SessionBase) -> UUID | None:
    value = session.get(ACTIVE_TENANT)
    try:
        return UUID(value) if isinstance(value, str) else None
    except ValueError:
        return None
