"""Pages of knowledge bases: what is in them, and what they answer."""

from typing import Any
from uuid import UUID

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.core.files.uploadedfile import UploadedFile
from django.db.models import QuerySet
from django.http import (
    HttpRequest,
    HttpResponse,
    HttpResponseNotAllowed,
    HttpResponseRedirect,
    JsonResponse,
)
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from knowledge import retrieval, selectors, services
from knowledge.admin.base_forms import AskForm, BaseForm, EmptyForm, TextForm
from knowledge.admin.source_forms import DatabaseForm, FolderForm
from knowledge.admin.sources import page_of, read_database, state_of_source, watch_folder
from knowledge.admin.sync import sync_facts
from knowledge.admin.words import documents_of, note_of, percent_of, state_of
from knowledge.extraction.checks import KINDS, MOST_BYTES
from knowledge.models import KnowledgeBase, Method
from knowledge.retrieval import Question
from knowledge.sources.selectors import sources
from portal.core.errors import PortalError
from portal.core.pages import FormPage, PortalModelAdmin, context_of, display, in_words, may
from tenants.permissions import Action

_SHOWN = 200


def _page(base: KnowledgeBase | UUID) -> str:
    pk = base if isinstance(base, UUID) else base.pk
    return reverse("admin:knowledge_knowledgebase_change", args=[pk])


def _create(request: HttpRequest, _obj: None, data: dict[str, Any]) -> str:
    return _page(services.create_knowledge_base(context=context_of(request), **data))


def _edit(request: HttpRequest, base: KnowledgeBase, data: dict[str, Any]) -> str:
    services.edit_knowledge_base(context=context_of(request), knowledge_base_id=base.pk, **data)
    return _page(base)


def _delete(request: HttpRequest, base: KnowledgeBase, _data: dict[str, Any]) -> str:
    services.delete_knowledge_base(context=context_of(request), knowledge_base_id=base.pk)
    return reverse("admin:knowledge_knowledgebase_changelist")


def _add_text(request: HttpRequest, base: KnowledgeBase, data: dict[str, Any]) -> str:
    services.add_text(context=context_of(request), knowledge_base_id=base.pk, **data)
    return _page(base)


def _ask(request: HttpRequest, base: KnowledgeBase, data: dict[str, Any]) -> HttpResponse:
    found = retrieval.retrieve(
        context=context_of(request),
        knowledge_base_id=base.pk,
        question=Question(data["query"], method=Method(data["method"])),
    )
    context = {
        **admin.site.each_context(request),
        "title": gettext("Test retrieval"),
        "crumbs": [{"title": str(base), "link": _page(base)}],
        "form": AskForm(request, base, initial=data),
        "query": data["query"],
        "found": found,
        "degraded": in_words(found.degraded),
        "passages": [
            (p, reverse("admin:knowledge_document_change", args=[p.document_id]))
            for p in found.passages
        ],
        "back": _page(base),
    }
    return TemplateResponse(request, "site/knowledge_answer.html", context)


