"""Runs of sources: what a reader finds becomes documents, in steps that a crash can't undo.

A run is claimed for a while, and the claim is renewed with every step; everything that is written
names the claim's fence. Who is killed is followed by another, who goes on behind the last batch
that was noted. A document and the note that its entry was taken are one transaction, so nothing
comes twice.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

import structlog
from django.db.models import F
from django.utils import timezone

from knowledge.models import (
    DocumentSource,
    OnRemoved,
    RunState,
    Source,
    SourceItem,
    SourceKind,
    SourceRun,
)
from knowledge.services.bases import locked_base
from knowledge.services.documents import (
    Incoming,
    delete_document,
    edit_document,
    incoming_file,
    incoming_text,
    store,
)
from knowledge.sources.outcome import end_run
from knowledge.sources.readers import plan_reading
from knowledge.sources.reading import Batch, Entry, Opened, SourceFault, StillWritten
from portal.core.actors import Context
from portal.core.errors import Conflict, Invalid, NotFound, PortalError
from portal.core.tenancy import tenant_scope

log = structlog.get_logger(__name__)

LEASE_SECONDS: Final = 90.0
"""How long a claim lasts; the slowest file is read within."""

MOST_ATTEMPTS: Final = 3
"""How often a run may break off at one place."""

_REMOVALS: Final = 50


class Superseded(Exception):
    """The source was claimed by another, changed, paused or deleted."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A run that this process has under its hands."""

    context: Context
    tenant_id: UUID
    source_id: UUID
    knowledge_base_id: UUID
    run_id: UUID
    fence: int
    origin: Source


def run_source(tenant_id: UUID, source_id: UUID, fence: int) -> None:
    """Carries a claimed source's run to its end: a new one, or the one that broke off.

    Raises:
        OperationalError: the database is away; the claim lapses, and the run is taken up again.
    """
    context = Context.system("sources", tenant_id=tenant_id)
    try:
        begun = _begin(context, source_id, fence)
        if begun is None:
            return
        claim, run, opened = begun
        try:
            with opened as reader:
                for batch in reader.batches(run.position):
                    _take(claim, batch)
            if run.full:
                _remove_missing(claim)
        except SourceFault as fault:
            with _held(claim) as source:
                end_run(source, claim.run_id, RunState.FAILED, fault.message)
        else:
            with _held(claim) as source:
                end_run(source, claim.run_id, RunState.DONE)
    except Superseded:
        log.info("source.superseded", source_id=str(source_id))


# -- the claim ---------------------------------------------------------------------------------


def _begin(context: Context, source_id: UUID, fence: int) -> tuple[Claim, SourceRun, Opened] | None:
    """The run that is to be gone on with; None if it ends here."""
    tenant_id = context.tenant_id
    assert tenant_id is not None, "runs belong to a tenant"
    with tenant_scope(context):
        source = (
            DocumentSource.objects.select_for_update().filter(pk=source_id, fence=fence).first()
        )
        if source is None or source.paused:
            raise Superseded
        run = SourceRun.objects.filter(source_id=source_id, state=RunState.RUNNING).first()
        if run is None:
            run = SourceRun(tenant_id=tenant_id, source=source, full=_is_full(source))
        run.attempts += 1
        run.save()
        if run.attempts > MOST_ATTEMPTS:
            end_run(
                source,
                run.pk,
                RunState.FAILED,
                "The run broke off several times at the same place: look into the io workers' log.",
            )
            return None
        try:
            opened = plan_reading(source, full=run.full)
        except Invalid as refusal:
            end_run(source, run.pk, RunState.FAILED, refusal.message)
            return None
        origin = Source.FOLDER if source.kind == SourceKind.FOLDER else Source.DATABASE
        claim = Claim(
            context, tenant_id, source_id, source.knowledge_base_id, run.pk, fence, origin
        )
        return claim, run, opened


