"""Reads of sources, inside the caller's scope."""

from uuid import UUID

from django.db.models import Exists, OuterRef, QuerySet

from knowledge.models import DocumentSource, RunState, SourceItem, SourceRun
from portal.core.errors import NotFound


def sources() -> QuerySet[DocumentSource]:
    """The sources of the scope's tenant, without their passwords."""
    running = SourceRun.objects.filter(source_id=OuterRef("pk"), state=RunState.RUNNING)
    return (
        DocumentSource.objects.select_related("knowledge_base")
        .defer("sealed")
        .annotate(running=Exists(running))
    )


def get_source(source_id: UUID) -> DocumentSource:
    """One source.

    Raises:
        NotFound: none; another tenant's is this too.
    """
    found = sources().filter(pk=source_id).first()
    if found is None:
        raise NotFound("There is no such source of documents.")
    return found


def runs(source: DocumentSource) -> QuerySet[SourceRun]:
    """A source's runs, newest first; the last hundred are kept."""
    return SourceRun.objects.filter(source_id=source.pk).order_by("-id")


def refusals(source: DocumentSource) -> QuerySet[SourceItem]:
    """What of a source is no document now, with the reason why."""
    found = SourceItem.objects.filter(source_id=source.pk, gone=False)
    return found.exclude(problem="").order_by("key")
