"""The base of every admin page: lists and details to read, forms that call one service.

It knows no app. Who may see a page is asked of the permission table, which an app above
registers; nothing here asks Django's own permissions, and Django's own admin log stays empty.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeVar
from uuid import UUID

from django import forms
from django.contrib import messages
from django.contrib.admin import ShowFacets
from django.core.exceptions import PermissionDenied
from django.db import models, transaction
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.functional import Promise
from django.utils.text import capfirst
from unfold.admin import ModelAdmin
from unfold.decorators import display as unfold_display
from unfold.views import ChangeList

from portal.core.actors import Context
from portal.core.errors import PortalError

Text = str | Promise
Side = Literal["tenant", "platform", "any"]
"""Where a page belongs: inside a tenant, with the platform's administrators, or both."""

INPUT = {"class": "fh-input"}
"""Attributes of an input in the site's look."""

_allowed: Callable[[Context, str], bool] | None = None


def on_page_permission(check: Callable[[Context, str], bool]) -> None:
    """Registers what answers ``may this context do that action``; the site does, once."""
    global _allowed
    _allowed = check


_words: Callable[[str], str] = str


def on_refusal(words: Callable[[str], str]) -> None:
    """Registers what says a service's refusal in the reader's language."""
    global _words
    _words = words


def in_words(message: str) -> str:
    """A sentence of a service in the reader's language, or as it is where it has no translation."""
    return _words(message)


def context_of(request: HttpRequest) -> Context:
    """Who calls, as the middleware found out."""
    context: Context = request.portal  # type: ignore[attr-defined]
    return context


def may(request: HttpRequest, action: str) -> bool:
    """Whether the caller may do ``action``; nothing is allowed before a check is registered."""
    return _allowed is not None and _allowed(context_of(request), action)


@dataclass(frozen=True, slots=True)
class FormPage:
    """A form and the service behind it.

    Args:
        name: last part of the path, such as ``"revoke"``.
        action: the permission it needs.
        title: heading, also the label of the button that leads to it.
        form: called with the request and the object (None where one is made) and ``data=``.
        submit: calls the service; returns where to go, or a response.
        button: label of the button that sends it.
        intro: a sentence above the form.
        done: message after success.
        danger: whether it takes something away.
        offered: whether the button is shown for an object.
    """

    name: str
    action: str
    title: Text
    form: type["ServiceForm"]
    submit: Callable[[HttpRequest, Any, dict[str, Any]], str | HttpResponse]
    button: Text
    intro: Text = ""
    done: Text = ""
    danger: bool = False
    icon: str = ""
    offered: Callable[[Any], bool] = field(default=lambda _object: True)


class ServiceForm(forms.Form):
    """A form that knows who asks and about what, and can show a service's refusal."""

    def __init__(self, request: HttpRequest, subject: Any = None, **kwargs: Any) -> None:
        self.request = request
        self.subject = subject
        super().__init__(**kwargs)
        if subject is not None:
            for name, value in self.initial_of(subject).items():
                self.fields[name].initial = value

    def initial_of(self, subject: Any) -> Mapping[str, Any]:
        """What the fields hold before anybody typed."""
        return {n: getattr(subject, n) for n in self.fields if hasattr(subject, n)}

    def refuse(self, refusal: PortalError) -> None:
        """Puts a service's refusal beside the field it names, else above the form."""
        named = refusal.param if refusal.param in self.fields else None
        self.add_error(named, _words(refusal.message))


