"""Reads of the tenants app that join several models."""

from collections.abc import Iterator, Mapping, Sequence
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
from tenants import querysets
from tenants.levels import level_reached
from tenants.models import (
    METRICS,
    WARNED_WINDOWS,
    WINDOWS,
    Membership,
    Quota,
    QuotaDefault,
    QuotaWarning,
    Tenant,
    User,
)
from tenants.permissions import Action, allowed
from tenants.windows import next_reset, window_starts

M = TypeVar("M", bound=Model)


@dataclass(frozen=True, slots=True)
class Use:
    """One limit and how far it is drawn on.

    ``used`` counts what is reserved, too, and ``held`` is that part of it. ``level`` is the highest
    percent of ``LEVELS`` that is reached now, where the limit warns at all; ``warnings`` are those
    of the window under way.
    ``resets_at`` is when that ends, in the tenant's time zone; None for what never does.
    ``origin`` is where the limit comes from, ``own`` or ``default``; ``default_limit`` is what the
    quota's default says, whether it holds here or is overridden.
    """

    name: str
    limit: int | None
    used: int
    held: int = 0
    resets_at: datetime | None = None
    level: int | None = None
    warnings: tuple[QuotaWarning, ...] = ()
    origin: str | None = None
    default_limit: int | None = None


@dataclass(frozen=True, slots=True)
class QuotaUse:
    """A quota and every metric of it that is limited or used."""

    quota: Quota
    uses: tuple[Use, ...]


Defaults = Mapping[tuple[str, UUID | None], QuotaDefault]
"""A tenant's default quotas by what ``Quota.followed`` says."""


def quota_defaults(tenant_id: UUID) -> Defaults:
    """The default quotas of one tenant."""
    found = QuotaDefault.objects.filter(tenant_id=tenant_id)
    return {(default.applies_to, default.model_id): default for default in found}


def quota_use(
    quota: Quota, *, now: datetime | None = None, defaults: Defaults | None = None
) -> QuotaUse:
    """What a quota allows, by whose word, and what is drawn on it.

    Counters of a window that has ended count as nothing: admission empties them at the next call.
    """
    zone = quota.tenant.time_zone
    now = now or timezone.now()
    starts = window_starts(now, zone)
    told = [warning for warning in quota.warnings.all() if is_under_way(warning, starts)]
    uses = [
        _use(quota, metric, span, starts, told, next_reset(span, now, zone))
        for metric in METRICS
        for span in WINDOWS
    ]
    uses.append(Use("concurrency", quota.concurrency, quota.window.active))
    default = None if quota.followed is None else (defaults or {}).get(quota.followed)
    return QuotaUse(quota, tuple(_with_origin(use, quota, default) for use in uses))


def _with_origin(use: Use, quota: Quota, default: QuotaDefault | None) -> Use:
    origin = "default" if use.name in quota.inherited else "own"
    return replace(
        use,
        origin=None if use.limit is None else origin,
        default_limit=getattr(default, use.name, None),
    )


def _use(
    quota: Quota,
    metric: str,
    span: str,
    starts: Mapping[str, datetime],
    told: Sequence[QuotaWarning],
    resets_at: datetime | None,
) -> Use:
    name, window = f"{metric}_{span}", quota.window
    limit = getattr(quota, name)
    held = getattr(window, f"{name}_held", 0)
    used = getattr(window, f"{name}_used") + held
    if span != "total" and getattr(window, f"{span}_start") < starts[span]:
        used = held = 0
    warnings = sorted((w for w in told if w.limit_name == name), key=lambda w: w.level)
    level = level_reached(used, limit) if span in WARNED_WINDOWS else None
    return Use(name, limit, used, held, resets_at, level, tuple(warnings))


def is_under_way(warning: QuotaWarning, starts: Mapping[str, datetime]) -> bool:
    """Whether the window that a warning speaks of has not ended.

    Args:
        starts: when the tenant's windows began, as ``window_starts`` says.
    """
    span = warning.limit_name.rpartition("_")[2]
    return span == "total" or warning.window_start >= starts[span]


def warnings_under_way(found: QuerySet[QuotaWarning]) -> list[QuotaWarning]:
    """Of each limit the highest level it was warned of in the window under way, newest first.

    Args:
        found: warnings that the scope can see, with the tenant, newest first.
    """
    now = timezone.now()
    highest: dict[tuple[UUID, str], QuotaWarning] = {}
    for warning in found:
        key = (warning.quota_id, warning.limit_name)
        if is_under_way(warning, window_starts(now, warning.tenant.time_zone)):
            kept = highest.setdefault(key, warning)
            if warning.level > kept.level:
                highest[key] = warning
    return list(highest.values())


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


@dataclass(frozen=True, slots=True)
class Account:
    """A person's account, and the memberships of it that the caller may see."""

    user: User
    memberships: tuple[Membership, ...]


def sees_every_user(context: Context) -> bool:
    """Whether the caller sees all accounts, and not just those of the own tenant's members."""
    return allowed(context, Action.USER_READ)


def get_account(context: Context, user_id: UUID) -> Account:
    """An account that the caller may see.

    Raises:
        NotFound: none, or that of nobody in the caller's tenant.
    """
    if sees_every_user(context):
        outside = replace(context, tenant_id=None)
        with platform_scope(outside, reason="a user's memberships are listed"):
            return _account(user_id, of_tenant=False)
    with tenant_scope(context):
        return _account(user_id, of_tenant=True)


def _account(user_id: UUID, *, of_tenant: bool) -> Account:
    user = one(querysets.users(of_tenant=of_tenant).filter(pk=user_id), "There is no such user.")
    found = Membership.objects.filter(user=user).select_related("tenant").order_by("tenant__name")
    return Account(user, tuple(found))


def one(found: QuerySet[M], message: str) -> M:
    """The only row.

    Raises:
        NotFound: there is none in the scope; another tenant's row is this too.
    """
    row = found.first()
    if row is None:
        raise NotFound(message)
    return row
