"""MongoDB as a source, by pymongo.

One server is read, the one that is named; none that it tells of is called. With TLS it is called by
its name, and what does not hold the name's certificate is told nothing; without, at the address
that was checked. The user is known to the database ``admin``, as is the custom.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from knowledge.sources import database
from knowledge.sources.database import (
    CONNECT_SECONDS,
    FETCH,
    PAGE,
    STATEMENT_SECONDS,
    Mark,
    Reach,
    Row,
    paged,
)
from knowledge.sources.reading import Batch, Position, SourceFault
from knowledge.sources.settings import DatabaseSettings, mongo_query
from portal.core.env import env

if TYPE_CHECKING:
    from pymongo import MongoClient
    from pymongo.errors import PyMongoError

_REFUSED: Final = frozenset({13, 18})
_TOO_SLOW: Final = frozenset({50, 262})


@contextmanager
def open_mongodb(
    settings: DatabaseSettings, password: str, reach: Reach
) -> Iterator["MongoReader"]:
    """A reader of a collection.

    Raises:
        SourceFault: it can't be reached, or does not let us in.
    """
    # Only who has such a source loads it.
    from pymongo import MongoClient

    addresses = database.addresses_of(settings.host, settings.port, tls=settings.tls)
    options: dict[str, Any] = {"username": settings.user, "password": password}
    if settings.tls:
        options["tls"] = True
        if (known := env().source_ca_file) is not None:
            options["tlsCAFile"] = str(known)
    client: MongoClient[dict[str, Any]] = MongoClient(
        settings.host if settings.tls else addresses[0],
        settings.port,
        directConnection=True,
        authSource="admin",
        appname="freehold",
        serverSelectionTimeoutMS=CONNECT_SECONDS * 1000,
        connectTimeoutMS=CONNECT_SECONDS * 1000,
        socketTimeoutMS=STATEMENT_SECONDS * 1000,
        maxPoolSize=1,
        **options,
    )
    try:
        yield MongoReader(client, settings, reach)
    finally:
        client.close()


class MongoReader:
    """Gives the documents of a collection as entries."""

    def __init__(
        self, client: "MongoClient[dict[str, Any]]", settings: DatabaseSettings, reach: Reach
    ) -> None:
        self._client = client
        self._settings = settings
        self._reach = reach

    def batches(self, position: Position) -> Iterator[Batch]:
        """Documents from ``position`` on, that with its very value once more.

        Raises:
            SourceFault: the database, in words that say what to do.
        """
        yield from paged(self._page, self._settings, self._reach, position)

    @contextmanager
    def _page(self, mark: Mark) -> Iterator[Iterator[Row]]:
        settings = self._settings
        collection, chosen = mongo_query(settings.query)
        key = settings.key_column
        order = key if self._reach.full else settings.cursor_column
        parts = [chosen, *([] if mark.order is None else [_from(order, key, mark)])]
        with (
            _faults(),
            self._client[settings.database][collection].find(
                {"$and": [part for part in parts if part]} if any(parts) else {},
                dict.fromkeys(settings.columns, 1)
                | ({} if "_id" in settings.columns else {"_id": 0}),
                sort=[(name, 1) for name in dict.fromkeys((order, key))],
                limit=PAGE,
                batch_size=FETCH,
                max_time_ms=STATEMENT_SECONDS * 1000,
            ) as cursor,
        ):
            yield (self._row(found) for found in cursor)

    def _row(self, found: dict[str, Any]) -> Row:
        return {column: _plain(_value(found, column)) for column in self._settings.columns}


def _from(order: str, key: str, mark: Mark) -> dict[str, Any]:
    if order == key or mark.key is None:
        return {order: {"$gte": mark.order}}
    same = {order: mark.order, key: {"$gte": mark.key}}
    return {"$or": [{order: {"$gt": mark.order}}, same]}


def _value(found: Any, path: str) -> Any:
    """What stands under a dotted path; nothing where it ends early."""
    for name in path.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    return found


def _plain(value: Any) -> Any:
    """A value of BSON as Python has it."""
    from bson import Decimal128, Int64

    if isinstance(value, Int64):
        return int(value)
    return value.to_decimal() if isinstance(value, Decimal128) else value


@contextmanager
def _faults() -> Iterator[None]:
    """What goes wrong with a query, as the source's fault."""
    from pymongo.errors import PyMongoError

    try:
        yield
    except PyMongoError as fault:
        raise _fault(fault) from None


def _fault(fault: "PyMongoError") -> SourceFault:
    from pymongo import errors

    if isinstance(fault, errors.ServerSelectionTimeoutError):
        return database.no_tls() if "SSL" in str(fault) else database.unreachable()
    if isinstance(fault, errors.OperationFailure):
        if fault.code in _REFUSED:
            return database.refused()
        if fault.code in _TOO_SLOW:
            return database.too_slow()
        return database.bad_query(str((fault.details or {}).get("errmsg", fault)))
    if isinstance(fault, errors.NetworkTimeout):
        return database.too_slow()
    if isinstance(fault, errors.ConnectionFailure):
        return database.broken_off()
    return database.bad_query(str(fault))