class PortalModelAdmin(ModelAdmin):  # type: ignore[misc]
    """Pages of one model.

    Subclasses name the action that each page needs (``view_action``), the template of the detail
    page, and their forms.
    """

    view_action: ClassVar[str]
    add_page: ClassVar[FormPage | None] = None
    pages: ClassVar[tuple[FormPage, ...]] = ()
    detail_template: ClassVar[str | None] = None
    empty_title: ClassVar[Text] = ""
    empty_text: ClassVar[Text] = ""
    list_text: ClassVar[Text] = ""
    side: ClassVar[Side] = "tenant"
    actions = None
    list_per_page = 50
    list_fullwidth = True
    show_full_result_count = False
    show_facets = ShowFacets.NEVER

    # Who may see it.

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        context = context_of(request)
        if self.side == "tenant" and context.tenant_id is None:
            return False
        if self.side == "platform" and context.platform_role is None:
            return False
        return may(request, self.view_action)

    def allows(self, request: HttpRequest, page: FormPage, obj: Any) -> bool:
        """Whether the caller may use a form, for this object (None: for a new one)."""
        return self.has_view_permission(request) and may(request, page.action)

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self.add_page is not None and self.allows(request, self.add_page, None)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    # The audit trail is the only log.

    def log_addition(self, *args: Any, **kwargs: Any) -> None:
        return None

    def log_change(self, *args: Any, **kwargs: Any) -> None:
        return None

    def log_deletions(self, *args: Any, **kwargs: Any) -> None:
        return None

    # Pages.

    def scope(self, request: HttpRequest) -> AbstractContextManager[None]:
        """The scope of a reading page; the middleware's own unless a page needs another."""
        return nullcontext()

    def get_urls(self) -> list[URLPattern]:
        name = f"{self.opts.app_label}_{self.opts.model_name}"
        view = self.admin_site.admin_view
        urls = [path("", view(self.changelist_view), name=f"{name}_changelist")]
        if self.add_page is not None:
            urls.append(path("add/", view(self.add_view), name=f"{name}_add"))
        if self.detail_template is not None:
            urls.append(path("<uuid:object_id>/", view(self.detail_view), name=f"{name}_change"))
        urls += [
            path(
                f"<uuid:object_id>/{page.name}/",
                view(self._form_view_of(page)),
                name=f"{name}_{page.name}",
            )
            for page in self.pages
        ]
        return urls

    def url(self, page: str, obj: Any = None) -> str:
        """Address of one of this model's pages: ``changelist``, ``add``, ``change`` or a form's."""
        name = f"admin:{self.opts.app_label}_{self.opts.model_name}_{page}"
        return reverse(name, args=[obj.pk] if obj is not None else [])

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        with self.scope(request):
            context = {"title": capfirst(self.opts.verbose_name_plural), **(extra_context or {})}
            return _rendered(super().changelist_view(request, context))

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return _Changelist

    def get_subject(self, request: HttpRequest, object_id: UUID) -> Any:
        """The object of a page.

        Raises:
            Http404: if the caller sees no such object; another tenant's is this too.
        """
        found = self.get_queryset(request).filter(pk=object_id).first()
        if found is None:
            raise Http404
        return found

    def detail_context(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        """What the detail template needs beyond ``object``."""
        return {}

    def detail_view(self, request: HttpRequest, object_id: UUID) -> HttpResponse:
        """The page of one object."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        if self.detail_template is None:
            raise Http404
        with self.scope(request):
            obj = self.get_subject(request, object_id)
            context = {
                **self.page_context(request, str(obj), obj),
                "buttons": [
                    {
                        "title": page.title,
                        "link": self.url(page.name, obj),
                        "danger": page.danger,
                        "icon": page.icon,
                    }
                    for page in self.pages
                    if self.allows(request, page, obj) and page.offered(obj)
                ],
                **self.detail_context(request, obj),
            }
            return _rendered(TemplateResponse(request, self.detail_template, context))

    def add_view(
        self,
        request: HttpRequest,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        if self.add_page is None:
            raise Http404
        return self._form_view(request, self.add_page, None)

    def _form_view_of(self, page: FormPage) -> Callable[..., HttpResponse]:
        def view(request: HttpRequest, object_id: UUID) -> HttpResponse:
            return self._form_view(request, page, object_id)

        return view

    def _form_view(
        self, request: HttpRequest, page: FormPage, object_id: UUID | None
    ) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        with self.scope(request):
            obj = None if object_id is None else self.get_subject(request, object_id)
            if not self.allows(request, page, obj):
                raise PermissionDenied
            if obj is not None and not page.offered(obj):
                raise Http404
            form = page.form(request, obj, data=request.POST if request.method == "POST" else None)
            status = 200
            if request.method == "POST":
                if form.is_valid():
                    try:
                        with transaction.atomic():
                            answer = page.submit(request, obj, form.cleaned_data)
                    except PortalError as refusal:
                        form.refuse(refusal)
                        status = refusal.error_status
                    else:
                        return self._answered(request, page, answer)
                else:
                    status = 400
            context = {
                **self.page_context(request, page.title, obj),
                "form": form,
                "page": page,
                "back": self.url("changelist") if obj is None else self.url("change", obj),
            }
            return _rendered(TemplateResponse(request, "site/form.html", context, status=status))

    @staticmethod
    def _answered(request: HttpRequest, page: FormPage, answer: str | HttpResponse) -> HttpResponse:
        if isinstance(answer, HttpResponse):
            return _rendered(answer)
        if page.done:
            messages.success(request, str(page.done))
        return HttpResponseRedirect(answer)

    def page_context(self, request: HttpRequest, title: Text, obj: Any = None) -> dict[str, Any]:
        """The context of a page of ours: the site's, a title and the way back."""
        crumbs = [
            {"title": capfirst(self.opts.verbose_name_plural), "link": self.url("changelist")}
        ]
        if obj is not None and str(obj) != str(title) and self.detail_template is not None:
            crumbs.append({"title": str(obj), "link": self.url("change", obj)})
        return {
            **self.admin_site.each_context(request),
            "title": title,
            "crumbs": crumbs,
            "object": obj,
        }


class _Changelist(ChangeList):  # type: ignore[misc]
    """Django's list with addresses of our detail pages."""

    def url_for_result(self, result: models.Model) -> str:
        return str(self.model_admin.url("change", result))


def _rendered(response: HttpResponse) -> HttpResponse:
    """Renders inside the scope that the page's rows need."""
    if isinstance(response, TemplateResponse):
        response.render()
    return response


F = TypeVar("F", bound=Callable[..., object])


def display(
    *,
    description: Text,
    ordering: str | None = None,
    boolean: bool = False,
    label: Mapping[str, str] | None = None,
) -> Callable[[F], F]:
    """A column of a list: its heading, its order, and whether it is shown as a label."""

    def decorate(column: F) -> F:
        unfold_display(
            column, description=description, ordering=ordering, boolean=boolean, label=label
        )
        return column

    return decorate


STATUS_KINDS = {k: k for k in ("success", "warning", "danger", "info", "primary", "default")}
"""Colours of labels for ``@display(label=...)`` on a ``(colour, text)`` pair."""