@admin.register(KnowledgeBase)
class KnowledgeBaseAdmin(PortalModelAdmin):
    """The knowledge bases of the active tenant."""

    view_action = Action.KNOWLEDGE_READ
    detail_template = "site/knowledge_base.html"
    list_text = _("Documents that are searched together, for apps and for whoever asks the API.")
    empty_title = _("No knowledge base yet")
    empty_text = _(
        "Make one and drop your documents on its page: they are read, indexed and can be asked."
    )
    list_display = ("name", "documents", "method_label", "model_label")
    ordering = ("name",)
    sortable_by = ()
    search_fields = ("name",)
    add_page = FormPage(
        "add",
        Action.KNOWLEDGE_EDIT,
        _("New knowledge base"),
        BaseForm,
        _create,
        button=_("Create knowledge base"),
    )
    pages = (
        FormPage(
            "ask",
            Action.KNOWLEDGE_RETRIEVE,
            _("Test retrieval"),
            AskForm,
            _ask,
            button=_("Search"),
            intro=_("You see what an app would be given for this question."),
        ),
        FormPage(
            "text",
            Action.KNOWLEDGE_EDIT,
            _("Add text"),
            TextForm,
            _add_text,
            button=_("Add text"),
            done=_("The text is being indexed."),
        ),
        FormPage(
            "folder",
            Action.KNOWLEDGE_EDIT,
            _("Watch a folder"),
            FolderForm,
            watch_folder,
            button=_("Test and save"),
            intro=_("Its files become documents, and follow what happens to them there."),
            done=_("The folder can be read; its files are being added."),
        ),
        FormPage(
            "database",
            Action.KNOWLEDGE_EDIT,
            _("Read a database"),
            DatabaseForm,
            read_database,
            button=_("Test and save"),
            intro=_("The rows of a query become documents, and follow what happens to them there."),
            done=_("The database can be read; its rows are being added."),
        ),
        FormPage(
            "edit",
            Action.KNOWLEDGE_EDIT,
            _("Edit settings"),
            BaseForm,
            _edit,
            button=_("Save"),
            intro=_("Another embedding model has all documents indexed anew."),
            done=_("The settings are saved."),
        ),
        FormPage(
            "delete",
            Action.KNOWLEDGE_EDIT,
            _("Delete knowledge base"),
            EmptyForm,
            _delete,
            button=_("Delete knowledge base"),
            intro=_("Its documents are deleted with it, all their versions too."),
            done=_("The knowledge base is deleted."),
            danger=True,
        ),
    )

    def get_urls(self) -> list[URLPattern]:
        view, name = self.admin_site.admin_view, "knowledge_knowledgebase"
        return [
            *super().get_urls(),
            path("<uuid:object_id>/live/", view(self.live_view), name=f"{name}_live"),
            path("<uuid:object_id>/upload/", view(self.upload_view), name=f"{name}_upload"),
        ]

    def get_queryset(self, request: HttpRequest) -> QuerySet[KnowledgeBase]:
        return selectors.knowledge_bases()

    @display(description=_("Documents"))
    def documents(self, base: KnowledgeBase) -> str:
        return documents_of(base)

    @display(description=_("Search by"))
    def method_label(self, base: KnowledgeBase) -> str:
        return str(base.get_method_display())

    @display(description=_("Embedding model"))
    def model_label(self, base: KnowledgeBase) -> str:
        return base.embedding_model or gettext("None: words alone are found")

    def detail_context(self, request: HttpRequest, obj: KnowledgeBase) -> dict[str, Any]:
        return {
            **_documents(obj),
            "live": self.url("live", obj),
            "upload": self.url("upload", obj),
            "may_edit": may(request, Action.KNOWLEDGE_EDIT),
            "accepted": ",".join(f".{end}" for end in KINDS),
            "most_mb": MOST_BYTES // 1024 // 1024,
            "words": _words(),
            "sources": [
                (source, page_of(source), state_of_source(source))
                for source in sources().filter(knowledge_base_id=obj.pk)
            ],
            "facts": [
                (_("Description"), obj.description),
                (_("Search by"), obj.get_method_display()),
                (_("Passages"), obj.top_k),
                (_("Least score"), obj.score_threshold),
                (_("Embedding model"), obj.embedding_model),
                (_("Reranking model"), obj.rerank_model),
                (_("Stands in Dify at"), obj.connection and obj.connection.name),
                *sync_facts(obj.pk, obj.connection_id),
                (_("Id"), obj.pk),
            ],
        }

    def live_view(self, request: HttpRequest, object_id: UUID) -> HttpResponse:
        """The table of documents, asked for anew while the page is looked at."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        base = self.get_subject(request, object_id)
        return TemplateResponse(request, "site/knowledge_documents.html", _documents(base)).render()

    def upload_view(self, request: HttpRequest, object_id: UUID) -> HttpResponse:
        """Takes files; each is added or refused by itself."""
        if not self.has_view_permission(request) or not may(request, Action.KNOWLEDGE_EDIT):
            raise PermissionDenied
        base = self.get_subject(request, object_id)
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        refused = {}
        files = request.FILES.getlist("file")
        for file in files:
            refusal = _add_file(request, base, file)
            if refusal:
                refused[str(file.name)] = refusal
        if request.headers.get("Accept") == "application/json":
            return JsonResponse({"refused": refused}, status=400 if refused else 200)
        _tell(request, len(files) - len(refused), refused)
        return HttpResponseRedirect(_page(base))


def _documents(base: KnowledgeBase) -> dict[str, Any]:
    rows = selectors.documents().filter(knowledge_base_id=base.pk).order_by("-id")[: _SHOWN + 1]
    return {
        "documents": [
            {
                "document": document,
                "link": reverse("admin:knowledge_document_change", args=[document.pk]),
                "state": state_of(document),
                "note": note_of(document),
                "percent": percent_of(document),
            }
            for document in list(rows)[:_SHOWN]
        ],
        "more": len(rows) > _SHOWN,
        "all": reverse("admin:knowledge_document_changelist"),
    }


def _words() -> dict[str, str]:
    """What the page's script says; places in braces are filled there."""
    return {
        "waiting": gettext("Waiting"),
        "sending": gettext("{percent} % sent"),
        "checking": gettext("Being checked…"),
        "added": gettext("Added"),
        "failed": gettext("The file could not be sent: check your connection and try again."),
    }


def _add_file(request: HttpRequest, base: KnowledgeBase, file: "UploadedFile[Any]") -> str:
    """Adds a file; the refusal in the reader's words, or nothing."""
    try:
        services.add_file(
            context=context_of(request),
            knowledge_base_id=base.pk,
            name=str(file.name),
            content=file.read(),
        )
    except PortalError as refusal:
        return in_words(refusal.message)
    return ""


def _tell(request: HttpRequest, added: int, refused: dict[str, str]) -> None:
    for name, refusal in refused.items():
        messages.error(request, f"{name}: {refusal}")
    if added:
        text = ngettext("%(n)s file is being indexed.", "%(n)s files are being indexed.", added)
        messages.success(request, text % {"n": added})
