"""Pages of documents: how each does, what it says, and what its versions changed."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from unfold.paginator import InfinitePaginator

from knowledge import selectors, services
from knowledge.admin.base_forms import EmptyForm
from knowledge.admin.sync import sync_facts
from knowledge.admin.words import note_of, state_of
from knowledge.models import Document, DocumentState, DocumentVersion
from portal.core.errors import PortalError
from portal.core.pages import (
    STATUS_KINDS,
    FormPage,
    PortalModelAdmin,
    context_of,
    display,
    in_words,
)
from tenants.permissions import Action

_SHOWN_CHARS = 20_000


def _base(document: Document) -> str:
    return reverse("admin:knowledge_knowledgebase_change", args=[document.knowledge_base_id])


def _page(document: Document) -> str:
    return reverse("admin:knowledge_document_change", args=[document.pk])


def _change(**change: bool) -> Any:
    def submit(request: HttpRequest, document: Document, _data: dict[str, Any]) -> str:
        services.edit_document(context=context_of(request), document_id=document.pk, **change)  # type: ignore[arg-type]
        return _page(document)

    return submit


def _index(request: HttpRequest, document: Document, _data: dict[str, Any]) -> str:
    services.index_again(context=context_of(request), document_id=document.pk)
    return _page(document)


def _delete(request: HttpRequest, document: Document, _data: dict[str, Any]) -> str:
    services.delete_document(context=context_of(request), document_id=document.pk)
    return _base(document)


def _simple(name: str, title: Any, submit: Any, **more: Any) -> FormPage:
    return FormPage(name, Action.KNOWLEDGE_EDIT, title, EmptyForm, submit, button=title, **more)


@admin.register(Document)
class DocumentAdmin(PortalModelAdmin):
    """The documents of the active tenant, of all its knowledge bases."""

    view_action = Action.KNOWLEDGE_READ
    detail_template = "site/knowledge_document.html"
    paginator = InfinitePaginator
    empty_title = _("No document yet")
    empty_text = _("Documents are added on the page of a knowledge base.")
    list_display = ("name", "base_name", "state_label", "note", "passages")
    list_filter = ("state",)
    search_fields = ("name",)
    ordering = ("-id",)
    sortable_by = ()
    pages = (
        _simple(
            "disable",
            _("Switch off"),
            _change(enabled=False),
            intro=_("It is kept, and not found until you switch it on again."),
            offered=lambda document: document.enabled,
        ),
        _simple(
            "enable",
            _("Switch on"),
            _change(enabled=True),
            offered=lambda document: not document.enabled,
        ),
        _simple(
            "archive",
            _("Archive"),
            _change(archived=True),
            intro=_("It is kept for the record, and not found any more."),
            offered=lambda document: document.archived_at is None,
        ),
        _simple(
            "restore",
            _("Restore"),
            _change(archived=False),
            offered=lambda document: document.archived_at is not None,
        ),
        _simple(
            "index",
            _("Index again"),
            _index,
            intro=_("Its text is read and indexed once more; until then it is found as now."),
        ),
        _simple(
            "delete",
            _("Delete document"),
            _delete,
            intro=_("All its versions are deleted with it."),
            danger=True,
        ),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Document]:
        return selectors.documents()

    @display(description=_("Knowledge base"))
    def base_name(self, document: Document) -> str:
        return document.knowledge_base.name

    @display(description=_("State"), label=STATUS_KINDS)
    def state_label(self, document: Document) -> tuple[str, str]:
        return state_of(document)

    @display(description=_("Note"))
    def note(self, document: Document) -> str:
        return note_of(document)

    def detail_context(self, request: HttpRequest, obj: Document) -> dict[str, Any]:
        versions = list(selectors.versions(obj))
        return {
            "crumbs": [{"title": obj.knowledge_base.name, "link": _base(obj)}],
            "state": state_of(obj),
            "note": note_of(obj),
            "failed": obj.state == DocumentState.FAILED,
            "facts": [
                (_("Knowledge base"), obj.knowledge_base.name),
                (_("Source"), obj.get_source_display()),
                (_("Passages"), obj.passages),
                (_("Version that is searched"), obj.version or gettext("None yet")),
                (_("Changed"), obj.changed_at),
                *sync_facts(obj.pk, obj.knowledge_base.connection_id),
            ],
            "metadata": sorted(obj.metadata.items()),
            "versions": versions,
            **_compared(request, obj, versions),
        }


def _compared(
    request: HttpRequest, document: Document, versions: list[DocumentVersion]
) -> dict[str, Any]:
    """The text of the newest version; with ``?version=`` what that one changed."""
    asked = request.GET.get("version", "")
    if asked.isascii() and asked.isdigit() and len(asked) < 9:
        number = int(asked)
        try:
            lines = list(selectors.diff(document, number - 1, number))
        except PortalError as refusal:
            return {"compared": number, "refusal": in_words(refusal.message)}
        return {"compared": number, "diff": [(line[:1], line[1:]) for line in lines[2:]]}
    newest = next(iter(versions), None)
    if newest is None:
        return {}
    text = selectors.get_version(document, newest.number).text or ""
    return {"text": text[:_SHOWN_CHARS], "cut": len(text) > _SHOWN_CHARS}
