"""MySQL and MariaDB as sources, by PyMySQL."""

import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import cache
from typing import Any, Final

import pymysql
from pymysql.constants import CR, ER
from pymysql.cursors import Cursor, SSCursor

from knowledge.sources import database
from knowledge.sources.database import CONNECT_SECONDS, FETCH, STATEMENT_SECONDS, Reach
from knowledge.sources.reading import SourceFault
from knowledge.sources.settings import DatabaseSettings
from knowledge.sources.sql import SqlReader
from portal.core.env import env
from portal.core.outgoing import authorities

_LONGEST: Final = 600
"""How many seconds a statement may last: here that is as long as its rows are being read."""

_TOO_SLOW: Final = frozenset({ER.QUERY_INTERRUPTED, 1969, 3024})
_REFUSED: Final = frozenset({ER.ACCESS_DENIED_ERROR, 1698, ER.HOST_NOT_PRIVILEGED})
_NO_DATABASE: Final = frozenset({ER.BAD_DB_ERROR, ER.DBACCESS_DENIED_ERROR})
_LOST: Final = frozenset({CR.CR_SERVER_LOST, CR.CR_SERVER_GONE_ERROR, ER.SERVER_SHUTDOWN})


@contextmanager
def open_mysql(settings: DatabaseSettings, password: str, reach: Reach) -> Iterator[SqlReader]:
    """A reader of a database.

    Raises:
        SourceFault: it can't be reached, or does not let us in.
    """
    with closing(_connected(settings, password)) as connection:
        yield SqlReader(_MySQL(connection), settings, reach)


def _connected(settings: DatabaseSettings, password: str) -> "pymysql.Connection[Cursor]":
    connection = pymysql.Connection(
        host=settings.host,
        port=settings.port,
        user=settings.user,
        password=password,
        database=settings.database,
        charset="utf8mb4",
        ssl=_tls() if settings.tls else None,
        ssl_disabled=not settings.tls,
        read_timeout=STATEMENT_SECONDS,
        write_timeout=STATEMENT_SECONDS,
        # A server may ask its clients for their files.
        local_infile=False,
        defer_connect=True,
    )
    try:
        # To the very address that was checked; the certificate must be the name's.
        connection.connect(_socket(settings))
        with connection.cursor() as cursor:
            cursor.execute("SET SESSION time_zone = '+00:00'")
            if "MariaDB" in str(connection.get_server_info()):  # type: ignore[no-untyped-call]
                cursor.execute(f"SET SESSION max_statement_time = {_LONGEST}")
            else:
                cursor.execute(f"SET SESSION max_execution_time = {_LONGEST * 1000}")
    except pymysql.MySQLError as fault:
        raise _unconnected(fault) from None
    except ssl.SSLError:
        raise database.no_tls() from None
    except OSError:
        raise database.unreachable() from None
    return connection


def _socket(settings: DatabaseSettings) -> socket.socket:
    last: OSError = OSError()
    for address in database.addresses_of(settings.host, settings.port, tls=settings.tls):
        try:
            return socket.create_connection((address, settings.port), timeout=CONNECT_SECONDS)
        except OSError as fault:
            last = fault
    raise last


@cache
def _tls() -> ssl.SSLContext:
    return authorities(env().source_ca_file)


def _unconnected(fault: pymysql.MySQLError) -> SourceFault:
    code = fault.args[0] if fault.args else 0
    if code in _REFUSED:
        return database.refused()
    if code in _NO_DATABASE:
        return database.no_database()
    if code == CR.CR_SSL_CONNECTION_ERROR or "SSL" in str(fault):
        return database.no_tls()
    return database.unreachable()


class _MySQL:
    def __init__(self, connection: "pymysql.Connection[Cursor]") -> None:
        self._connection = connection

    def quote(self, column: str) -> str:
        return "`{}`".format(column.replace("`", "``").replace("%", "%%"))

    def size(self, column: str) -> str:
        return f"length({column})"

    def columns(self, statement: str) -> list[str]:
        with _faults(), self._connection.cursor() as cursor:
            self._begin(cursor)
            cursor.execute(statement, ())
            return [column[0] for column in cursor.description or ()]

    @contextmanager
    def rows(self, statement: str, values: Sequence[Any]) -> Iterator[Iterator[tuple[Any, ...]]]:
        with _faults(), self._connection.cursor() as settings:
            self._begin(settings)
        cursor = self._connection.cursor(SSCursor)
        with _faults():
            cursor.execute(statement, tuple(values))
        yield _told(cursor)
        with _faults():
            cursor.close()

    @staticmethod
    def _begin(cursor: Cursor) -> None:
        cursor.execute("ROLLBACK")
        cursor.execute("START TRANSACTION READ ONLY")


def _told(cursor: SSCursor) -> Iterator[tuple[Any, ...]]:
    while True:
        with _faults():
            rows = cursor.fetchmany(FETCH)
        if not rows:
            return
        yield from rows


@contextmanager
def _faults() -> Iterator[None]:
    """What goes wrong with a statement, as the source's fault."""
    try:
        yield
    except pymysql.MySQLError as fault:
        code = fault.args[0] if fault.args else 0
        if code in _TOO_SLOW or "timed out" in str(fault):
            raise database.too_slow() from None
        if code in _LOST:
            raise database.broken_off() from None
        raise database.bad_query(str(fault.args[-1])) from None
    except OSError:
        raise database.broken_off() from None