def _is_full(source: DocumentSource) -> bool:
    """Whether everything is to be looked at, and not what is new alone."""
    if source.full_wanted or source.last_key is None or not source.settings.get("cursor_column"):
        return True
    hours = source.settings["full_hours"]
    looked = source.last_full_at
    return bool(hours) and (looked is None or looked <= timezone.now() - timedelta(hours=hours))


@contextmanager
def _held(claim: Claim) -> Iterator[DocumentSource]:
    """A scope with the source locked, and the claim renewed.

    Raises:
        Superseded: the claim is another's by now.
    """
    with tenant_scope(claim.context):
        try:
            # First, as whoever deletes a knowledge base locks it first.
            locked_base(claim.knowledge_base_id)
        except NotFound:
            raise Superseded from None
        source = (
            DocumentSource.objects.select_for_update()
            .filter(pk=claim.source_id, fence=claim.fence)
            .first()
        )
        if source is None:
            raise Superseded
        source.wake_at = timezone.now() + timedelta(seconds=LEASE_SECONDS)
        source.save(update_fields=["wake_at"])
        yield source


# -- what was found ----------------------------------------------------------------------------


def _take(claim: Claim, batch: Batch) -> None:
    """Makes documents of what is new or changed; then the batch is behind us."""
    with tenant_scope(claim.context):
        known = _items(claim, [e.key for e in batch.entries])
    fresh = [e for e in batch.entries if _is_fresh(claim, known.get(e.key), e)]
    waiting = batch.waiting + sum(_take_one(claim, entry) for entry in fresh)
    taken = {entry.key for entry in fresh}
    same = [e.key for e in batch.entries if e.key not in taken]
    with _held(claim):
        # Those of this batch that were counted before a crash are not counted again.
        old = SourceItem.objects.filter(source_id=claim.source_id).exclude(seen_run=claim.run_id)
        refused = old.filter(key__in=same).exclude(problem="").count()
        unchanged = old.filter(key__in=same).update(seen_run=claim.run_id) - refused
        old.filter(key__in=batch.seen).update(seen_run=claim.run_id)
        SourceRun.objects.filter(pk=claim.run_id).update(
            position=batch.position,
            attempts=0,
            unchanged=F("unchanged") + unchanged,
            refused=F("refused") + refused,
            waiting=F("waiting") + waiting,
        )


def _items(claim: Claim, keys: Sequence[str]) -> dict[str, SourceItem]:
    found = SourceItem.objects.filter(source_id=claim.source_id, key__in=keys)
    return {item.key: item for item in found}


def _is_fresh(claim: Claim, item: SourceItem | None, entry: Entry) -> bool:
    return item is None or item.gone or item.stamp != entry.stamp


def _take_one(claim: Claim, entry: Entry) -> bool:
    """Makes a document of an entry, or notes why not; whether it is left for later."""
    try:
        incoming = _incoming(claim, entry)
    except StillWritten:
        _look_later(claim, entry)
        return True
    except PortalError as refusal:
        if isinstance(refusal, SourceFault):
            raise
        _note_refusal(claim, entry, refusal)
        return False
    try:
        _keep(claim, entry, incoming)
    except (Invalid, Conflict) as refusal:
        _note_refusal(claim, entry, refusal)
    return False


def _incoming(claim: Claim, entry: Entry) -> Incoming:
    content = entry.load()
    make: Callable[..., Incoming] = incoming_text if isinstance(content, str) else incoming_file
    return make(entry.name, content, source=claim.origin, owner=claim.source_id)


