"""Verbs of documents: added, changed, indexed again, deleted."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from django.db.models import Sum
from django.utils import timezone

from knowledge.events import KnowledgeEvent
from knowledge.extraction.checks import MOST_BYTES, check_file
from knowledge.extraction.reading import check_text
from knowledge.models import (
    Document,
    DocumentState,
    DocumentVersion,
    KnowledgeBase,
    Source,
    SourceItem,
)
from knowledge.services.bases import locked_base
from knowledge.sync.wakes import wake
from knowledge.trail import intent_about
from portal.core.actors import Context
from portal.core.env import env
from portal.core.errors import Conflict, Invalid, NotFound
from portal.core.tenancy import tenant_scope
from tenants.permissions import Action, require
from tenants.services.checks import clean_text, require_tenant

MOST_METADATA: Final = 32
MOST_KEY_CHARS: Final = 64
MOST_VALUE_CHARS: Final = 512
VERSIONS_KEPT: Final = 20

Metadata = Mapping[str, str | int | float | bool]


@dataclass(frozen=True, slots=True)
class Incoming:
    """A version as it comes in: a file whose text is still to be read, or a text.

    Attributes:
        owner: the source out of which it was read, which alone changes it; else None.
    """

    name: str
    source: Source
    kind: str
    size: int
    digest: str
    content: bytes | None = None
    text: str | None = None
    owner: UUID | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of a version that came in; the same content again makes none."""

    document: Document
    new_document: bool = False
    new_version: bool = False


def add_file(
    *,
    context: Context,
    knowledge_base_id: UUID,
    name: str,
    content: bytes,
    metadata: Metadata | None = None,
) -> Document:
    """Adds a file, or a new version where there is a document of its name already.

    What is wrong with it is found out before anything is kept. Its text is read and indexed by an
    io worker. The same content again changes nothing.

    Args:
        metadata: facts to filter by; None leaves those of a document that is there.

    Raises:
        Forbidden: the caller may not.
        NotFound: no such knowledge base here.
        Unreadable: the file's text can't be had; the sentence says what to do.
        Invalid: naming the field that is wrong.
        Conflict: the tenant's documents take all the room they may.
    """
    require(context, Action.KNOWLEDGE_EDIT)
    tenant_id = require_tenant(context)
    clean_name = _name(name)
    with tenant_scope(context):
        _require_base(tenant_id, knowledge_base_id)
    incoming = incoming_file(clean_name, content)
    return store(context, tenant_id, knowledge_base_id, incoming, metadata).document


def add_text(
    *,
    context: Context,
    knowledge_base_id: UUID,
    name: str,
    text: str,
    metadata: Metadata | None = None,
) -> Document:
    """Adds a text as a document, or as a new version of the one of this name.

    Raises:
        As ``add_file``.
    """
    require(context, Action.KNOWLEDGE_EDIT)
    tenant_id = require_tenant(context)
    incoming = incoming_text(_name(name), text)
    return store(context, tenant_id, knowledge_base_id, incoming, metadata).document


def edit_document(
    *,
    context: Context,
    document_id: UUID,
    name: str | None = None,
    metadata: Metadata | None = None,
    enabled: bool | None = None,
    archived: bool | None = None,
) -> Document:
    """Changes what is given and leaves the rest.

    Args:
        enabled: whether it is searched.
        archived: an archived document is kept, and not searched either.

    Raises:
        Forbidden: the caller may not.
        NotFound: no such document here.
        Invalid: naming the field that is wrong.
        Conflict: the name is taken.
    """
    require(context, Action.KNOWLEDGE_EDIT)
    require_tenant(context)
    with tenant_scope(context):
        document = _locked(document_id)
        if name is not None and _name(name) != document.name:
            document.name = _name(name)
            _refuse_taken(document)
        if metadata is not None:
            document.metadata = _metadata(metadata)
        if enabled is not None:
            document.enabled = enabled
        if archived is not None and archived != (document.archived_at is not None):
            document.archived_at = timezone.now() if archived else None
        with intent_about(KnowledgeEvent.EDIT_DOCUMENT, document):
            document.save(update_fields=["name", "metadata", "enabled", "archived_at"])
            wake(document.knowledge_base.connection_id, local_id=document.pk)
    return document


