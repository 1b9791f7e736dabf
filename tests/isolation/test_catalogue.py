"""What PostgreSQL's catalogue says about isolation: walked, so that no table is forgotten."""

from collections.abc import Sequence
from typing import Any, LiteralString

import psycopg
import pytest
from django.apps import apps
from django.db.models import ForeignKey

from portal.core.database_roles import database_roles
from portal.core.tenancy.models import TenantModel
from tests.isolation.rows import TABLES

UNUSED = "of a library, unused: granted to nobody"

# Tables that hold no tenant's rows, and why each may be here.
WITHOUT_TENANT = {
    "tenants_tenant": "its rows are the tenants; policies bind them by id",
    "tenants_user": "people are global; they are listed through memberships",
    "inference_model": "catalogue of the platform",
    "inference_modelversion": "catalogue of the platform",
    "inference_modelcheck": "catalogue of the platform: checks of files",
    "inference_modelprice": "catalogue of the platform",
    "inference_deployment": "catalogue of the platform",
    "inference_deploymentclock": "one virtual clock a queue",
    "inference_route": "catalogue of the platform",
    "inference_routetarget": "catalogue of the platform",
    "inference_worker": "processes of the platform",
    "inference_queueforecast": "lengths of queues, without saying whose the jobs are",
    "tenants_usagewatermark": "one row: how far the ledger is rolled up",
    "django_session": "opened by its random key alone",
    "django_content_type": "names of models",
    "django_migrations": "the schema's history",
    "auth_group": UNUSED,
    "auth_group_permissions": UNUSED,
    "auth_permission": UNUSED,
    "django_admin_log": UNUSED,
    "auditlog_logentry": UNUSED,
}

# Unique indexes of tenant tables that don't begin with the tenant: each could tell what exists.
GLOBALLY_UNIQUE = {
    ("tenants_apikey", "public_id"): "random; a key arrives before its tenant is known",
}

# Functions that run with their owner's rights.
DEFINERS = {
    "api_key_by_public_id",
    "audit_ensure_partitions",
    "audit_row_change",
    "knowledge_match",
    "tenant_refuse_closed",
    "usage_roll_up",
}


def _rows(superuser: psycopg.Connection, query: LiteralString) -> Sequence[tuple[Any, ...]]:
    return superuser.execute(query).fetchall()


TENANT_TABLES: LiteralString = """
    SELECT c.oid, c.relname, c.relrowsecurity, c.relforcerowsecurity FROM pg_class c
      JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped
     WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
       AND NOT c.relispartition
"""


@pytest.fixture
def superuser(database: None, owner_sql: psycopg.Connection) -> psycopg.Connection:
    return owner_sql


def test_every_tenant_table_has_forced_row_security(superuser: psycopg.Connection) -> None:
    tables = _rows(superuser, TENANT_TABLES)
    assert len(tables) >= 12
    assert [name for _, name, enabled, forced in tables if not (enabled and forced)] == []


def test_every_tenant_model_is_a_tenant_table_or_view(superuser: psycopg.Connection) -> None:
    tables = {name for _, name, *_ in _rows(superuser, TENANT_TABLES)}
    models = {m._meta.db_table for m in apps.get_models() if issubclass(m, TenantModel)}
    assert models == tables


def test_every_table_without_tenant_is_on_the_list(superuser: psycopg.Connection) -> None:
    tenant = {name for _, name, *_ in _rows(superuser, TENANT_TABLES)}
    every = {
        name
        for (name,) in _rows(
            superuser,
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace "
            "AND relkind IN ('r', 'p') AND NOT relispartition",
        )
    }
    assert every - tenant == set(WITHOUT_TENANT)


def test_every_unused_table_is_granted_to_nobody(superuser: psycopg.Connection) -> None:
    granted = superuser.execute(
        "SELECT c.relname FROM pg_class c, aclexplode(c.relacl) a "
        "WHERE c.relname = ANY (%s) AND a.grantee <> c.relowner",
        [[table for table, why in WITHOUT_TENANT.items() if why == UNUSED]],
    ).fetchall()
    assert granted == []


