"""The audit trail's tables.

They are partitioned by month and made by hand in the first migration, so their models are
unmanaged; a partitioned table's key must hold the partition column, while Django's admin wants
one column, so ``id`` (a UUIDv7) stands as the key here.

Tenants and actors are named by id and a label snapshot, never by foreign key: nothing cascades
into the trail, and it outlives what it speaks of.
"""

from auditlog.models import AbstractLogEntry
from django.db import models
from django.utils.translation import gettext_lazy as _

from portal.core.ids import uuid7
from portal.core.tenancy.models import TenantModel


class Category(models.TextChoices):
    """What an event is about."""

    CALL = "call", _("Call")
    INTENT = "intent", _("Action")
    CHANGE = "change", _("Change")
    JOB = "job", _("Generation")
    AUTH = "auth", _("Log-in")
    ACCESS = "access", _("Access to records")


class Outcome(models.TextChoices):
    """What became of it; ``requested`` is written before anything happens."""

    REQUESTED = "requested", _("Requested")
    SUCCESS = "success", _("Success")
    DENIED = "denied", _("Denied")
    FAILURE = "failure", _("Failure")


class AuditEvent(TenantModel):
    """One event; written once, by INSERT alone."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    recorded_at = models.DateTimeField(_("recorded"))
    xid = models.BigIntegerField(editable=False)
    tenant_id = models.UUIDField()
    category = models.CharField(_("category"), max_length=12, choices=Category)
    action = models.CharField(_("action"), max_length=80)
    outcome = models.CharField(_("outcome"), max_length=12, choices=Outcome)
    reason = models.CharField(_("reason"), max_length=300)
    actor_type = models.CharField(_("actor type"), max_length=20)
    actor_id = models.UUIDField(_("actor id"), null=True)
    actor_label = models.CharField(_("actor"), max_length=254)
    on_behalf_of = models.UUIDField(_("on behalf of"), null=True)
    api_key_id = models.UUIDField(_("API key"), null=True)
    auth_method = models.CharField(_("authenticated by"), max_length=20)
    address = models.GenericIPAddressField(_("address"), null=True)
    request_id = models.CharField(_("request id"), max_length=64)
    client_request_id = models.CharField(_("caller's request id"), max_length=128, null=True)
    object_type = models.CharField(_("object type"), max_length=80)
    object_id = models.CharField(_("object id"), max_length=80)
    object_label = models.CharField(_("object"), max_length=254)
    intent_id = models.UUIDField(_("action id"), null=True)
    occurred_at = models.DateTimeField(_("occurred"))

    class Meta:
        managed = False
        db_table = "audit_event"
        ordering = ["-recorded_at"]
        verbose_name = _("audit event")
        verbose_name_plural = _("audit trail")

    def __str__(self) -> str:
        return f"{self.action} {self.outcome}"


class AuditBody(TenantModel):
    """The detachable part of an event: the row before and after, and what else is told."""

    event = models.OneToOneField(
        AuditEvent, models.DO_NOTHING, primary_key=True, related_name="body", db_constraint=False
    )
    recorded_at = models.DateTimeField()
    tenant_id = models.UUIDField()
    before = models.JSONField(null=True)
    after = models.JSONField(null=True)
    detail = models.JSONField(null=True)

    class Meta:
        managed = False
        db_table = "audit_body"
        verbose_name = _("audit body")

    def __str__(self) -> str:
        return str(self.event_id)


class AuditLeaf(TenantModel):
    """A sealed event: its place in the tenant's tree; inserted by the sealer alone."""

    event_id = models.UUIDField(primary_key=True)
    recorded_at = models.DateTimeField()
    tenant_id = models.UUIDField()
    seq = models.BigIntegerField()
    header = models.BinaryField()
    salt = models.BinaryField(null=True)
    leaf = models.BinaryField()

    class Meta:
        managed = False
        db_table = "audit_leaf"
        verbose_name = _("audit leaf")

    def __str__(self) -> str:
        return str(self.seq)


class LogEntry(AbstractLogEntry):  # type: ignore[misc]
    """django-auditlog's view of the trail: it renders the readable diff and writes nothing.

    Behind it stands a ``security_invoker`` view over the row-change events, so that the trigger
    stays the only source of before and after.
    """

    id = models.UUIDField(primary_key=True)

    class Meta(AbstractLogEntry.Meta):  # type: ignore[misc]
        abstract = False
        managed = False
        db_table = "audit_logentry"