def index_again(*, context: Context, document_id: UUID) -> Document:
    """Reads and indexes the newest version once more, such as after what failed was put right.

    Raises:
        Forbidden: the caller may not.
        NotFound: no such document here.
    """
    require(context, Action.KNOWLEDGE_EDIT)
    require_tenant(context)
    with tenant_scope(context):
        document = _locked(document_id)
        with intent_about(KnowledgeEvent.INDEX_DOCUMENT, document):
            _start(document, timezone.now())
            document.save()
    return document


def delete_document(*, context: Context, document_id: UUID) -> None:
    """Deletes a document with its versions and passages.

    Raises:
        Forbidden: the caller may not.
        NotFound: no such document here.
    """
    require(context, Action.KNOWLEDGE_EDIT)
    require_tenant(context)
    with tenant_scope(context):
        document = _locked(document_id)
        with intent_about(KnowledgeEvent.DELETE_DOCUMENT, document):
            connection_id = document.knowledge_base.connection_id
            Document.objects.filter(pk=document.pk).delete()
            wake(connection_id, local_id=document.pk)


def _locked(document_id: UUID) -> Document:
    found = Document.objects.select_for_update().filter(pk=document_id).first()
    if found is None:
        raise NotFound("There is no such document.")
    return found


def _refuse_taken(document: Document) -> None:
    taken = Document.objects.filter(
        knowledge_base_id=document.knowledge_base_id, name=document.name
    )
    if taken.exclude(pk=document.pk).exists():
        raise Conflict(
            "There is already a document of this name in the knowledge base.", param="name"
        )


# -- adding ------------------------------------------------------------------------------------


def incoming_file(
    name: str, content: bytes, *, source: Source = Source.UPLOAD, owner: UUID | None = None
) -> Incoming:
    """A file as a version, once it is known that its text can be had.

    Raises:
        Unreadable: it can't; the sentence says what to do.
    """
    kind = check_file(name, content)
    check_text(kind, content)
    digest = hashlib.sha256(content).hexdigest()
    return Incoming(name, source, kind, len(content), digest, content=content, owner=owner)


def incoming_text(
    name: str, text: str, *, source: Source = Source.TEXT, owner: UUID | None = None
) -> Incoming:
    """A text as a version.

    Raises:
        Invalid: it is empty, too long, or holds what no text does.
    """
    if not text.strip():
        raise Invalid("'text' is empty.", param="text")
    if "\0" in text:
        raise Invalid("'text' holds a NUL character.", param="text")
    encoded = text.encode()
    if len(encoded) > MOST_BYTES:
        raise Invalid("'text' is longer than 15 MB: split it.", param="text")
    digest = hashlib.sha256(encoded).hexdigest()
    return Incoming(name, source, "txt", len(encoded), digest, text=text, owner=owner)


def store(
    context: Context,
    tenant_id: UUID,
    knowledge_base_id: UUID,
    incoming: Incoming,
    metadata: Metadata | None,
) -> Stored:
    """Writes a version down, to be read and indexed; the verbs above and sources share it.

    Raises:
        NotFound: no such knowledge base here.
        Invalid: the metadata.
        Conflict: there is no room, or a document of this name that is another's to change.
    """
    facts = None if metadata is None else _metadata(metadata)
    with tenant_scope(context):
        # Held, so that of two files of one name the second is a version of the first.
        base = locked_base(knowledge_base_id)
        document = (
            Document.objects.select_for_update()
            .filter(knowledge_base_id=base.pk, name=incoming.name)
            .first()
        )
        if document is not None:
            _refuse_others(document, incoming)
            if _is_same(document, incoming):
                return Stored(document)
        _refuse_too_much(tenant_id, incoming.size)
        event = KnowledgeEvent.ADD_DOCUMENT if document is None else KnowledgeEvent.ADD_VERSION
        now = timezone.now()
        if document is None:
            document = Document(
                tenant_id=tenant_id,
                knowledge_base_id=base.pk,
                name=incoming.name,
                created_by_id=context.user_id,
                latest=0,
            )
        document.latest += 1
        document.source, document.changed_at = incoming.source, now
        document.metadata = document.metadata if facts is None else facts
        _start(document, now)
        with intent_about(event, document, digest=incoming.digest, size=incoming.size):
            document.save()
            _save_version(context, document, incoming)
    return Stored(document, document.latest == 1, new_version=True)


