"""How documents do, in words."""

from django.utils.translation import gettext, ngettext

from knowledge.models import Document, DocumentState, KnowledgeBase
from portal.core.pages import in_words

KINDS = {
    DocumentState.WAITING: "info",
    DocumentState.EMBEDDING: "info",
    DocumentState.READY: "success",
    DocumentState.FAILED: "danger",
}


def state_of(document: Document) -> tuple[str, str]:
    """A colour and a few words for the state of a document."""
    state = DocumentState(document.state)
    if state == DocumentState.READY and document.archived_at is not None:
        return "default", gettext("Archived")
    if state == DocumentState.READY and not document.enabled:
        return "default", gettext("Switched off")
    if document.waiting_for:
        return "warning", gettext("Waits")
    return KINDS[state], str(state.label)


def note_of(document: Document) -> str:
    """What there is to say beside the state: progress, what is waited for, what went wrong."""
    if document.state == DocumentState.EMBEDDING and not document.waiting_for:
        return gettext("%(done)s of %(all)s passages") % {
            "done": document.parts_done,
            "all": document.parts,
        }
    return in_words(document.error or document.waiting_for)


def percent_of(document: Document) -> int:
    """How far a document is that is under way."""
    if document.state == DocumentState.WAITING or not document.parts:
        return 0
    return 100 * document.parts_done // document.parts


def documents_of(base: KnowledgeBase) -> str:
    """The documents of an annotated knowledge base, in words."""
    count: int = base.document_count  # type: ignore[attr-defined]
    parts = [ngettext("%(n)s document", "%(n)s documents", count) % {"n": count}]
    working: int = base.working_count  # type: ignore[attr-defined]
    failed: int = base.failed_count  # type: ignore[attr-defined]
    if working:
        parts.append(gettext("%(n)s under way") % {"n": working})
    if failed:
        parts.append(gettext("%(n)s failed") % {"n": failed})
    return ", ".join(parts)
