"""Tenants: made, edited, suspended."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from uuid import UUID

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction

from audit.services import intent
from portal.core.actors import ActorType, Context, TenantRole
from portal.core.crypto import Keyring, new_data_key
from portal.core.env import env
from portal.core.errors import Conflict, Invalid, NotFound
from portal.core.ids import uuid7
from portal.core.tenancy import platform_scope, tenant_scope
from tenants.events import TenantsEvent
from tenants.models import Membership, Tenant, TenantDataKey, User
from tenants.models.tenant import TenantState
from tenants.permissions import Action, require
from tenants.services.checks import clean_email, clean_text
from tenants.services.members import joining_account
from tenants.services.quotas import new_quota

_OBJECT = "tenants.tenant"


@dataclass(frozen=True, slots=True)
class CreatedTenant:
    """A new tenant and its owner; ``password`` is set where the account was made with it."""

    tenant: Tenant
    owner: User
    password: str | None = field(repr=False)


def create_tenant(
    *,
    context: Context,
    name: str,
    slug: str,
    time_zone: str = "UTC",
    owner_email: str,
    owner_name: str = "",
) -> CreatedTenant:
    """Makes a tenant that can work at once: data key, quota row, window row and first owner.

    The owner's account is made where there is none yet.

    Raises:
        Forbidden: the caller may not.
        Invalid: naming the field that is wrong.
        Conflict: the short name is taken, or the name was a closed tenant's.
        SeparatedDuties: the owner would be an administrator of the platform.
    """
    require(context, Action.TENANT_CREATE)
    email = clean_email(owner_email, "owner_email")
    tenant = Tenant(
        id=uuid7(),
        name=clean_text(name, "name", most=120, least=1),
        slug=slug,
        time_zone=time_zone,
    )
    _check(tenant)
    with platform_scope(replace(context, tenant_id=tenant.id), reason="a tenant is created"):
        _refuse_former_name(tenant)
        if Tenant.objects.filter(slug=tenant.slug).exists():
            raise Conflict(f"The short name '{tenant.slug}' is taken.", param="slug")
        with intent(
            TenantsEvent.TENANT_CREATE,
            object_type=_OBJECT,
            object_id=tenant.id,
            object_label=tenant.name,
            detail={"owner": email},
        ):
            _insert(tenant)
            _make_data_key(tenant)
            account = joining_account(email, owner_name)
            Membership.objects.create(tenant=tenant, user=account.user, role=TenantRole.OWNER)
            new_quota(tenant)
    return CreatedTenant(tenant, account.user, account.password)


def edit_tenant(
    *,
    context: Context,
    tenant_id: UUID,
    name: str | None = None,
    time_zone: str | None = None,
    weight: int | None = None,
) -> Tenant:
    """Changes what is given and leaves the rest.

    A new time zone moves the next day and month windows; those under way keep their beginning.

    Raises:
        Forbidden, NotFound, Invalid: naming the field that is wrong.
        Conflict: it is closing or closed, or the name was a closed tenant's.
    """
    require(context, Action.TENANT_EDIT)
    with platform_scope(replace(context, tenant_id=tenant_id), reason="a tenant is edited"):
        tenant = locked_tenant(tenant_id)
        if tenant.state in (TenantState.CLOSING, TenantState.CLOSED):
            raise Conflict(f"The tenant is {tenant.state}; it can't be edited any more.")
        if name is not None:
            tenant.name = clean_text(name, "name", most=120, least=1)
            _refuse_former_name(tenant)
        if time_zone is not None:
            tenant.time_zone = time_zone
        if weight is not None:
            if not 1 <= weight <= 100:
                raise Invalid("'weight' must be from 1 to 100.", param="weight")
            tenant.weight = weight
        _check(tenant)
        with intent(
            TenantsEvent.TENANT_EDIT,
            object_type=_OBJECT,
            object_id=tenant.id,
            object_label=tenant.name,
        ):
            tenant.save(update_fields=["name", "time_zone", "weight"])
    return tenant


def suspend_tenant(*, context: Context, tenant_id: UUID, reason: str) -> Tenant:
    """Stops a tenant: its keys and members are refused from the next request on.

    Generations under way end and are charged; keys, members and quotas stay as they are.

    Raises:
        Forbidden, NotFound, Invalid: no reason given.
        Conflict: it is not active.
    """
    return _move(
        context,
        tenant_id,
        TenantsEvent.TENANT_SUSPEND,
        TenantState.ACTIVE,
        TenantState.SUSPENDED,
        reason,
    )


def resume_tenant(*, context: Context, tenant_id: UUID, reason: str) -> Tenant:
    """Lets a suspended tenant work again.

    Raises:
        Forbidden, NotFound, Invalid: no reason given.
        Conflict: it is not suspended.
    """
    return _move(
        context,
        tenant_id,
        TenantsEvent.TENANT_RESUME,
        TenantState.SUSPENDED,
        TenantState.ACTIVE,
        reason,
    )


def _move(
    context: Context,
    tenant_id: UUID,
    event: TenantsEvent,
    before: TenantState,
    after: TenantState,
    reason: str,
) -> Tenant:
    require(context, Action.TENANT_SUSPEND)
    why = clean_text(reason, "reason", most=200, least=1)
    with platform_scope(replace(context, tenant_id=tenant_id), reason=event.value):
        tenant = locked_tenant(tenant_id)
        if tenant.state != before:
            raise Conflict(f"The tenant is {tenant.state}, not {before.value}.")
        with intent(
            event,
            object_type=_OBJECT,
            object_id=tenant.id,
            object_label=tenant.name,
            reason=why,
        ):
            tenant.state = after
            tenant.save(update_fields=["state"])
    return tenant


def _refuse_former_name(tenant: Tenant) -> None:
    """Refuses the name of a tenant that was closed: readers of the trail would mix the two up.

    Short names need no such check: the row of a closed tenant stays, and holds its own.
    """
    former = Tenant.objects.filter(name__iexact=tenant.name, state=TenantState.CLOSED)
    if former.exclude(pk=tenant.pk).exists():
        raise Conflict("A closed tenant had this name: choose another.", param="name")


@contextmanager
def tenant_or_platform_scope(context: Context, tenant_id: UUID, *, reason: str) -> Iterator[None]:
    """Where one tenant's things are reached: by a member in its scope, by an administrator across.

    Raises:
        NotFound: the tenant is not the member's.
    """
    if context.platform_role is not None or context.actor.type == ActorType.SYSTEM:
        with platform_scope(replace(context, tenant_id=tenant_id), reason=reason):
            yield
    elif context.tenant_id == tenant_id:
        with tenant_scope(context):
            yield
    else:
        raise NotFound("There is no such tenant.")


def _insert(tenant: Tenant) -> None:
    try:
        with transaction.atomic():
            tenant.save(force_insert=True)
    except IntegrityError:
        # Another call took the name between our look and our insert.
        raise Conflict(f"The short name '{tenant.slug}' is taken.", param="slug") from None


def _make_data_key(tenant: Tenant) -> None:
    keyring = Keyring.parse(env().encryption_keys.get_secret_value())
    wrapped = keyring.wrap(new_data_key(), context=tenant.id.bytes)
    TenantDataKey.objects.create(tenant=tenant, version=1, wrapped=wrapped)


def _check(tenant: Tenant) -> None:
    try:
        tenant.clean_fields()
    except ValidationError as fault:
        param, messages = next(iter(fault.message_dict.items()))
        raise Invalid(" ".join(messages), param=param) from None


def locked_tenant(tenant_id: UUID) -> Tenant:
    """A tenant, locked in the open scope.

    Raises:
        NotFound: there is none.
    """
    tenant = Tenant.objects.select_for_update().filter(pk=tenant_id).first()
    if tenant is None:
        raise NotFound("There is no such tenant.")
    return tenant
