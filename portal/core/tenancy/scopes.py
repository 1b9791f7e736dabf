"""Scopes: the only ways to reach a tenant's rows.

A scope is one transaction whose settings tell PostgreSQL who acts and for which tenant; the
row-level policies and the audit triggers read them. They are set with ``is_local = true``, so
they end with the transaction and never travel with a pooled connection.
"""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, ParamSpec, TypeVar
from uuid import UUID

from asgiref.sync import sync_to_async
from django.db import close_old_connections, connection, transaction
from psycopg import sql

from portal.core.actors import Context
from portal.core.database_roles import database_roles

P = ParamSpec("P")
T = TypeVar("T")


class CrossTenantScope(RuntimeError):
    """A scope of another tenant was opened inside a tenant's scope."""


@dataclass(frozen=True, slots=True, eq=False)
class Scope:
    """What is in force on one connection, inside one transaction.

    ``tenant_id`` is the tenant that scopes inside this one must keep to; None lets them choose.
    """

    context: Context
    role: str | None
    tenant_id: UUID | None


_scope: ContextVar[Scope | None] = ContextVar("portal_scope", default=None)

# The innermost open scope of each thread, and so of each connection. The variable above is
# copied into tasks and threads and can outlive its scope; both must name the same scope.
_innermost = threading.local()

# The recorder of platform scopes; the audit app, a floor above, sets it.
_record_platform_scope: Callable[[Context, str], None] | None = None


def on_platform_scope(recorder: Callable[[Context, str], None]) -> None:
    """Registers what records each platform scope; called inside the scope, once."""
    global _record_platform_scope
    _record_platform_scope = recorder


def active_scope() -> Scope | None:
    """The scope in force on this thread's connection, or None.

    A scope that was opened on another connection (by another thread), or that has ended while a
    copied context still names it, does not count.
    """
    scope = _open_on_connection()
    return scope if scope is _scope.get() else None


def _open_on_connection() -> Scope | None:
    """The innermost scope of this thread's connection, whoever opened it."""
    scope: Scope | None = getattr(_innermost, "scope", None)
    return scope if connection.in_atomic_block else None


def current_context() -> Context:
    """The context of the scope in force.

    Raises:
        RuntimeError: outside a scope.
    """
    scope = active_scope()
    if scope is None:
        raise RuntimeError(
            "No scope is open: open tenant_scope(), user_scope() or platform_scope()."
        )
    return scope.context


def _settings(context: Context) -> dict[str, str]:
    actor = {
        "type": context.actor.type.value,
        "id": _text(context.actor.id),
        "label": context.actor.label,
        "on_behalf_of": _text(context.on_behalf_of),
        "api_key_id": _text(context.api_key_id),
        "auth_method": context.auth_method,
        "address": context.address,
        "request_id": context.request_id,
        "client_request_id": context.client_request_id,
    }
    return {
        "portal.tenant_id": _text(context.tenant_id) or "",
        "portal.user_id": _text(context.user_id) or "",
        "portal.actor": json.dumps(actor),
    }


def _text(value: UUID | None) -> str | None:
    return None if value is None else str(value)


def _apply(context: Context, role: str | None, previous_role: str | None) -> None:
    settings = _settings(context)
    calls = ", ".join("set_config(%s, %s, true)" for _ in settings)
    values = [part for pair in settings.items() for part in pair]
    with connection.cursor() as cursor:
        if role != previous_role:
            cursor.execute("RESET ROLE")
        cursor.execute(f"SELECT {calls}", values)
        if role is not None and role != previous_role:
            cursor.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(role)))


_NO_CONTEXT = Context.system("none")


@contextmanager
def _open(context: Context, role: str | None, tenant_id: UUID | None) -> Iterator[None]:
    outer = _open_on_connection()
    with transaction.atomic():
        _apply(context, role, outer.role if outer else None)
        scope = Scope(context, role, tenant_id)
        token = _scope.set(scope)
        _innermost.scope = scope
        try:
            yield
        finally:
            _innermost.scope = outer
            _scope.reset(token)
        # These settings outlive RELEASE SAVEPOINT, so a nested or borrowed transaction gets
        # back what it had. After an exception the rollback does it.
        if connection.in_atomic_block and not connection.needs_rollback:
            if outer is not None:
                _apply(outer.context, outer.role, role)
            else:
                _apply(_NO_CONTEXT, None, role)


def _kept_tenant() -> UUID | None:
    outer = _open_on_connection()
    return None if outer is None else outer.tenant_id


def _refuse_another_tenant(tenant_id: UUID) -> None:
    kept = _kept_tenant()
    if kept is not None and kept != tenant_id:
        raise CrossTenantScope("A tenant's scope is open; another tenant's can't be opened in it.")


@contextmanager
def tenant_scope(context: Context) -> Iterator[None]:
    """One transaction that sees and changes the rows of ``context.tenant_id`` alone.

    Raises:
        ValueError: if the context names no tenant.
        CrossTenantScope: inside a scope of another tenant.
    """
    if context.tenant_id is None:
        raise ValueError("tenant_scope() needs a context with a tenant.")
    _refuse_another_tenant(context.tenant_id)
    with _open(context, None, context.tenant_id):
        yield


@contextmanager
def user_scope(context: Context) -> Iterator[None]:
    """One transaction before a tenant is chosen: the user's own memberships, nothing else."""
    if context.user_id is None:
        raise ValueError("user_scope() needs a context with a user.")
    with _open(replace(context, tenant_id=None), None, _kept_tenant()):
        yield


@contextmanager
def bare_scope(context: Context) -> Iterator[None]:
    """One transaction without a tenant: reaches no tenant's rows, may write platform events."""
    with _open(replace(context, tenant_id=None, user_id=None), None, _kept_tenant()):
        yield


@contextmanager
def platform_scope(context: Context, *, reason: str) -> Iterator[None]:
    """One transaction across tenants, as ``portal_platform``; always audited.

    Args:
        reason: why the work crosses tenants; stands in the audit trail.
    """
    if not reason.strip():
        raise ValueError("platform_scope() needs a reason for the audit trail.")
    if _record_platform_scope is None:
        raise RuntimeError("platform_scope() is not recorded by anything, so it stays closed.")
    with _open(context, database_roles().platform, None):
        _record_platform_scope(context, reason)
        yield


@contextmanager
def role_scope(context: Context, role: str) -> Iterator[None]:
    """One transaction as ``role`` (an audit reader), with the context's tenant if it has one.

    Raises:
        CrossTenantScope: the context names a tenant, inside a scope of another.
    """
    if context.tenant_id is not None:
        _refuse_another_tenant(context.tenant_id)
    with _open(context, role, context.tenant_id):
        yield


async def run_in_tenant(context: Context, service: Callable[..., T], **kwargs: Any) -> T:
    """Runs a service inside ``tenant_scope(context)`` on a thread of its own.

    Async code never touches the ORM: it awaits this.
    """

    def run() -> T:
        close_old_connections()
        try:
            with tenant_scope(context):
                return service(**kwargs)
        finally:
            connection.close()

    return await sync_to_async(run, thread_sensitive=False)()
