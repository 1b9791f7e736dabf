"""Default quotas: limits that every key, or every user, of a tenant has by itself."""

from typing import Final
from uuid import UUID

from audit.services import intent
from portal.core.actors import Context
from portal.core.errors import Invalid, NotFound
from portal.core.tenancy import tenant_scope
from tenants.events import TenantsEvent
from tenants.models import QuotaDefault
from tenants.models.quotas import AppliesTo
from tenants.permissions import Action, require
from tenants.services.checks import require_tenant
from tenants.services.inheritance import lock_limits, spread_to_all
from tenants.services.quotas import check_limits

_OBJECT: Final = "tenants.quotadefault"


def set_quota_default(
    *, context: Context, applies_to: str, model_id: UUID | None = None, **limits: int | None
) -> QuotaDefault:
    """Sets limits that each key, or each user and service account, has by itself.

    They hold at once for all there are, and for future ones from their first request. A limit
    that is not named stays as it is; None takes it away. What a key or a user has been set by
    itself goes before the default, limit by limit. No counter is touched.

    Args:
        applies_to: of ``AppliesTo``.
        model_id: limits of one model alone; None for all models together.

    Raises:
        Forbidden: the caller may not.
        Invalid: an unknown limit, a value out of range, or no such ``applies_to``.
    """
    require(context, Action.QUOTA_EDIT)
    tenant_id = require_tenant(context)
    check_limits(limits)
    if applies_to not in AppliesTo.values:
        raise Invalid("'applies_to' must be 'api_key' or 'user'.", param="applies_to")
    with tenant_scope(context):
        tenant = lock_limits(tenant_id)
        found = QuotaDefault.objects.filter(
            tenant=tenant, applies_to=applies_to, model_id=model_id
        ).first()
        default = found or QuotaDefault(tenant=tenant, applies_to=applies_to, model_id=model_id)
        for name, value in limits.items():
            setattr(default, name, value)
        with intent(
            TenantsEvent.QUOTA_SET_DEFAULT,
            object_type=_OBJECT,
            object_id=default.id,
            object_label=applies_to,
            detail=dict(limits),
        ):
            default.save(force_insert=found is None)
            spread_to_all(tenant, applies_to, model_id, default)
    return default


def delete_quota_default(*, context: Context, quota_default_id: UUID) -> None:
    """Takes a default away: what keys and users have been set by itself is left.

    Their rows and counters stay, so that a default which is set again begins from no nought.

    Raises:
        Forbidden: the caller may not.
        NotFound: no such default here.
    """
    require(context, Action.QUOTA_EDIT)
    tenant_id = require_tenant(context)
    with tenant_scope(context):
        tenant = lock_limits(tenant_id)
        default = QuotaDefault.objects.filter(pk=quota_default_id).first()
        if default is None:
            raise NotFound("There is no such default quota.")
        with intent(
            TenantsEvent.QUOTA_DELETE_DEFAULT,
            object_type=_OBJECT,
            object_id=default.id,
            object_label=default.applies_to,
        ):
            default.delete()
            spread_to_all(tenant, default.applies_to, default.model_id, None)
