"""From a document's newest version to what is searched, in steps that a crash can't undo.

What there is to do stands in the document's row. A step locks it, so several io workers can take
steps at once and none takes another's. Taking a file apart may last, and may kill who does it: it
is done outside the lock, under a claim that lapses and is counted.
"""

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

from django.db.models import QuerySet
from django.utils import timezone

from inference.batches.refusals import passes
from inference.jobs.numbers import embedding_job, numbers_of
from inference.jobs.submission import submit
from knowledge.accounts import NoKey, spending_context, usable_key
from knowledge.chunking import passages
from knowledge.extraction.checks import Unreadable
from knowledge.extraction.reading import READ_SECONDS, read_text
from knowledge.models import Chunk, ChunkVector, Document, DocumentState, DocumentVersion
from knowledge.passages import set_vectors, write_passages
from knowledge.sync.wakes import wake
from portal.core.actors import Context
from portal.core.errors import PortalError, Unavailable
from portal.core.tenancy import tenant_scope

MOST_READERS: Final = 3
"""So often a file may kill who reads it."""

PASSAGES_A_JOB: Final = 32
_CLAIM: Final = timedelta(seconds=READ_SECONDS + 30)
_LOOK_AGAIN: Final = timedelta(seconds=0.25)
_MOST_REST_SECONDS: Final = 60.0
_MOST_CUTS: Final = 50
MOST_LOST_JOBS: Final = 5
_TOO_LONG: Final = "context_length_exceeded"
_PLACE: Final = re.compile(r"input\[(\d+)\]")


@dataclass(frozen=True, slots=True)
class _Claim:
    """A version that this process reads; ``attempt`` is its fence."""

    document_id: UUID
    version: int
    attempt: int
    kind: str
    content: bytes | None
    text: str | None


# -- reading -----------------------------------------------------------------------------------


def read_step(tenant_id: UUID, document_id: UUID) -> bool:
    """Reads a document that waits for it; whether it did."""
    context = Context.system("knowledge", tenant_id=tenant_id)
    with tenant_scope(context):
        claim = _claim(document_id)
    if claim is None:
        return False
    try:
        text = claim.text if claim.text is not None else _taken_apart(claim)
        pieces = list(passages(text))
    except Unreadable as refusal:
        with tenant_scope(context):
            document = _claimed(claim)
            if document is not None:
                _fail(document, refusal.message)
                document.save()
        return True
    with tenant_scope(context):
        document = _claimed(claim)
        if document is not None:
            _keep(document, text, pieces)
    return True


def _claim(document_id: UUID) -> _Claim | None:
    document = _due(document_id, DocumentState.WAITING)
    if document is None:
        return None
    version = DocumentVersion.objects.get(document_id=document.pk, number=document.latest)
    if document.attempts >= MOST_READERS:
        _fail(document, "The file can't be read: save it again, or save its text as txt.")
        document.save()
        return None
    document.attempts += 1
    document.wake_at = timezone.now() + _CLAIM
    document.save(update_fields=["attempts", "wake_at"])
    content = None if version.content is None else bytes(version.content)
    return _Claim(
        document.pk, document.latest, document.attempts, version.kind, content, version.text
    )


def _taken_apart(claim: _Claim) -> str:
    assert claim.content is not None, "a version has a file or a text"
    return read_text(claim.kind, claim.content)


def _claimed(claim: _Claim) -> Document | None:
    """The document, locked, if it is still this claim's."""
    return (
        Document.objects.select_for_update()
        .filter(
            pk=claim.document_id,
            latest=claim.version,
            attempts=claim.attempt,
            state=DocumentState.WAITING,
        )
        .first()
    )


def _keep(document: Document, text: str, pieces: list[str]) -> None:
    DocumentVersion.objects.filter(document_id=document.pk, number=document.latest).update(
        text=text, content=None
    )
    write_passages(document, pieces)
    document.parts, document.parts_done, document.attempts = len(pieces), 0, 0
    if document.version in (0, document.latest):
        # Nothing better is searched meanwhile.
        _publish(document, "")
    if document.knowledge_base.embedding_model:
        document.state, document.wake_at = DocumentState.EMBEDDING, timezone.now()
    else:
        _finish(document)
    document.save()


def _publish(document: Document, maker: str) -> None:
    """The newest version is searched from now on."""
    if document.version != document.latest:
        wake(document.knowledge_base.connection_id, local_id=document.pk)
    document.version, document.passages = document.latest, document.parts
    document.embedded_by = maker


