"""Sources: folders and databases that a knowledge base's documents are read out of."""

from typing import Final

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from knowledge.models.bases import KnowledgeBase
from knowledge.models.documents import Document
from portal.core.tenancy.models import IdModel, TenantModel
from tenants.models import Tenant, User

MOST_ITEM_KEY_CHARS: Final = 400


class SourceKind(models.TextChoices):
    """What is read."""

    FOLDER = "folder", _("Folder")
    POSTGRESQL = "postgresql", _("PostgreSQL")
    MYSQL = "mysql", _("MySQL or MariaDB")
    MONGODB = "mongodb", _("MongoDB")


class OnRemoved(models.TextChoices):
    """What becomes of a document that is not in its source any more."""

    DELETE = "delete", _("Delete it")
    ARCHIVE = "archive", _("Archive it")
    KEEP = "keep", _("Keep it")


class DocumentSource(IdModel, TenantModel):
    """A folder or a database, what of it becomes documents, and when it is looked at.

    Attributes:
        settings: as the kind's own structure, in ``knowledge.sources.settings``.
        sealed: the password, encrypted under the tenant's data key; null where there is none.
        schedule: empty (by hand alone), minutes, or five fields of cron in the tenant's time zone.
        wake_at: when the next run is due; while one is under way, when its claim lapses.
        fence: who runs it; everything that a run writes names it.
        full_wanted: the next run looks at everything, and finds what was removed.
        empty_allowed: the next run may find nothing and remove everything.
        last_key: how far the newest run that ended well has read, as ``settings.pack_key``.
        problem: the sentence with which the newest run ended; empty if it went well.
    """

    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="+", db_index=False)
    # The database deletes these with their knowledge base.
    knowledge_base = models.ForeignKey(
        KnowledgeBase,
        models.DO_NOTHING,
        related_name="sources",
        db_constraint=False,
        db_index=False,
    )
    name = models.CharField(_("name"), max_length=80)
    kind = models.CharField(_("kind"), max_length=12, choices=SourceKind)
    settings = models.JSONField(_("settings"))
    data_key_version = models.PositiveIntegerField(null=True)
    sealed = models.BinaryField(null=True)
    on_removed = models.CharField(
        _("removed documents"), max_length=8, choices=OnRemoved, default=OnRemoved.DELETE
    )
    schedule = models.CharField(_("schedule"), max_length=100, blank=True)
    paused = models.BooleanField(_("paused"), default=False)
    wake_at = models.DateTimeField(null=True)
    fence = models.PositiveIntegerField(default=0)
    full_wanted = models.BooleanField(default=False)
    empty_allowed = models.BooleanField(default=False)
    last_key = models.JSONField(null=True)
    last_full_at = models.DateTimeField(null=True)
    last_run_at = models.DateTimeField(_("last run"), null=True)
    problem = models.CharField(_("problem"), max_length=500, blank=True)
    created_by = models.ForeignKey(
        User, models.PROTECT, related_name="+", null=True, db_index=False
    )
    created_at = models.DateTimeField(_("created"), auto_now_add=True)

    class Meta:
        verbose_name = _("document source")
        verbose_name_plural = _("document sources")
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(fields=["tenant", "id"], name="document_source_in_tenant"),
            models.UniqueConstraint(
                fields=["tenant", "knowledge_base", "name"], name="one_document_source_a_name"
            ),
        ]
        indexes = [
            models.Index(
                fields=["wake_at"], condition=Q(wake_at__isnull=False), name="document_source_due"
            )
        ]

    def __str__(self) -> str:
        return self.name


class RunState(models.IntegerChoices):
    """How a run does."""

    RUNNING = 0, _("Running")
    DONE = 1, _("Done")
    FAILED = 2, _("Failed")
    STOPPED = 3, _("Stopped")


class SourceRun(IdModel, TenantModel):
    """One look at a source: what it found, and how it ended.

    Attributes:
        full: it looks at everything, so what it does not find was removed.
        position: how far it is, so that whoever follows a crash goes on there.
        attempts: how often it was begun since it last got on.
        waiting: files that are still being written, left for the next run.
    """

    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="+", db_index=False)
    source = models.ForeignKey(
        DocumentSource, models.DO_NOTHING, related_name="runs", db_constraint=False, db_index=False
    )
    state = models.SmallIntegerField(_("state"), choices=RunState, default=RunState.RUNNING)
    full = models.BooleanField(_("everything"), default=True)
    position = models.JSONField(null=True)
    attempts = models.PositiveSmallIntegerField(default=0)
    added = models.PositiveIntegerField(_("added"), default=0)
    changed = models.PositiveIntegerField(_("changed"), default=0)
    removed = models.PositiveIntegerField(_("removed"), default=0)
    unchanged = models.PositiveIntegerField(_("unchanged"), default=0)
    refused = models.PositiveIntegerField(_("refused"), default=0)
    waiting = models.PositiveIntegerField(_("left for later"), default=0)
    error = models.CharField(_("error"), max_length=500, blank=True)
    started_at = models.DateTimeField(_("started"), auto_now_add=True)
    ended_at = models.DateTimeField(_("ended"), null=True)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "source"],
                condition=Q(state=RunState.RUNNING),
                name="one_run_of_a_source",
            ),
        ]
        indexes = [models.Index(fields=["tenant", "source", "id"], name="runs_of_source")]

    def __str__(self) -> str:
        return str(self.pk)


class SourceItem(IdModel, TenantModel):
    """A file or a row of a source, and the document that it became.

    Attributes:
        key: what tells it from others: a path, or the value of the key column.
        stamp: what it looked like; the same stamp is not read again.
        document: null while it was only ever refused.
        problem: why it was refused as it is now; empty if it was taken.
        gone: it is not in the source any more, and its document was kept.
        seen_run: the newest run that found it.
    """

    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="+", db_index=False)
    source = models.ForeignKey(
        DocumentSource, models.DO_NOTHING, related_name="items", db_constraint=False, db_index=False
    )
    document = models.ForeignKey(
        Document,
        models.DO_NOTHING,
        related_name="+",
        db_constraint=False,
        db_index=False,
        null=True,
    )
    key = models.CharField(max_length=MOST_ITEM_KEY_CHARS)
    stamp = models.CharField(max_length=200)
    problem = models.CharField(max_length=500, blank=True)
    gone = models.BooleanField(default=False)
    seen_run = models.UUIDField()

    class Meta:
        ordering = ["key"]
        constraints = [
            models.UniqueConstraint(fields=["tenant", "source", "key"], name="one_item_a_key"),
        ]
        indexes = [models.Index(fields=["tenant", "document"], name="item_of_document")]

    def __str__(self) -> str:
        return self.key
