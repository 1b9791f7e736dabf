"""What the catalogue's pages have in common."""

from typing import ClassVar
from uuid import UUID

from django.urls import reverse

from portal.core.pages import PortalModelAdmin, Side


class PlatformPage(PortalModelAdmin):
    """A page of the catalogue: it belongs to the platform and holds no tenant's rows."""

    side: ClassVar[Side] = "platform"


def deployment_link(deployment_id: UUID) -> str:
    """Where a deployment's page is."""
    return reverse("admin:inference_deployment_change", args=[deployment_id])
