"""Connections: the instances of Dify where a tenant's knowledge and apps run."""

from django.db import models
from django.utils.translation import gettext_lazy as _

from portal.core.tenancy.models import IdModel, TenantModel
from tenants.models import Tenant


class DriftPolicy(models.TextChoices):
    """What becomes of a change that somebody made in Dify itself."""

    OURS = "ours", _("The portal's version wins")
    THEIRS = "theirs", _("Dify's version wins")
    ASK = "ask", _("Ask each time")


class Health(models.TextChoices):
    """What the newest check found."""

    HEALTHY = "healthy", _("Working")
    FAILING = "failing", _("Not working")


class Connection(IdModel, TenantModel):
    """A workspace of a Dify and the keys that open it, encrypted under the tenant's data key.

    A connection that the tenants of one organisation share is a row of each of them, with a copy
    of the keys under the data key of each: ``shared_from`` names the row that it was made of, and
    only the platform changes where such rows lead.

    Attributes:
        sealed: both keys.
        capabilities: as ``knowledge.dify.probe.Capabilities``.
        problem: the sentence of the newest check that failed; empty while it works.
        since: when it began to work, or ceased.
        check_at: when it is looked at next.
    """

    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="+", db_index=False)
    name = models.CharField(_("name"), max_length=80)
    base_url = models.CharField(_("address"), max_length=300)
    workspace_id = models.UUIDField(_("workspace id"))
    workspace_name = models.CharField(_("workspace"), max_length=255, blank=True)
    data_key_version = models.PositiveIntegerField()
    sealed = models.BinaryField()
    drift_policy = models.CharField(
        _("on drift"), max_length=8, choices=DriftPolicy, default=DriftPolicy.ASK
    )
    shared_from = models.UUIDField(null=True)
    organisation = models.CharField(_("organisation"), max_length=120, blank=True)
    licence_reference = models.CharField(_("licence"), max_length=200, blank=True)
    licence_confirmed_by = models.CharField(max_length=254, blank=True)
    licence_confirmed_at = models.DateTimeField(null=True)
    version = models.CharField(_("version"), max_length=40)
    capabilities = models.JSONField()
    health = models.CharField(_("state"), max_length=8, choices=Health)
    problem_code = models.CharField(max_length=60, blank=True)
    problem = models.CharField(max_length=400, blank=True)
    since = models.DateTimeField(_("since"))
    checked_at = models.DateTimeField(_("checked"))
    check_at = models.DateTimeField()
    created_at = models.DateTimeField(_("created"), auto_now_add=True)

    class Meta:
        verbose_name = _("connection")
        verbose_name_plural = _("connections")
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(fields=["tenant", "id"], name="connection_in_tenant"),
            models.UniqueConstraint(fields=["tenant", "name"], name="one_connection_a_name"),
        ]
        indexes = [models.Index(fields=["check_at"], name="connection_due")]

    def __str__(self) -> str:
        return self.name

    @property
    def shared(self) -> bool:
        """Whether other tenants of the organisation work in the same workspace."""
        return bool(self.organisation)
