"""The closing of a tenant: how far it is, what it erased, what was taken along, and its proof."""

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from portal.core.tenancy.models import IdModel, TenantModel
from tenants.models.tenant import Tenant


class ClosureState(models.TextChoices):
    """``closing`` can be reopened, ``deleting`` can not; the other two are ends."""

    CLOSING = "closing", _("Waiting for its grace period to end")
    DELETING = "deleting", _("Being deleted")
    CLOSED = "closed", _("Closed")
    REOPENED = "reopened", _("Reopened")


class TenantClosure(IdModel, TenantModel):
    """One decision to close a tenant, and what became of it.

    Attributes:
        tenant_was: the tenant's state before; reopening goes back to it.
        delete_after: until then it can be reopened and exported.
        settled_at: when no generation was left that could still run.
    """

    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="closures", db_index=False)
    state = models.CharField(
        _("state"), max_length=12, choices=ClosureState, default=ClosureState.CLOSING
    )
    tenant_was = models.CharField(max_length=12)
    reason = models.CharField(_("reason"), max_length=200)
    asked_by_id = models.UUIDField(null=True)
    asked_by = models.CharField(_("decided by"), max_length=254)
    asked_at = models.DateTimeField(_("decided"))
    delete_after = models.DateTimeField(_("deletion begins after"))
    settled_at = models.DateTimeField(_("generations settled"), null=True)
    deletion_began_at = models.DateTimeField(_("deletion began"), null=True)
    ended_at = models.DateTimeField(_("ended"), null=True)

    class Meta:
        verbose_name = _("closing")
        verbose_name_plural = _("closings")
        ordering = ["-asked_at"]
        constraints = [
            models.UniqueConstraint(fields=["tenant", "id"], name="closure_in_tenant"),
            models.UniqueConstraint(
                fields=["tenant"],
                condition=~Q(state=ClosureState.REOPENED),
                name="one_closure_at_a_time",
            ),
        ]

    def __str__(self) -> str:
        return str(self.get_state_display())


class ClosureStep(IdModel, TenantModel):
    """What one step of a deletion has erased; written in the transaction that erases it."""

    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="+", db_index=False)
    closure = models.ForeignKey(
        TenantClosure,
        models.DO_NOTHING,
        related_name="steps",
        db_constraint=False,
        db_index=False,
    )
    name = models.CharField(_("what"), max_length=80)
    erased = models.BigIntegerField(_("erased"), default=0)
    began_at = models.DateTimeField(_("began"))
    finished_at = models.DateTimeField(_("finished"), null=True)

    class Meta:
        ordering = ["began_at", "id"]
        constraints = [
            models.UniqueConstraint(fields=["tenant", "closure", "name"], name="one_closure_step")
        ]

    def __str__(self) -> str:
        return f"{self.name}: {self.erased}"


class TenantCertificate(IdModel, TenantModel):
    """The certificate of a deletion, byte for byte as it was sealed; never changed.

    ``seal`` is an HMAC-SHA256 under the numbered pepper ``pepper``; both digests are in hex.
    """

    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="certificates", db_index=False)
    closure = models.ForeignKey(
        TenantClosure, models.DO_NOTHING, related_name="+", db_constraint=False, db_index=False
    )
    document = models.TextField()
    sha256 = models.CharField(_("SHA-256"), max_length=64)
    pepper = models.PositiveSmallIntegerField()
    seal = models.CharField(max_length=64)
    issued_at = models.DateTimeField(_("issued"))

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["tenant", "closure"], name="one_certificate_a_closure")
        ]

    def __str__(self) -> str:
        return self.sha256


class ExportState(models.TextChoices):
    WAITING = "waiting", _("Waiting")
    RUNNING = "running", _("Being made")
    READY = "ready", _("Ready")
    FAILED = "failed", _("Failed")
    DELETED = "deleted", _("Deleted")


class TenantExport(IdModel, TenantModel):
    """A tenant's things in one file, asked for, made by an io worker, kept for a while.

    ``attempts`` is also the fence of the worker that makes it; ``sha256`` (hex) and ``size``
    (bytes) are those of the zip file that is handed out, which lies encrypted on the disk.
    """

    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="exports", db_index=False)
    state = models.CharField(
        _("state"), max_length=12, choices=ExportState, default=ExportState.WAITING
    )
    asked_by_id = models.UUIDField(null=True)
    asked_by = models.CharField(_("asked for by"), max_length=254)
    asked_at = models.DateTimeField(_("asked for"))
    attempts = models.PositiveSmallIntegerField(default=0)
    lease_until = models.DateTimeField(null=True)
    part = models.CharField(max_length=80, blank=True)
    rows_done = models.BigIntegerField(_("rows written"), default=0)
    rows_total = models.BigIntegerField(_("rows"), null=True)
    ready_at = models.DateTimeField(_("ready"), null=True)
    expires_at = models.DateTimeField(_("deleted after"), null=True)
    size = models.BigIntegerField(_("size"), null=True)
    sha256 = models.CharField(_("SHA-256"), max_length=64, blank=True)

    class Meta:
        verbose_name = _("export")
        verbose_name_plural = _("exports")
        ordering = ["-asked_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["tenant"],
                condition=Q(state__in=[ExportState.WAITING, ExportState.RUNNING]),
                name="one_export_at_a_time",
            )
        ]
        indexes = [models.Index(fields=["tenant", "-asked_at"], name="export_list")]

    def __str__(self) -> str:
        return f"{self.asked_at:%Y-%m-%d %H:%M}"

    @property
    def percent(self) -> int | None:
        """How much of it is written, from 0 to 100; None before that is known."""
        if not self.rows_total:
            return None
        return min(100, self.rows_done * 100 // self.rows_total)
