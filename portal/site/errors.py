"""Pages that say in words why a page can't be shown."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.translation import gettext as _

from portal.core.errors import PortalError


def error_page(
    request: HttpRequest, status: int, title: str, message: str, icon: str = "error"
) -> HttpResponse:
    """A page in the site's look, with the sidebar where somebody is logged in."""
    from django.contrib import admin

    user = getattr(request, "user", None)
    inside = user is not None and user.is_authenticated and hasattr(request, "portal")
    context = {
        **(admin.site.each_context(request) if inside else _bare_context(request)),
        "page_base": "admin/base_site.html" if inside else "site/bare.html",
        "title": title,
        "message": message,
        "icon": icon,
        "request_id": getattr(getattr(request, "portal", None), "request_id", ""),
    }
    return render(request, "site/error.html", context, status=status)


def _bare_context(request: HttpRequest) -> dict[str, object]:
    return {"site_title": "Freehold"}


def refusal_page(request: HttpRequest, refusal: PortalError) -> HttpResponse:
    """The page of a service's refusal."""
    if refusal.error_status == 404:
        return not_found(request)
    if refusal.error_status == 403:
        return permission_denied(request)
    return error_page(request, refusal.error_status, _("This did not work"), refusal.message)


def bad_request(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return error_page(
        request,
        400,
        _("This request can't be understood"),
        _("Go back and try again; if you followed a link, it may be damaged."),
    )


def permission_denied(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return error_page(
        request,
        403,
        _("Your role does not include this page"),
        _("If you need it for your work, ask the owner of your tenant or an administrator."),
        icon="lock",
    )


def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return error_page(
        request,
        404,
        _("There is nothing here"),
        _("The page does not exist, or it is not yours to see."),
        icon="search_off",
    )


def server_error(request: HttpRequest) -> HttpResponse:
    return error_page(
        request,
        500,
        _("Something went wrong on our side"),
        _(
            "Nothing was changed. Try again in a minute; if it stays, give your administrator the request's number."
        ),
    )


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    return error_page(
        request,
        403,
        _("This form has grown too old"),
        _(
            "You may have logged in or out in another window. Load the page again and send it once more."
        ),
        icon="lock",
    )
