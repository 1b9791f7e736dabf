"""Tenants that are full of rows, closed by the worker's own steps."""

import hashlib
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg import sql

from portal.core.actors import Context
from portal.core.tenancy import platform_scope
from tenants.closing.deletion import advance
from tenants.closing.exporting import make_export
from tenants.closing.registry import DATA_KEYS
from tenants.models import Tenant, TenantClosure, TenantExport
from tenants.models.closing import ExportState
from tenants.services import close_tenant, newest_export, request_export
from tests import factories
from tests.factories import Organisation
from tests.isolation.rows import Populated, populate
from tests.rollups import roll_up_all
from tests.waiting import eventually

MANY: Final = 1000


def full_tenant(superuser: psycopg.Connection, name: str = "closing") -> Populated:
    """A tenant with a row in every table of tenants' rows, and further charges."""
    route = superuser.execute(
        "INSERT INTO inference_route (id, name, description, reserved, enabled, created_at) "
        "VALUES (gen_random_uuid(), %s, '', false, true, now()) RETURNING id",
        [factories.unique("route")],
    ).fetchone()
    assert route is not None
    populated = populate(superuser, factories.organisation(name), {"route_id": route[0]})
    # It unwraps to nothing; the tenant has a real one.
    superuser.execute(
        "DELETE FROM tenants_tenantdatakey WHERE id = %s", [populated.keys[DATA_KEYS][1]]
    )
    for tokens in range(3):
        superuser.execute(
            "INSERT INTO tenants_ledgerentry (id, tenant_id, job_id, model_id, sku, prompt_tokens, "
            "completion_tokens, cost, currency, measure, admitted_at, recorded_at) "
            "VALUES (gen_random_uuid(), %s, gen_random_uuid(), gen_random_uuid(), 'm@1', %s, 1, 5, "
            "'EUR', 'measured', now(), now())",
            [populated.id, tokens],
        )
    # Or a portal that another test keeps running would add these up in the middle of a comparison.
    roll_up_all()
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


def finish(tenant_id: UUID, *, most: int = MANY) -> None:
    """Takes steps until the tenant is closed; a portal that runs beside the tests helps."""

    def closed() -> bool:
        while not (step := advance(tenant_id, most=most)).finished:
            if not step.more:
                return state_of(tenant_id) == "closed"
        return True

    eventually(closed, within=30, every=0.05, what=lambda: "the tenant is closed")


def made_export(full: Populated) -> TenantExport:
    """A new export that the owner asked for, once it is made."""
    context = full.organisation.context
    asked = request_export(context=context, tenant_id=full.id)
    return finished_export(context, full.id, asked.pk)


def finished_export(context: Context, tenant_id: UUID, export_id: UUID) -> TenantExport:
    """The export at its end; a portal that runs beside the tests may be the one that makes it."""

    def ended() -> bool:
        make_export(tenant_id, export_id)
        found = newest_export(context=context, tenant_id=tenant_id)
        return found.state in (ExportState.READY, ExportState.FAILED)

    eventually(ended, within=30, every=0.05, what=lambda: "the export is made")
    return newest_export(context=context, tenant_id=tenant_id)


def state_of(tenant_id: UUID) -> str:
    with platform_scope(factories.TESTS, reason="a test"):
        return Tenant.objects.get(pk=tenant_id).state


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
