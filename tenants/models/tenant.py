"""The tenant and its data key."""

import zoneinfo

from django.core.exceptions import ValidationError
from django.db import models
from django.utils.translation import gettext_lazy as _

from portal.core.tenancy.models import IdModel, TenantModel


def validate_time_zone(name: str) -> None:
    if name not in zoneinfo.available_timezones():
        raise ValidationError(
            _("“%(name)s” is not a time zone; use a name such as Asia/Shanghai."),
            params={"name": name},
        )


class TenantState(models.TextChoices):
    ACTIVE = "active", _("Active")
    SUSPENDED = "suspended", _("Suspended")
    CLOSING = "closing", _("Closing")
    CLOSED = "closed", _("Closed")


class Tenant(IdModel):
    """An organisation, or a part of one, that shares nothing with another."""

    name = models.CharField(_("name"), max_length=120)
    slug = models.SlugField(_("short name"), max_length=60, unique=True)
    state = models.CharField(
        _("state"), max_length=12, choices=TenantState, default=TenantState.ACTIVE
    )
    time_zone = models.CharField(
        _("time zone"),
        max_length=64,
        default="UTC",
        validators=[validate_time_zone],
        help_text=_("Daily and monthly quotas begin at midnight here."),
    )
    weight = models.PositiveSmallIntegerField(
        _("weight"), default=1, help_text=_("Share of a busy queue, relative to other tenants.")
    )
    created_at = models.DateTimeField(_("created"), auto_now_add=True)

    class Meta:
        verbose_name = _("tenant")
        verbose_name_plural = _("tenants")
        ordering = ["name"]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(weight__gte=1, weight__lte=100), name="tenant_weight_1_to_100"
            )
        ]

    def __str__(self) -> str:
        return self.name


class TenantDataKey(IdModel, TenantModel):
    """A tenant's data key, wrapped by the installation's key-encryption key.

    Payloads are encrypted under it; destroying the row makes them unreadable.
    """

    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="data_keys")
    version = models.PositiveIntegerField()
    wrapped = models.BinaryField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["tenant", "version"], name="one_data_key_a_version")
        ]
