"""PostgreSQL as a source, by psycopg."""

import os
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import psycopg
from psycopg import errors

from knowledge.sources import database
from knowledge.sources.database import CONNECT_SECONDS, FETCH, STATEMENT_SECONDS, Reach
from knowledge.sources.reading import SourceFault
from knowledge.sources.settings import DatabaseSettings
from knowledge.sources.sql import SqlReader
from portal.core.env import env

# A transaction that only reads is not enough: a function might set another one's settings.
_SETTINGS: Final = (
    f"SET statement_timeout = '{STATEMENT_SECONDS}s'",
    "SET timezone = 'UTC'",
    "SET default_transaction_read_only = on",
)


@contextmanager
def open_postgresql(settings: DatabaseSettings, password: str, reach: Reach) -> Iterator[SqlReader]:
    """A reader of a database.

    Raises:
        SourceFault: it can't be reached, or does not let us in.
    """
    addresses = database.addresses_of(settings.host, settings.port, tls=settings.tls)
    try:
        connection = psycopg.connect(
            "",
            host=",".join(settings.host for _ in addresses),
            hostaddr=",".join(addresses),
            port=settings.port,
            dbname=settings.database,
            user=settings.user,
            password=password,
            connect_timeout=CONNECT_SECONDS,
            application_name="freehold",
            passfile=os.devnull,
            gssencmode="disable",
            keepalives_idle=30,
            tcp_user_timeout=STATEMENT_SECONDS * 1000,
            **_tls(settings),
        )
    except psycopg.OperationalError as fault:
        raise _unconnected(fault) from None
    with connection:
        connection.read_only = True
        yield SqlReader(_PostgreSQL(connection), settings, reach)


def _tls(settings: DatabaseSettings) -> dict[str, Any]:
    if not settings.tls:
        return {"sslmode": "disable"}
    known = env().source_ca_file or ssl.get_default_verify_paths().cafile or "system"
    return {"sslmode": "verify-full", "sslrootcert": str(known), "sslcert": "", "sslkey": ""}


def _unconnected(fault: psycopg.OperationalError) -> SourceFault:
    """libpq gives no codes here."""
    words = str(fault)
    if "authentication" in words or "no pg_hba.conf entry" in words or "role" in words:
        return database.refused()
    if "database" in words and "does not exist" in words:
        return database.no_database()
    if "SSL" in words or "certificate" in words:
        return database.no_tls()
    return database.unreachable()


class _PostgreSQL:
    def __init__(self, connection: psycopg.Connection[tuple[Any, ...]]) -> None:
        self._connection = connection

    def quote(self, column: str) -> str:
        return '"{}"'.format(column.replace('"', '""').replace("%", "%%"))

    def size(self, column: str) -> str:
        return f"octet_length({column}::text)"

    def columns(self, statement: str) -> list[str]:
        with _faults(), self._connection.transaction(), self._connection.cursor() as cursor:
            self._prepare(cursor)
            cursor.execute(statement.encode(), ())
            return [column.name for column in cursor.description or ()]

    @contextmanager
    def rows(self, statement: str, values: Sequence[Any]) -> Iterator[Iterator[tuple[Any, ...]]]:
        with self._connection.transaction():
            with _faults(), self._connection.cursor() as settings:
                self._prepare(settings)
            with self._connection.cursor(name="freehold") as cursor:
                cursor.itersize = FETCH
                with _faults():
                    cursor.execute(statement.encode(), values)
                yield _told(cursor)

    @staticmethod
    def _prepare(cursor: psycopg.Cursor[Any]) -> None:
        for statement in _SETTINGS:
            cursor.execute(statement.encode())


def _told(cursor: Iterator[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    with _faults():
        yield from cursor


@contextmanager
def _faults() -> Iterator[None]:
    """What goes wrong with a statement, as the source's fault."""
    try:
        yield
    except errors.QueryCanceled:
        raise database.too_slow() from None
    except (errors.SyntaxError, errors.InsufficientPrivilege, psycopg.DataError) as fault:
        raise database.bad_query(str(fault)) from None
    except psycopg.OperationalError:
        raise database.broken_off() from None
    except psycopg.Error as fault:
        raise database.bad_query(str(fault)) from None
