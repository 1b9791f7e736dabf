"""What the audit trail is told of the rows of knowledge: each is named in one way."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Final
from uuid import UUID

from audit.models import Category, Outcome
from audit.services import Event, intent, record
from knowledge.models import App, Connection, Document, DocumentSource, KnowledgeBase, Trigger

Named = App | Connection | Document | DocumentSource | KnowledgeBase | Trigger

# They are stored, so they never change.
_TYPES: Final[Mapping[type[Named], str]] = {
    App: "knowledge.app",
    Connection: "knowledge.connection",
    Document: "knowledge.document",
    DocumentSource: "knowledge.source",
    KnowledgeBase: "knowledge.knowledgebase",
    Trigger: "knowledge.trigger",
}


def intent_about(event: str, row: Named, **detail: Any) -> AbstractContextManager[UUID]:
    """Records what a service is about to do to a row; see ``audit.services.intent``."""
    held: AbstractContextManager[UUID] = intent(
        event,
        object_type=_TYPES[type(row)],
        object_id=row.pk,
        object_label=row.name,
        detail=detail or None,
    )
    return held


def record_about(
    event: str,
    row: Named,
    outcome: Outcome = Outcome.SUCCESS,
    *,
    reason: str = "",
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Records what the portal did, or found, by itself about a row."""
    record(
        Event(
            Category.INTENT,
            event,
            outcome,
            reason=reason,
            object_type=_TYPES[type(row)],
            object_id=str(row.pk),
            object_label=row.name,
            detail=detail,
        )
    )