def _start(document: Document, now: datetime) -> None:
    """The newest version is to be read, from the beginning."""
    document.state, document.wake_at = DocumentState.WAITING, now
    document.attempts, document.job_id = 0, None
    document.parts = document.parts_done = 0
    document.maker = document.waiting_for = document.error = ""


def _refuse_others(document: Document, incoming: Incoming) -> None:
    """A document that is read out of a source is changed there, and by nobody else."""
    item = SourceItem.objects.filter(document_id=document.pk, gone=False).first()
    if item is not None and item.source_id != incoming.owner:
        raise Conflict(
            "The document of this name is read out of a source: change it there, or use another "
            "name.",
            param="name",
        )
    if item is None and incoming.owner is not None and not _was_of(incoming.owner, document):
        raise Conflict(
            "There is already a document of this name in the knowledge base, which does not come "
            "from this source: delete or rename it.",
            param="name",
        )


def _was_of(source_id: UUID, document: Document) -> bool:
    return SourceItem.objects.filter(document_id=document.pk, source_id=source_id).exists()


def _is_same(document: Document, incoming: Incoming) -> bool:
    newest = DocumentVersion.objects.filter(document_id=document.pk, number=document.latest)
    return newest.filter(digest=incoming.digest).exists()


def _save_version(context: Context, document: Document, incoming: Incoming) -> None:
    DocumentVersion(
        tenant_id=document.tenant_id,
        document=document,
        number=document.latest,
        digest=incoming.digest,
        size=incoming.size,
        kind=incoming.kind,
        content=incoming.content,
        text=incoming.text,
        created_by_id=context.user_id,
    ).save(force_insert=True)
    oldest = document.latest - VERSIONS_KEPT
    DocumentVersion.objects.filter(document_id=document.pk, number__lte=oldest).exclude(
        number=document.version
    ).delete()


def _require_base(tenant_id: UUID, knowledge_base_id: UUID) -> None:
    if not KnowledgeBase.objects.filter(tenant_id=tenant_id, pk=knowledge_base_id).exists():
        raise NotFound("There is no such knowledge base.")


def _refuse_too_much(tenant_id: UUID, size: int) -> None:
    held = DocumentVersion.objects.filter(tenant_id=tenant_id).aggregate(sum=Sum("size"))["sum"]
    if (held or 0) + size > env().max_tenant_knowledge_bytes:
        raise Conflict(
            "The documents of this tenant take all the room they may: delete some first.",
            code="knowledge_full",
        )


def _name(value: str) -> str:
    # What comes before it is the folder on the sender's machine.
    return clean_text(value.replace("\\", "/").rpartition("/")[2], "name", most=200, least=1)


def _metadata(value: Metadata) -> dict[str, Any]:
    if len(value) > MOST_METADATA:
        raise Invalid(f"'metadata' may have {MOST_METADATA} entries.", param="metadata")
    return {_key(key): _value(one) for key, one in value.items()}


def _key(key: str) -> str:
    return clean_text(key, "metadata", most=MOST_KEY_CHARS, least=1)


def _value(value: Any) -> str | int | float | bool:
    if isinstance(value, str):
        return clean_text(value, "metadata", most=MOST_VALUE_CHARS)
    if isinstance(value, bool | int | float) and abs(value) < 1e15:
        return value
    raise Invalid("'metadata' holds texts, numbers and booleans alone.", param="metadata")
