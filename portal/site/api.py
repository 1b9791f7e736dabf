"""The management API's frame: who calls, what may be done, and how a refusal reads."""

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.middleware.csrf import CsrfViewMiddleware
from rest_framework import exceptions
from rest_framework.authentication import BaseAuthentication
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.response import Response

from inference.gateway.wire.headers import retry_after
from portal.core.actors import ActorType, Context
from portal.core.errors import Forbidden, Invalid, NotFound, PortalError
from portal.core.problems import PROBLEM, problem_body
from portal.core.rest import SIGNED_IN, NewestFirstPagination, StrictJSONParser, api_context
from portal.site import errors as pages
from tenants.permissions import Action, allowed

if TYPE_CHECKING:
    from rest_framework.views import APIView

__all__ = [
    "ContextAuthentication",
    "DeclaredPermission",
    "NewestFirstPagination",
    "StrictJSONParser",
    "problem_details",
]


class _CsrfCheck(CsrfViewMiddleware):
    def _reject(self, request: HttpRequest, reason: str) -> str:
        return reason


def _no_view(request: HttpRequest) -> HttpResponse:
    return HttpResponse()


class ContextAuthentication(BaseAuthentication):
    """Takes over whom the middleware recognised; a browser's session also needs a CSRF token."""

    def authenticate(self, request: Request) -> tuple[Any, Context] | None:
        context = api_context(request)
        http = request._request
        if context.actor.type == ActorType.API_KEY:
            return AnonymousUser(), context
        if context.actor.type != ActorType.USER:
            return None
        check = _CsrfCheck(lambda _request: None)  # type: ignore[arg-type]
        check.process_request(http)
        reason = check.process_view(http, _no_view, (), {})
        if reason:
            raise exceptions.PermissionDenied(f"CSRF check failed: {reason}")
        return http.user, context

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="freehold"'


class DeclaredPermission(BasePermission):
    """Lets a call pass if its view declares an action for the method that the caller may take."""

    message = "You may not do this."

    def has_permission(self, request: Request, view: "APIView") -> bool:
        method = (request.method or "").lower()
        if not hasattr(view, method):
            return True
        declared = getattr(view, "actions", {}).get("GET" if method == "head" else method.upper())
        context = api_context(request)
        if declared is None:
            return False
        if declared == SIGNED_IN:
            return context.actor.type in (ActorType.USER, ActorType.API_KEY)
        names = (declared,) if isinstance(declared, str) else declared
        return any(allowed(context, Action(name)) for name in names)


def problem_details(fault: Exception, context: dict[str, Any]) -> Response | None:
    """RFC 9457 problem details of anything a view raises; None lets a defect be a 500."""
    refusal = _refusal(fault)
    if refusal is None:
        return None
    request = context["request"]
    response = Response(
        _body(refusal, request._request), refusal.error_status, content_type=PROBLEM
    )
    for name, value in _headers(refusal, fault).items():
        response[name] = value
    return response


def problem_response(refusal: PortalError, request: HttpRequest) -> JsonResponse:
    """The same body outside a view of the API."""
    response = JsonResponse(
        _body(refusal, request), status=refusal.error_status, content_type=PROBLEM
    )
    for name, value in _headers(refusal, refusal).items():
        response[name] = value
    return response


def _body(refusal: PortalError, request: HttpRequest) -> dict[str, Any]:
    known: Context | None = getattr(request, "portal", None)
    return problem_body(refusal, known.request_id if known else getattr(request, "request_id", ""))


def _headers(refusal: PortalError, fault: Exception) -> dict[str, str]:
    headers = {}
    if refusal.retry_after is not None:
        headers["Retry-After"] = retry_after(refusal.retry_after)
    if refusal.error_status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = 'Bearer realm="freehold"'
    if isinstance(fault, exceptions.MethodNotAllowed):
        headers["Allow"] = ", ".join(getattr(fault, "allowed", ()))
    return {name: value for name, value in headers.items() if value}


def _refusal(fault: Exception) -> PortalError | None:
    if isinstance(fault, PortalError):
        return fault
    if isinstance(fault, Http404):
        return NotFound("There is nothing here.")
    if isinstance(fault, PermissionDenied):
        return Forbidden("You may not do this.")
    if isinstance(fault, SuspiciousOperation):
        return Invalid("The request can't be understood.")
    if isinstance(fault, exceptions.ValidationError):
        return _validation(fault)
    if isinstance(fault, exceptions.APIException):
        code = _CODES.get(fault.default_code, fault.default_code)
        return PortalError(
            str(fault.detail),
            code=code,
            status=fault.status_code,
            retry_after=getattr(fault, "wait", None),
        )
    return None


_CODES = {
    "not_authenticated": "unauthenticated",
    "authentication_failed": "unauthenticated",
    "permission_denied": "forbidden",
    "parse_error": "invalid",
}


def _validation(fault: exceptions.ValidationError) -> PortalError:
    """The first field that is wrong stands in the sentence, all of them in the data."""
    errors = fault.detail if isinstance(fault.detail, dict) else {"body": fault.detail}
    field, messages = next(iter(errors.items()))
    return Invalid(
        f"'{field}': {_first(messages)}",
        param=str(field),
        data={"errors": errors},
    )


def _first(messages: Any) -> str:
    while isinstance(messages, dict | list) and messages:
        messages = next(iter(messages.values() if isinstance(messages, dict) else messages))
    return str(messages)


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Django's 400 as the caller reads it: a problem on the API, else a page."""
    if _of_api(request):
        return problem_response(Invalid("The request can't be understood."), request)
    return pages.bad_request(request, exception)


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Django's 403."""
    if _of_api(request):
        return problem_response(Forbidden("You may not do this."), request)
    return pages.permission_denied(request, exception)


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Django's 404."""
    if _of_api(request):
        return problem_response(NotFound("There is nothing here."), request)
    return pages.not_found(request, exception)


def server_error(request: HttpRequest) -> HttpResponse:
    """Django's 500: a defect of ours, without a word of what it was."""
    if _of_api(request):
        return problem_response(
            PortalError("Something went wrong on our side; nothing was changed."), request
        )
    return pages.server_error(request)


def _of_api(request: HttpRequest) -> bool:
    return request.path_info.startswith("/api/")
