"""Quotas (limits, which people set) and their windows (counters, which admission moves).

A quota applies to a request when each of its dimensions that is set equals the request's: a row
with no user, key and model is the tenant's own. Every tenant has that row from the start, so
that admission always has one row to serialise a tenant's requests on.
"""

from typing import Final
from uuid import UUID

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.utils.translation import gettext_lazy as _

from portal.core.tenancy.models import IdModel, TenantModel
from tenants.models.keys import ApiKey
from tenants.models.people import User
from tenants.models.tenant import Tenant

METRICS: Final = ("tokens", "requests", "cost")
"""What is limited: tokens (prompt and completion), requests, and cost in nano-units of currency."""

WINDOWS: Final = ("minute", "day", "month", "total")
"""Over what time; day and month begin at midnight in the tenant's time zone."""

LIMITS: Final = (*(f"{metric}_{window}" for metric in METRICS for window in WINDOWS), "concurrency")
"""Names of all limits; cost is in nano-units of currency."""

LEVELS: Final = (50, 80, 100)
"""Percent of a limit at which people are warned."""

WARNED_WINDOWS: Final = ("day", "month", "total")
"""Whose limits warn: a minute is over before anybody reads of it."""


def _limit(label: object) -> "models.BigIntegerField[int | None, int | None]":
    return models.BigIntegerField(label, null=True, blank=True)  # type: ignore[arg-type]


def _counter() -> "models.BigIntegerField[int, int]":
    return models.BigIntegerField(default=0)


class Limits(models.Model):
    """A column for each limit; an empty one means none."""

    tokens_minute = _limit(_("tokens a minute"))
    tokens_day = _limit(_("tokens a day"))
    tokens_month = _limit(_("tokens a month"))
    tokens_total = _limit(_("tokens in total"))
    requests_minute = _limit(_("requests a minute"))
    requests_day = _limit(_("requests a day"))
    requests_month = _limit(_("requests a month"))
    requests_total = _limit(_("requests in total"))
    cost_minute = _limit(_("cost a minute"))
    cost_day = _limit(_("cost a day"))
    cost_month = _limit(_("cost a month"))
    cost_total = _limit(_("cost in total"))
    concurrency = _limit(_("generations at once"))

    class Meta:
        abstract = True


class Quota(IdModel, Limits, TenantModel):
    """Limits of one scope; an empty limit means none. Governed: every change is audited.

    ``inherited`` names the limits that follow a ``QuotaDefault``; whatever else is set, the quota
    sets itself. The columns hold what is in force, so that admission reads them alone.
    """

    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="quotas", db_index=False)
    user = models.ForeignKey(
        User, models.PROTECT, null=True, blank=True, verbose_name=_("user"), db_index=False
    )
    api_key = models.ForeignKey(
        ApiKey,
        models.PROTECT,
        null=True,
        blank=True,
        verbose_name=_("API key"),
        db_constraint=False,
        db_index=False,
    )
    # The model catalogue is a floor above: its id, without a foreign key.
    model_id = models.UUIDField(_("model"), null=True, blank=True)
    inherited = ArrayField(models.CharField(max_length=20), default=list, db_default=[])
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name = _("quota")
        verbose_name_plural = _("quotas")
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "user", "api_key", "model_id"],
                nulls_distinct=False,
                name="one_quota_a_scope",
            ),
            models.UniqueConstraint(fields=["tenant", "id"], name="quota_in_tenant"),
        ]
        # No index leads admission to rows that are not the request's: an index on the tenant, or
        # one that finds `user IS NULL`, would be taken whenever statistics make it look cheap.
        indexes = [
            models.Index(
                fields=["user"], condition=models.Q(user__isnull=False), name="quota_user"
            ),
            models.Index(
                fields=["api_key"], condition=models.Q(api_key__isnull=False), name="quota_key"
            ),
        ]

    def __str__(self) -> str:
        name = str(_("Tenant"))
        if self.api_key_id is not None:
            name = str(_("Key %s") % self.api_key)
        elif self.user_id is not None:
            service = self.user is not None and self.user.service_id is not None
            name = str((_("Service account %s") if service else _("User %s")) % self.user)
        return name if self.model_id is None else str(_("%s, one model") % name)

    @property
    def followed(self) -> "tuple[str, UUID | None] | None":
        """Which default it follows: what that applies to, and its model; None for none.

        A quota of a user with a key, of a model or of the tenant follows none.
        """
        if (self.user_id is None) == (self.api_key_id is None):
            return None
        applies_to = AppliesTo.USER if self.api_key_id is None else AppliesTo.API_KEY
        return applies_to.value, self.model_id

    @property
    def own_limits(self) -> list[str]:
        """The names of the limits that it sets itself."""
        return [n for n in LIMITS if getattr(self, n) is not None and n not in self.inherited]

    @property
    def of_tenant(self) -> bool:
        """Whether it limits the tenant as a whole, of all models or of one: the platform's."""
        return self.user_id is None and self.api_key_id is None


