"""Members of a tenant and their roles."""

from dataclasses import dataclass, field
from uuid import UUID

from django.db.models import Q

from audit.services import intent
from portal.core.actors import Context, TenantRole
from portal.core.errors import Conflict, Forbidden, NotFound
from portal.core.tenancy import tenant_scope
from tenants.errors import LastOwner, SeparatedDuties
from tenants.events import TenantsEvent
from tenants.models import Membership, User
from tenants.permissions import Action, require
from tenants.services.checks import clean_email, require_tenant
from tenants.services.inheritance import inherit, lock_limits
from tenants.services.users import CreatedUser, new_account, revoke_keys_of

_OBJECT = "tenants.membership"


@dataclass(frozen=True, slots=True)
class AddedMember:
    """A new member; ``password`` is set where the account was made with it, and is shown once."""

    membership: Membership
    password: str | None = field(repr=False)


def add_member(
    *, context: Context, email: str, role: TenantRole, full_name: str = ""
) -> AddedMember:
    """Takes a person into the context's tenant; the account is made where there is none yet.

    Raises:
        Forbidden: the caller may not, or is a key that would make an owner.
        Invalid: no e-mail address.
        Conflict: already a member.
        SeparatedDuties: the person administers the platform.
    """
    require(context, Action.MEMBER_MANAGE)
    tenant_id = require_tenant(context)
    _leave_owners_to_people(context, role)
    address = clean_email(email)
    with tenant_scope(context):
        tenant = lock_limits(tenant_id)
        account = joining_account(address, full_name)
        if Membership.objects.filter(user=account.user).exists():
            raise Conflict(f"{address} is already a member.", param="email")
        membership = Membership(tenant_id=tenant_id, user=account.user, role=role)
        with intent(
            TenantsEvent.MEMBER_ADD,
            object_type=_OBJECT,
            object_id=membership.id,
            object_label=address,
            detail={"role": role},
        ):
            membership.save(force_insert=True)
            inherit(tenant, user_id=account.user.id)
    return AddedMember(membership, account.password)


def joining_account(email: str, full_name: str) -> CreatedUser:
    """The account of this address in the open scope, made where there is none yet.

    Raises:
        SeparatedDuties: it administers the platform.
    """
    user = User.objects.filter(email__iexact=email).first()
    if user is None:
        return new_account(email=email, full_name=full_name)
    if user.platform_role is not None:
        raise SeparatedDuties("An administrator of the platform can't be a member of a tenant.")
    return CreatedUser(user, None)


def change_member_role(*, context: Context, membership_id: UUID, role: TenantRole) -> Membership:
    """Gives a member another role.

    Raises:
        Forbidden: the caller may not, or is a key and the member was or would become an owner.
        NotFound: no such member.
        LastOwner: nobody else owns the tenant.
    """
    require(context, Action.MEMBER_MANAGE)
    require_tenant(context)
    with tenant_scope(context):
        membership, locked = _locked(membership_id)
        _leave_owners_to_people(context, role, membership.role)
        if role != TenantRole.OWNER:
            _keep_an_owner(membership, locked)
        with intent(
            TenantsEvent.MEMBER_CHANGE_ROLE,
            object_type=_OBJECT,
            object_id=membership.id,
            object_label=membership.user.email,
            detail={"role": role},
        ):
            membership.role = role
            membership.save(update_fields=["role"])
    return membership


def remove_member(*, context: Context, membership_id: UUID) -> User:
    """Ends a membership and revokes the keys that the person made here; returns the person.

    Raises:
        Forbidden: the caller may not, or is a key and the member an owner.
        NotFound: no such member.
        LastOwner: nobody else owns the tenant.
    """
    require(context, Action.MEMBER_MANAGE)
    require_tenant(context)
    with tenant_scope(context):
        membership, locked = _locked(membership_id)
        _leave_owners_to_people(context, membership.role)
        _keep_an_owner(membership, locked)
        user = membership.user
        with intent(
            TenantsEvent.MEMBER_REMOVE,
            object_type=_OBJECT,
            object_id=membership.id,
            object_label=user.email,
        ):
            revoke_keys_of(user.id, "the member was removed")
            membership.delete()
    return user


def _leave_owners_to_people(context: Context, *roles: str) -> None:
    """A key that made an owner would have made itself one; nor may it shut the owners out."""
    if context.api_key_id is not None and TenantRole.OWNER in roles:
        raise Forbidden(
            "An API key can neither make nor change owners: a person has to.",
            code="owner_by_key",
        )


def _keep_an_owner(leaving: Membership, locked: list[Membership]) -> None:
    owners = [m for m in locked if m.role == TenantRole.OWNER and m.id != leaving.id]
    if leaving.role == TenantRole.OWNER and not owners:
        raise LastOwner


def _locked(membership_id: UUID) -> tuple[Membership, list[Membership]]:
    """The membership, and with it all owners', locked in one order.

    So two owners can neither remove each other at the same time nor wait in a circle.
    """
    rows = list(
        Membership.objects.select_for_update(of=("self",))
        .select_related("user")
        .filter(Q(pk=membership_id) | Q(role=TenantRole.OWNER))
        .order_by("id")
    )
    for row in rows:
        if row.id == membership_id:
            return row, rows
    raise NotFound("There is no such member.")
