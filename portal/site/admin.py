"""The admin site."""

from collections.abc import Callable
from functools import wraps
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.contrib.auth.views import PasswordChangeView
from django.core.exceptions import PermissionDenied
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseBase,
    HttpResponseRedirect,
)
from django.template.response import TemplateResponse
from django.urls import URLPattern, URLResolver, include, path, reverse
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_POST
from unfold.sites import UnfoldAdminSite

from portal.core.errors import NotFound, PortalError
from portal.core.pages import PortalModelAdmin, context_of
from portal.site.errors import refusal_page
from portal.site.forms import EmailAuthenticationForm, OwnPasswordForm
from portal.site.navigation import is_visiting, switcher
from tenants.identity.sessions import enter_tenant, leave_tenant

View = Callable[..., HttpResponse]


class PortalAdminSite(UnfoldAdminSite):  # type: ignore[misc]
    """The web UI of IT teams and tenants."""

    login_form = EmailAuthenticationForm
    index_title = _("Overview")
    enable_nav_sidebar = True

    def register(self, model_or_iterable: Any, admin_class: Any = None, **options: Any) -> None:
        """Takes our own pages only: others' don't ask the permission table."""
        if admin_class is not None and issubclass(admin_class, PortalModelAdmin):
            super().register(model_or_iterable, admin_class, **options)

    def has_permission(self, request: HttpRequest) -> bool:
        user = getattr(request, "user", None)
        known = user is not None and user.is_authenticated and user.is_active
        return known and hasattr(request, "portal") and not hasattr(request, "portal_bare")

    def get_app_list(self, request: HttpRequest, app_label: str | None = None) -> list[Any]:
        """None: the menu is ``portal.site.navigation``."""
        return []

    def admin_view(self, view: View, cacheable: bool = False) -> View:
        """Django's, with a service's refusal shown as a page."""
        inner = super().admin_view(view, cacheable)

        @wraps(view)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            try:
                response: HttpResponse = inner(request, *args, **kwargs)
            except PortalError as refusal:
                return refusal_page(request, refusal)
            return response

        return guarded

    def get_urls(self) -> list[URLPattern | URLResolver]:
        unwanted = {"view_on_site", "autocomplete", "search", "app_list"}
        inherited = [u for u in super().get_urls() if getattr(u, "name", None) not in unwanted]
        # The catch-all comes last, whatever stands before it.
        own: list[URLPattern | URLResolver] = [
            path("", include("portal.site.playground.urls")),
            path("memberships/", self.admin_view(self.memberships), name="memberships"),
            path(
                "tenant/choose/", self.admin_view(require_POST(self.choose)), name="choose_tenant"
            ),
            path("tenant/leave/", self.admin_view(require_POST(self.leave)), name="leave_tenant"),
        ]
        return [*own, *inherited]

    def each_context(self, request: HttpRequest) -> dict[str, Any]:
        context: dict[str, Any] = super().each_context(request)
        if self.has_permission(request):
            found = switcher(request)
            context["switcher"] = found
            context["read_only"] = context_of(request).tenant_read_only
            if is_visiting(context_of(request)):
                context["visit"] = {"tenant": found.current}
        return context

    def login(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        context = {"title": gettext("Log in"), **(extra_context or {})}
        response: HttpResponse = super().login(request, context)
        return response

    def password_change(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponseBase:
        view = PasswordChangeView.as_view(
            form_class=OwnPasswordForm,
            success_url=reverse("admin:password_change_done"),
            template_name="site/password_change.html",
            extra_context={**self.each_context(request), **(extra_context or {})},
        )
        return view(request)

    def password_change_done(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        messages.success(request, gettext("Your password is changed."))
        return HttpResponseRedirect(reverse("admin:index"))

    def index(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        context = context_of(request)
        if context.platform_role is None and context.tenant_id is None:
            return HttpResponseRedirect(reverse("admin:memberships"))
        response: HttpResponse = super().index(request, extra_context)
        return response

    def memberships(self, request: HttpRequest) -> HttpResponse:
        """The user's own tenants, to pick one."""
        context = {**self.each_context(request), "title": gettext("My tenants")}
        return TemplateResponse(request, "site/memberships.html", context)

    def choose(self, request: HttpRequest) -> HttpResponse:
        """Makes one of the user's own tenants the active one."""
        chosen = request.POST.get("tenant", "")
        own = {m.tenant_id for m in switcher(request).memberships}
        if chosen not in own:
            raise NotFound("There is no such tenant.")
        enter_tenant(context=context_of(request), session=request.session, tenant_id=UUID(chosen))
        return HttpResponseRedirect(reverse("admin:index"))

    def leave(self, request: HttpRequest) -> HttpResponse:
        """Leaves the tenant that an administrator has entered."""
        if not is_visiting(context_of(request)):
            raise PermissionDenied
        leave_tenant(context=context_of(request), session=request.session)
        return HttpResponseRedirect(reverse("admin:index"))

    def catch_all_view(self, request: HttpRequest, url: str) -> HttpResponse:
        raise Http404
