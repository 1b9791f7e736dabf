"""The base of every model whose rows belong to a tenant."""

from uuid import UUID

from django.db import models

from portal.core.ids import uuid7


class IdModel(models.Model):
    """A row with a UUIDv7 made by the client, so that it is known before it is written."""

    id: "models.UUIDField[UUID, UUID]" = models.UUIDField(
        primary_key=True, default=uuid7, editable=False
    )

    class Meta:
        abstract = True


class TenantModel(models.Model):
    """A row that belongs to one tenant; its table is enabled by ``EnableTenantRLS``."""

    tenant_id: UUID

    class Meta:
        abstract = True
