"""Tenants that are full of rows, closed by the worker's own steps."""

import hashlib
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg import sql

from portal.core.actors import Context
from tenants.closing.deletion import advance
from tenants.models import TenantClosure
from tenants.services import close_tenant
from tests import factories
from tests.factories import Organisation
from tests.isolation.rows import Populated, populate

MANY: Final = 1000


def full_tenant(superuser: psycopg.Connection, name: str = "closing") -> Populated:
    """A tenant with a row in every table of tenants' rows, and further charges."""
    populated = populate(superuser, factories.organisation(name), {})
    for tokens in range(3):
        superuser.execute(
            "INSERT INTO tenants_ledgerentry (id, tenant_id, job_id, model_id, sku, prompt_tokens, "
            "completion_tokens, cost, currency, measure, admitted_at, recorded_at) "
            "VALUES (gen_random_uuid(), %s, gen_random_uuid(), gen_random_uuid(), 'm@1', %s, 1, 5, "
            "'EUR', 'measured', now(), now())",
            [populated.id, tokens],
        )
    return populated


def close(
    organisation: Organisation, context: Context = factories.TESTS, *, grace_days: int = 0
) -> TenantClosure:
    return close_tenant(
        context=context,
        tenant_id=organisation.id,
        name=organisation.tenant.name,
        reason="the contract ended",
        grace_days=grace_days,
    )


def finish(tenant_id: UUID, *, most: int = MANY) -> int:
    """Takes steps until the tenant is closed; how many that took."""
    for count in range(1, 2000):
        step = advance(tenant_id, most=most)
        if step.finished:
            return count
        assert step.more, count
    raise AssertionError("the deletion does not end")


def tenant_tables(superuser: psycopg.Connection) -> set[str]:
    """Every table of tenants' rows, as the database's catalogue has them."""
    rows = superuser.execute(
        "SELECT c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid "
        "AND a.attname = 'tenant_id' AND NOT a.attisdropped "
        "WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') "
        "AND NOT c.relispartition"
    ).fetchall()
    return {name for (name,) in rows}


def rows_of(superuser: psycopg.Connection, table: str, tenant_id: UUID) -> list[Any]:
    query = sql.SQL("SELECT to_jsonb(t)::text FROM {} t WHERE tenant_id = %s ORDER BY 1")
    return superuser.execute(query.format(sql.Identifier(table)), [tenant_id]).fetchall()


def digest_of(superuser: psycopg.Connection, table: str, tenant_id: UUID, until: Any) -> str:
    """Digest of a table's rows that were recorded up to a moment."""
    query = sql.SQL(
        "SELECT to_jsonb(t)::text FROM {} t WHERE tenant_id = %s AND recorded_at <= %s ORDER BY 1"
    )
    rows = superuser.execute(query.format(sql.Identifier(table)), [tenant_id, until]).fetchall()
    return hashlib.sha256("".join(row[0] for row in rows).encode()).hexdigest()
