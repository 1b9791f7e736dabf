"""Triggers: what starts an app by itself, the events that come in, and the runs that came of it."""

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from knowledge.models.apps import App
from portal.core.tenancy.models import IdModel, TenantModel
from tenants.models import ApiKey, Tenant, User

MOST_STREAM_CHARS = 60
MOST_KEEP_DAYS = 365
DEFAULT_KEEP_DAYS = 30


class TriggerKind(models.TextChoices):
    """What starts the app."""

    EVENT = "event", _("Events")
    SCHEDULE = "schedule", _("A schedule")


class Trigger(IdModel, TenantModel):
    """Starts an app at the times of a schedule, or for the events of a stream about which its
    rules find enough.

    What the runs cost is charged to ``api_key``, the portal's own in this tenant.

    Attributes:
        rules: as ``knowledge.triggers.rules``; without any, each event starts the app.
        threshold: what the rules that hold must weigh together.
        cooldown_minutes: so long after a start, the same subject starts it no more.
        schedule: as ``knowledge.schedules`` reads it, in the tenant's time zone.
        inputs: name of an app's input -> a text, see ``knowledge.triggers.inputs``.
        alert_when: a condition on the answer as a JSON object; None for no alerts.
        sealed_url: where a webhook tells of an alert.
        keep_days: how long what a run was given and answered is kept; 0 keeps nothing of it.
        next_at: when the schedule comes next; None while there is none, or while it is off.
    """

    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="+", db_index=False)
    # The database deletes these with their app.
    app = models.ForeignKey(
        App, models.DO_NOTHING, related_name="triggers", db_constraint=False, db_index=False
    )
    api_key = models.ForeignKey(
        ApiKey, models.PROTECT, related_name="+", db_constraint=False, db_index=False
    )
    name = models.CharField(_("name"), max_length=80)
    kind = models.CharField(_("started by"), max_length=8, choices=TriggerKind)
    enabled = models.BooleanField(_("enabled"), default=True)
    stream = models.CharField(_("stream"), max_length=MOST_STREAM_CHARS, blank=True)
    rules = models.JSONField(_("rules"), default=list)
    threshold = models.FloatField(_("threshold"), default=1.0)
    cooldown_minutes = models.PositiveIntegerField(_("pause in minutes"), default=0)
    schedule = models.CharField(_("schedule"), max_length=100, blank=True)
    inputs = models.JSONField(_("inputs"), default=dict)
    alert_when = models.JSONField(_("alert when"), null=True)
    receiver = models.CharField(_("receiver"), max_length=280, blank=True)
    data_key_version = models.PositiveIntegerField(default=0)
    sealed_url = models.BinaryField(null=True)
    keep_days = models.PositiveSmallIntegerField(_("kept for days"), default=DEFAULT_KEEP_DAYS)
    next_at = models.DateTimeField(_("next time"), null=True)
    created_by = models.ForeignKey(
        User, models.PROTECT, related_name="+", null=True, db_index=False
    )
    created_at = models.DateTimeField(_("created"), auto_now_add=True)

    class Meta:
        verbose_name = _("trigger")
        verbose_name_plural = _("triggers")
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(fields=["tenant", "id"], name="trigger_in_tenant"),
            models.UniqueConstraint(fields=["tenant", "name"], name="one_trigger_a_name"),
            models.CheckConstraint(
                condition=Q(kind=TriggerKind.EVENT, schedule="") & ~Q(stream="")
                | Q(kind=TriggerKind.SCHEDULE, stream="") & ~Q(schedule=""),
                name="trigger_has_what_starts_it",
            ),
        ]
        indexes = [
            models.Index(fields=["tenant", "stream"], name="trigger_of_stream"),
            models.Index(fields=["tenant", "app"], name="trigger_of_app"),
            models.Index(
                fields=["next_at"], condition=Q(next_at__isnull=False), name="trigger_due"
            ),
        ]

    def __str__(self) -> str:
        return self.name


