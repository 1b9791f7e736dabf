"""Named filters and prefetch plans of the tenants app; each runs inside the caller's scope."""

from uuid import UUID

from django.db.models import QuerySet

from tenants.models import ApiKey, Membership, Quota, Tenant
from tenants.models.keys import ApiKeyKind


def tenants() -> QuerySet[Tenant]:
    """Every tenant that the scope can see."""
    return Tenant.objects.all()


def members() -> QuerySet[Membership]:
    """The members of the scope's tenant, each with the person."""
    return Membership.objects.select_related("user")


def keys(*, playground: bool = False) -> QuerySet[ApiKey]:
    """The API keys of the scope's tenant, each with its maker and its uses.

    Playground keys only if asked.
    """
    found = ApiKey.objects.select_related("user").prefetch_related("uses")
    return found if playground else found.exclude(kind=ApiKeyKind.PLAYGROUND)


def quotas(tenant_id: UUID) -> QuerySet[Quota]:
    """The quotas of one tenant with their counters and whom they limit."""
    return Quota.objects.filter(tenant_id=tenant_id).select_related(
        "window", "tenant", "user", "api_key"
    )
