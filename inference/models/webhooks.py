"""Webhooks: the callback of a job, every attempt to deliver it, and the secrets that sign it."""

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from inference.models.jobs import Job
from portal.core.tenancy.models import IdModel, TenantModel
from tenants.models import Tenant


class WebhookState(models.IntegerChoices):
    """Waiting until the job ends, pending until it is delivered or given up."""

    WAITING = 0, _("Waiting for the job")
    PENDING = 1, _("Pending")
    DELIVERED = 2, _("Delivered")
    FAILED = 3, _("Failed")


class WebhookSecret(IdModel, TenantModel):
    """One generation of the secret that signs a tenant's webhooks; encrypted, bound to its row.

    The one without ``valid_until`` is the present one. The one before it signs too until then.
    """

    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="+", db_index=False)
    generation = models.PositiveIntegerField(_("generation"))
    data_key_version = models.PositiveIntegerField()
    sealed = models.BinaryField()
    created_at = models.DateTimeField(_("created"), auto_now_add=True)
    valid_until = models.DateTimeField(_("signs until"), null=True)

    class Meta:
        verbose_name = _("webhook signing secret")
        verbose_name_plural = _("webhook signing secrets")
        ordering = ["-generation"]
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "generation"], name="one_webhook_secret_a_generation"
            ),
            models.UniqueConstraint(
                fields=["tenant"],
                condition=Q(valid_until__isnull=True),
                name="one_present_webhook_secret",
            ),
        ]

    def __str__(self) -> str:
        return str(self.generation)


class WebhookDelivery(IdModel, TenantModel):
    """The callback of one job: made with it, due when it has ended, then sent until it arrives.

    One of no job tells of something else (``told``: type, time and data), and is due at once.

    A claim raises ``attempts``, which is the fence of its outcome, and puts ``due_at`` to where
    its lease ends: a sender that dies is followed by another. ``tries`` counts the attempts since
    the job ended, or since somebody asked for another delivery.
    """

    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="+", db_index=False)
    # The database deletes these with their job.
    job = models.ForeignKey(
        Job,
        models.DO_NOTHING,
        related_name="webhooks",
        null=True,
        db_constraint=False,
        db_index=False,
    )
    told = models.JSONField(null=True)
    origin = models.CharField(_("receiver"), max_length=280)
    # Path and query of a callback are often credentials.
    data_key_version = models.PositiveIntegerField()
    sealed_url = models.BinaryField()
    state = models.SmallIntegerField(_("state"), choices=WebhookState, default=WebhookState.WAITING)
    attempts = models.IntegerField(_("attempts"), default=0)
    tries = models.IntegerField(default=0)
    due_at = models.DateTimeField(_("next try"), null=True)
    lease_until = models.DateTimeField(null=True)
    last_attempt_at = models.DateTimeField(_("last attempt"), null=True)
    last_status = models.IntegerField(_("HTTP status"), null=True)
    last_error = models.CharField(_("error"), max_length=200, blank=True)
    created_at = models.DateTimeField(_("created"))
    finished_at = models.DateTimeField(_("finished"), null=True)

    class Meta:
        verbose_name = _("webhook delivery")
        verbose_name_plural = _("webhook deliveries")
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(fields=["tenant", "id"], name="webhook_in_tenant"),
            models.UniqueConstraint(fields=["tenant", "job"], name="one_webhook_a_job"),
            models.CheckConstraint(
                condition=Q(state=WebhookState.PENDING, due_at__isnull=False)
                | Q(~Q(state=WebhookState.PENDING), due_at__isnull=True),
                name="webhook_due_iff_pending",
            ),
        ]
        indexes = [
            models.Index(
                fields=["tenant", "due_at"],
                condition=Q(state=WebhookState.PENDING),
                name="webhook_due",
            )
        ]

    def __str__(self) -> str:
        return str(self.id)

    @property
    def event(self) -> str | None:
        """The type of what it tells, where that is no job's end."""
        return None if self.told is None else str(self.told["type"])


class WebhookAttempt(IdModel, TenantModel):
    """One attempt to deliver a webhook, and what came back; append-only."""

    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="+", db_index=False)
    delivery = models.ForeignKey(
        WebhookDelivery,
        models.DO_NOTHING,
        related_name="log",
        db_constraint=False,
        db_index=False,
    )
    number = models.IntegerField(_("attempt"))
    sent_at = models.DateTimeField(_("sent"))
    milliseconds = models.IntegerField(_("took"))
    status = models.IntegerField(_("HTTP status"), null=True)
    error = models.CharField(_("error"), max_length=200, blank=True)

    class Meta:
        ordering = ["-number"]
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "delivery", "number"], name="one_webhook_attempt_a_number"
            )
        ]

    def __str__(self) -> str:
        return f"{self.delivery_id} {self.number}"