def _keep(claim: Claim, entry: Entry, incoming: Incoming) -> None:
    """The document, and the note that its entry is taken, in one."""
    with _held(claim):
        _refuse_namesake(claim, entry)
        stored = store(
            claim.context, claim.tenant_id, claim.knowledge_base_id, incoming, entry.metadata
        )
        document, changed = stored.document, stored.new_version
        item = _items(claim, [entry.key]).get(entry.key)
        if item is None:
            item = SourceItem(tenant_id=claim.tenant_id, source_id=claim.source_id, key=entry.key)
        elif item.document_id not in (None, document.pk):
            # The row has another name by now.
            delete_document(context=claim.context, document_id=item.document_id)
        if item.gone and document.archived_at is not None:
            edit_document(context=claim.context, document_id=document.pk, archived=False)
        if not changed and document.metadata != dict(entry.metadata):
            edit_document(context=claim.context, document_id=document.pk, metadata=entry.metadata)
            changed = True
        first_time = item.seen_run != claim.run_id
        item.document_id, item.stamp, item.problem = document.pk, entry.stamp, ""
        item.gone, item.seen_run = False, claim.run_id
        item.save()
        if first_time:
            word = _word(stored.new_document, changed)
            SourceRun.objects.filter(pk=claim.run_id).update(**{word: F(word) + 1})


def _word(new_document: bool, changed: bool) -> str:
    if new_document:
        return "added"
    return "changed" if changed else "unchanged"


def _refuse_namesake(claim: Claim, entry: Entry) -> None:
    """Of two rows with one name the second would be a version of the first, again and again."""
    others = SourceItem.objects.filter(
        source_id=claim.source_id, document__name=entry.name, gone=False
    )
    if others.exclude(key=entry.key).exists():
        raise Conflict(
            "Another row of the source has the same name: choose a name column whose values are "
            "unique, or none."
        )


def _look_later(claim: Claim, entry: Entry) -> None:
    with _held(claim):
        SourceItem.objects.filter(source_id=claim.source_id, key=entry.key).update(
            seen_run=claim.run_id
        )


def _note_refusal(claim: Claim, entry: Entry, refusal: PortalError) -> None:
    """Why an entry is no document; what it was before stays one."""
    with _held(claim):
        item = _items(claim, [entry.key]).get(entry.key)
        if item is None:
            item = SourceItem(tenant_id=claim.tenant_id, source_id=claim.source_id, key=entry.key)
        first_time = item.seen_run != claim.run_id
        # What is in the way elsewhere may be gone at the next look; what is wrong with it stays.
        item.stamp = "" if isinstance(refusal, Conflict) else entry.stamp
        item.problem, item.seen_run = refusal.message[:500], claim.run_id
        item.save()
        if first_time:
            SourceRun.objects.filter(pk=claim.run_id).update(refused=F("refused") + 1)


# -- what was not found ------------------------------------------------------------------------


def _remove_missing(claim: Claim) -> None:
    """Does with documents that are not in the source any more what was chosen.

    Raises:
        SourceFault: nothing at all was found where there was something, as when a disk is not
            mounted.
    """
    with tenant_scope(claim.context):
        source = DocumentSource.objects.get(pk=claim.source_id)
        items = SourceItem.objects.filter(source_id=claim.source_id)
        seen = items.filter(seen_run=claim.run_id).exists()
        kept = items.exclude(document=None).filter(gone=False).count()
    if kept and not seen and not source.empty_allowed:
        raise SourceFault(
            f"Nothing was found where {kept} documents came from, so none was removed. If that is "
            "meant, run it once with 'nothing may be found'."
        )
    while True:
        with _held(claim) as source:
            missing = list(
                SourceItem.objects.filter(source_id=claim.source_id, gone=False)
                .exclude(seen_run=claim.run_id)
                .order_by("id")[:_REMOVALS]
            )
            for item in missing:
                _remove(claim, source, item)
            documents = sum(item.document_id is not None for item in missing)
            SourceRun.objects.filter(pk=claim.run_id).update(removed=F("removed") + documents)
        if not missing:
            return


def _remove(claim: Claim, source: DocumentSource, item: SourceItem) -> None:
    if item.document_id is None:
        SourceItem.objects.filter(pk=item.pk).delete()
        return
    if source.on_removed == OnRemoved.DELETE:
        # The item goes with it.
        delete_document(context=claim.context, document_id=item.document_id)
        return
    if source.on_removed == OnRemoved.ARCHIVE:
        edit_document(context=claim.context, document_id=item.document_id, archived=True)
    SourceItem.objects.filter(pk=item.pk).update(gone=True)
