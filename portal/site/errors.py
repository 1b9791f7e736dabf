"""Pages that say in words why a page can't be shown."""

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.translation import gettext as _

from portal.core.errors import PortalError
from portal.site.refusals import in_words


def error_page(
    request: HttpRequest,
    status: int,
    title: str,
    message: str,
    icon: str = "error",
    *,
    bare: bool = False,
) -> HttpResponse:
    """A page in the site's look, with the menu where somebody is logged in.

    Args:
        bare: leaves out what would have to be read from the database.
    """
    if request.path_info.startswith("/api/"):
        # Here, because the API's frame can only be imported once Django is set up.
        from portal.site.api import problem_response

        return problem_response(PortalError(message, code=_CODES[status], status=status), request)
    if bare:
        request.portal_bare = True  # type: ignore[attr-defined]
    context = {
        **admin.site.each_context(request),
        "page_base": "site/bare.html",
        "title": title,
        "message": message,
        "icon": icon,
        "request_id": getattr(request, "request_id", ""),
    }
    if context["has_permission"]:
        context["page_base"] = "admin/base_site.html"
    return render(request, "site/error.html", context, status=status)


_CODES = {400: "invalid", 403: "forbidden", 404: "not_found", 500: "error"}


def refusal_page(request: HttpRequest, refusal: PortalError) -> HttpResponse:
    """The page of a service's refusal."""
    if refusal.error_status == 404:
        return not_found(request)
    if refusal.error_status == 403:
        return permission_denied(request)
    return error_page(
        request, refusal.error_status, _("This did not work"), in_words(refusal.message)
    )


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
            "Nothing was changed. Try again in a minute; "
            "if it stays, give your administrator the request's number."
        ),
    )


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    return error_page(
        request,
        403,
        _("This form has grown too old"),
        _(
            "You may have logged in or out in another window. "
            "Load the page again and send it once more."
        ),
        icon="lock",
    )
