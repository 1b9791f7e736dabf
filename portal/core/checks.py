"""System checks: an installation that is not isolated does not start."""

from collections.abc import Sequence
from typing import Any

from django.apps.config import AppConfig
from django.core.checks import CheckMessage, Error, Tags, register
from django.db import connection

from portal.core.env import env


@register(Tags.database)
def serving_role_is_bound(
    app_configs: Sequence[AppConfig] | None, databases: Sequence[str] | None, **kwargs: Any
) -> list[CheckMessage]:
    """A serving role must be no superuser, no owner, hold no BYPASSRLS and inherit nothing."""
    if not databases or env().freehold_database_role == "owner":
        return []
    return [*_role_faults(), *_inherited_roles(), *_open_tables()]


def _role_faults() -> list[CheckMessage]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT current_user, rolsuper, rolbypassrls, "
            "EXISTS (SELECT 1 FROM pg_class c WHERE c.relowner = r.oid AND c.relkind IN ('r', 'p')) "
            "FROM pg_roles r WHERE rolname = current_user"
        )
        name, superuser, bypass, owner = cursor.fetchone()
    faults = []
    for bad, word in ((superuser, "a superuser"), (bypass, "BYPASSRLS"), (owner, "a table owner")):
        if bad:
            faults.append(
                Error(
                    f"The database role {name} is {word}: row-level security would not bind it.",
                    hint="Serve with the role portal_app; `manage.py roles` makes it.",
                    id="portal.E001",
                )
            )
    return faults


def _inherited_roles() -> list[CheckMessage]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT r.rolname FROM pg_roles r WHERE r.rolname <> current_user "
            "AND pg_has_role(current_user, r.oid, 'USAGE')"
        )
        inherited = [row[0] for row in cursor.fetchall()]
    if not inherited:
        return []
    return [
        Error(
            f"The serving role inherits {', '.join(inherited)}: their policies would apply at once.",
            hint="Grant them WITH INHERIT FALSE, SET TRUE; `manage.py roles` does.",
            id="portal.E002",
        )
    ]


def _open_tables() -> list[CheckMessage]:
    """Tables with a tenant_id whose row-level security is not both enabled and forced."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
            "JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id' "
            "WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p') AND NOT a.attisdropped "
            "AND NOT (c.relrowsecurity AND c.relforcerowsecurity)"
        )
        tables = [row[0] for row in cursor.fetchall()]
    return [
        Error(
            f"{table} holds tenants' rows without forced row-level security.",
            hint="Add EnableTenantRLS to its migration.",
            id="portal.E003",
        )
        for table in tables
    ]
