"""The usage ledger: what was charged, once and for ever."""

from django.db import models
from django.utils.translation import gettext_lazy as _

from portal.core.tenancy.models import IdModel, TenantModel


class Measure(models.TextChoices):
    MEASURED = "measured", _("Measured")
    ESTIMATED = "estimated", _("Estimated")


class LedgerEntry(IdModel, TenantModel):
    """One charge. Append-only: serving roles insert and read, and a trigger refuses the rest.

    It outlives what it names, so it holds ids and labels and no foreign key.
    """

    tenant_id = models.UUIDField()
    job_id = models.UUIDField()
    api_key_id = models.UUIDField(null=True)
    user_id = models.UUIDField(null=True)
    model_id = models.UUIDField()
    sku = models.CharField(_("SKU"), max_length=120)
    prompt_tokens = models.BigIntegerField(_("prompt tokens"))
    completion_tokens = models.BigIntegerField(_("completion tokens"))
    cost = models.BigIntegerField(_("cost"), help_text=_("Nano-units of the currency."))
    currency = models.CharField(max_length=3)
    measure = models.CharField(max_length=10, choices=Measure)
    admitted_at = models.DateTimeField(_("admitted"))
    recorded_at = models.DateTimeField(_("recorded"))
    # The transaction that charged it; the database sets it. Rollups go by it, not by a time: what
    # was recorded early may be committed late.
    xid = models.BigIntegerField(editable=False)

    class Meta:
        verbose_name = _("ledger entry")
        verbose_name_plural = _("ledger")
        ordering = ["-recorded_at"]
        constraints = [
            models.UniqueConstraint(fields=["tenant_id", "job_id"], name="one_charge_a_job")
        ]
        indexes = [
            models.Index(fields=["tenant_id", "recorded_at"], name="ledger_by_time"),
        ]

    def __str__(self) -> str:
        return f"{self.sku} {self.prompt_tokens}+{self.completion_tokens}"
