"""Evaluations: how an app did on a labelled set, by version, model and time."""

from django.db import models
from django.utils.translation import gettext_lazy as _

from knowledge.models.apps import App
from portal.core.tenancy.models import IdModel, TenantModel
from tenants.models import Tenant, User


class Evaluation(IdModel, TenantModel):
    """One labelled set through one version of an app; never changed.

    Attributes:
        model: model and version that answered.
        scores: as ``knowledge.scenarios.scoring.score``.
        failures: the cases that went wrong, as ``scoring.failed``; the sets are the product's own.
        seconds: how long it took.
    """

    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="+", db_index=False)
    app = models.ForeignKey(
        App, models.DO_NOTHING, related_name="evaluations", db_constraint=False, db_index=False
    )
    app_version = models.PositiveIntegerField(_("version"))
    scenario = models.CharField(_("scenario"), max_length=60)
    model = models.CharField(_("model"), max_length=120)
    cases = models.PositiveIntegerField(_("cases"))
    scores = models.JSONField()
    failures = models.JSONField()
    seconds = models.FloatField()
    created_by = models.ForeignKey(
        User, models.PROTECT, related_name="+", null=True, db_index=False
    )
    created_at = models.DateTimeField(_("time"))

    class Meta:
        verbose_name = _("evaluation")
        verbose_name_plural = _("evaluations")
        ordering = ["-id"]
        indexes = [models.Index(fields=["tenant", "app", "id"], name="evaluation_of_app")]

    def __str__(self) -> str:
        return f"{self.scenario} {self.app_version}"
