"""Apps on Dify: which app runs in which workspace, and what the workspace knows of the portal."""

from django.db import models

from knowledge.models.apps import App
from knowledge.models.connections import Connection
from portal.core.tenancy.models import IdModel, TenantModel
from tenants.models import ApiKey, Tenant, User


class AppDeployment(IdModel, TenantModel):
    """That an app runs in a connection's workspace.

    Attributes:
        key_id: of the app's key, in Dify; empty before there is one.
        sealed: that key, encrypted under the tenant's data key; null before there is one.
    """

    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="+", db_index=False)
    app = models.ForeignKey(
        App, models.DO_NOTHING, related_name="deployments", db_constraint=False, db_index=False
    )
    connection = models.ForeignKey(
        Connection, models.PROTECT, related_name="+", db_constraint=False, db_index=False
    )
    key_id = models.CharField(max_length=64, blank=True)
    data_key_version = models.PositiveIntegerField(default=0)
    sealed = models.BinaryField(null=True)
    created_by = models.ForeignKey(
        User, models.PROTECT, related_name="+", null=True, db_index=False
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["tenant", "app"], name="one_deployment_an_app"),
        ]
        indexes = [models.Index(fields=["tenant", "connection"], name="deployment_of_connection")]

    def __str__(self) -> str:
        return str(self.app_id)


class PortalInDify(IdModel, TenantModel):
    """What a workspace knows of the portal on behalf of one tenant, who is charged for it.

    Attributes:
        api_key: of the tenant's service account 'Dify'; the workspace calls the portal with it.
        generation: of that key; no recorded call of Dify replaces a model's key, so that a new key
            is a new model.
        sealed: the key, encrypted under the tenant's data key.
        url: where the workspace was told that the portal is.
        registered: names of models -> what they are called there.
        source_id: of the portal as a source of external knowledge; empty before it is one.
        datasets: ids of knowledge bases of the portal -> their ids there.
    """

    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="+", db_index=False)
    connection = models.ForeignKey(
        Connection, models.DO_NOTHING, related_name="+", db_constraint=False, db_index=False
    )
    api_key = models.ForeignKey(
        ApiKey, models.PROTECT, related_name="+", db_constraint=False, db_index=False
    )
    generation = models.PositiveIntegerField(default=1)
    data_key_version = models.PositiveIntegerField()
    sealed = models.BinaryField()
    url = models.CharField(max_length=300)
    registered = models.JSONField(default=dict)
    source_id = models.CharField(max_length=64, blank=True)
    datasets = models.JSONField(default=dict)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "connection"], name="one_portal_a_connection"
            ),
        ]

    def __str__(self) -> str:
        return str(self.connection_id)
