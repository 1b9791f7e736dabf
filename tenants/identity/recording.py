"""Log-ins and log-outs in the audit trail.

A refused log-in is recorded the same way whether or not the account exists; the caller is told
the same, too.
"""

from dataclasses import replace
from typing import Any

from django.contrib.auth.signals import user_logged_in, user_logged_out, user_login_failed
from django.http import HttpRequest

from audit.models import Category, Outcome
from audit.services import Event, record
from portal.core.actors import ANONYMOUS, Actor, ActorType, Context
from portal.core.tenancy import bare_scope
from tenants.events import TenantsEvent
from tenants.identity.sessions import ACTIVE_TENANT
from tenants.models import User
from tenants.services.keys import revoke_session_keys


def connect() -> None:
    """Listens to Django's log-in signals."""
    user_logged_in.connect(_logged_in, dispatch_uid="tenants.identity.logged_in")
    user_logged_out.connect(_logged_out, dispatch_uid="tenants.identity.logged_out")
    user_login_failed.connect(_refused, dispatch_uid="tenants.identity.refused")


def _logged_in(sender: object, request: HttpRequest, user: User, **kwargs: Any) -> None:
    # Django keeps the session of a log-in of the same user: the tenant is chosen anew.
    request.session.pop(ACTIVE_TENANT, None)
    context = _context(request, user)
    _record(context, TenantsEvent.LOG_IN, Outcome.SUCCESS, user.email)


def _logged_out(sender: object, request: HttpRequest, user: User | None, **kwargs: Any) -> None:
    if user is None:
        return
    context = _context(request, user)
    revoke_session_keys(context=context, session_key=request.session.session_key or "")
    _record(context, TenantsEvent.LOG_OUT, Outcome.SUCCESS, user.email)


def _refused(
    sender: object,
    credentials: dict[str, Any],
    request: HttpRequest | None = None,
    **kwargs: Any,
) -> None:
    tried = str(credentials.get("username", "")).replace("\x00", "")[:254]
    base = getattr(request, "portal", None) or Context(actor=ANONYMOUS)
    context = replace(base, actor=ANONYMOUS, user_id=None, tenant_id=None, auth_method="password")
    _record(context, TenantsEvent.LOG_IN, Outcome.DENIED, tried)


def _context(request: HttpRequest, user: User) -> Context:
    base = getattr(request, "portal", None) or Context(actor=ANONYMOUS)
    return replace(
        base,
        actor=Actor(ActorType.USER, user.id, user.email),
        user_id=user.id,
        auth_method="password",
        tenant_id=None,
    )


def _record(context: Context, event: TenantsEvent, outcome: Outcome, label: str) -> None:
    with bare_scope(context):
        record(
            Event(
                Category.AUTH,
                event,
                outcome,
                object_type="tenants.user",
                object_id=str(context.user_id or ""),
                object_label=label,
            )
        )
