"""Usage rollups: what the ledger says, summed, so that no view and no export scans it."""

from datetime import timedelta
from typing import Final

from django.db import models
from django.utils.translation import gettext_lazy as _

from portal.core.tenancy.models import IdModel, TenantModel

BUCKET: Final = timedelta(minutes=15)
"""Every time zone is a multiple of this away from UTC, so buckets add up to days of any of them."""


class UsageBucket(IdModel, TenantModel):
    """Charges of a quarter of an hour (UTC, by admission) of one user, key, SKU and currency.

    ``usage_roll_up()`` in PostgreSQL writes it. Like the ledger it outlives what it names, so it
    holds ids and labels and no foreign key.
    """

    tenant_id = models.UUIDField()
    starts_at = models.DateTimeField(_("begins"))
    user_id = models.UUIDField(null=True)
    api_key_id = models.UUIDField(null=True)
    model_id = models.UUIDField()
    sku = models.CharField(_("SKU"), max_length=120)
    currency = models.CharField(max_length=3)
    requests = models.BigIntegerField(_("requests"), help_text=_("Requests that were charged."))
    prompt_tokens = models.BigIntegerField(_("prompt tokens"))
    completion_tokens = models.BigIntegerField(_("completion tokens"))
    cost = models.BigIntegerField(_("cost"), help_text=_("Nano-units of the currency."))

    class Meta:
        verbose_name = _("usage")
        verbose_name_plural = _("usage")
        constraints = [
            models.UniqueConstraint(
                fields=[
                    "tenant_id",
                    "starts_at",
                    "user_id",
                    "api_key_id",
                    "model_id",
                    "sku",
                    "currency",
                ],
                nulls_distinct=False,
                name="one_usage_bucket",
            )
        ]
        indexes = [models.Index(fields=["starts_at"], name="usage_by_time")]

    def __str__(self) -> str:
        return f"{self.starts_at:%Y-%m-%d %H:%M} {self.sku}"


class UsageWatermark(models.Model):
    """How far the ledger is rolled up; one row.

    Attributes:
        cluster: PostgreSQL's system identifier; another one means that transaction ids began anew.
        xid: entries of transactions below this are counted, all others are not.
        since: entries recorded before this are counted, whatever their transaction.
        seen_xid: no transaction from here on had begun to write at ``seen_at``.
        complete_until: every entry recorded before this is counted; None before the first rollup.
    """

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    cluster = models.BigIntegerField()
    xid = models.BigIntegerField()
    since = models.DateTimeField()
    seen_xid = models.BigIntegerField()
    seen_at = models.DateTimeField()
    complete_until = models.DateTimeField(null=True)

    class Meta:
        constraints = [models.CheckConstraint(condition=models.Q(id=1), name="one_usage_watermark")]

    def __str__(self) -> str:
        return f"usage until {self.complete_until}"
