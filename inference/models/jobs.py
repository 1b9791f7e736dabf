"""Jobs: one row a generation, and its encrypted payload beside it."""

from typing import Final

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from inference.models.catalogue import Deployment, Model
from portal.core.tenancy.models import IdModel, TenantModel
from tenants.models import ApiKey, Tenant, User


class JobState(models.IntegerChoices):
    """Queued and running are live; each job reaches exactly one of the others."""

    QUEUED = 0, _("Queued")
    RUNNING = 1, _("Running")
    SUCCEEDED = 2, _("Succeeded")
    FAILED = 3, _("Failed")
    CANCELLED = 4, _("Cancelled")
    DEAD = 5, _("Dead letter")


ENDED: Final = tuple(s for s in JobState if s not in (JobState.QUEUED, JobState.RUNNING))
"""The states that a job reaches and does not leave."""


class Priority(models.IntegerChoices):
    """How urgent a job is; see ``inference.fair_order``. What a gateway admits is interactive."""

    INTERACTIVE = 0, _("Interactive")
    NORMAL = 1, _("Normal")
    BATCH = 2, _("Batch")


class Job(IdModel, TenantModel):
    """A generation from admission to settlement."""

    # Every index is written at every change of state, so a job has those that claiming, sweeping
    # and listing by tenant need, and none for its foreign keys.
    tenant = models.ForeignKey(
        Tenant, models.PROTECT, related_name="jobs", db_constraint=False, db_index=False
    )
    deployment = models.ForeignKey(
        Deployment, models.PROTECT, related_name="jobs", db_constraint=False, db_index=False
    )
    model = models.ForeignKey(
        Model, models.PROTECT, related_name="jobs", db_constraint=False, db_index=False
    )
    api_key = models.ForeignKey(
        ApiKey,
        models.PROTECT,
        related_name="jobs",
        db_constraint=False,
        db_index=False,
        verbose_name=_("API key"),
    )
    user = models.ForeignKey(
        User,
        models.PROTECT,
        related_name="jobs",
        db_constraint=False,
        db_index=False,
        verbose_name=_("user"),
    )
    sku = models.CharField(_("model"), max_length=120)
    # What follows "inference." in the audit actions of its admission and its end.
    kind = models.CharField(_("kind"), max_length=16, default="chat")
    state = models.SmallIntegerField(_("state"), choices=JobState, default=JobState.QUEUED)
    # Written by business systems' jobs alone: a gateway's insert does not name it.
    priority = models.SmallIntegerField(
        _("priority"), choices=Priority, default=Priority.INTERACTIVE, db_default=0
    )
    stream = models.BooleanField(_("streaming"))
    parameters = models.JSONField(_("parameters"), default=dict)
    request_id = models.CharField(_("request id"), max_length=64)
    gateway = models.CharField(max_length=40, help_text="The gateway process that waits for it.")

    # What was reserved, and the price it was reserved at.
    quota_ids = ArrayField(models.UUIDField())
    prompt_tokens = models.IntegerField(_("prompt tokens"))
    reserved_tokens = models.BigIntegerField(_("reserved tokens"))
    reserved_cost = models.BigIntegerField(_("reserved cost"))
    prompt_price = models.BigIntegerField()
    completion_price = models.BigIntegerField()
    currency = models.CharField(max_length=3)

    # Fair order and ownership.
    start_tag = models.BigIntegerField(help_text="Virtual time of start-time fair queueing.")
    attempts = models.SmallIntegerField(_("attempts"), default=0)
    fence = models.IntegerField(default=0, help_text="Raised by each claim; guards every write.")
    worker = models.CharField(_("worker"), max_length=80, blank=True)
    lease_until = models.DateTimeField(null=True)
    cancel_requested_at = models.DateTimeField(_("cancel requested"), null=True)

    # The timeline.
    admitted_at = models.DateTimeField(_("admitted"))
    deadline = models.DateTimeField()
    claimed_at = models.DateTimeField(_("claimed"), null=True)
    first_token_at = models.DateTimeField(_("first token"), null=True)
    finished_at = models.DateTimeField(_("finished"), null=True)

    # The outcome. ``watermark`` is the number of completion tokens known to be delivered.
    watermark = models.IntegerField(_("completion tokens"), default=0)
    finish_reason = models.CharField(_("finish reason"), max_length=16, blank=True)
    error_code = models.CharField(_("error"), max_length=60, blank=True)
    error_message = models.CharField(max_length=500, blank=True)

    class Meta:
        verbose_name = _("job")
        verbose_name_plural = _("jobs")
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(fields=["tenant", "id"], name="job_in_tenant"),
            models.CheckConstraint(
                condition=Q(state__in=[0, 1], finished_at__isnull=True)
                | Q(state__in=[2, 3, 4, 5], finished_at__isnull=False),
                name="job_finished_iff_terminal",
            ),
            models.CheckConstraint(
                condition=~Q(state=JobState.RUNNING) | Q(lease_until__isnull=False),
                name="running_job_has_lease",
            ),
        ]
        indexes = [
            models.Index(
                fields=["deployment", "start_tag", "id"],
                condition=Q(state=JobState.QUEUED),
                name="job_claim_order",
            ),
            models.Index(
                fields=["lease_until"], condition=Q(state=JobState.RUNNING), name="job_leases"
            ),
        ]

    def __str__(self) -> str:
        return str(self.id)


class JobPayload(TenantModel):
    """Prompt and answer of a live job, encrypted; deleted when the job has ended.

    A narrow table of active jobs, so that the bodies do not widen the queue. Where a business
    system asked for it (``result_seconds``), the answer stays that long after the job's end.
    """

    job = models.OneToOneField(
        Job, models.CASCADE, primary_key=True, related_name="payload", db_constraint=False
    )
    tenant = models.ForeignKey(
        Tenant, models.PROTECT, related_name="+", db_constraint=False, db_index=False
    )
    data_key_version = models.PositiveIntegerField()
    prompt = models.BinaryField()
    answer = models.BinaryField(null=True)
    # Where else its route would have it run, in order; see `inference.fallback`.
    fallbacks = models.JSONField(null=True)
    delete_after = models.DateTimeField(null=True)
    result_seconds = models.IntegerField(null=True)

    class Meta:
        indexes = [
            models.Index(
                fields=["delete_after"],
                condition=Q(delete_after__isnull=False),
                name="jobpayload_expiry",
            )
        ]

    def __str__(self) -> str:
        return str(self.job_id)


class IdempotencyKey(TenantModel):
    """A caller's own name for a submission: the same name again is the same job.

    ``body_hmac`` tells the same body from another, under the pepper of that version.
    """

    pk = models.CompositePrimaryKey("tenant_id", "api_key_id", "key")
    tenant = models.ForeignKey(
        Tenant, models.CASCADE, related_name="+", db_constraint=False, db_index=False
    )
    api_key = models.ForeignKey(
        ApiKey, models.CASCADE, related_name="+", db_constraint=False, db_index=False
    )
    key = models.CharField(max_length=255)
    job = models.ForeignKey(
        Job, models.CASCADE, related_name="+", db_constraint=False, db_index=False
    )
    pepper_version = models.SmallIntegerField()
    body_hmac = models.BinaryField()
    expires_at = models.DateTimeField()

    class Meta:
        indexes = [models.Index(fields=["expires_at"], name="idempotency_expiry")]

    def __str__(self) -> str:
        return str(self.job_id)