def test_every_table_of_tenants_rows_is_populated_by_these_tests(
    superuser: psycopg.Connection,
) -> None:
    tenant = {name for _, name, *_ in _rows(superuser, TENANT_TABLES)}
    assert tenant == {*TABLES, "tenants_membership"}


POLICIES: LiteralString = """
    SELECT c.relname, p.polname, p.polcmd, p.polroles, p.polqual IS NOT NULL,
           p.polwithcheck IS NOT NULL, p.polpermissive
      FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid
"""


def test_every_policy_names_a_role(superuser: psycopg.Connection) -> None:
    public = 0
    assert [(t, p) for t, p, _, roles, *_ in _rows(superuser, POLICIES) if public in roles] == []


def test_every_policy_checks_what_is_written(superuser: psycopg.Connection) -> None:
    unchecked = [
        (table, policy)
        for table, policy, command, _, _, checks, _ in _rows(superuser, POLICIES)
        if command in ("*", "a", "w") and not checks
    ]
    assert unchecked == []


def test_every_policy_of_the_app_is_conditional(superuser: psycopg.Connection) -> None:
    open_policies = superuser.execute(
        "SELECT tablename, policyname FROM pg_policies WHERE %s = ANY (roles) "
        "AND (qual = 'true' OR with_check = 'true')",
        [database_roles().app],
    ).fetchall()
    assert open_policies == []


def test_no_table_has_two_policies_of_one_role_and_command(superuser: psycopg.Connection) -> None:
    doubled = _rows(
        superuser,
        "SELECT tablename, role, cmd FROM pg_policies, unnest(roles) AS role "
        "GROUP BY tablename, role, cmd HAVING count(*) > 1",
    )
    assert doubled == []


def test_every_partition_is_closed(superuser: psycopg.Connection) -> None:
    partitions = _rows(
        superuser,
        "SELECT relname, relrowsecurity AND relforcerowsecurity, "
        "  EXISTS (SELECT 1 FROM aclexplode(relacl) WHERE grantee <> relowner), "
        "  EXISTS (SELECT 1 FROM pg_policy WHERE polrelid = c.oid) "
        "FROM pg_class c WHERE relispartition AND relkind = 'r' "
        "AND relnamespace = 'public'::regnamespace",
    )
    # Four months and the default, of three tables.
    assert len(partitions) >= 15
    assert [name for name, secured, granted, _ in partitions if granted or not secured] == []
    assert [name for name, _, _, policy in partitions if policy] == []


def test_public_holds_no_privilege_on_any_table(superuser: psycopg.Connection) -> None:
    assert (
        _rows(
            superuser,
            "SELECT c.relname FROM pg_class c, aclexplode(c.relacl) a "
            "WHERE a.grantee = 0 AND c.relnamespace = 'public'::regnamespace "
            "AND c.relkind IN ('r', 'p', 'v', 'S')",
        )
        == []
    )


def test_every_view_is_bound_by_its_readers_policies(superuser: psycopg.Connection) -> None:
    views = _rows(
        superuser,
        "SELECT relname, coalesce('security_invoker=true' = ANY (reloptions), false) "
        "FROM pg_class WHERE relkind IN ('v', 'm') AND relnamespace = 'public'::regnamespace",
    )
    assert [name for name, invoker in views if not invoker] == []


def test_every_definer_function_is_known_and_pins_its_search_path(
    superuser: psycopg.Connection,
) -> None:
    functions = _rows(
        superuser,
        "SELECT proname, coalesce(array_to_string(proconfig, ','), '') LIKE '%search_path=%', "
        "  proacl IS NULL OR EXISTS (SELECT 1 FROM aclexplode(proacl) WHERE grantee = 0), "
        "  prorettype = 'trigger'::regtype "
        "FROM pg_proc WHERE prosecdef AND pronamespace = 'public'::regnamespace",
    )
    assert {name for name, *_ in functions} == DEFINERS
    assert [name for name, pinned, *_ in functions if not pinned] == []
    # PUBLIC may not call them; a trigger function can't be called at all.
    assert [name for name, _, public, trigger in functions if public and not trigger] == []


