"""Quotas: limits that people set, and the window rows that admission counts in."""

from dataclasses import replace
from typing import Final
from uuid import UUID

from django.db.models import Prefetch, prefetch_related_objects
from django.utils import timezone

from audit.services import intent
from portal.core.actors import Context
from portal.core.errors import Conflict, Invalid, NotFound
from portal.core.tenancy import platform_scope, tenant_scope
from tenants.events import TenantsEvent
from tenants.models import LIMITS, ApiKey, Membership, Quota, ServiceAccount, Tenant
from tenants.models.tenant import TenantState
from tenants.permissions import Action, allowed, require
from tenants.querysets import recent_warnings
from tenants.services.checks import require_tenant
from tenants.services.inheritance import followed_default, from_default, insert_quotas, lock_limits

_MOST: Final = 2**63 - 1


def set_quota(
    *,
    context: Context,
    tenant_id: UUID | None = None,
    user_id: UUID | None = None,
    api_key_id: UUID | None = None,
    model_id: UUID | None = None,
    **limits: int | None,
) -> Quota:
    """Sets limits of one scope: of the tenant, a user, a key, a model, or a mix of them.

    A row is made where the scope has none yet. A limit that is not named stays as it is; None
    takes it away, and where the key or the user has it by default, the default holds again. The
    limits of the tenant as a whole belong to the platform.

    Args:
        tenant_id: the tenant; the context's own if not given. Others are the platform's to name.

    Raises:
        Forbidden: the caller may not.
        NotFound: no such tenant, user or key here.
        Invalid: an unknown limit or a value out of range.
        Conflict: the tenant is closing or closed.
    """
    whole_tenant = user_id is None and api_key_id is None
    require(context, Action.QUOTA_EDIT_TENANT if whole_tenant else Action.QUOTA_EDIT)
    check_limits(limits)
    if whole_tenant:
        inside = replace(context, tenant_id=tenant_id or require_tenant(context))
        with platform_scope(inside, reason="a tenant's limits are set"):
            return _set(inside, None, None, model_id, limits)
    if tenant_id not in (None, context.tenant_id):
        raise NotFound("There is no such tenant.")
    require_tenant(context)
    with tenant_scope(context):
        if user_id is not None and not _is_here(user_id):
            raise NotFound("There is no such member or service account.")
        if api_key_id is not None and not ApiKey.objects.filter(pk=api_key_id).exists():
            raise NotFound("There is no such API key.")
        return _set(context, user_id, api_key_id, model_id, limits)


def _is_here(user_id: UUID) -> bool:
    """Whether a user is a member of the open scope's tenant, or a service account of it."""
    return (
        Membership.objects.filter(user_id=user_id).exists()
        or ServiceAccount.objects.filter(pk=user_id, retired_at=None).exists()
    )


def _is_over(quota: Quota) -> bool:
    """Whether whom a quota of the open scope limits can't call any more."""
    if quota.api_key is not None:
        ends = quota.api_key.expires_at
        return quota.api_key.revoked_at is not None or (ends is not None and ends <= timezone.now())
    return quota.user_id is not None and not _is_here(quota.user_id)


def _set(
    context: Context,
    user_id: UUID | None,
    api_key_id: UUID | None,
    model_id: UUID | None,
    limits: dict[str, int | None],
) -> Quota:
    tenant = lock_limits(require_tenant(context))
    if tenant.state in (TenantState.CLOSING, TenantState.CLOSED):
        raise Conflict(f"The tenant is {tenant.state}; its limits can't be changed any more.")
    quota = (
        Quota.objects.select_for_update(of=("self",))
        .select_related("window", "tenant")
        .filter(tenant=tenant, user=user_id, api_key=api_key_id, model_id=model_id)
        .first()
    )
    found = quota or Quota(tenant=tenant, user_id=user_id, api_key_id=api_key_id, model_id=model_id)
    _change(found, limits)
    with intent(
        TenantsEvent.QUOTA_SET,
        object_type="tenants.quota",
        object_id=found.id,
        object_label=str(api_key_id or user_id or tenant.name),
        detail=dict(limits),
    ):
        if quota is None:
            insert_quotas(tenant, [found])
        else:
            quota.save(update_fields=[*LIMITS, "inherited"])
    # Whoever shows it may be outside this scope.
    prefetch_related_objects([found], Prefetch("warnings", recent_warnings()))
    return found


def _change(quota: Quota, limits: dict[str, int | None]) -> None:
    """Sets a quota's own limits and takes the others from the default that it follows, if any."""
    for name, value in limits.items():
        setattr(quota, name, value)
    quota.inherited = [name for name in quota.inherited if name not in limits]
    for name, value in from_default(quota.own_limits, followed_default(quota)).items():
        setattr(quota, name, value)


def delete_quota(*, context: Context, quota_id: UUID) -> None:
    """Deletes the limits and counters of a user, a key, a model, or a mix of them.

    Generations under way go on, and are settled in the quotas that are left. A row that is made
    anew for the same scope counts from nothing: neither what was used nor what runs. A row that
    follows a default is not deleted while its key or user can call: it loses its own limits, and
    its counters go on.

    Raises:
        Forbidden: the caller may not.
        NotFound: no such quota here.
        Invalid: it is the tenant's own, on which every request is counted.
    """
    if not allowed(context, Action.QUOTA_EDIT_TENANT):
        require(context, Action.QUOTA_EDIT)
    require_tenant(context)
    with tenant_scope(context):
        lock_limits(require_tenant(context))
        quota = Quota.objects.select_for_update(of=("self",)).filter(pk=quota_id).first()
        if quota is None:
            raise NotFound("There is no such quota.")
        require(context, Action.QUOTA_EDIT_TENANT if quota.of_tenant else Action.QUOTA_EDIT)
        if quota.of_tenant and quota.model_id is None:
            raise Invalid("The tenant's own quota can't be deleted; take its limits away instead.")
        with intent(
            TenantsEvent.QUOTA_DELETE,
            object_type="tenants.quota",
            object_id=quota.id,
            object_label=str(quota.api_key_id or quota.user_id or quota.model_id),
        ):
            _change(quota, dict.fromkeys(quota.own_limits))
            if quota.inherited and not _is_over(quota):
                quota.save(update_fields=[*LIMITS, "inherited"])
            else:
                quota.delete()


def new_quota(tenant: Tenant) -> Quota:
    """The tenant's own quota row and its window, without limits, in the open scope."""
    quota = Quota(tenant=tenant)
    insert_quotas(tenant, [quota])
    return quota


def check_limits(limits: dict[str, int | None]) -> None:
    if not limits:
        raise Invalid("Name at least one limit.")
    for name, value in limits.items():
        if name not in LIMITS:
            raise Invalid(f"There is no limit '{name[:40]}'.", param=name[:40])
        if value is not None and (isinstance(value, bool) or not 0 <= value <= _MOST):
            raise Invalid(f"'{name}' must be a whole number from 0 on.", param=name)
