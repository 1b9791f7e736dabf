"""Reads of knowledge bases; each runs inside the caller's scope."""

import difflib
from collections.abc import Iterator
from typing import Final
from uuid import UUID

from django.db.models import Count, OuterRef, Q, QuerySet, Subquery

from inference.models import Model, Task
from knowledge.models import (
    UNDER_WAY,
    Document,
    DocumentState,
    DocumentVersion,
    KnowledgeBase,
    RemoteObject,
)
from portal.core.errors import Invalid, NotFound

_MOST_DIFF_LINES: Final = 5000


def knowledge_bases() -> QuerySet[KnowledgeBase]:
    """The knowledge bases of the scope's tenant, each with how its documents do."""
    of = "documents__state"
    return KnowledgeBase.objects.annotate(
        document_count=Count("documents"),
        ready_count=Count("documents", filter=Q(documents__version__gt=0)),
        working_count=Count("documents", filter=Q(**{f"{of}__in": UNDER_WAY})),
        failed_count=Count("documents", filter=Q(**{of: DocumentState.FAILED})),
        sync_state=_in_dify("knowledge_base", "connection_id", "state"),
        sync_error=_in_dify("knowledge_base", "connection_id", "error"),
    )


def get_knowledge_base(knowledge_base_id: UUID) -> KnowledgeBase:
    """One knowledge base.

    Raises:
        NotFound: none; another tenant's is this too.
    """
    found = knowledge_bases().filter(pk=knowledge_base_id).first()
    if found is None:
        raise NotFound("There is no such knowledge base.")
    return found


def documents() -> QuerySet[Document]:
    """The documents of the scope's tenant, newest first."""
    return Document.objects.select_related("knowledge_base").annotate(
        sync_state=_in_dify("document", "knowledge_base__connection_id", "state"),
        sync_error=_in_dify("document", "knowledge_base__connection_id", "error"),
    )


def _in_dify(kind: str, connection: str, field: str) -> Subquery:
    """What is known of an object in the workspace where it is to stand."""
    found = RemoteObject.objects.filter(
        kind=kind, local_id=OuterRef("pk"), connection_id=OuterRef(connection)
    )
    return Subquery(found.values(field)[:1])


def get_document(document_id: UUID) -> Document:
    """One document.

    Raises:
        NotFound: none; another tenant's is this too.
    """
    found = documents().filter(pk=document_id).first()
    if found is None:
        raise NotFound("There is no such document.")
    return found


def versions(document: Document) -> QuerySet[DocumentVersion]:
    """A document's versions, newest first, without what they hold."""
    return DocumentVersion.objects.filter(document_id=document.pk).defer("content", "text")


def get_version(document: Document, number: int) -> DocumentVersion:
    """One version with its text.

    Raises:
        NotFound: none.
    """
    found = DocumentVersion.objects.filter(document_id=document.pk, number=number)
    version = found.defer("content").first()
    if version is None:
        raise NotFound("There is no such version.")
    return version


def diff(document: Document, before: int, after: int) -> Iterator[str]:
    """What one version says and another does not, as a unified diff.

    Raises:
        NotFound: no such version.
        Invalid: one has not been read yet, or they are too long to be compared.
    """
    old, new = (_lines(get_version(document, number)) for number in (before, after))
    if len(old) + len(new) > _MOST_DIFF_LINES:
        raise Invalid("The versions are too long to be compared here.")
    return difflib.unified_diff(old, new, f"version {before}", f"version {after}", lineterm="")


def _lines(version: DocumentVersion) -> list[str]:
    if version.text is None:
        raise Invalid("A version that has not been read yet can't be compared.")
    return version.text.splitlines()


def served_models(*tasks: Task) -> list[str]:
    """Names of models that are served and do one of these things."""
    found = Model.objects.filter(task__in=tasks, deployments__enabled=True).order_by("name")
    return list(found.values_list("name", flat=True).distinct())
