"""Named filters and prefetch plans of the tenants app; each runs inside the caller's scope."""

from datetime import timedelta
from uuid import UUID

from django.db.models import Count, Exists, OuterRef, Prefetch, Q, QuerySet
from django.utils import timezone

from tenants.models import (
    ApiKey,
    Membership,
    Quota,
    QuotaWarning,
    ServiceAccount,
    Tenant,
    User,
)
from tenants.models.keys import ApiKeyKind


def tenants() -> QuerySet[Tenant]:
    """Every tenant that the scope can see."""
    return Tenant.objects.all()


def members() -> QuerySet[Membership]:
    """The members of the scope's tenant, each with the person."""
    return Membership.objects.select_related("user")


def users(*, of_tenant: bool) -> QuerySet[User]:
    """Every account, or those of the scope's tenant's members alone."""
    found = User.objects.all()
    return found.filter(pk__in=Membership.objects.values("user_id")) if of_tenant else found


def service_accounts() -> QuerySet[ServiceAccount]:
    """The service accounts of the scope's tenant, with who is responsible.

    Each has ``live_keys``, how many of its keys work, and ``responsible_is_here``, whether that
    person is a member who can still log in.
    """
    live = Q(user__api_keys__revoked_at=None) & (
        Q(user__api_keys__expires_at=None) | Q(user__api_keys__expires_at__gt=timezone.now())
    )
    here = Membership.objects.filter(user_id=OuterRef("responsible_id"), user__is_active=True)
    return ServiceAccount.objects.select_related("user", "responsible").annotate(
        live_keys=Count("user__api_keys", filter=live), responsible_is_here=Exists(here)
    )


def keys(*, playground: bool = False) -> QuerySet[ApiKey]:
    """The API keys of the scope's tenant, each with its maker and its uses.

    Playground keys only if asked.
    """
    found = ApiKey.objects.select_related("user").prefetch_related("uses")
    return found if playground else found.exclude(kind=ApiKeyKind.PLAYGROUND)


def quotas(tenant_id: UUID) -> QuerySet[Quota]:
    """The quotas of one tenant with their counters, their last warnings and whom they limit."""
    return (
        Quota.objects.filter(tenant_id=tenant_id)
        .select_related("window", "tenant", "user", "api_key")
        .prefetch_related(Prefetch("warnings", recent_warnings()))
    )


def recent_warnings() -> QuerySet[QuotaWarning]:
    """Warnings of windows that may be under way, newest first: no day, no month lasts longer."""
    now = timezone.now()
    day = Q(limit_name__endswith="_day", window_start__gte=now - timedelta(hours=26))
    month = Q(limit_name__endswith="_month", window_start__gte=now - timedelta(days=32))
    found = QuotaWarning.objects.filter(day | month | Q(limit_name__endswith="_total"))
    return found.select_related("tenant").order_by("-warned_at", "-pk")
