"""Refuses any statement on a tenant table outside a scope, before it is sent.

Row-level security alone stays silent where no row is visited: an unscoped
``WHERE id = <missing>`` is empty and an unscoped UPDATE of nothing succeeds, while a present id
raises, which tells a caller what exists. So the connection itself refuses.
"""

import re
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

from django.apps import apps
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from portal.core.tenancy.models import TenantModel
from portal.core.tenancy.scopes import active_scope


class UnscopedAccess(RuntimeError):
    """A tenant table was touched outside a scope."""


_extra_tables: set[str] = set()


def guard_table(name: str) -> None:
    """Adds a tenant table or view that no ``TenantModel`` stands for."""
    _extra_tables.add(name)


@cache
def tenant_tables() -> frozenset[str]:
    """Names of all tables that hold tenants' rows."""
    models = {m._meta.db_table for m in apps.get_models() if issubclass(m, TenantModel)}
    return frozenset(models | _extra_tables)


@cache
def _pattern() -> re.Pattern[str]:
    names = "|".join(sorted(map(re.escape, tenant_tables()), key=len, reverse=True))
    return re.compile(rf"\b(?:{names})\b")


@lru_cache(maxsize=4096)
def touched_table(statement: str) -> str | None:
    """The first tenant table that a statement names, or None."""
    found = _pattern().search(statement)
    return found.group(0) if found else None


def _refuse_unscoped(
    execute: Callable[..., Any], statement: Any, params: Any, many: bool, context: dict[str, Any]
) -> Any:
    if active_scope() is None:
        text = statement if isinstance(statement, str) else statement.as_string(None)
        table = touched_table(text)
        if table is not None:
            raise UnscopedAccess(
                f"{table} holds tenants' rows: open tenant_scope(), user_scope() or "
                "platform_scope() around this statement."
            )
    return execute(statement, params, many, context)


def _guard_connection(connection: BaseDatabaseWrapper) -> None:
    if _refuse_unscoped not in connection.execute_wrappers:
        connection.execute_wrappers.append(_refuse_unscoped)


def _on_connection_created(sender: object, connection: BaseDatabaseWrapper, **kwargs: Any) -> None:
    from portal.core.env import env

    # The owner migrates; it meets the policies (FORCE), not the guard.
    if env().freehold_database_role != "owner":
        _guard_connection(connection)


def install() -> None:
    """Guards every connection of this process, those already open too."""
    connection_created.connect(_on_connection_created, dispatch_uid="portal.core.tenancy.guard")
    for connection in connections.all(initialized_only=True):
        _on_connection_created(None, connection)
