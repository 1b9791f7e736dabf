"""Verbs of the catalogue."""

from uuid import UUID

from django.db import IntegrityError, transaction

from audit.services import intent
from inference.models import Deployment
from portal.core.actors import Context
from portal.core.errors import Conflict, NotFound
from portal.core.tenancy import platform_scope
from tenants.permissions import Action, require


def set_deployment_enabled(
    *, context: Context, deployment_id: UUID, enabled: bool
) -> Deployment:
    """Lets calls be admitted to a deployment, or refuses new ones; jobs under way go on.

    Raises:
        Forbidden, NotFound.
        Conflict: another deployment of the model is enabled.
    """
    require(context, Action.DEPLOYMENT_EDIT)
    with platform_scope(context, reason="a deployment is enabled or disabled"):
        deployment = Deployment.objects.select_for_update().filter(pk=deployment_id).first()
        if deployment is None:
            raise NotFound("There is no such deployment.")
        with intent(
            "deployment.enable" if enabled else "deployment.disable",
            object_type="inference.deployment",
            object_id=deployment.id,
            object_label=deployment.name,
        ):
            deployment.enabled = enabled
            try:
                with transaction.atomic():
                    deployment.save(update_fields=["enabled"])
            except IntegrityError:
                raise Conflict(
                    "Another deployment of this model is enabled: disable it first."
                ) from None
    return deployment
