"""Pages of apps: their versions, a box to try them, and how they are used."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from knowledge.admin.app_deployment import DEPLOYMENT_PAGES, where_context
from knowledge.admin.app_forms import (
    NewAppForm,
    PublishForm,
    RetrievalForm,
    SettingsForm,
    SpecForm,
)
from knowledge.admin.app_rating import rate
from knowledge.admin.base_forms import EmptyForm
from knowledge.applications import selectors, services
from knowledge.applications.selectors import USAGE_FIELDS
from knowledge.applications.spec import read_spec
from knowledge.models import App, AppMode
from portal.core.errors import NotFound
from portal.core.pages import (
    STATUS_KINDS,
    FormPage,
    PortalModelAdmin,
    context_of,
    display,
    may,
)
from tenants.permissions import Action

_DAYS = 30


def _page(app: App) -> str:
    return reverse("admin:knowledge_app_change", args=[app.pk])


def _create(request: HttpRequest, _obj: None, data: dict[str, Any]) -> str:
    shared = {name: data[name] for name in ("slug", "name", "description", "mode", "note")}
    spec = NewAppForm(request).document(data)
    return _page(services.create_app(context=context_of(request), spec=spec, **shared))


def _draft(request: HttpRequest, app: App, data: dict[str, Any]) -> str:
    spec = SpecForm(request, app).document(data)
    services.add_version(context=context_of(request), app_id=app.pk, spec=spec, note=data["note"])
    return _page(app)


def _search(request: HttpRequest, app: App, data: dict[str, Any]) -> str:
    spec = RetrievalForm(request, app).document(data)
    services.add_version(context=context_of(request), app_id=app.pk, spec=spec)
    return _page(app)


def _searches(app: App) -> bool:
    return bool(selectors.newest_spec(app).knowledge)


def _edit(request: HttpRequest, app: App, data: dict[str, Any]) -> str:
    services.edit_app(context=context_of(request), app_id=app.pk, **data)
    return _page(app)


def _publish(request: HttpRequest, app: App, data: dict[str, Any]) -> str:
    services.publish_app(context=context_of(request), app_id=app.pk, number=data["number"])
    return _page(app)


def _withdraw(request: HttpRequest, app: App, _data: dict[str, Any]) -> str:
    services.withdraw_app(context=context_of(request), app_id=app.pk)
    return _page(app)


def _delete(request: HttpRequest, app: App, _data: dict[str, Any]) -> str:
    services.delete_app(context=context_of(request), app_id=app.pk)
    return reverse("admin:knowledge_app_changelist")


@admin.register(App)
class AppAdmin(PortalModelAdmin):
    """The apps of the active tenant."""

    view_action = Action.APP_READ
    detail_template = "site/app.html"
    list_text = _("A prompt, a model and knowledge bases under one name that systems call.")
    empty_title = _("No app yet")
    empty_text = _("Make one, try it here, and publish it: from then on it can be called.")
    list_display = ("name", "slug", "mode_label", "state_label", "description")
    ordering = ("name",)
    sortable_by = ()
    search_fields = ("name", "slug")
    add_page = FormPage(
        "add", Action.APP_EDIT, _("New app"), NewAppForm, _create, button=_("Create app")
    )
    pages = (
        FormPage(
            "draft",
            Action.APP_EDIT,
            _("Edit"),
            SpecForm,
            _draft,
            button=_("Save as a new version"),
            intro=_("Callers get it once you publish it."),
            done=_("The version is saved."),
        ),
        FormPage(
            "search",
            Action.APP_EDIT,
            _("Retrieval"),
            RetrievalForm,
            _search,
            button=_("Save as a new version"),
            intro=_("What is left empty is as the knowledge base has it."),
            done=_("The version is saved."),
            offered=_searches,
        ),
        FormPage(
            "publish",
            Action.APP_EDIT,
            _("Publish"),
            PublishForm,
            _publish,
            button=_("Publish"),
            intro=_("Callers get this version from their next call on. An earlier one rolls back."),
            done=_("The version is published."),
        ),
        FormPage(
            "edit",
            Action.APP_EDIT,
            _("Settings"),
            SettingsForm,
            _edit,
            button=_("Save"),
            done=_("The settings are saved."),
        ),
        *DEPLOYMENT_PAGES,
        FormPage(
            "withdraw",
            Action.APP_EDIT,
            _("Withdraw"),
            EmptyForm,
            _withdraw,
            button=_("Withdraw"),
            intro=_("Callers are told that there is no such app until you publish a version."),
            done=_("The app is withdrawn."),
            danger=True,
            offered=lambda app: bool(app.published),
        ),
        FormPage(
            "delete",
            Action.APP_EDIT,
            _("Delete app"),
            EmptyForm,
            _delete,
            button=_("Delete app"),
            intro=_("Its versions, its usage and all conversations with it are deleted."),
            done=_("The app is deleted."),
            danger=True,
            offered=lambda app: not app.published,
        ),
    )

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        return [
            *super().get_urls(),
            path("<uuid:object_id>/try/", view(self.try_view), name="knowledge_app_try"),
            path(
                "<uuid:object_id>/rate/<uuid:message_id>/",
                view(self.rate_view),
                name="knowledge_app_rate",
            ),
        ]

    def get_queryset(self, request: HttpRequest) -> QuerySet[App]:
        return App.objects.all()

    @display(description=_("Mode"))
    def mode_label(self, app: App) -> str:
        return str(app.get_mode_display())

    @display(description=_("State"), label=STATUS_KINDS)
    def state_label(self, app: App) -> tuple[str, str]:
        return _state(app)

    def detail_context(self, request: HttpRequest, obj: App) -> dict[str, Any]:
        versions = list(selectors.versions(obj)[:100])
        spec = read_spec(versions[0].spec)
        tries = may(request, Action.PLAYGROUND_USE)
        return {
            "state": _state(obj),
            "draft": obj.latest > obj.published > 0,
            "try_link": self.url("try", obj) if tries else None,
            "call": f"/api/v1/apps/{obj.slug}/{obj.mode}",
            "versions": versions,
            "spec": spec,
            "bases": [
                (base.name, reverse("admin:knowledge_knowledgebase_change", args=[base.pk]))
                for base in selectors.searched_bases(spec)
            ],
            **where_context(obj),
            **_compared(request, obj),
            **_usage(obj),
            "facts": [
                (_("Short name"), obj.slug),
                (_("Mode"), obj.get_mode_display()),
                (_("Description"), obj.description),
                (_("Model"), spec.model),
                (_("Days that conversations are kept"), obj.keep_days),
                (_("Id"), obj.pk),
            ],
        }

    def try_view(self, request: HttpRequest, object_id: UUID) -> HttpResponse:
        """A box to talk to an app in, a draft of it too."""
        if not self.has_view_permission(request) or not may(request, Action.PLAYGROUND_USE):
            raise PermissionDenied
        app = self.get_subject(request, object_id)
        number = _number(request.GET.get("version"), app.published or app.latest)
        try:
            version = selectors.get_version(app, number)
        except NotFound:
            raise Http404 from None
        context = {
            **self.page_context(request, _("Try"), app),
            "is_fullwidth": "1",
            "app": app,
            "version": version,
            "spec": read_spec(version.spec),
            "numbers": list(selectors.versions(app).values_list("number", flat=True)[:100]),
            "is_chat": app.mode == AppMode.CHAT,
            "rate_url": f"{self.url('change', app)}rate/" if app.published else "",
            "url": f"/api/v1/apps/{app.slug}/{app.mode}",
            "words": _words(),
        }
        return TemplateResponse(request, "site/app_try.html", context).render()

    def rate_view(self, request: HttpRequest, object_id: UUID, message_id: UUID) -> HttpResponse:
        """Notes how an answer was liked, and says so in JSON."""
        if not self.has_view_permission(request) or not may(request, Action.PLAYGROUND_USE):
            raise PermissionDenied
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        return rate(request, self.get_subject(request, object_id), message_id)


def _state(app: App) -> tuple[str, str]:
    if not app.published:
        return "warning", gettext("Not published")
    if app.published < app.latest:
        return "info", gettext("Version %(n)s, %(draft)s is a draft") % {
            "n": app.published,
            "draft": app.latest,
        }
    return "success", gettext("Version %(n)s") % {"n": app.published}


def _compared(request: HttpRequest, app: App) -> dict[str, Any]:
    """What a version changed, where the page is asked for it."""
    number = _number(request.GET.get("version"), 0)
    if not 1 < number <= app.latest:
        return {}
    lines = list(selectors.diff(app, number - 1, number))
    return {"compared": number, "diff": [(line[:1], line[1:]) for line in lines[2:]]}


def _number(text: str | None, default: int) -> int:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 9 else default


def _usage(app: App) -> dict[str, Any]:
    today = timezone.now().date()
    days = selectors.usage(app, today - timedelta(days=_DAYS - 1), today)
    totals = {name: sum(day[name] for day in days) for name in USAGE_FIELDS if name != "day"}
    return {"days": list(reversed(days)), "totals": totals}


def _words() -> dict[str, str]:
    """What the page's script says; places in braces are filled there."""
    return {
        "waiting": gettext("Searching and reading…"),
        "answering": gettext("The app is answering…"),
        "done": gettext("Done. Ctrl + Enter sends the next message."),
        "not_done": gettext("That did not work."),
        "cleared": gettext("A new conversation."),
        "usage": gettext("{prompt} prompt tokens, {completion} completion tokens"),
        "cut": gettext("Cut at the longest allowed answer"),
        "stopped": gettext("Stopped by you"),
        "broken": gettext("The answer broke off. Send the message again."),
        "unreachable": gettext("The server can't be reached. Check your connection and try again."),
        "logged_out": gettext("You are logged out. Load the page again and log in."),
        "too_many": gettext("A limit is reached."),
        "retry_after": gettext("Try again in {seconds} seconds."),
        "status": gettext("The server answered with status {status}."),
        "no_sources": gettext("Nothing was found in the knowledge bases."),
        "sources": gettext("Sources: {n}"),
        "score": gettext("score {score}"),
        "left_out": gettext("{n} more had no room"),
        "yes": gettext("Yes"),
        "like": gettext("Good answer"),
        "dislike": gettext("Bad answer"),
        "rated": gettext("Your rating is noted."),
        "not_rated": gettext("The rating was not noted."),
    }