class StreamEvent(IdModel, TenantModel):
    """An event that was accepted: kept until every trigger of its stream has looked at it, and
    then for as long as windows may look back at it.

    Attributes:
        source_id: the sender's name for it; the same one again is the same event.
        subject: a fingerprint of what it is about, under the tenant's data key.
        sealed: subject, type and data, encrypted under the tenant's data key.
        wake_at: when it is to be looked at; None once it has been.
    """

    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="+", db_index=False)
    stream = models.CharField(_("stream"), max_length=MOST_STREAM_CHARS)
    source_id = models.CharField(max_length=140)
    subject = models.BinaryField()
    at = models.DateTimeField(_("time"))
    data_key_version = models.PositiveIntegerField()
    sealed = models.BinaryField()
    size = models.PositiveIntegerField()
    wake_at = models.DateTimeField(null=True)
    received_at = models.DateTimeField()
    expires_at = models.DateTimeField()

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(fields=["tenant", "id"], name="stream_event_in_tenant"),
            models.UniqueConstraint(
                fields=["tenant", "stream", "source_id"], name="one_stream_event_a_source_id"
            ),
        ]
        indexes = [
            models.Index(fields=["tenant", "stream", "subject", "at"], name="stream_event_subject"),
            models.Index(fields=["tenant", "stream", "at"], name="stream_event_window"),
            models.Index(
                fields=["wake_at"], condition=Q(wake_at__isnull=False), name="stream_event_due"
            ),
            models.Index(fields=["expires_at"], name="stream_event_expiry"),
        ]

    def __str__(self) -> str:
        return self.source_id


class TriggerRunState(models.IntegerChoices):
    """How far a run is."""

    WAITING = 0, _("Waiting to start")
    RUNNING = 1, _("Running")
    SUCCEEDED = 2, _("Succeeded")
    FAILED = 3, _("Failed")


class TriggerRun(IdModel, TenantModel):
    """One start of an app by a trigger, and what came of it; one for each event or time.

    Attributes:
        cause: the event's id, the scheduled time, or an id of its own for a start by hand; unique
            for its trigger, so that nothing starts the app twice.
        subject: of the event.
        score: what the rules that held weigh together.
        sealed: ``knowledge.triggers.vault.Contents``; None once it is not kept any more.
        alert: whether the condition on the answer held.
    """

    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="+", db_index=False)
    trigger = models.ForeignKey(
        Trigger, models.DO_NOTHING, related_name="runs", db_constraint=False, db_index=False
    )
    cause = models.CharField(max_length=60)
    subject = models.BinaryField(default=b"")
    app_version = models.PositiveIntegerField(_("version"), default=0)
    state = models.SmallIntegerField(
        _("state"), choices=TriggerRunState, default=TriggerRunState.WAITING
    )
    score = models.FloatField(_("score"), default=0.0)
    alert = models.BooleanField(_("alert"), default=False)
    job_id = models.UUIDField(null=True)
    wake_at = models.DateTimeField(null=True)
    waiting_for = models.CharField(max_length=500, blank=True)
    error = models.CharField(_("error"), max_length=500, blank=True)
    data_key_version = models.PositiveIntegerField()
    sealed = models.BinaryField(null=True)
    created_at = models.DateTimeField(_("started"))
    finished_at = models.DateTimeField(_("finished"), null=True)
    expires_at = models.DateTimeField()

    class Meta:
        verbose_name = _("run")
        verbose_name_plural = _("runs")
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "trigger", "cause"], name="one_trigger_run_a_cause"
            ),
        ]
        indexes = [
            models.Index(fields=["tenant", "trigger", "subject"], name="trigger_run_subject"),
            models.Index(
                fields=["wake_at"], condition=Q(wake_at__isnull=False), name="trigger_run_due"
            ),
            models.Index(fields=["expires_at"], name="trigger_run_expiry"),
        ]

    def __str__(self) -> str:
        return str(self.pk)
