"""Documents as objects that are kept in step."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from django.db.models import OuterRef, Subquery

from knowledge.dify import shapes
from knowledge.dify.errors import Denied, Failed, Missing, NoRoute, Refused, StillProcessing
from knowledge.models import (
    UNDER_WAY,
    Connection,
    Document,
    DocumentVersion,
    RemoteObject,
)
from knowledge.services.documents import add_text, edit_document
from knowledge.sync.kinds import Facts, Progress, Seen, Sent, Session, Want, delete_for_good
from knowledge.sync.knowledge_bases import TECHNIQUE
from knowledge.sync.users import KNOWLEDGE_BASE
from portal.core.actors import Context
from portal.core.errors import Conflict
from portal.core.tenancy import tenant_scope

DOCUMENT: Final = "document"
NAME, CONTENT, METADATA, ENABLED, ARCHIVED = "name", "content", "metadata", "enabled", "archived"
_BUILT_IN: Final = "built-in"


class DocumentKind:
    """A document: its text that is searched here, its name, metadata and whether it counts.

    Here a content is its digest; there it is the file that Dify keeps of it and its number of
    words, both of which change when somebody changes the text there.
    """

    name = DOCUMENT
    parent = KNOWLEDGE_BASE
    first_alone = True

    def wants(self, connection: Connection, slug: str) -> Iterable[Want]:
        current = DocumentVersion.objects.filter(
            document_id=OuterRef("pk"), number=OuterRef("version")
        )
        found = (
            Document.objects.filter(knowledge_base__connection_id=connection.pk, version__gt=0)
            .annotate(digest=Subquery(current.values("digest")[:1]))
            .order_by("id")
        )
        for document in found.iterator():
            facts: dict[str, Any] = {
                NAME: document.name,
                METADATA: {key: _plain(value) for key, value in document.metadata.items()},
                ENABLED: document.enabled,
                ARCHIVED: document.archived_at is not None,
            }
            # While a later version is read nobody knows yet what is to stand there.
            if document.version == document.latest or document.state not in UNDER_WAY:
                facts[CONTENT] = document.digest
            yield Want(
                self.name,
                document.pk,
                document.name,
                facts,
                parent=document.knowledge_base_id,
                revive=document.archived_at is None and CONTENT in facts,
            )

    def observe(self, session: Session, known: Sequence[RemoteObject]) -> Iterator[Seen]:
        for (kind, base_id), dataset_id in list(session.remote.items()):
            if kind == KNOWLEDGE_BASE:
                inside = [link for link in known if link.parent_id == base_id and link.remote_id]
                yield from _observe_base(session, base_id, dataset_id, inside)

    def find(self, session: Session, want: Want) -> Seen | None:
        dataset_id = session.parent(KNOWLEDGE_BASE, want.parent)
        taken = set(session.remote.values())
        number, more = 1, True
        while more:
            page = session.dify.knowledge.list_documents(
                dataset_id, page=number, keyword=want.label
            )
            for document in page.data:
                if document.name == want.label and document.id not in taken:
                    seen = _seen(document, want.parent)
                    if seen.ours:
                        return seen
            number, more = number + 1, page.has_more
        return None

    def create(self, session: Session, want: Want) -> Sent:
        text, technique = _text(session, want)
        accepted = session.dify.knowledge.create_document_by_text(
            session.parent(KNOWLEDGE_BASE, want.parent),
            name=want.facts[NAME],
            text=text,
            indexing_technique=technique,
        )
        return _accepted(want, accepted, _facts(accepted.document))

    def update(
        self, session: Session, link: RemoteObject, want: Want, aspects: frozenset[str]
    ) -> Sent:
        dataset_id = session.parent(KNOWLEDGE_BASE, want.parent)
        if aspects & {NAME, CONTENT}:
            return self._replace(session, dataset_id, link, want)
        if METADATA in aspects:
            return self._set_metadata(session, dataset_id, link, want)
        aspect = next(a for a in (ARCHIVED, ENABLED) if a in aspects)
        return _set_status(session, dataset_id, link, aspect, want.facts[aspect])

    def _replace(self, session: Session, dataset_id: str, link: RemoteObject, want: Want) -> Sent:
        """Puts name and text in place; Dify does that only to a document that is available."""
        if link.seen.get(ARCHIVED):
            return _set_status(session, dataset_id, link, ARCHIVED, False)
        if not link.seen.get(ENABLED, True):
            return _set_status(session, dataset_id, link, ENABLED, True)
        text, _ = _text(session, want)
        try:
            accepted = session.dify.knowledge.update_document_by_text(
                dataset_id, link.remote_id, name=want.facts[NAME], text=text
            )
        except Missing:
            raise
        except Refused:
            status = session.dify.knowledge.get_document(dataset_id, link.remote_id).display_status
            if status in ("queuing", "indexing"):
                raise StillProcessing from None
            raise
        shown = _facts(accepted.document)
        return _accepted(want, accepted, {NAME: shown[NAME], CONTENT: shown[CONTENT]})

    def _set_metadata(
        self, session: Session, dataset_id: str, link: RemoteObject, want: Want
    ) -> Sent:
        wanted: Mapping[str, Any] = want.facts[METADATA]
        fields = _fields(session, dataset_id, wanted)
        values = [
            shapes.MetadataValue(fields[key].id, key, _fitting(fields[key].type, value))
            for key, value in wanted.items()
        ]
        session.dify.knowledge.set_metadata(dataset_id, {link.remote_id: values}, partial=False)
        shown = {value.name: value.value for value in values}
        return Sent(link.remote_id, {METADATA: wanted}, {METADATA: shown})

    def follow(self, session: Session, link: RemoteObject) -> Progress:
        dataset_id = session.parent(KNOWLEDGE_BASE, link.parent_id)
        if not link.batch:
            # Found again, so that nobody knows its batch: it is sent once more when it can be.
            found = session.dify.knowledge.get_document(dataset_id, link.remote_id)
            failed = found.indexing_status == "error"
            return Progress(done=found.indexing_status == "completed", again=failed)
        for status in session.dify.knowledge.indexing_status(dataset_id, link.batch):
            if status.id != link.remote_id:
                continue
            if status.lost:
                return Progress(again=True, error="Dify lost the text while it was indexed.")
            if status.indexing_status == "error":
                return Progress(again=True, error="Dify could not index the text.")
            return Progress(done=status.indexed)
        raise Missing

    def delete(self, session: Session, link: RemoteObject, *, force: bool) -> None:
        dataset_id = session.remote.get((KNOWLEDGE_BASE, link.parent_id or UUID(int=0)))
        if dataset_id is not None:
            delete_for_good(
                lambda: session.dify.knowledge.delete_document(dataset_id, link.remote_id),
                lambda: session.dify.knowledge.get_document(dataset_id, link.remote_id),
            )

    def fetch(self, session: Session, link: RemoteObject) -> Any:
        if link.gone:
            return ""
        dataset_id = session.parent(KNOWLEDGE_BASE, link.parent_id)
        pieces = session.dify.knowledge.segments(dataset_id, link.remote_id)
        return "\n\n".join(piece.content for piece in pieces)

    def take(
        self, context: Context, link: RemoteObject, aspects: frozenset[str], fetched: Any
    ) -> Facts:
        if link.local_id is None:
            return _import(context, link, fetched)
        if link.gone:
            edit_document(context=context, document_id=link.local_id, archived=True)
            return {}
        seen = link.seen
        changes = {aspect: seen[aspect] for aspect in aspects - {CONTENT}}
        if changes:
            edit_document(context=context, document_id=link.local_id, **changes)
        if CONTENT not in aspects:
            return {}
        document = Document.objects.get(pk=link.local_id)
        add_text(
            context=context,
            knowledge_base_id=document.knowledge_base_id,
            name=document.name,
            text=fetched,
        )
        return {CONTENT: _digest(fetched)}


def _observe_base(
    session: Session, base_id: UUID, dataset_id: str, known: Sequence[RemoteObject]
) -> Iterator[Seen]:
    listed = set()
    try:
        for document in session.dify.knowledge.documents(dataset_id):
            listed.add(document.id)
            yield _seen(document, base_id)
        missing = [link for link in known if link.remote_id not in listed and not link.gone]
        for link in missing:
            # A page slips while somebody deletes: what is not listed is asked for by its id.
            if _is_there(session, dataset_id, link.remote_id):
                yield Seen(link.remote_id, link.label, link.seen, base_id)
    except (Denied, Failed, NoRoute):
        # What can't be looked at is taken to be as it was.
        for link in known:
            if link.remote_id not in listed and not link.gone:
                yield Seen(link.remote_id, link.label, link.seen, base_id)
    except Missing:
        return


def _is_there(session: Session, dataset_id: str, document_id: str) -> bool:
    try:
        session.dify.knowledge.get_document(dataset_id, document_id)
    except NoRoute:
        raise
    except Missing:
        return False
    return True


def _import(context: Context, link: RemoteObject, text: str) -> Facts:
    """A document that somebody made in Dify becomes one of the portal's."""
    assert link.parent_id is not None, "strangers stand in an object of ours"
    document = add_text(
        context=context,
        knowledge_base_id=link.parent_id,
        name=link.label,
        text=text,
        metadata=link.seen.get(METADATA) or None,
    )
    if not link.seen.get(ENABLED, True) or link.seen.get(ARCHIVED):
        edit_document(
            context=context,
            document_id=document.pk,
            enabled=link.seen[ENABLED],
            archived=link.seen[ARCHIVED],
        )
    others = RemoteObject.objects.filter(
        connection_id=link.connection_id, kind=DOCUMENT, local_id=document.pk
    )
    if not others.exists():
        link.local_id = document.pk
    return {**link.seen, CONTENT: _digest(text)}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _text(session: Session, want: Want) -> tuple[str, shapes.Technique]:
    """The text whose digest is wanted, and how its knowledge base is indexed in Dify."""
    context = Context.system("sync", tenant_id=session.connection.tenant_id)
    with tenant_scope(context):
        found = (
            DocumentVersion.objects.filter(
                document_id=want.local_id, digest=want.facts[CONTENT], text__isnull=False
            )
            .order_by("-number")
            .values_list("text", flat=True)
            .first()
        )
        base = RemoteObject.objects.filter(
            connection_id=session.connection.pk, kind=KNOWLEDGE_BASE, local_id=want.parent
        ).first()
    if found is None:
        raise Conflict("The document has changed meanwhile.", code="document_changed")
    by_meaning = base is not None and base.seen.get(TECHNIQUE) == "high_quality"
    return found, "high_quality" if by_meaning else "economy"


