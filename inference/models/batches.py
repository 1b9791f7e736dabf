"""Files that callers keep here, encrypted, and the batches that are made of them."""

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from portal.core.tenancy.models import IdModel, TenantModel
from tenants.models import ApiKey, Tenant, User


class FilePurpose(models.TextChoices):
    BATCH = "batch", _("Input of a batch")
    BATCH_OUTPUT = "batch_output", _("Results of a batch")


class FileState(models.IntegerChoices):
    """A file can be read once all of it is there, until it is deleted; its row stays."""

    INCOMPLETE = 0, _("Incomplete")
    READY = 1, _("Ready")
    DELETED = 2, _("Deleted")


class File(IdModel, TenantModel):
    """A file's facts; its content is in chunks, which are deleted with it."""

    tenant = models.ForeignKey(
        Tenant, models.PROTECT, related_name="files", db_constraint=False, db_index=False
    )
    api_key = models.ForeignKey(
        ApiKey, models.PROTECT, related_name="+", db_constraint=False, db_index=False
    )
    user = models.ForeignKey(
        User, models.PROTECT, related_name="+", db_constraint=False, db_index=False
    )
    filename = models.CharField(_("name"), max_length=255, blank=True)
    purpose = models.CharField(_("purpose"), max_length=16, choices=FilePurpose)
    state = models.SmallIntegerField(_("state"), choices=FileState, default=FileState.INCOMPLETE)
    size = models.BigIntegerField(_("bytes"), default=0)
    chunks = models.IntegerField(default=0)
    data_key_version = models.PositiveIntegerField()
    created_at = models.DateTimeField(_("created"))
    expires_at = models.DateTimeField(_("expires"), null=True)

    class Meta:
        verbose_name = _("file")
        verbose_name_plural = _("files")
        ordering = ["-id"]
        constraints = [models.UniqueConstraint(fields=["tenant", "id"], name="file_in_tenant")]
        indexes = [
            models.Index(
                fields=["expires_at"], condition=~Q(state=FileState.DELETED), name="file_expiry"
            )
        ]

    def __str__(self) -> str:
        return str(self.id)


class FileChunk(TenantModel):
    """A piece of a file, encrypted under the tenant's data key and bound to its place in it."""

    pk = models.CompositePrimaryKey("tenant_id", "file_id", "number")
    tenant = models.ForeignKey(
        Tenant, models.PROTECT, related_name="+", db_constraint=False, db_index=False
    )
    file = models.ForeignKey(
        File, models.CASCADE, related_name="+", db_constraint=False, db_index=False
    )
    number = models.IntegerField(help_text="From 0.")
    content = models.BinaryField()


class BatchState(models.IntegerChoices):
    """The first four are live; each batch reaches exactly one of the others."""

    VALIDATING = 0, _("Validating")
    IN_PROGRESS = 1, _("In progress")
    FINALIZING = 2, _("Finalizing")
    CANCELLING = 3, _("Cancelling")
    COMPLETED = 4, _("Completed")
    FAILED = 5, _("Failed")
    EXPIRED = 6, _("Expired")
    CANCELLED = 7, _("Cancelled")


LIVE_BATCH_STATES = (
    BatchState.VALIDATING,
    BatchState.IN_PROGRESS,
    BatchState.FINALIZING,
    BatchState.CANCELLING,
)


