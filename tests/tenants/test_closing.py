"""A tenant is closed: what is erased, what is kept, and that kills change nothing of it."""


import psycopg

from tenants.closing import registry
from tests.tenants.closings import (
    close,
    digest_of,
    finish,
    full_tenant,
    rows_of,
    tenant_tables,
)


def test_every_table_of_tenants_rows_is_erased_or_kept(
    database: None, owner_sql: psycopg.Connection
) -> None:
    """A new table fails here until its app says which: one line with ``erase_rows`` or
    ``keep_rows`` where the app registers what it does at a closing."""
    tables = tenant_tables(owner_sql)
    erased = {eraser.name for eraser in registry.erasers()} & tables | {registry.DATA_KEYS}
    assert erased | set(registry.kept()) == tables
    assert erased & set(registry.kept()) == set()


def test_close_tenant_leaves_nothing_to_read_and_keeps_the_rest_as_it_was(
    database: None, owner_sql: psycopg.Connection
) -> None:
    full = full_tenant(owner_sql)
    other = full_tenant(owner_sql, "neighbour")
    (now,) = owner_sql.execute("SELECT clock_timestamp()").fetchone() or ()
    others = {t: rows_of(owner_sql, t, other.id) for t in tenant_tables(owner_sql)}
    before = {
        t: digest_of(owner_sql, t, full.id, now)
        for t in ("tenants_ledgerentry", "audit_event", "audit_body", "audit_leaf")
    }
    buckets = rows_of(owner_sql, "tenants_usagebucket", full.id)
    close(full.organisation)
    finish(full.id)
    left = {t for t in tenant_tables(owner_sql) if rows_of(owner_sql, t, full.id)}
    assert left == set(registry.kept()) - {"tenants_tenantexport"}
    assert {t: digest_of(owner_sql, t, full.id, now) for t in before} == before
    assert rows_of(owner_sql, "tenants_usagebucket", full.id) == buckets
    assert {t: rows_of(owner_sql, t, other.id) for t in tenant_tables(owner_sql)} == others
    state = owner_sql.execute("SELECT state FROM tenants_tenant WHERE id = %s", [full.id])
    assert state.fetchone() == ("closed",)