def _accepted(want: Want, accepted: shapes.Accepted, shown: dict[str, Any]) -> Sent:
    # The words are counted when it has been indexed, and belong to the text before until then.
    shown = {**shown, CONTENT: {"file": shown[CONTENT]["file"]}}
    sent = {NAME: want.facts[NAME], CONTENT: want.facts[CONTENT]}
    return Sent(accepted.document.id, sent, shown, accepted.batch)


def _set_status(
    session: Session, dataset_id: str, link: RemoteObject, aspect: str, value: bool
) -> Sent:
    actions: Mapping[tuple[str, bool], shapes.StatusAction] = {
        (ENABLED, True): "enable",
        (ENABLED, False): "disable",
        (ARCHIVED, True): "archive",
        (ARCHIVED, False): "un_archive",
    }
    action = actions[aspect, value]
    session.dify.knowledge.set_document_status(dataset_id, [link.remote_id], action)
    return Sent(link.remote_id, {aspect: value}, {aspect: value})


def _fields(
    session: Session, dataset_id: str, wanted: Mapping[str, Any]
) -> Mapping[str, shapes.MetadataField]:
    """The knowledge base's fields by name; those that are missing are made."""
    key = (METADATA, dataset_id)
    known: dict[str, shapes.MetadataField] = session.remembered.setdefault(key, {})
    if not wanted.keys() <= known.keys():
        found = session.dify.knowledge.metadata(dataset_id).doc_metadata
        known |= {field.name: field for field in found if field.id != _BUILT_IN}
    for name in wanted.keys() - known.keys():
        kind: shapes.MetadataType = "string" if isinstance(wanted[name], str) else "number"
        known[name] = session.dify.knowledge.create_metadata(dataset_id, name, kind)
    return known


def _plain(value: Any) -> str | int | float:
    """A value as Dify can have it: it knows no truth values."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value  # type: ignore[no-any-return]


def _fitting(kind: str, value: Any) -> str | int | float:
    return str(value) if kind == "string" else value


def _facts(document: shapes.Document) -> dict[str, Any]:
    source = document.data_source_detail_dict.upload_file
    return {
        NAME: document.name,
        CONTENT: {"file": source.id if source else "", "words": document.word_count},
        METADATA: {
            entry.name: entry.value
            for entry in document.doc_metadata or ()
            if entry.id != _BUILT_IN
        },
        ENABLED: document.enabled,
        ARCHIVED: document.archived,
    }


def _seen(document: shapes.Document, base_id: UUID | None) -> Seen:
    ours = document.created_from == "api"
    return Seen(document.id, document.name, _facts(document), base_id, ours=ours)
