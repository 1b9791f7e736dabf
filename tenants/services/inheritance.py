"""How quotas follow the defaults of their tenant.

A default holds nowhere by itself. Each key or user it applies to has a quota row and a window of
its own, which are there from the moment that the key or the user is: whoever makes either, and
whoever changes a default, holds the same lock. So admission reads rows of quotas alone.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final
from uuid import UUID

from django.db.models import Q, QuerySet
from django.utils import timezone

from portal.core.errors import NotFound
from tenants.models import (
    LIMITS,
    ApiKey,
    Membership,
    Quota,
    QuotaDefault,
    QuotaWindow,
    ServiceAccount,
    Tenant,
)
from tenants.models.quotas import AppliesTo
from tenants.windows import window_starts

_BATCH: Final = 500


def lock_limits(tenant_id: UUID) -> Tenant:
    """Locks what the open scope's tenant limits and whom, until the scope ends.

    The tenant's own quota row is the lock, for it is always there.

    Raises:
        NotFound: no such tenant.
    """
    tenant = Tenant.objects.filter(pk=tenant_id).first()
    if tenant is None:
        raise NotFound("There is no such tenant.")
    Quota.objects.select_for_update().filter(
        tenant=tenant, user=None, api_key=None, model_id=None
    ).first()
    return tenant


def from_default(own: Collection[str], default: QuotaDefault | None) -> dict[str, Any]:
    """The columns of a quota that the default decides: each limit that is not the quota's own."""
    taken = {name: getattr(default, name, None) for name in LIMITS if name not in own}
    return {**taken, "inherited": [n for n, value in taken.items() if value is not None]}


def followed_default(quota: Quota) -> QuotaDefault | None:
    """The default that a quota of the open scope follows, if its tenant has one."""
    if quota.followed is None:
        return None
    applies_to, model_id = quota.followed
    return QuotaDefault.objects.filter(
        tenant=quota.tenant_id, applies_to=applies_to, model_id=model_id
    ).first()


def inherit(tenant: Tenant, *, user_id: UUID | None = None, api_key_id: UUID | None = None) -> None:
    """Gives a new key, or somebody who has just joined, what the tenant's defaults say.

    The caller holds ``lock_limits`` since before the key or the membership was written.
    """
    applies_to, subject = (
        (AppliesTo.USER, user_id) if api_key_id is None else (AppliesTo.API_KEY, api_key_id)
    )
    for default in QuotaDefault.objects.filter(tenant=tenant, applies_to=applies_to):
        spread(tenant, applies_to, default.model_id, default, Q(**{applies_to.value: subject}))
        _make_missing(tenant, default, [subject] if subject else [])


def spread_to_all(
    tenant: Tenant, applies_to: str, model_id: UUID | None, default: QuotaDefault | None
) -> None:
    """Makes every quota that follows a default say what it says now; None where it is gone.

    Keys and users that have no quota yet get one, unless the default limits nothing.
    """
    spread(tenant, applies_to, model_id, default)
    if default is not None:
        _make_missing(tenant, default, _subjects(tenant, applies_to))


def spread(
    tenant: Tenant,
    applies_to: str,
    model_id: UUID | None,
    default: QuotaDefault | None,
    which: Q | None = None,
) -> None:
    """The same for the quotas that there are, or for some of them."""
    alike: dict[tuple[str, ...], list[UUID]] = {}
    for quota in _followers(tenant, applies_to, model_id).filter(which or Q()):
        alike.setdefault(tuple(quota.own_limits), []).append(quota.pk)
    for own, ids in alike.items():
        # Windows stay untouched: what was used counts on, and no admission waits.
        Quota.objects.filter(pk__in=ids).update(**from_default(own, default))


def _followers(tenant: Tenant, applies_to: str, model_id: UUID | None) -> QuerySet[Quota]:
    found = Quota.objects.filter(tenant=tenant, model_id=model_id)
    if applies_to == AppliesTo.USER:
        return found.filter(user__isnull=False, api_key=None)
    return found.filter(user=None, api_key__isnull=False)


def _subjects(tenant: Tenant, applies_to: str) -> list[UUID]:
    """Whom a default applies to now: keys that can still be used, or who can have keys."""
    if applies_to == AppliesTo.API_KEY:
        lasting = Q(expires_at=None) | Q(expires_at__gt=timezone.now())
        keys = ApiKey.objects.filter(lasting, tenant=tenant, revoked_at=None)
        return list(keys.values_list("pk", flat=True))
    members = Membership.objects.filter(tenant=tenant).values_list("user_id", flat=True)
    accounts = ServiceAccount.objects.filter(tenant=tenant, retired_at=None)
    return [*members, *accounts.values_list("pk", flat=True)]


def _make_missing(tenant: Tenant, default: QuotaDefault, subjects: Sequence[UUID]) -> None:
    taken = from_default((), default)
    if not taken["inherited"]:
        return
    column = f"{default.applies_to}_id"
    there = set(
        _followers(tenant, default.applies_to, default.model_id)
        .filter(**{f"{column}__in": subjects})
        .values_list(column, flat=True)
    )
    insert_quotas(
        tenant,
        [
            Quota(tenant=tenant, model_id=default.model_id, **{column: subject}, **taken)
            for subject in subjects
            if subject not in there
        ],
    )


def insert_quotas(tenant: Tenant, quotas: Iterable[Quota]) -> None:
    """Writes new quotas, each with its window: one without is not enforced."""
    starts = window_starts(timezone.now(), tenant.time_zone)
    made = Quota.objects.bulk_create(quotas, batch_size=_BATCH)
    QuotaWindow.objects.bulk_create(
        [
            QuotaWindow(
                quota=quota,
                tenant=tenant,
                minute_start=starts["minute"],
                day_start=starts["day"],
                month_start=starts["month"],
            )
            for quota in made
        ],
        batch_size=_BATCH,
    )


def forget_inherited(ended: Q) -> None:
    """Deletes the quotas of keys that have ended, in the open scope, but those set by themselves.

    Args:
        ended: which keys; each must be revoked or expired.
    """
    # In the order of their ids: each takes its window with it.
    for quota in Quota.objects.filter(api_key__in=ApiKey.objects.filter(ended)).order_by("pk"):
        if not quota.own_limits:
            quota.delete()