class AppliesTo(models.TextChoices):
    API_KEY = "api_key", _("Each API key")
    USER = "user", _("Each user and service account")


class QuotaDefault(IdModel, Limits, TenantModel):
    """Limits that every key, or every user, of a tenant has by itself, future ones included.

    Nobody is counted here: each key or user has a ``Quota`` with a window of its own, which takes
    each limit from here that it does not set itself.
    """

    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="quota_defaults")
    applies_to = models.CharField(_("for"), max_length=8, choices=AppliesTo)
    model_id = models.UUIDField(_("model"), null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name = _("default quota")
        verbose_name_plural = _("default quotas")
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "applies_to", "model_id"],
                nulls_distinct=False,
                name="one_quota_default_a_scope",
            )
        ]

    def __str__(self) -> str:
        name = str(self.get_applies_to_display())
        return name if self.model_id is None else str(_("%s, one model") % name)


class QuotaWindow(TenantModel):
    """Counters of one quota: one row with every window inside, so none is born at a rollover.

    ``*_used`` is charged, ``*_held`` is reserved by requests under way; both belong to the window
    that began at ``*_start``, and a settlement touches only the window it was admitted in.
    No trigger: the ledger and the audit trail tell what moved it.
    """

    # The database deletes it with its quota: the app may not delete windows.
    quota = models.OneToOneField(
        Quota, models.DO_NOTHING, primary_key=True, related_name="window", db_constraint=False
    )
    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="+")
    minute_start = models.DateTimeField()
    day_start = models.DateTimeField()
    month_start = models.DateTimeField()
    tokens_minute_used = _counter()
    tokens_minute_held = _counter()
    tokens_day_used = _counter()
    tokens_day_held = _counter()
    tokens_month_used = _counter()
    tokens_month_held = _counter()
    tokens_total_used = _counter()
    tokens_total_held = _counter()
    requests_minute_used = _counter()
    requests_day_used = _counter()
    requests_month_used = _counter()
    requests_total_used = _counter()
    cost_minute_used = _counter()
    cost_minute_held = _counter()
    cost_day_used = _counter()
    cost_day_held = _counter()
    cost_month_used = _counter()
    cost_month_held = _counter()
    cost_total_used = _counter()
    cost_total_held = _counter()
    active = _counter()

    def __str__(self) -> str:
        return str(self.quota_id)


class QuotaWarning(IdModel, TenantModel):
    """A level of a limit that was reached: once a quota, limit, window and level.

    ``maximum`` and ``taken`` are as they were then, in the limit's unit (cost in nano-units);
    ``taken`` counts what was charged and what was reserved.
    """

    # As of the window: the database deletes these with their quota.
    quota = models.ForeignKey(
        Quota, models.DO_NOTHING, related_name="warnings", db_constraint=False, db_index=False
    )
    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="+", db_index=False)
    limit_name = models.CharField(max_length=20)
    # When the day or month began; of a total, when the quota was made.
    window_start = models.DateTimeField()
    level = models.SmallIntegerField()
    maximum = models.BigIntegerField()
    taken = models.BigIntegerField()
    warned_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "quota", "limit_name", "window_start", "level"],
                name="one_warning_a_level",
            )
        ]
        indexes = [models.Index(fields=["warned_at"], name="quota_warning_by_time")]

    def __str__(self) -> str:
        return f"{self.limit_name} {self.level} %"