def _finish(document: Document) -> None:
    _publish(document, document.maker)
    document.state, document.wake_at, document.waiting_for = DocumentState.READY, None, ""
    Chunk.objects.filter(document_id=document.pk).exclude(version=document.latest).delete()


def _fail(document: Document, message: str) -> None:
    document.state, document.wake_at, document.job_id = DocumentState.FAILED, None, None
    document.waiting_for, document.error = "", message[:500]


# -- embedding ---------------------------------------------------------------------------------


def embed_step(tenant_id: UUID, document_id: UUID) -> bool:
    """Takes the next step of a document that is being embedded; whether there was one."""
    context = Context.system("knowledge", tenant_id=tenant_id)
    with tenant_scope(context):
        document = _due(document_id, DocumentState.EMBEDDING)
        if document is None:
            return False
        try:
            if document.job_id is None or _collect(document, document.job_id):
                _submit_next(document)
        except PortalError as refusal:
            _retry_or_fail(document, refusal)
        document.save()
    return True


def _due(document_id: UUID, state: DocumentState) -> Document | None:
    """The document, locked, if a step of it is due and nobody else is at it."""
    due = Document.objects.filter(pk=document_id, state=state, wake_at__lte=timezone.now())
    locked = due.select_for_update(skip_locked=True, no_key=True, of=("self",))
    return locked.select_related("knowledge_base").first()


def _collect(document: Document, job_id: UUID) -> bool:
    """Writes down the vectors of the job under way; whether it has ended."""
    numbers = numbers_of(job_id)
    if numbers is None:
        document.wake_at = timezone.now() + _LOOK_AGAIN
        return False
    document.job_id, document.attempts = None, 0
    if document.maker not in ("", numbers.sku):
        # The model was exchanged meanwhile, and vectors of two can't be compared.
        ChunkVector.objects.filter(chunk__in=_newest(document)).delete()
        document.parts_done, document.maker = 0, ""
        return True
    positions = [row.position for row in _unembedded(document)[: len(numbers.vectors)]]
    set_vectors(document, positions, numbers.vectors)
    document.maker = numbers.sku
    document.parts_done += len(positions)
    return True


def _submit_next(document: Document) -> None:
    """Has the next passages embedded; without any left, or without a model, it is ready."""
    model = document.knowledge_base.embedding_model
    texts = [row.text for row in _unembedded(document)[:PASSAGES_A_JOB]] if model else []
    if not texts:
        _finish(document)
        return
    key = usable_key(document.knowledge_base.api_key_id)
    if key is None:
        raise NoKey
    context = spending_context(key, f"document_{document.pk.hex}")
    for _ in range(_MOST_CUTS):
        request = embedding_job(model, texts, role="document")
        (outcome,) = submit(context=context, requests=[request], passes=passes)
        if outcome.error is None or outcome.error.error_code != _TOO_LONG:
            break
        _shorten(texts, outcome.error)
    if outcome.passes and outcome.error is not None:
        _wait(document, outcome.error)
        return
    if outcome.error is not None:
        raise outcome.error
    document.job_id, document.waiting_for = outcome.job_id, ""
    document.wake_at = timezone.now() + _LOOK_AGAIN


def _shorten(texts: list[str], refusal: PortalError) -> None:
    """Cuts the text that a model can't read whole; its vector is of what comes first in it."""
    named = _PLACE.fullmatch(refusal.param or "")
    if named is None:
        raise refusal
    place = int(named[1])
    texts[place] = texts[place][: max(1, 2 * len(texts[place]) // 3)]


def _newest(document: Document) -> QuerySet[Chunk]:
    return Chunk.objects.filter(document_id=document.pk, version=document.latest)


def _unembedded(document: Document) -> QuerySet[Chunk]:
    return _newest(document).filter(vector=None).only("position", "text").order_by("position")


def _wait(document: Document, refusal: PortalError) -> None:
    """What passes by itself, such as a quota that is used up, is waited for."""
    document.waiting_for = refusal.message[:500]
    rest = min(max(1.0, refusal.retry_after or 1.0), _MOST_REST_SECONDS)
    document.wake_at = timezone.now() + timedelta(seconds=rest)


def _retry_or_fail(document: Document, refusal: PortalError) -> None:
    """A job that was lost is asked for again, some times; what is wrong for good is told."""
    document.job_id = None
    if not isinstance(refusal, Unavailable) or document.attempts >= MOST_LOST_JOBS:
        _fail(document, refusal.message)
        return
    document.attempts += 1
    document.wake_at = timezone.now() + timedelta(seconds=2.0**document.attempts)
