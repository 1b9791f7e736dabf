"""The moving parts of dispatch: virtual clocks and the workers that are up."""

from django.db import models
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from inference.models.catalogue import Deployment
from inference.models.jobs import Priority
from portal.core.tenancy.models import IdModel, TenantModel
from tenants.models import Tenant


class DeploymentClock(models.Model):
    """The virtual time of a deployment's queue: the start tag of what was claimed last.

    A table of its own, because claims move it and the catalogue is governed.
    """

    deployment = models.OneToOneField(
        Deployment, models.CASCADE, primary_key=True, related_name="clock"
    )
    virtual_time = models.BigIntegerField(default=0)

    def __str__(self) -> str:
        return str(self.virtual_time)


class FairShare(TenantModel):
    """How far a tenant has drawn on a deployment in one class of priority, in virtual time."""

    pk = models.CompositePrimaryKey("tenant_id", "deployment_id", "priority")
    tenant = models.ForeignKey(
        Tenant, models.CASCADE, related_name="+", db_constraint=False, db_index=False
    )
    deployment = models.ForeignKey(
        Deployment, models.CASCADE, related_name="+", db_constraint=False, db_index=False
    )
    priority = models.SmallIntegerField(default=Priority.INTERACTIVE, db_default=0)
    virtual_time = models.BigIntegerField(default=0)


class QueueForecast(models.Model):
    """What waits for a deployment, for the pages that tell a job's place; see `inference.backlog`.

    Written by the sweeper while something waits. It names no tenant, so any may read it.
    """

    deployment = models.OneToOneField(
        Deployment, models.CASCADE, primary_key=True, related_name="forecast"
    )
    read_at = models.DateTimeField()
    head = models.BigIntegerField(help_text="Start tag of the job that is next.")
    pace = models.FloatField(null=True, help_text="Reserved tokens a second of all its workers.")
    shares = models.JSONField(help_text="Virtual time and weight of each flow ahead of the head.")
    ranks = models.JSONField(help_text="Place and start tag of some of those who wait.")

    def __str__(self) -> str:
        return str(self.deployment_id)


class WorkerState(models.TextChoices):
    LOADING = "loading", _("Loading the model")
    READY = "ready", _("Ready")
    DRAINING = "draining", _("Draining")
    DRAINED = "drained", _("Drained")
    UNLOADED = "unloaded", _("Unloaded")
    STOPPED = "stopped", _("Stopped")
    FAILED = "failed", _("Failed")


class DesiredState(models.TextChoices):
    """What a worker is to be, as administrators said last; it follows at its next beat."""

    SERVING = "serving", _("Serving")
    DRAINED = "drained", _("Drained")
    UNLOADED = "unloaded", _("Unloaded")


class Worker(IdModel):
    """An inference worker process, kept alive by its heartbeat.

    Administrators write ``desired_state`` and ``load_generation``, the worker all else.
    """

    name = models.CharField(_("name"), max_length=80, unique=True)
    deployment = models.ForeignKey(Deployment, models.CASCADE, related_name="workers")
    version_digest = models.CharField(max_length=64, blank=True)
    engine = models.CharField(_("engine"), max_length=20)
    state = models.CharField(_("state"), max_length=10, choices=WorkerState)
    detail = models.CharField(_("detail"), max_length=500, blank=True)
    slots = models.PositiveIntegerField(_("slots"), default=0)
    running = models.PositiveIntegerField(_("running"), default=0)
    pace = models.FloatField(
        _("tokens a second"),
        null=True,
        help_text="Reserved tokens a second while every slot was taken; unknown until it was.",
    )
    counts = models.JSONField(
        null=True,
        help_text="What the process has done since its start: claims, tokens, ended jobs.",
    )
    desired_state = models.CharField(
        _("desired state"),
        max_length=10,
        choices=DesiredState,
        default=DesiredState.SERVING,
        db_default=DesiredState.SERVING.value,
    )
    load_generation = models.PositiveIntegerField(
        default=0, db_default=0, help_text="Goes up with each order to load."
    )
    state_since = models.DateTimeField(_("since"), default=timezone.now, db_default=Now())
    loaded = models.JSONField(
        null=True, help_text="Engine, options and context length of the model that it holds."
    )
    waiting = models.PositiveIntegerField(_("waiting in the engine"), default=0, db_default=0)
    tokens_per_second = models.FloatField(
        _("generated tokens a second"),
        null=True,
        help_text="Over the last few beats; null while no model is loaded.",
    )
    memory_bytes = models.BigIntegerField(
        default=0, db_default=0, help_text="Of the engine's device; 0 where it can't tell."
    )
    resident_bytes = models.BigIntegerField(
        default=0, db_default=0, help_text="Main memory of the worker and its engine's process."
    )
    cache_tokens = models.BigIntegerField(default=0, db_default=0)
    cached_tokens = models.BigIntegerField(default=0, db_default=0)
    started_at = models.DateTimeField(_("started"))
    heartbeat_at = models.DateTimeField(_("heartbeat"))

    class Meta:
        verbose_name = _("worker")
        verbose_name_plural = _("workers")
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name
