"""Pages of sources of documents: how they do, what they found, and what can be done about it."""

from typing import Any
from uuid import UUID

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from knowledge.admin.base_forms import EmptyForm
from knowledge.admin.source_forms import (
    DatabaseForm,
    DeleteSourceForm,
    EditDatabaseForm,
    EditFolderForm,
    FolderForm,
    RunForm,
    SourceForm,
)
from knowledge.models import DocumentSource, KnowledgeBase, RunState, SourceKind, SourceRun
from knowledge.sources import selectors, services
from portal.core.pages import (
    STATUS_KINDS,
    FormPage,
    PortalModelAdmin,
    Text,
    context_of,
    display,
    in_words,
)
from tenants.permissions import Action

_SHOWN_RUNS = 20
_SHOWN_REFUSALS = 100
RUN_KINDS = {
    RunState.RUNNING: "info",
    RunState.DONE: "success",
    RunState.FAILED: "danger",
    RunState.STOPPED: "default",
}


def page_of(source: DocumentSource | UUID) -> str:
    """The address of a source's page."""
    pk = source if isinstance(source, UUID) else source.pk
    return reverse("admin:knowledge_documentsource_change", args=[pk])


def state_of_source(source: DocumentSource) -> tuple[str, str]:
    """A colour and a few words for how an annotated source does."""
    if source.running:  # type: ignore[attr-defined]
        return "info", gettext("Being read")
    if source.paused:
        return "default", gettext("Paused")
    if source.problem:
        return "danger", gettext("Not working")
    if source.last_run_at is None:
        return "info", gettext("Waits for its first run")
    return "success", gettext("In step")


def found_by(run: SourceRun) -> str:
    """What a run found, in words."""
    parts = [
        (run.added, ngettext("%(n)s added", "%(n)s added", run.added)),
        (run.changed, ngettext("%(n)s changed", "%(n)s changed", run.changed)),
        (run.removed, ngettext("%(n)s removed", "%(n)s removed", run.removed)),
        (run.unchanged, ngettext("%(n)s unchanged", "%(n)s unchanged", run.unchanged)),
        (run.refused, ngettext("%(n)s refused", "%(n)s refused", run.refused)),
        (run.waiting, ngettext("%(n)s still written", "%(n)s still written", run.waiting)),
    ]
    said = [words % {"n": number} for number, words in parts if number]
    return ", ".join(said) or gettext("Nothing found")


def watch_folder(request: HttpRequest, base: KnowledgeBase, data: dict[str, Any]) -> str:
    """Adds a folder to a knowledge base."""
    made = services.create_source(
        context=context_of(request),
        knowledge_base_id=base.pk,
        kind=SourceKind.FOLDER,
        **_given(FolderForm, data),
    )
    return page_of(made)


def read_database(request: HttpRequest, base: KnowledgeBase, data: dict[str, Any]) -> str:
    """Adds a database to a knowledge base."""
    made = services.create_source(
        context=context_of(request), knowledge_base_id=base.pk, **_given(DatabaseForm, data)
    )
    return page_of(made)


def _given(form: type[SourceForm], data: dict[str, Any]) -> dict[str, Any]:
    fields = form.settings_fields
    rest = {name: value for name, value in data.items() if name not in fields}
    return {**rest, "settings": {name: data[name] for name in fields}}


def _edit(request: HttpRequest, source: DocumentSource, data: dict[str, Any]) -> str:
    given = _given(EditFolderForm, data)
    services.edit_source(context=context_of(request), source_id=source.pk, **given)
    return page_of(source)


def _edit_database(request: HttpRequest, source: DocumentSource, data: dict[str, Any]) -> str:
    given = _given(EditDatabaseForm, data)
    services.edit_source(context=context_of(request), source_id=source.pk, **given)
    return page_of(source)


def _is_folder(source: DocumentSource) -> bool:
    return source.kind == SourceKind.FOLDER


def _pause(request: HttpRequest, source: DocumentSource, _data: dict[str, Any]) -> str:
    services.edit_source(context=context_of(request), source_id=source.pk, paused=True)
    return page_of(source)


def _resume(request: HttpRequest, source: DocumentSource, _data: dict[str, Any]) -> str:
    services.edit_source(context=context_of(request), source_id=source.pk, paused=False)
    return page_of(source)


def _run(request: HttpRequest, source: DocumentSource, data: dict[str, Any]) -> str:
    services.start_run(context=context_of(request), source_id=source.pk, **data)
    return page_of(source)


def _test(request: HttpRequest, source: DocumentSource, _data: dict[str, Any]) -> HttpResponse:
    seen = services.try_source(context=context_of(request), source_id=source.pk)
    context = {
        **admin.site.each_context(request),
        "title": gettext("Test"),
        "crumbs": [{"title": str(source), "link": page_of(source)}],
        "object": source,
        "seen": [(entry, in_words(entry.problem)) for entry in seen],
        "back": page_of(source),
    }
    return TemplateResponse(request, "site/source_test.html", context)


def _delete(request: HttpRequest, source: DocumentSource, data: dict[str, Any]) -> str:
    services.delete_source(
        context=context_of(request),
        source_id=source.pk,
        keep_documents=data["documents"] == "keep",
    )
    return reverse("admin:knowledge_documentsource_changelist")


