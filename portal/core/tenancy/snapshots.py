"""A tenant's scope in which every statement sees one moment."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connection
from psycopg import IsolationLevel

from portal.core.actors import Context
from portal.core.tenancy.scopes import tenant_scope


@contextmanager
def tenant_snapshot(context: Context) -> Iterator[None]:
    """``tenant_scope`` at REPEATABLE READ: for reading much that must fit together.

    Write nothing in it. Without a write it has no transaction id, and the rollup of usage does
    not wait for its end.

    Raises:
        RuntimeError: a transaction is open already, whose level can't be changed.
    """
    if connection.in_atomic_block:
        raise RuntimeError("tenant_snapshot() needs a connection without an open transaction.")
    connection.ensure_connection()
    raw = connection.connection
    raw.isolation_level = IsolationLevel.REPEATABLE_READ
    try:
        with tenant_scope(context):
            yield
    finally:
        if raw.closed:
            connection.close()
        else:
            raw.isolation_level = None
