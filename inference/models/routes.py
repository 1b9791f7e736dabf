"""Routes: names that callers put into ``model``, and the deployments that such a name stands for.

A route belongs to the platform; an override gives one tenant another route under a name.
"""

from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from inference.models.catalogue import Deployment
from portal.core.tenancy.models import IdModel, TenantModel
from tenants.models import Tenant

MOST_WEIGHT = 1000
MOST_TIER = 9

route_name = RegexValidator(
    r"\A[A-Za-z0-9][A-Za-z0-9._:-]*\Z",
    _("A name has letters, digits, dots, colons, hyphens and underscores, and no others."),
)


class Route(IdModel):
    """A name, and in its targets who serves it."""

    name = models.CharField(_("name"), max_length=80, unique=True, validators=[route_name])
    description = models.TextField(_("description"), blank=True)
    reserved = models.BooleanField(
        _("reserved"),
        default=False,
        help_text=_("Only tenants to which an override gives it can call it."),
    )
    enabled = models.BooleanField(_("enabled"), default=True)
    created_at = models.DateTimeField(_("created"), auto_now_add=True)

    class Meta:
        verbose_name = _("route")
        verbose_name_plural = _("routes")
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class RouteTarget(IdModel):
    """A deployment that a route leads to.

    Within a tier the weights say how calls are shared; a later tier is a fallback.
    """

    route = models.ForeignKey(Route, models.CASCADE, related_name="targets")
    deployment = models.ForeignKey(Deployment, models.PROTECT, related_name="route_targets")
    weight = models.PositiveSmallIntegerField(
        _("weight"),
        default=1,
        validators=[MinValueValidator(1), MaxValueValidator(MOST_WEIGHT)],
    )
    tier = models.PositiveSmallIntegerField(
        _("tier"), default=0, validators=[MaxValueValidator(MOST_TIER)]
    )

    class Meta:
        verbose_name = _("target")
        verbose_name_plural = _("targets")
        ordering = ["tier", "-weight", "id"]
        constraints = [
            models.UniqueConstraint(
                fields=["route", "deployment"], name="one_target_a_route_and_deployment"
            ),
            models.CheckConstraint(
                condition=Q(weight__gte=1, weight__lte=MOST_WEIGHT, tier__lte=MOST_TIER),
                name="target_weight_and_tier_in_range",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.route} → {self.deployment}"


class RouteOverride(IdModel, TenantModel):
    """For one tenant, a name stands for this route, whatever it stands for elsewhere."""

    tenant = models.ForeignKey(
        Tenant, models.PROTECT, related_name="+", db_index=False, verbose_name=_("tenant")
    )
    name = models.CharField(_("name"), max_length=80, validators=[route_name])
    route = models.ForeignKey(
        Route, models.PROTECT, related_name="overrides", verbose_name=_("route")
    )
    created_at = models.DateTimeField(_("created"), auto_now_add=True)

    class Meta:
        verbose_name = _("override")
        verbose_name_plural = _("overrides")
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "name"], name="one_override_a_tenant_and_name"
            )
        ]

    def __str__(self) -> str:
        return self.name
