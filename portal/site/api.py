"""The management API's frame: who calls, what may be done, and how a refusal reads."""

import logging
from http import HTTPStatus
from typing import Any

from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.http import Http404, HttpRequest, JsonResponse
from django.middleware.csrf import CsrfViewMiddleware
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.views import SpectacularSwaggerSplitView, SpectacularYAMLAPIView
from rest_framework import exceptions
from rest_framework.authentication import BaseAuthentication
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from inference.gateway.wire.headers import retry_after
from portal.core.actors import ActorType, Context
from portal.core.api import SIGNED_IN, NewestFirstPagination, StrictJSONParser, api_context
from portal.core.errors import PortalError
from tenants.permissions import Action, allowed

__all__ = [
    "ContextAuthentication",
    "DeclaredPermission",
    "NewestFirstPagination",
    "StrictJSONParser",
    "problem_details",
]

PROBLEM = "application/problem+json"
_TITLES = {status.value: status.phrase for status in HTTPStatus}
_log = logging.getLogger(__name__)


class _CsrfCheck(CsrfViewMiddleware):
    def _reject(self, request: HttpRequest, reason: str) -> str:  # type: ignore[override]
        return reason


class ContextAuthentication(BaseAuthentication):
    """Takes over whom the middleware recognised; a browser's session also needs a CSRF token."""

    def authenticate(self, request: Request) -> tuple[Any, Context] | None:
        context = api_context(request)
        http = request._request
        if context.actor.type == ActorType.API_KEY:
            return AnonymousUser(), context
        if context.actor.type != ActorType.USER:
            return None
        check = _CsrfCheck(lambda _request: None)  # type: ignore[arg-type, return-value]
        check.process_request(http)
        reason = check.process_view(http, None, (), {})
        if reason:
            raise exceptions.PermissionDenied(f"CSRF check failed: {reason}")
        return http.user, context

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="freehold"'


class ContextAuthenticationScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """How the API's description calls it."""

    target_class = "portal.site.api.ContextAuthentication"
    name = ["apiKey", "session"]

    def get_security_definition(self, auto_schema: Any) -> list[dict[str, str]]:
        return [
            {
                "type": "http",
                "scheme": "bearer",
                "description": "An API key with management scopes.",
            },
            {
                "type": "apiKey",
                "in": "cookie",
                "name": "sessionid",
                "description": "A browser's session; writes also need the header X-CSRFToken.",
            },
        ]


class DeclaredPermission(BasePermission):
    """Lets a call pass if its view declares an action for the method that the caller may take."""

    message = "You may not do this."

    def has_permission(self, request: Request, view: APIView) -> bool:
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
    body: dict[str, Any] = {
        "type": f"urn:freehold:problem:{refusal.error_code}",
        "title": _TITLES.get(refusal.error_status, "Error"),
        "status": refusal.error_status,
        "detail": refusal.message,
        "code": refusal.error_code,
        "request_id": known.request_id if known else getattr(request, "request_id", ""),
    }
    if refusal.param is not None:
        body["param"] = refusal.param
    if refusal.data:
        body["data"] = refusal.data
    return body


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
        return PortalError("There is nothing here.", code="not_found", status=404)
    if isinstance(fault, PermissionDenied):
        return PortalError("You may not do this.", code="forbidden", status=403)
    if isinstance(fault, SuspiciousOperation):
        return PortalError("The request can't be understood.", code="invalid", status=400)
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
    return PortalError(
        f"'{field}': {_first(messages)}",
        code="invalid",
        status=400,
        param=str(field),
        data={"errors": errors},
    )


def _first(messages: Any) -> str:
    while isinstance(messages, dict | list) and messages:
        messages = next(iter(messages.values() if isinstance(messages, dict) else messages))
    return str(messages)


class SchemaView(SpectacularYAMLAPIView):
    """The OpenAPI description."""

    permission_classes = [DeclaredPermission]
    actions = {"GET": SIGNED_IN}


class DocumentationView(SpectacularSwaggerSplitView):
    """Swagger UI, its script in a file of its own, so that no page needs inline scripts."""

    permission_classes = [DeclaredPermission]
    actions = {"GET": SIGNED_IN}
    url_name = "openapi"
