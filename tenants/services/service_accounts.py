"""Service accounts: the callers that are business systems, not people."""

from typing import Final
from uuid import UUID

from django.contrib.auth.hashers import make_password
from django.db import IntegrityError, transaction
from django.utils import timezone

from audit.services import intent
from portal.core.actors import Context
from portal.core.errors import Conflict, Invalid, NotFound
from portal.core.ids import uuid7
from portal.core.tenancy import tenant_scope
from tenants.events import TenantsEvent
from tenants.models import Membership, ServiceAccount, User
from tenants.models.people import SERVICE_DOMAIN, UserKind
from tenants.permissions import Action, require
from tenants.services.checks import clean_text, require_tenant
from tenants.services.inheritance import inherit, lock_limits
from tenants.services.users import revoke_keys_of

_OBJECT: Final = "tenants.serviceaccount"


def create_service_account(
    *,
    context: Context,
    name: str,
    description: str = "",
    responsible_id: UUID | None = None,
) -> ServiceAccount:
    """Makes a service account in the context's tenant. It can do nothing before it has a key.

    Args:
        name: unique among the tenant's that are not retired, in any case; without an ``@``.
        responsible_id: the member whom to ask about it; the caller if not given.

    Raises:
        Forbidden: the caller may not.
        Invalid: naming the field that is wrong.
        Conflict: the name is taken.
    """
    require(context, Action.SERVICE_ACCOUNT_MANAGE)
    tenant_id = require_tenant(context)
    account_id = uuid7()
    account = ServiceAccount(
        tenant_id=tenant_id, name=_name(name), description=_description(description)
    )
    account.user = User(
        id=account_id,
        kind=UserKind.SERVICE,
        email=f"{account_id.hex}{SERVICE_DOMAIN}",
        full_name=account.name,
        password=make_password(None),
    )
    with tenant_scope(context):
        tenant = lock_limits(tenant_id)
        account.responsible = _member(responsible_id or context.user_id)
        with intent(
            TenantsEvent.SERVICE_ACCOUNT_CREATE,
            object_type=_OBJECT,
            object_id=account_id,
            object_label=account.name,
            detail={"responsible": account.responsible.email},
        ):
            account.user.save(force_insert=True)
            _write(account, force_insert=True)
            inherit(tenant, user_id=account_id)
    return account


def edit_service_account(
    *,
    context: Context,
    service_account_id: UUID,
    name: str | None = None,
    description: str | None = None,
    responsible_id: UUID | None = None,
) -> ServiceAccount:
    """Changes what is given and leaves the rest; keys, quotas and history stay.

    Raises:
        Forbidden: the caller may not.
        NotFound: no such service account here.
        Invalid: naming the field that is wrong.
        Conflict: the name is taken, or it is retired.
    """
    require(context, Action.SERVICE_ACCOUNT_MANAGE)
    require_tenant(context)
    with tenant_scope(context):
        account = _changeable(service_account_id)
        if name is not None:
            account.name = account.user.full_name = _name(name)
        if description is not None:
            account.description = _description(description)
        if responsible_id is not None and responsible_id != account.responsible_id:
            account.responsible = _member(responsible_id)
        with intent(
            TenantsEvent.SERVICE_ACCOUNT_EDIT,
            object_type=_OBJECT,
            object_id=account.pk,
            object_label=account.name,
            detail={"responsible": account.responsible.email},
        ):
            _write(account, update_fields=["name", "description", "responsible"])
            account.user.save(update_fields=["full_name"])
    return account


def disable_service_account(
    *, context: Context, service_account_id: UUID, reason: str
) -> ServiceAccount:
    """Stops its keys at the next request, until it is enabled again.

    Raises:
        Forbidden: the caller may not.
        NotFound: no such service account here.
        Invalid: no reason given.
        Conflict: it is not active.
    """
    return _set_active(context, service_account_id, active=False, reason=reason)


def enable_service_account(
    *, context: Context, service_account_id: UUID, reason: str
) -> ServiceAccount:
    """Lets the keys of a disabled one work again; those that were revoked stay revoked.

    Raises:
        Forbidden: the caller may not.
        NotFound: no such service account here.
        Invalid: no reason given.
        Conflict: it is not disabled.
    """
    return _set_active(context, service_account_id, active=True, reason=reason)


def _set_active(
    context: Context, service_account_id: UUID, *, active: bool, reason: str
) -> ServiceAccount:
    require(context, Action.SERVICE_ACCOUNT_MANAGE)
    require_tenant(context)
    why = clean_text(reason, "reason", most=200, least=1)
    event = TenantsEvent.SERVICE_ACCOUNT_ENABLE if active else TenantsEvent.SERVICE_ACCOUNT_DISABLE
    with tenant_scope(context):
        account = _changeable(service_account_id)
        if account.user.is_active == active:
            raise Conflict(f"The service account is {account.state} already.")
        with intent(
            event,
            object_type=_OBJECT,
            object_id=account.pk,
            object_label=account.name,
            reason=why,
        ):
            account.user.is_active = active
            account.user.save(update_fields=["is_active"])
    return account


def retire_service_account(*, context: Context, service_account_id: UUID) -> ServiceAccount:
    """Ends a service account for good: its keys are revoked, its name may be used again.

    What it did goes on naming it.

    Raises:
        Forbidden: the caller may not.
        NotFound: no such service account here.
        Conflict: it is retired already.
    """
    require(context, Action.SERVICE_ACCOUNT_MANAGE)
    require_tenant(context)
    with tenant_scope(context):
        account = _changeable(service_account_id)
        with intent(
            TenantsEvent.SERVICE_ACCOUNT_RETIRE,
            object_type=_OBJECT,
            object_id=account.pk,
            object_label=account.name,
        ):
            revoke_keys_of(account.pk, "the service account was retired")
            account.user.is_active = False
            account.user.save(update_fields=["is_active"])
            account.retired_at = timezone.now()
            account.save(update_fields=["retired_at"])
    return account


def holder_of_new_key(service_account_id: UUID) -> User:
    """The service account's user, locked in the open scope, so that it is not retired meanwhile.

    Raises:
        NotFound: no such service account here.
        Conflict: it is disabled or retired.
    """
    account = _changeable(service_account_id)
    if not account.user.is_active:
        raise Conflict("The service account is disabled: enable it before you give it a key.")
    return account.user


def _changeable(service_account_id: UUID) -> ServiceAccount:
    """The service account, locked with its user until the scope ends."""
    account = (
        ServiceAccount.objects.select_for_update(of=("self", "user"))
        .select_related("user", "responsible")
        .filter(pk=service_account_id)
        .first()
    )
    if account is None:
        raise NotFound("There is no such service account.")
    if account.retired_at is not None:
        raise Conflict("The service account is retired: make a new one.")
    return account


def _write(account: ServiceAccount, **how: bool | list[str]) -> None:
    try:
        with transaction.atomic():
            account.save(**how)  # type: ignore[arg-type]
    except IntegrityError:
        raise Conflict(
            f"There is already a service account '{account.name}'.", param="name"
        ) from None


def _member(user_id: UUID | None) -> User:
    member = None
    if user_id is not None:
        member = Membership.objects.select_related("user").filter(user_id=user_id).first()
    if member is None:
        raise Invalid("'responsible_id' must be a member of the tenant.", param="responsible_id")
    return member.user


def _name(value: str) -> str:
    name = clean_text(value, "name", most=80, least=1)
    if "@" in name:
        # It stands where people's addresses stand, and must not be taken for one.
        raise Invalid("'name' must not hold an '@'.", param="name")
    return name


def _description(value: str) -> str:
    return clean_text(value, "description", most=400)
