"""What surrounds every request of the control plane: ids, caller, audit, tenant scope, CSP.

Headers are hostile until proven otherwise: nothing that a caller sends may end in a 5xx.
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cache
from typing import Final

import structlog
from django.contrib.auth.models import AnonymousUser
from django.db import Error as DatabaseFault
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.urls import Resolver404, resolve

from audit.models import Category, Outcome
from audit.services import Event, record
from inference.gateway.wire.headers import client_request_id, parse_authorization
from knowledge.api.dify import refused_key
from portal.core import logging as portal_logging
from portal.core.actors import ANONYMOUS, Context
from portal.core.env import env
from portal.core.errors import Invalid, PortalError, Unavailable
from portal.core.http import Network, client_address, trusted_networks
from portal.core.ids import uuid7
from portal.core.tenancy import bare_scope, tenant_scope, user_scope
from portal.site.api import problem_response
from portal.site.errors import refusal_page
from tenants.errors import InvalidApiKey, NetworkNotAllowed
from tenants.identity.keys import authenticate_api_key
from tenants.identity.sessions import session_context

GetResponse = Callable[[HttpRequest], HttpResponseBase]

_log = structlog.get_logger(__name__)

_API: Final = "/api/"
_EXTERNAL_KNOWLEDGE: Final = "/api/v1/external-knowledge/"
_UNRECORDED: Final = ("/static/", "/health/", "/admin/jsi18n/", "/favicon.ico")
"""Paths that touch nobody's data: files, health and the language catalogue."""

_DENIALS: Final = frozenset({401, 403, 404, 429})

