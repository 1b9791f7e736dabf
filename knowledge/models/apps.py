"""Apps: what a business system calls by name, its versions, and what was said to it."""

from typing import Final

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Q
from django.utils.translation import gettext_lazy as _

from portal.core.tenancy.models import IdModel, TenantModel
from tenants.models import ApiKey, Tenant, User

MOST_SLUG_CHARS: Final = 40
MOST_KEEP_DAYS: Final = 365
DEFAULT_KEEP_DAYS: Final = 30


class AppMode(models.TextChoices):
    """How an app is called."""

    CHAT = "chat", _("Conversation")
    RUN = "run", _("One run at a time")


class App(IdModel, TenantModel):
    """A prompt, a model and knowledge bases under one name, as they stand in a version.

    ``latest`` is the number of the newest version, ``published`` that of the one that callers get
    (0 for none). ``allowed_keys`` are the API keys that may call it, empty for all of the tenant.
    What was said to it is deleted ``keep_days`` after a conversation's last word.
    """

    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="+", db_index=False)
    slug = models.CharField(_("short name"), max_length=MOST_SLUG_CHARS)
    name = models.CharField(_("name"), max_length=80)
    description = models.CharField(_("description"), max_length=400, blank=True)
    mode = models.CharField(_("mode"), max_length=4, choices=AppMode, default=AppMode.CHAT)
    latest = models.PositiveIntegerField(_("newest version"), default=0)
    published = models.PositiveIntegerField(_("published version"), default=0)
    allowed_keys = ArrayField(models.UUIDField(), default=list, verbose_name=_("API keys"))
    keep_days = models.PositiveSmallIntegerField(_("kept for days"), default=DEFAULT_KEEP_DAYS)
    created_by = models.ForeignKey(
        User, models.PROTECT, related_name="+", null=True, db_index=False
    )
    created_at = models.DateTimeField(_("created"), auto_now_add=True)

    class Meta:
        verbose_name = _("app")
        verbose_name_plural = _("apps")
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(fields=["tenant", "id"], name="app_in_tenant"),
            models.UniqueConstraint(fields=["tenant", "slug"], name="one_app_a_slug"),
            models.CheckConstraint(
                condition=Q(published__lte=F("latest")), name="app_publishes_its_own"
            ),
        ]

    def __str__(self) -> str:
        return self.name


class AppVersion(IdModel, TenantModel):
    """What an app is in one version; never changed. ``spec`` is ``knowledge.applications.spec``."""

    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="+", db_index=False)
    # The database deletes these with their app.
    app = models.ForeignKey(
        App, models.DO_NOTHING, related_name="versions", db_constraint=False, db_index=False
    )
    number = models.PositiveIntegerField(_("version"))
    note = models.CharField(_("note"), max_length=200, blank=True)
    spec = models.JSONField()
    created_by = models.ForeignKey(
        User, models.PROTECT, related_name="+", null=True, db_index=False
    )
    created_at = models.DateTimeField(_("created"), auto_now_add=True)

    class Meta:
        ordering = ["-number"]
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "app", "number"], name="one_app_version_a_number"
            ),
        ]

    def __str__(self) -> str:
        return str(self.number)


class Conversation(IdModel, TenantModel):
    """What one caller and one of its users say to an app; a run is one of a single message.

    ``end_user`` is the caller's own name for its user. ``remote_id`` is what the backend calls it.
    """

    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="+", db_index=False)
    app = models.ForeignKey(
        App, models.DO_NOTHING, related_name="conversations", db_constraint=False, db_index=False
    )
    api_key = models.ForeignKey(
        ApiKey, models.PROTECT, related_name="+", db_constraint=False, db_index=False
    )
    end_user = models.CharField(max_length=120, blank=True)
    remote_id = models.CharField(max_length=64, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    touched_at = models.DateTimeField()
    expires_at = models.DateTimeField()

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(fields=["tenant", "id"], name="conversation_in_tenant"),
        ]
        indexes = [
            models.Index(
                fields=["tenant", "app", "api_key", "end_user"], name="conversation_of_caller"
            ),
            models.Index(fields=["expires_at"], name="conversation_expiry"),
        ]

    def __str__(self) -> str:
        return str(self.pk)


class MessageState(models.IntegerChoices):
    """How far the answer to a message is."""

    ANSWERING = 0, _("Being answered")
    ANSWERED = 1, _("Answered")
    STOPPED = 2, _("Stopped")
    FAILED = 3, _("Failed")


class AppMessage(IdModel, TenantModel):
    """One question and its answer, encrypted under the tenant's data key.

    Attributes:
        sealed: as ``knowledge.applications.conversations.Said``.
        job_id: the job that generates, where the portal itself does.
        remote_id: what the backend calls it, where another does.
        rating: 1 for liked, -1 for disliked, 0 for neither.
        sealed_comment: what was said with the rating.
    """

    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="+", db_index=False)
    conversation = models.ForeignKey(
        Conversation, models.DO_NOTHING, related_name="messages", db_constraint=False,
        db_index=False,
    )  # fmt: skip
    version = models.PositiveIntegerField()
    state = models.SmallIntegerField(choices=MessageState, default=MessageState.ANSWERING)
    data_key_version = models.PositiveIntegerField()
    sealed = models.BinaryField()
    job_id = models.UUIDField(null=True)
    remote_id = models.CharField(max_length=64, blank=True)
    finish_reason = models.CharField(max_length=16, blank=True)
    error_code = models.CharField(max_length=60, blank=True)
    prompt_tokens = models.PositiveIntegerField(default=0)
    completion_tokens = models.PositiveIntegerField(default=0)
    milliseconds = models.PositiveIntegerField(default=0)
    rating = models.SmallIntegerField(default=0)
    sealed_comment = models.BinaryField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(condition=Q(rating__in=(-1, 0, 1)), name="message_rating"),
        ]
        indexes = [
            models.Index(fields=["tenant", "conversation", "id"], name="message_of_conversation"),
        ]

    def __str__(self) -> str:
        return str(self.pk)


class AppUsage(IdModel, TenantModel):
    """What an app was used for on one day in UTC; it outlives what was said."""

    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="+", db_index=False)
    app = models.ForeignKey(
        App, models.DO_NOTHING, related_name="usage", db_constraint=False, db_index=False
    )
    day = models.DateField(_("day"))
    calls = models.PositiveIntegerField(_("calls"), default=0)
    failures = models.PositiveIntegerField(_("failures"), default=0)
    prompt_tokens = models.PositiveBigIntegerField(_("prompt tokens"), default=0)
    completion_tokens = models.PositiveBigIntegerField(_("completion tokens"), default=0)
    likes = models.PositiveIntegerField(_("liked"), default=0)
    dislikes = models.PositiveIntegerField(_("disliked"), default=0)

    class Meta:
        ordering = ["-day"]
        constraints = [
            models.UniqueConstraint(fields=["tenant", "app", "day"], name="one_app_usage_a_day"),
        ]

    def __str__(self) -> str:
        return str(self.day)
