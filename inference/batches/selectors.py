"""Reads of batches on the control plane: facts and counts, never what is in them."""

from uuid import UUID

from django.db.models import Prefetch, QuerySet

from inference.models import Batch
from portal.core.errors import NotFound
from portal.core.tenancy import current_context
from tenants.models import ApiKey


def batches() -> QuerySet[Batch]:
    """The batches of the scope's tenant, each with its key and user."""
    tenant_id = current_context().tenant_id
    assert tenant_id is not None, "batches are read in a tenant's scope"
    secrets = ("secret_hmac", "former_secret_hmac", "session_hmac")
    keys = Prefetch("api_key", ApiKey.objects.defer(*secrets))
    return Batch.objects.filter(tenant_id=tenant_id).prefetch_related(keys, "user")


def get_batch(batch_id: UUID) -> Batch:
    """A batch of the scope's tenant.

    Raises:
        NotFound: none; another tenant's is this too.
    """
    batch = batches().filter(pk=batch_id).first()
    if batch is None:
        raise NotFound("There is no such batch.")
    return batch