def test_serving_roles_are_bound(superuser: psycopg.Connection) -> None:
    roles = superuser.execute(
        "SELECT rolname, rolsuper, rolbypassrls, rolcreaterole, rolcreatedb, rolreplication, "
        "EXISTS (SELECT 1 FROM pg_class WHERE relowner = r.oid), rolcanlogin "
        "FROM pg_roles r WHERE rolname = ANY (%s)",
        [list(database_roles().serving)],
    ).fetchall()
    assert len(roles) == 3
    for name, *powers, login in roles:
        assert not any(powers), name
        assert login, name


def test_serving_roles_inherit_nothing(superuser: psycopg.Connection) -> None:
    inherited = superuser.execute(
        "SELECT s.rolname, r.rolname FROM pg_roles s, pg_roles r WHERE s.rolname = ANY (%s) "
        "AND r.oid <> s.oid AND pg_has_role(s.oid, r.oid, 'USAGE')",
        [list(database_roles().serving)],
    ).fetchall()
    assert inherited == []


def test_only_the_app_enters_other_roles_and_only_those(superuser: psycopg.Connection) -> None:
    roles = database_roles()
    may_enter = superuser.execute(
        "SELECT s.rolname, r.rolname FROM pg_roles s, pg_roles r WHERE s.rolname = ANY (%s) "
        "AND r.oid <> s.oid AND pg_has_role(s.oid, r.oid, 'SET')",
        [list(roles.serving)],
    ).fetchall()
    assert set(may_enter) == {(roles.app, role) for role in roles.entered}


def test_entered_roles_cannot_log_in_and_bypass_nothing(superuser: psycopg.Connection) -> None:
    roles = database_roles()
    powers = superuser.execute(
        "SELECT rolname FROM pg_roles WHERE rolname = ANY (%s) "
        "AND (rolcanlogin OR rolsuper OR rolbypassrls OR rolcreaterole)",
        [[*roles.entered, roles.audit_writer]],
    ).fetchall()
    assert powers == []


def test_every_unique_index_of_a_tenant_table_begins_with_the_tenant(
    superuser: psycopg.Connection,
) -> None:
    unique = _rows(
        superuser,
        "SELECT c.relname, a.attname FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid "
        "JOIN pg_attribute t ON t.attrelid = c.oid AND t.attname = 'tenant_id' "
        "JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[0] "
        "WHERE i.indisunique AND NOT i.indisprimary AND NOT c.relispartition "
        "AND c.relnamespace = 'public'::regnamespace AND a.attname <> 'tenant_id'",
    )
    assert set(unique) == set(GLOBALLY_UNIQUE)


def test_every_foreign_key_between_tenant_tables_carries_the_tenant(
    superuser: psycopg.Connection,
) -> None:
    keys = _rows(
        superuser,
        "SELECT k.conname, t1.attnum = ANY (k.conkey) AND t2.attnum = ANY (k.confkey) "
        "FROM pg_constraint k "
        "JOIN pg_attribute t1 ON t1.attrelid = k.conrelid AND t1.attname = 'tenant_id' "
        "JOIN pg_attribute t2 ON t2.attrelid = k.confrelid AND t2.attname = 'tenant_id' "
        "WHERE k.contype = 'f'",
    )
    assert len(keys) >= 4
    assert [name for name, carries in keys if not carries] == []


def test_every_relation_between_tenant_models_has_its_composite_key(
    superuser: psycopg.Connection,
) -> None:
    wanted = {
        (model._meta.db_table, field.column)
        for model in apps.get_models()
        if issubclass(model, TenantModel) and model._meta.app_label != "audit"
        for field in model._meta.get_fields()
        if isinstance(field, ForeignKey) and issubclass(field.related_model, TenantModel)
    }
    found = _rows(
        superuser,
        "SELECT c.relname, a.attname FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid "
        "JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (k.conkey) "
        "WHERE k.contype = 'f' AND array_length(k.conkey, 1) = 2 AND a.attname <> 'tenant_id'",
    )
    assert wanted == set(found)