_PAGE_POLICY: Final = "; ".join(
    (
        "default-src 'self'",
        # Alpine, which the site's theme is built on, makes functions of its attributes.
        "script-src 'self' 'unsafe-eval'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
_DATA_POLICY: Final = "default-src 'none'; frame-ancestors 'none'"


class RequestIdMiddleware:
    """Gives each request an id of our own; the caller's is cleaned and kept apart."""

    def __init__(self, get_response: GetResponse) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        request_id = f"req-{uuid7().hex}"
        request.request_id = request_id  # type: ignore[attr-defined]
        _drop_unusable_cookies(request)
        response = self._get_response(request)
        response["X-Request-Id"] = request_id
        return response


def _drop_unusable_cookies(request: HttpRequest) -> None:
    """A cookie that no database can look up is no cookie of ours."""
    for name in [n for n, value in request.COOKIES.items() if "\x00" in value]:
        del request.COOKIES[name]


class ContentSecurityPolicyMiddleware:
    """Lets a page load from this origin alone; whatever is not a page loads nothing."""

    def __init__(self, get_response: GetResponse) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self._get_response(request)
        page = response.get("Content-Type", "").startswith("text/html")
        response.setdefault("Content-Security-Policy", _PAGE_POLICY if page else _DATA_POLICY)
        return response


class ContextMiddleware:
    """Finds out who calls: an API key on the API, else the session's user and active tenant.

    A refused key does not end the request here, so that its refusal is recorded too.
    """

    def __init__(self, get_response: GetResponse) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        context, refusal = self._identify(request)
        request.portal = context  # type: ignore[attr-defined]
        request.portal_refusal = refusal  # type: ignore[attr-defined]
        with portal_logging.bound(context):
            return self._get_response(request)

    def _identify(self, request: HttpRequest) -> tuple[Context, PortalError | None]:
        base = _stranger(request)
        refusal: PortalError | None = None
        if _holds_nul(request):
            refusal = Invalid("The address holds a NUL character.")
        header = request.META.get("HTTP_AUTHORIZATION")
        if header and request.path_info.startswith(_API):
            try:
                token = parse_authorization(header)
                if token is None:
                    raise InvalidApiKey
                return authenticate_api_key(token, base=base), refusal
            except NetworkNotAllowed as fault:
                # The secret was right: the key's tenant reads of it in its own trail.
                return fault.context, fault
            except PortalError as fault:
                return base, fault
        user = request.user
        if isinstance(user, AnonymousUser) or not user.is_authenticated:
            return base, refusal
        return session_context(user, request.session, base=base), refusal


def _stranger(request: HttpRequest) -> Context:
    return Context(
        actor=ANONYMOUS,
        address=client_address(
            request.META.get("REMOTE_ADDR"),
            request.META.get("HTTP_X_FORWARDED_FOR"),
            _trusted(),
        ),
        request_id=getattr(request, "request_id", ""),
        client_request_id=client_request_id(request.META.get("HTTP_X_REQUEST_ID")),
    )


@cache
def _trusted() -> tuple[Network, ...]:
    return trusted_networks(env().trusted_proxies)


def _holds_nul(request: HttpRequest) -> bool:
    query: str = request.META.get("QUERY_STRING", "")
    return "\x00" in request.path_info or "\x00" in query or "%00" in query


class AuditMiddleware:
    """Records every call before its view runs, and what became of it.

    Each event is a transaction of its own: a refusal's rollback does not take its record along.
    A call that can't be recorded is refused.
    """

    def __init__(self, get_response: GetResponse) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if request.path_info.startswith(_UNRECORDED):
            return self._answer(request)
        began = time.monotonic()
        try:
            _record(request, Outcome.REQUESTED)
        except DatabaseFault:
            _log.exception("audit.refused_call")
            return _refused(
                request, Unavailable("The audit trail does not answer, so nothing was done.")
            )
        response = self._answer(request)
        try:
            _record(request, _outcome(response.status_code), response, time.monotonic() - began)
        except DatabaseFault:
            # What was done is done; the recorded request without an outcome tells of it.
            _log.exception("audit.missed_outcome")
        return response

    def _answer(self, request: HttpRequest) -> HttpResponseBase:
        refusal: PortalError | None = request.portal_refusal  # type: ignore[attr-defined]
        return self._get_response(request) if refusal is None else _refused(request, refusal)


def _outcome(status: int) -> Outcome:
    if status in _DENIALS:
        return Outcome.DENIED
    return Outcome.SUCCESS if status < 400 else Outcome.FAILURE


def _record(
    request: HttpRequest,
    outcome: Outcome,
    response: HttpResponseBase | None = None,
    seconds: float = 0.0,
) -> None:
    context = _context(request)
    path = request.path_info.replace("\x00", "\\0")[:500]
    detail: dict[str, object] = {"method": (request.method or "")[:16], "path": path}
    reason = ""
    if response is not None:
        detail |= {"status": response.status_code, "milliseconds": round(seconds * 1000)}
        refusal: PortalError | None = request.portal_refusal  # type: ignore[attr-defined]
        if refusal is not None:
            reason = refusal.error_code
        elif response.status_code >= 400:
            reason = response.reason_phrase
    with _platform_or_tenant(context):
        record(Event(Category.CALL, _action(request), outcome, reason=reason, detail=detail))


def _context(request: HttpRequest) -> Context:
    context: Context = request.portal  # type: ignore[attr-defined]
    return context


def _platform_or_tenant(context: Context) -> AbstractContextManager[None]:
    return bare_scope(context) if context.tenant_id is None else tenant_scope(context)


def _action(request: HttpRequest) -> str:
    """The method and the route, so that calls of one kind share a name."""
    try:
        route = resolve(request.path_info).route
    except Resolver404:
        route = "unknown"
    return f"{(request.method or '')[:16]} /{route}"


def _refused(request: HttpRequest, refusal: PortalError) -> HttpResponse:
    if request.path_info.startswith(_EXTERNAL_KNOWLEDGE):
        return refused_key(refusal)
    if request.path_info.startswith(_API):
        return problem_response(refusal, request)
    if refusal.error_status == 503:
        return HttpResponse(refusal.message, status=503, content_type="text/plain")
    return refusal_page(request, refusal)


class TenantScopeMiddleware:
    """Opens the caller's scope for the whole request, and undoes everything after a refusal.

    Inner layers turn exceptions into responses, so a transaction would commit after a 500. What a
    service recorded of a refusal of its own stays (``PortalView.refuse``).
    """

    def __init__(self, get_response: GetResponse) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if request.path_info.startswith(_UNRECORDED):
            return self._get_response(request)
        with _scope(_context(request)):
            response = self._get_response(request)
            if response.status_code >= 400 and not getattr(response, "recorded", False):
                transaction.set_rollback(True)
        return response


def _scope(context: Context) -> AbstractContextManager[None]:
    if context.tenant_id is not None:
        return tenant_scope(context)
    return user_scope(context) if context.user_id is not None else bare_scope(context)
