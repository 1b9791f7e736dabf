"""Sources read by hand: the io worker's turn is the test's own."""

import os
import time
from pathlib import Path
from typing import Final
from uuid import UUID

from django.utils import timezone

from knowledge.models import (
    Document,
    DocumentSource,
    KnowledgeBase,
    RunState,
    SourceItem,
    SourceRun,
)
from knowledge.selectors import get_version
from knowledge.services import create_knowledge_base
from knowledge.sources.runs import run_source
from knowledge.sources.services import create_source
from portal.core.tenancy import tenant_scope
from tests.factories import Organisation

HOUR: Final = 3600


def make_base(tenant: Organisation, name: str = "rules") -> KnowledgeBase:
    return create_knowledge_base(context=tenant.context, name=name, embedding_model="")


def claim(tenant: Organisation, source_id: UUID) -> int:
    """Claims a source as an io worker does; its fence."""
    with tenant_scope(tenant.context):
        source = DocumentSource.objects.select_for_update().get(pk=source_id)
        source.fence += 1
        source.wake_at = timezone.now()
        source.save(update_fields=["fence", "wake_at"])
        return source.fence


def run(tenant: Organisation, source: DocumentSource) -> SourceRun:
    """Runs a source to the end of its run."""
    run_source(tenant.id, source.pk, claim(tenant, source.pk))
    return last_run(tenant, source)


def last_run(tenant: Organisation, source: DocumentSource) -> SourceRun:
    with tenant_scope(tenant.context):
        return SourceRun.objects.filter(source_id=source.pk).order_by("-id")[0]


def counts(run: SourceRun) -> dict[str, int]:
    """What a run found, without what it did not."""
    words = ("added", "changed", "removed", "unchanged", "refused", "waiting")
    return {word: getattr(run, word) for word in words if getattr(run, word)}


def done(run: SourceRun) -> dict[str, int]:
    """What a run found that went well."""
    assert run.state == RunState.DONE, run.error
    return counts(run)


def source_now(tenant: Organisation, source: DocumentSource) -> DocumentSource:
    with tenant_scope(tenant.context):
        return DocumentSource.objects.get(pk=source.pk)


def documents(tenant: Organisation, base: KnowledgeBase) -> dict[str, Document]:
    """A knowledge base's documents by their names."""
    with tenant_scope(tenant.context):
        return {d.name: d for d in Document.objects.filter(knowledge_base_id=base.pk)}


def texts(tenant: Organisation, base: KnowledgeBase) -> dict[str, str]:
    """What the newest versions of text documents say, by their names."""
    with tenant_scope(tenant.context):
        found = {}
        for document in Document.objects.filter(knowledge_base_id=base.pk):
            version = get_version(document, document.latest)
            found[document.name] = version.text or ""
        return found


def refused(tenant: Organisation, source: DocumentSource) -> dict[str, str]:
    """Why entries are no documents, by their keys."""
    with tenant_scope(tenant.context):
        found = SourceItem.objects.filter(source_id=source.pk).exclude(problem="")
        return dict(found.values_list("key", "problem"))


def write(path: Path, content: bytes | str, *, age: float = HOUR) -> Path:
    """A file that was changed so many seconds ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    then = time.time() - age
    os.utime(path, (then, then))
    return path


def watch(tenant: Organisation, base: KnowledgeBase, path: str = "", **more: str) -> DocumentSource:
    settings = {"path": path, "include": more.pop("include", "")}
    return create_source(
        context=tenant.context,
        knowledge_base_id=base.pk,
        name="folder",
        kind="folder",
        settings=settings,
        **more,
    )
