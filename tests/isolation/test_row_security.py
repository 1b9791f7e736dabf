"""The database itself holds tenants apart, with every check of the product switched off.

All statements here go through psycopg as ``portal_app`` or ``portal_gateway``: no guard, no
scope, no ORM.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

import psycopg
import pytest
from psycopg import sql
from psycopg.errors import (
    CheckViolation,
    ForeignKeyViolation,
    InsufficientPrivilege,
    NotNullViolation,
)

from portal.core.ids import uuid7
from tests.isolation.rows import TABLES, Populated, insert, new_row

ALL_TABLES = ["tenants_tenant", "tenants_membership", *TABLES]

# Read before a tenant is chosen: where neither tenant nor user is set it shows nothing.
SILENT = {"tenants_tenant"}


@contextmanager
def as_tenant(app: psycopg.Connection, tenant: UUID | str) -> Iterator[None]:
    with app.transaction():
        app.execute("SELECT set_config('portal.tenant_id', %s, true)", [str(tenant)])
        yield


def _select(table: str) -> sql.Composed:
    return sql.SQL("SELECT * FROM {}").format(sql.Identifier(table))


def _by_key(verb: str, table: str, key: str) -> sql.Composed:
    return sql.SQL(verb).format(sql.Identifier(table), sql.Identifier(key))


SELECT_ONE = "SELECT * FROM {} WHERE {} = %s"
DELETE_ONE = "DELETE FROM {} WHERE {} = %s"
UPDATE_ONE = "UPDATE {0} SET {1} = {1} WHERE {1} = %s"


@pytest.mark.parametrize("table", ALL_TABLES)
@pytest.mark.parametrize("verb", [SELECT_ONE, DELETE_ONE, UPDATE_ONE], ids=lambda v: v.split()[0])
def test_raw_statement_without_tenant_is_refused_by_the_database(
    full_a: Populated, app_sql: psycopg.Connection, table: str, verb: str
) -> None:
    key, value = full_a.keys[table]
    if verb == SELECT_ONE and table in SILENT:
        assert app_sql.execute(_by_key(verb, table, key), [value]).fetchall() == []
        return
    with pytest.raises(InsufficientPrivilege):
        app_sql.execute(_by_key(verb, table, key), [value])


@pytest.mark.parametrize("table", sorted(set(ALL_TABLES) - SILENT))
def test_raw_list_without_tenant_is_refused_by_the_database(
    full_a: Populated, app_sql: psycopg.Connection, table: str
) -> None:
    with pytest.raises(InsufficientPrivilege):
        app_sql.execute(_select(table)).fetchall()


def _visible(app: psycopg.Connection, table: str, key: str) -> set[UUID] | None:
    """The keys that a query without any filter shows, or None where the role may not read."""
    query = sql.SQL("SELECT {} FROM {}").format(sql.Identifier(key), sql.Identifier(table))
    try:
        with app.transaction():
            return {value for (value,) in app.execute(query)}
    except InsufficientPrivilege:
        return None


# What portal_app may not read at all.
UNREADABLE = {
    "inference_jobpayload",
    "inference_fairshare",
    "inference_routeoverride",
    "audit_event",
    "audit_body",
    "audit_leaf",
}


@pytest.mark.parametrize("table", ALL_TABLES)
def test_raw_list_as_one_tenant_shows_its_own_row_and_no_other(
    full_a: Populated, full_b: Populated, app_sql: psycopg.Connection, table: str
) -> None:
    key, own = full_a.keys[table]
    with as_tenant(app_sql, full_a.id):
        visible = _visible(app_sql, table, key)
    if table in UNREADABLE:
        assert visible is None
        return
    assert visible is not None
    assert own in visible
    assert full_b.keys[table][1] not in visible


@pytest.mark.parametrize("table", sorted(set(ALL_TABLES) - UNREADABLE))
@pytest.mark.parametrize("verb", [SELECT_ONE, DELETE_ONE, UPDATE_ONE], ids=lambda v: v.split()[0])
def test_touch_another_tenants_row_by_id_finds_nothing(
    full_a: Populated,
    full_b: Populated,
    app_sql: psycopg.Connection,
    owner_sql: psycopg.Connection,
    table: str,
    verb: str,
) -> None:
    key, other = full_b.keys[table]
    before = owner_sql.execute(_by_key(SELECT_ONE, table, key), [other]).fetchall()
    try:
        with as_tenant(app_sql, full_a.id):
            found = app_sql.execute(_by_key(verb, table, key), [other]).rowcount
    except InsufficientPrivilege:
        assert verb != SELECT_ONE
        found = 0
    assert found == 0
    after = owner_sql.execute(_by_key(SELECT_ONE, table, key), [other]).fetchall()
    assert before == after
    assert len(after) == 1


@pytest.mark.parametrize("table", TABLES)
def test_insert_row_for_another_tenant_is_refused(
    full_a: Populated, full_b: Populated, app_sql: psycopg.Connection, table: str
) -> None:
    references = {column: full_b.keys[other][1] for column, other in TABLES[table][1].items()}
    row = new_row(table, full_b.organisation, references)
    with pytest.raises(InsufficientPrivilege), as_tenant(app_sql, full_a.id):
        insert(app_sql, table, row)


@pytest.mark.parametrize("table", ["tenants_membership", "tenants_apikey", "tenants_quota"])
def test_move_own_row_to_another_tenant_is_refused(
    full_a: Populated, full_b: Populated, app_sql: psycopg.Connection, table: str
) -> None:
    key, own = full_a.keys[table]
    move = _by_key("UPDATE {} SET tenant_id = %s WHERE {} = %s", table, key)
    with pytest.raises(InsufficientPrivilege), as_tenant(app_sql, full_a.id):
        app_sql.execute(move, [full_b.id, own])


@pytest.mark.parametrize(
    "table",
    [table for table, (_, references) in TABLES.items() if references and "audit" not in table],
)
def test_point_into_another_tenant_is_refused_even_for_a_superuser(
    full_a: Populated, full_b: Populated, owner_sql: psycopg.Connection, table: str
) -> None:
    key, references = TABLES[table]
    row = new_row(
        table,
        full_a.organisation,
        {column: full_b.keys[other][1] for column, other in references.items()},
    )
    with owner_sql.transaction(force_rollback=True):
        # The row that stands there already would collide before it is checked.
        owner_sql.execute(_by_key(DELETE_ONE, table, key), [row[key]])
        with pytest.raises(ForeignKeyViolation):
            insert(owner_sql, table, row)


@pytest.mark.parametrize("garbage", ["x", "0", "' OR 1=1 --", "00000000"])
def test_tenant_setting_that_is_no_id_shows_nothing(
    full_a: Populated, app_sql: psycopg.Connection, garbage: str
) -> None:
    with pytest.raises(psycopg.errors.InvalidTextRepresentation), as_tenant(app_sql, garbage):
        app_sql.execute(_select("tenants_apikey"))


@pytest.mark.parametrize(
    "role", ["portal_owner", "portal_gateway", "portal_sealer", "audit_writer", "postgres"]
)
@pytest.mark.usefixtures("database")
def test_app_enters_a_role_that_is_not_lent_to_it_is_refused(
    app_sql: psycopg.Connection, role: str
) -> None:
    with pytest.raises(InsufficientPrivilege):
        app_sql.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(role)))


@pytest.mark.parametrize("role", ["portal_platform", "audit_reader_all", "portal_app"])
@pytest.mark.usefixtures("database")
def test_gateway_enters_any_role_is_refused(gateway_sql: psycopg.Connection, role: str) -> None:
    with pytest.raises(InsufficientPrivilege):
        gateway_sql.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(role)))


def test_app_switches_row_security_off_gets_an_error_and_no_rows(
    full_a: Populated, app_sql: psycopg.Connection
) -> None:
    app_sql.execute("SET row_security = off")
    with pytest.raises(InsufficientPrivilege):
        app_sql.execute(_select("tenants_apikey"))


@pytest.mark.parametrize("table", ["tenants_apikey", "tenants_membership", "inference_job"])
def test_app_copies_table_without_tenant_is_refused(
    full_a: Populated, app_sql: psycopg.Connection, table: str
) -> None:
    copy_out = sql.SQL("COPY {} TO STDOUT").format(sql.Identifier(table))
    with pytest.raises(InsufficientPrivilege), app_sql.cursor().copy(copy_out) as copy:
        list(copy)


def test_find_key_by_public_id_answers_for_one_key_alone(
    full_a: Populated, full_b: Populated, app_sql: psycopg.Connection, owner_sql: psycopg.Connection
) -> None:
    (public_id,) = owner_sql.execute(
        "SELECT public_id FROM tenants_apikey WHERE id = %s", [full_a.keys["tenants_apikey"][1]]
    ).fetchone() or ("",)
    query = "SELECT tenant_id FROM api_key_by_public_id(%s)"
    assert app_sql.execute(query, [public_id]).fetchall() == [(full_a.id,)]
    for wildcard in ("", "%", "_" * 16, public_id.upper() + "x"):
        assert app_sql.execute(query, [wildcard]).fetchall() == []


SERVING = ("app", "gateway", "sealer")


@pytest.mark.parametrize("verb", ["SELECT id FROM", "DELETE FROM", "TRUNCATE"])
@pytest.mark.parametrize("role", SERVING[:2])
@pytest.mark.parametrize("table", ["audit_event", "audit_body", "audit_leaf"])
def test_read_or_remove_audit_rows_as_serving_role_is_refused(
    full_a: Populated, request: pytest.FixtureRequest, role: str, verb: str, table: str
) -> None:
    serving: psycopg.Connection = request.getfixturevalue(f"{role}_sql")
    text = verb.replace(" id ", " tenant_id ")
    with pytest.raises(InsufficientPrivilege), as_tenant(serving, full_a.id):
        serving.execute(sql.SQL("{} {}").format(sql.SQL(text), sql.Identifier(table)))


@pytest.mark.parametrize("role", SERVING)
@pytest.mark.parametrize("table", ["audit_event", "audit_body", "audit_leaf"])
def test_change_audit_rows_as_serving_role_is_refused(
    full_a: Populated, request: pytest.FixtureRequest, role: str, table: str
) -> None:
    serving: psycopg.Connection = request.getfixturevalue(f"{role}_sql")
    change = sql.SQL("UPDATE {} SET tenant_id = tenant_id").format(sql.Identifier(table))
    with pytest.raises(InsufficientPrivilege), as_tenant(serving, full_a.id):
        serving.execute(change)


def _event(populated: Populated) -> dict[str, object]:
    return new_row("audit_event", populated.organisation, {})


@pytest.mark.parametrize("role", SERVING)
def test_insert_audit_row_as_serving_role_succeeds(
    full_a: Populated, request: pytest.FixtureRequest, role: str, owner_sql: psycopg.Connection
) -> None:
    serving: psycopg.Connection = request.getfixturevalue(f"{role}_sql")
    event = _event(full_a)
    with as_tenant(serving, full_a.id):
        insert(serving, "audit_event", event)
    found = owner_sql.execute("SELECT 1 FROM audit_event WHERE id = %s", [event["id"]])
    assert found.fetchone() is not None


@pytest.mark.parametrize("role", SERVING[:2])
def test_insert_audit_row_returning_it_is_refused(
    full_a: Populated, request: pytest.FixtureRequest, role: str
) -> None:
    serving: psycopg.Connection = request.getfixturevalue(f"{role}_sql")
    with pytest.raises(InsufficientPrivilege), as_tenant(serving, full_a.id):
        serving.execute(
            "INSERT INTO audit_event (id, tenant_id, category, action, outcome, actor_type) "
            "VALUES (%s, %s, 'call', 'x', 'success', 'user') RETURNING id",
            [uuid7(), full_a.id],
        )


def test_insert_leaf_as_anyone_but_the_sealer_is_refused(
    full_a: Populated, app_sql: psycopg.Connection, gateway_sql: psycopg.Connection
) -> None:
    leaf = new_row("audit_leaf", full_a.organisation, {"event_id": uuid7()})
    for serving in (app_sql, gateway_sql):
        with pytest.raises(InsufficientPrivilege), as_tenant(serving, full_a.id):
            insert(serving, "audit_leaf", leaf)


APPEND_ONLY = ["audit_event", "audit_body", "audit_leaf", "tenants_ledgerentry"]


@pytest.mark.parametrize("verb", [DELETE_ONE, UPDATE_ONE], ids=lambda v: v.split()[0])
@pytest.mark.parametrize("table", APPEND_ONLY)
def test_change_append_only_row_as_superuser_is_refused(
    full_a: Populated, owner_sql: psycopg.Connection, table: str, verb: str
) -> None:
    key, value = full_a.keys[table]
    with pytest.raises(InsufficientPrivilege, match="append-only"):
        owner_sql.execute(_by_key(verb, table, key), [value])


def _partitions(superuser: psycopg.Connection, table: str) -> list[str]:
    found = superuser.execute(
        "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
        "WHERE i.inhparent = %s::regclass",
        [table],
    )
    return [name for (name,) in found]


@pytest.mark.parametrize("table", APPEND_ONLY)
def test_truncate_append_only_table_or_partition_as_owner_is_refused(
    full_a: Populated, servers: object, owner_sql: psycopg.Connection, table: str
) -> None:
    owner_sql.execute("SET SESSION AUTHORIZATION portal_owner")
    for name in (table, *_partitions(owner_sql, table)):
        with pytest.raises(InsufficientPrivilege, match="append-only"):
            owner_sql.execute(sql.SQL("TRUNCATE {}").format(sql.Identifier(name)))


@pytest.mark.parametrize("table", APPEND_ONLY)
def test_change_append_only_rows_as_owner_touches_none(
    full_a: Populated, owner_sql: psycopg.Connection, table: str
) -> None:
    key, value = full_a.keys[table]
    owner_sql.execute("SET SESSION AUTHORIZATION portal_owner")
    for verb in (DELETE_ONE, UPDATE_ONE):
        assert owner_sql.execute(_by_key(verb, table, key), [value]).rowcount == 0
    owner_sql.execute("RESET SESSION AUTHORIZATION")
    assert owner_sql.execute(_by_key(SELECT_ONE, table, key), [value]).rowcount == 1


def test_change_ledger_as_gateway_is_refused(
    full_a: Populated, gateway_sql: psycopg.Connection
) -> None:
    key, value = full_a.keys["tenants_ledgerentry"]
    for verb in (DELETE_ONE, UPDATE_ONE):
        with pytest.raises(InsufficientPrivilege):
            gateway_sql.execute(_by_key(verb, "tenants_ledgerentry", key), [value])


def test_charge_a_job_twice_is_refused(full_a: Populated, owner_sql: psycopg.Connection) -> None:
    entry = new_row("tenants_ledgerentry", full_a.organisation, {})
    insert(owner_sql, "tenants_ledgerentry", entry)
    with pytest.raises(psycopg.errors.UniqueViolation):
        insert(owner_sql, "tenants_ledgerentry", {**entry, "id": uuid7()})


def test_event_without_tenant_is_refused(app_sql: psycopg.Connection, full_a: Populated) -> None:
    event = {**_event(full_a), "tenant_id": None}
    with pytest.raises((NotNullViolation, CheckViolation, InsufficientPrivilege)):
        with as_tenant(app_sql, full_a.id):
            insert(app_sql, "audit_event", event)
