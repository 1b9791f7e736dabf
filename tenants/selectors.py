"""Reads of the tenants app that join several models."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeVar
from uuid import UUID

from django.db.models import Model, QuerySet
from django.utils import timezone

from portal.core.actors import Context
from portal.core.errors import NotFound
from portal.core.tenancy import platform_scope, tenant_scope
from tenants.models import METRICS, WINDOWS, Quota, Tenant
from tenants.windows import window_starts

M = TypeVar("M", bound=Model)


@dataclass(frozen=True, slots=True)
class Use:
    """One limit and how far it is drawn on; ``used`` counts what is reserved, too."""

    name: str
    limit: int | None
    used: int


@dataclass(frozen=True, slots=True)
class QuotaUse:
    """A quota and every metric of it that is limited or used."""

    quota: Quota
    uses: tuple[Use, ...]


def quota_use(quota: Quota, *, now: datetime | None = None) -> QuotaUse:
    """What a quota allows and what is drawn on it.

    Counters of a window that has ended count as nothing: admission empties them at the next call.
    """
    window = quota.window
    starts = window_starts(now or timezone.now(), quota.tenant.time_zone)
    uses = []
    for metric in METRICS:
        for span in WINDOWS:
            name = f"{metric}_{span}"
            used = getattr(window, f"{name}_used") + getattr(window, f"{name}_held", 0)
            if span != "total" and getattr(window, f"{span}_start") < starts[span]:
                used = 0
            uses.append(Use(name, getattr(quota, name), used))
    uses.append(Use("concurrency", quota.concurrency, window.active))
    return QuotaUse(quota, tuple(uses))


@contextmanager
def tenant_list_scope(context: Context) -> Iterator[None]:
    """Where tenants are read: across tenants for an administrator, else the caller's own."""
    if context.platform_role is not None:
        with platform_scope(replace(context, tenant_id=None), reason="tenants are read"):
            yield
    else:
        with tenant_scope(context):
            yield


def get_tenant(context: Context, tenant_id: UUID) -> Tenant:
    """A tenant that the caller may see.

    Raises:
        NotFound: none, or another's.
    """
    if context.platform_role is None and context.tenant_id != tenant_id:
        raise NotFound("There is no such tenant.")
    with tenant_list_scope(context):
        return one(Tenant.objects.filter(pk=tenant_id), "There is no such tenant.")


def one(found: QuerySet[M], message: str) -> M:
    """The only row.

    Raises:
        NotFound: there is none in the scope; another tenant's row is this too.
    """
    row = found.first()
    if row is None:
        raise NotFound(message)
    return row