@admin.register(DocumentSource)
class DocumentSourceAdmin(PortalModelAdmin):
    """The sources of documents of the active tenant, of all its knowledge bases."""

    view_action = Action.KNOWLEDGE_READ
    detail_template = "site/source.html"
    list_text = _("Folders and databases out of which documents of knowledge bases are read.")
    empty_title = _("No source yet")
    empty_text = _("Sources are added on the page of a knowledge base.")
    list_display = ("name", "base_name", "kind_label", "state_label", "last_run_at")
    search_fields = ("name",)
    ordering = ("name",)
    sortable_by = ()
    pages = (
        FormPage(
            "run",
            Action.KNOWLEDGE_EDIT,
            _("Run now"),
            RunForm,
            _run,
            button=_("Run now"),
            done=_("The source is being read."),
            offered=lambda source: not source.paused,
        ),
        FormPage(
            "test",
            Action.KNOWLEDGE_EDIT,
            _("Test"),
            EmptyForm,
            _test,
            button=_("Test"),
            intro=_("You see what would be read first. Nothing is kept."),
        ),
        FormPage(
            "pause",
            Action.KNOWLEDGE_EDIT,
            _("Pause"),
            EmptyForm,
            _pause,
            button=_("Pause"),
            intro=_("It is not read until you resume it; a run that is under way stops."),
            offered=lambda source: not source.paused,
        ),
        FormPage(
            "resume",
            Action.KNOWLEDGE_EDIT,
            _("Resume"),
            EmptyForm,
            _resume,
            button=_("Resume"),
            offered=lambda source: source.paused,
        ),
        FormPage(
            "edit",
            Action.KNOWLEDGE_EDIT,
            _("Edit"),
            EditFolderForm,
            _edit,
            button=_("Test and save"),
            intro=_("It is read before it is saved. After other settings everything is looked at."),
            done=_("Saved."),
            offered=_is_folder,
        ),
        FormPage(
            "database",
            Action.KNOWLEDGE_EDIT,
            _("Edit"),
            EditDatabaseForm,
            _edit_database,
            button=_("Test and save"),
            intro=_("It is read before it is saved. After other settings everything is looked at."),
            done=_("Saved."),
            offered=lambda source: not _is_folder(source),
        ),
        FormPage(
            "delete",
            Action.KNOWLEDGE_EDIT,
            _("Delete source"),
            DeleteSourceForm,
            _delete,
            button=_("Delete source"),
            intro=_("The portal forgets it. In the folder or database nothing is changed."),
            done=_("The source is deleted."),
            danger=True,
        ),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[DocumentSource]:
        return selectors.sources()

    @display(description=_("Knowledge base"))
    def base_name(self, source: DocumentSource) -> str:
        return source.knowledge_base.name

    @display(description=_("Kind"))
    def kind_label(self, source: DocumentSource) -> str:
        return str(source.get_kind_display())

    @display(description=_("State"), label=STATUS_KINDS)
    def state_label(self, source: DocumentSource) -> tuple[str, str]:
        return state_of_source(source)

    def detail_context(self, request: HttpRequest, obj: DocumentSource) -> dict[str, Any]:
        base = obj.knowledge_base
        refusals = list(selectors.refusals(obj)[: _SHOWN_REFUSALS + 1])
        facts: list[tuple[Text, Any]] = [
            (_("Knowledge base"), base.name),
            (_("Kind"), obj.get_kind_display()),
            (_("Schedule"), _schedule(obj)),
            (_("Next run"), None if obj.running else obj.wake_at),  # type: ignore[attr-defined]
            (_("Last run"), obj.last_run_at),
            (_("Removed documents"), obj.get_on_removed_display()),
            *_settings(obj),
            (_("Id"), obj.pk),
        ]
        base_page = reverse("admin:knowledge_knowledgebase_change", args=[base.pk])
        return {
            "crumbs": [{"title": base.name, "link": base_page}],
            "state": state_of_source(obj),
            "problem": in_words(obj.problem),
            "facts": facts,
            "runs": [
                (run, RUN_KINDS[RunState(run.state)], found_by(run), in_words(run.error))
                for run in selectors.runs(obj)[:_SHOWN_RUNS]
            ],
            "refusals": [(i.key, in_words(i.problem)) for i in refusals[:_SHOWN_REFUSALS]],
            "more": len(refusals) > _SHOWN_REFUSALS,
        }


def _settings(source: DocumentSource) -> list[tuple[Text, Any]]:
    told = source.settings
    if _is_folder(source):
        return [
            (_("Folder"), told["path"] or gettext("All of the tenant's")),
            (_("Files"), told["include"] or gettext("Every file")),
        ]
    return [
        (_("Host"), f"{told['host']}:{told['port']}"),
        (_("Database"), told["database"]),
        (_("User"), told["user"]),
        (_("TLS"), _("Yes") if told["tls"] else _("No")),
        (_("Query"), told["query"]),
        (_("Key column"), told["key_column"]),
        (_("Name column"), told["name_column"]),
        (_("Text columns"), ", ".join(told["text_columns"])),
        (_("Metadata columns"), ", ".join(told["metadata_columns"])),
        (_("Column that grows"), told["cursor_column"]),
    ]


def _schedule(source: DocumentSource) -> str:
    schedule = source.schedule
    if not schedule:
        return gettext("When somebody asks for it")
    if schedule.isdigit():
        minutes = int(schedule)
        text = ngettext("Every %(n)s minute", "Every %(n)s minutes", minutes)
        return text % {"n": minutes}
    return schedule
