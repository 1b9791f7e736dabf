"""Reads of webhooks, inside the caller's scope."""

from uuid import UUID

from django.db.models import Prefetch, QuerySet

from inference.models import WebhookAttempt, WebhookDelivery, WebhookSecret
from portal.core.errors import NotFound
from portal.core.tenancy import current_context


def _own_tenant() -> UUID:
    tenant_id = current_context().tenant_id
    assert tenant_id is not None, "webhooks are read in a tenant's scope"
    return tenant_id


def deliveries() -> QuerySet[WebhookDelivery]:
    """The webhooks of the scope's tenant, without their URLs; of these only the origin is shown.

    The tenant is named for the planner, as in ``inference.selectors.jobs``.
    """
    return WebhookDelivery.objects.filter(tenant_id=_own_tenant()).defer("sealed_url")


def get_delivery(delivery_id: UUID) -> WebhookDelivery:
    """A webhook of the scope's tenant with its attempts, newest first.

    Raises:
        NotFound: none; another tenant's is this too.
    """
    log = Prefetch("log", WebhookAttempt.objects.filter(tenant_id=_own_tenant()))
    found = deliveries().filter(pk=delivery_id).prefetch_related(log).first()
    if found is None:
        raise NotFound("There is no such webhook delivery.")
    return found


def signing_secrets() -> QuerySet[WebhookSecret]:
    """The generations of the scope's tenant, newest first, without the secrets themselves."""
    return WebhookSecret.objects.filter(tenant_id=_own_tenant()).defer("sealed")
