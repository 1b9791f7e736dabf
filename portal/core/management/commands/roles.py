"""Makes the database roles, or prints the SQL with which a DBA makes them."""

from argparse import ArgumentParser
from typing import Any
from urllib.parse import unquote, urlsplit

import psycopg
from django.core.management.base import BaseCommand, CommandError
from psycopg import sql

from portal.core.database_roles import DatabaseRoles, database_roles
from portal.core.env import Env, env

# The gateway's plans must not rot with the statistics of a table that churns: its statements are
# all point look-ups, so the planner is left no other choice.
GATEWAY_SETTINGS = {
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_bitmapscan": "off",
    "jit": "off",
    "plan_cache_mode": "force_generic_plan",
    "transaction_timeout": "15s",
}
APP_SETTINGS = {"idle_in_transaction_session_timeout": "60s"}


class Command(BaseCommand):
    help = __doc__
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--print", action="store_true", dest="print_only", help="print the SQL, run nothing"
        )

    def handle(self, *args: Any, print_only: bool, **options: Any) -> None:
        statements = role_statements(database_roles(), env())
        if print_only:
            for statement in statements:
                self.stdout.write(statement.as_string(None) + ";")
            return
        admin = env().database_url_admin
        if admin is None:
            raise CommandError(
                "DATABASE_URL_ADMIN is not set. Give the URL of a login with CREATEROLE and "
                "CREATE on the database, or run `manage.py roles --print` and hand the SQL to "
                "whoever runs the database."
            )
        with psycopg.connect(admin.get_secret_value(), autocommit=False) as connection:
            for statement in statements:
                connection.execute(statement)
        self.stdout.write("Database roles are in place.")


def role_statements(roles: DatabaseRoles, settings: Env) -> list[sql.Composed]:
    """The statements that bring every role to its wanted state; running them again is harmless."""
    owner_url = settings.database_url_owner
    if owner_url is None:
        raise CommandError("DATABASE_URL_OWNER is not set; it names the role that will migrate.")
    database = unquote(urlsplit(owner_url.get_secret_value()).path.lstrip("/"))
    statements = [_lock()]
    statements += [_create(name) for name in _all(roles)]
    logins = {
        roles.app: settings.database_url_app,
        roles.gateway: settings.database_url_gateway,
        roles.sealer: settings.database_url_sealer,
        roles.owner: owner_url,
    }
    for name, url in logins.items():
        if url is not None:
            password = unquote(urlsplit(url.get_secret_value()).password or "")
            statements.append(_login(name, password))
    statements += [_settings(roles.gateway, GATEWAY_SETTINGS), _settings(roles.app, APP_SETTINGS)]
    # INHERIT FALSE: a plain GRANT would lend the entered roles' policies to portal_app at once.
    statements += [_member(role, roles.app) for role in roles.entered]
    # To hand the trigger function to audit_writer, the owner must be able to become it.
    statements += [_member(roles.audit_writer, roles.owner), _member(roles.platform, roles.owner)]
    statements += _database(database, roles)
    return statements


def _all(roles: DatabaseRoles) -> list[str]:
    return [getattr(roles, name) for name in roles.__dataclass_fields__]


def _lock() -> sql.Composed:
    return sql.Composed([sql.SQL("SELECT pg_advisory_xact_lock(4919131752989213696)")])


def _create(name: str) -> sql.Composed:
    return sql.SQL(
        "DO $$ BEGIN CREATE ROLE {} NOLOGIN NOSUPERUSER NOBYPASSRLS NOCREATEROLE NOCREATEDB; "
        "EXCEPTION WHEN duplicate_object THEN NULL; END $$"
    ).format(sql.Identifier(name))


def _login(name: str, password: str) -> sql.Composed:
    return sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}").format(
        sql.Identifier(name), sql.Literal(password)
    )


def _settings(name: str, values: dict[str, str]) -> sql.Composed:
    return sql.SQL("; ").join(
        sql.SQL("ALTER ROLE {} SET {} = {}").format(
            sql.Identifier(name), sql.Identifier(key), sql.Literal(value)
        )
        for key, value in values.items()
    )


def _member(role: str, member: str) -> sql.Composed:
    return sql.SQL("GRANT {} TO {} WITH INHERIT FALSE, SET TRUE").format(
        sql.Identifier(role), sql.Identifier(member)
    )


def _database(database: str, roles: DatabaseRoles) -> list[sql.Composed]:
    name, owner = sql.Identifier(database), sql.Identifier(roles.owner)
    logins = sql.SQL(", ").join(map(sql.Identifier, roles.serving))
    return [
        sql.SQL("GRANT {} TO CURRENT_USER WITH INHERIT FALSE, SET TRUE").format(owner),
        sql.SQL("ALTER DATABASE {} OWNER TO {}").format(name, owner),
        sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(name),
        sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(name, logins),
        sql.SQL("CREATE EXTENSION IF NOT EXISTS vector").format(),
        sql.SQL("CREATE EXTENSION IF NOT EXISTS pg_trgm").format(),
    ]