class Batch(IdModel, TenantModel):
    """Requests of one input file, run when there is room for them."""

    tenant = models.ForeignKey(
        Tenant, models.PROTECT, related_name="batches", db_constraint=False, db_index=False
    )
    api_key = models.ForeignKey(
        ApiKey,
        models.PROTECT,
        related_name="+",
        db_constraint=False,
        db_index=False,
        verbose_name=_("API key"),
    )
    user = models.ForeignKey(
        User,
        models.PROTECT,
        related_name="+",
        db_constraint=False,
        db_index=False,
        verbose_name=_("user"),
    )
    endpoint = models.CharField(_("endpoint"), max_length=40)
    model = models.CharField(_("model"), max_length=256, blank=True)
    metadata = models.JSONField(_("metadata"), null=True)
    input_file = models.ForeignKey(
        File, models.PROTECT, related_name="+", db_constraint=False, db_index=False
    )
    output_file = models.ForeignKey(
        File, models.PROTECT, related_name="+", db_constraint=False, db_index=False, null=True
    )
    error_file = models.ForeignKey(
        File, models.PROTECT, related_name="+", db_constraint=False, db_index=False, null=True
    )
    output_seconds = models.IntegerField(
        null=True, help_text="How long its results are kept, where the caller says so."
    )

    state = models.SmallIntegerField(_("state"), choices=BatchState, default=BatchState.VALIDATING)
    outcome = models.SmallIntegerField(
        null=True, help_text="The end that it is on its way to, once that is certain."
    )
    errors = models.JSONField(_("errors"), default=list)
    total = models.IntegerField(_("requests"), default=0)
    completed = models.IntegerField(_("completed"), default=0)
    failed = models.IntegerField(_("failed"), default=0)
    prompt_tokens = models.BigIntegerField(_("prompt tokens"), default=0)
    completion_tokens = models.BigIntegerField(_("completion tokens"), default=0)

    # How far validation has read its input.
    lines_read = models.IntegerField(default=0)
    bytes_read = models.BigIntegerField(default=0)
    # Up to this line none waits any more.
    fed_through = models.IntegerField(default=0)
    waiting_for = models.CharField(
        _("waits for"), max_length=500, blank=True, help_text="Why nothing more is admitted now."
    )
    feed_at = models.DateTimeField(null=True, help_text="When that is to be tried again.")
    wake_at = models.DateTimeField(help_text="When there is something to do for it again.")

    created_at = models.DateTimeField(_("created"))
    expires_at = models.DateTimeField(_("expires"))
    in_progress_at = models.DateTimeField(null=True)
    finalizing_at = models.DateTimeField(null=True)
    cancelling_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(_("ended"), null=True)

    class Meta:
        verbose_name = _("batch")
        verbose_name_plural = _("batches")
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(fields=["tenant", "id"], name="batch_in_tenant"),
            models.CheckConstraint(
                condition=Q(state__in=LIVE_BATCH_STATES, ended_at__isnull=True)
                | (~Q(state__in=LIVE_BATCH_STATES) & Q(ended_at__isnull=False)),
                name="batch_ended_iff_terminal",
            ),
            models.CheckConstraint(
                condition=Q(total__gte=models.F("completed") + models.F("failed")),
                name="batch_counts_within_total",
            ),
        ]
        indexes = [
            models.Index(
                fields=["wake_at"], condition=Q(state__in=LIVE_BATCH_STATES), name="batch_due"
            )
        ]

    def __str__(self) -> str:
        return str(self.id)


class LineState(models.IntegerChoices):
    WAITING = 0, "Waiting"
    RUNNING = 1, "Running"
    DONE = 2, "Done"


class BatchLine(TenantModel):
    """One request of a live batch: where it stands in the input, and the job that runs it."""

    pk = models.CompositePrimaryKey("tenant_id", "batch_id", "number")
    tenant = models.ForeignKey(
        Tenant, models.PROTECT, related_name="+", db_constraint=False, db_index=False
    )
    batch = models.ForeignKey(
        Batch, models.CASCADE, related_name="+", db_constraint=False, db_index=False
    )
    number = models.IntegerField(help_text="Line of the input file, from 1.")
    custom_id = models.BinaryField(help_text="Encrypted.")
    custom_id_hmac = models.BinaryField(help_text="Two of one batch must differ.")
    start = models.BigIntegerField(help_text="Its first byte in the input file.")
    length = models.IntegerField(help_text="Bytes.")
    state = models.SmallIntegerField(choices=LineState, default=LineState.WAITING)
    job_id = models.UUIDField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "batch", "custom_id_hmac"], name="one_line_a_custom_id"
            ),
            models.CheckConstraint(
                condition=~Q(state=LineState.RUNNING) | Q(job_id__isnull=False),
                name="running_line_has_job",
            ),
        ]
        indexes = [
            models.Index(
                fields=["tenant", "batch", "number"],
                condition=Q(state=LineState.RUNNING),
                name="batch_lines_running",
            )
        ]
