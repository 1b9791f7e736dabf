"""Documents of a knowledge base, their versions, and the passages that are searched."""

from typing import Final

from django.contrib.postgres.search import SearchVectorField
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from knowledge.models.bases import KnowledgeBase
from knowledge.models.fields import HalfVectorField
from portal.core.tenancy.models import IdModel, TenantModel
from tenants.models import Tenant, User


class Source(models.TextChoices):
    """Where a document comes from."""

    UPLOAD = "upload", _("Upload")
    TEXT = "text", _("Text")
    FOLDER = "folder", _("Folder")
    DATABASE = "database", _("Database")


class DocumentState(models.IntegerChoices):
    """How far the newest version is."""

    WAITING = 0, _("Waiting to be read")
    EMBEDDING = 1, _("Being indexed")
    READY = 2, _("Ready")
    FAILED = 3, _("Failed")


UNDER_WAY: Final = (DocumentState.WAITING, DocumentState.EMBEDDING)


class Document(IdModel, TenantModel):
    """One document, by its name in the knowledge base; the same name again is a new version.

    ``version`` is the number of the version that is searched (0 before there is one), ``latest``
    that of the newest. The first is found by its words as soon as it has been read; a later one
    takes the place of the one before when it is ready. While the newest is under way, ``wake_at``
    says when its next step is due, ``attempts`` is the fence of who reads it, ``job_id`` the
    embedding job that is waited for, ``maker`` the model and version of its vectors.
    """

    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="+", db_index=False)
    # The database deletes these with their knowledge base.
    knowledge_base = models.ForeignKey(
        KnowledgeBase,
        models.DO_NOTHING,
        related_name="documents",
        db_constraint=False,
        db_index=False,
    )
    name = models.CharField(_("name"), max_length=200)
    source = models.CharField(_("source"), max_length=12, choices=Source)
    enabled = models.BooleanField(_("enabled"), default=True)
    archived_at = models.DateTimeField(_("archived"), null=True)
    metadata = models.JSONField(_("metadata"), default=dict)
    version = models.PositiveIntegerField(_("version"), default=0)
    latest = models.PositiveIntegerField(default=1)
    # Of the version that is searched.
    passages = models.PositiveIntegerField(_("passages"), default=0)
    embedded_by = models.CharField(max_length=120, blank=True)
    # The work on the newest one.
    state = models.SmallIntegerField(
        _("state"), choices=DocumentState, default=DocumentState.WAITING
    )
    parts = models.PositiveIntegerField(default=0)
    parts_done = models.PositiveIntegerField(default=0)
    attempts = models.PositiveSmallIntegerField(default=0)
    job_id = models.UUIDField(null=True)
    maker = models.CharField(max_length=120, blank=True)
    wake_at = models.DateTimeField(null=True)
    waiting_for = models.CharField(max_length=500, blank=True)
    error = models.CharField(_("error"), max_length=500, blank=True)
    created_by = models.ForeignKey(
        User, models.PROTECT, related_name="+", null=True, db_index=False
    )
    created_at = models.DateTimeField(_("created"), auto_now_add=True)
    changed_at = models.DateTimeField(_("changed"), auto_now_add=True)

    class Meta:
        verbose_name = _("document")
        verbose_name_plural = _("documents")
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(fields=["tenant", "id"], name="document_in_tenant"),
            models.UniqueConstraint(
                fields=["tenant", "knowledge_base", "name"], name="one_document_a_name"
            ),
            models.CheckConstraint(
                condition=Q(state__in=UNDER_WAY, wake_at__isnull=False)
                | (~Q(state__in=UNDER_WAY) & Q(wake_at__isnull=True)),
                name="document_due_iff_under_way",
            ),
        ]
        indexes = [
            models.Index(
                fields=["state", "wake_at"], condition=Q(wake_at__isnull=False), name="document_due"
            )
        ]

    def __str__(self) -> str:
        return self.name


class DocumentVersion(IdModel, TenantModel):
    """What a document said from one upload to the next.

    The file itself is kept until its ``text`` has been read out of it, and not a moment longer.
    """

    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="+", db_index=False)
    document = models.ForeignKey(
        Document,
        models.DO_NOTHING,
        related_name="versions",
        db_constraint=False,
        db_index=False,
    )
    number = models.PositiveIntegerField(_("version"))
    digest = models.CharField(_("SHA-256"), max_length=64)
    size = models.PositiveIntegerField(_("size"))
    kind = models.CharField(_("type"), max_length=8)
    content = models.BinaryField(null=True)
    text = models.TextField(null=True)
    created_by = models.ForeignKey(
        User, models.PROTECT, related_name="+", null=True, db_index=False
    )
    created_at = models.DateTimeField(_("created"), auto_now_add=True)

    class Meta:
        ordering = ["-number"]
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "document", "number"], name="one_version_a_number"
            ),
        ]

    def __str__(self) -> str:
        return str(self.number)


class Chunk(IdModel, TenantModel):
    """One passage of a version: what is found, and what is shown to a model.

    ``words`` are made by ``knowledge.words``.
    """

    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="+", db_index=False)
    knowledge_base = models.ForeignKey(
        KnowledgeBase, models.DO_NOTHING, related_name="+", db_constraint=False, db_index=False
    )
    document = models.ForeignKey(
        Document, models.DO_NOTHING, related_name="+", db_constraint=False, db_index=False
    )
    version = models.PositiveIntegerField()
    position = models.PositiveIntegerField()
    text = models.TextField()
    words = SearchVectorField()

    class Meta:
        ordering = ["document", "position"]
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "document", "version", "position"], name="one_chunk_a_position"
            ),
            models.UniqueConstraint(fields=["tenant", "id"], name="chunk_in_tenant"),
        ]
        indexes = [models.Index(fields=["tenant", "knowledge_base"], name="chunk_of_base")]

    def __str__(self) -> str:
        return f"{self.document_id} {self.position}"


class ChunkVector(TenantModel):
    """The vector of a passage, of length 1.

    A search by meaning reads all of a knowledge base, so what it reads is small: 16 bits a number,
    and beside it only copies of what says whether the passage is searched.
    """

    chunk = models.OneToOneField(
        Chunk, models.DO_NOTHING, primary_key=True, related_name="vector", db_constraint=False
    )
    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="+", db_index=False)
    knowledge_base_id = models.UUIDField()
    document_id = models.UUIDField()
    version = models.PositiveIntegerField()
    embedding = HalfVectorField()

    class Meta:
        indexes = [models.Index(fields=["tenant", "knowledge_base_id"], name="vector_of_base")]

    def __str__(self) -> str:
        return str(self.chunk_id)
