"""What readers of databases share: addresses, rows, and values as text."""

import json
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from functools import cache
from hashlib import sha256
from importlib import import_module
from itertools import islice
from typing import Any, Final, NoReturn
from uuid import UUID

from knowledge.models.sources import MOST_ITEM_KEY_CHARS
from knowledge.sources.reading import BATCH, MOST_ENTRIES, Batch, Entry, Position, SourceFault
from knowledge.sources.settings import DatabaseSettings
from portal.core.env import env
from portal.core.errors import Invalid
from portal.core.outgoing import Targets, plain_addresses

CONNECT_SECONDS: Final = 5
STATEMENT_SECONDS: Final = 60
"""How long the database may take for its first rows, and for the next ones."""

PAGE: Final = 5000
"""Rows that are asked for at a time: no database is to keep a cursor for us all night."""

FETCH: Final = 10
"""Rows that are held at once; each may be as large as a document."""

_MOST_NAME_CHARS: Final = 200
_MOST_FACT_CHARS: Final = 512
_NO_KEY: Final = "(no key)"

Row = Mapping[str, Any]


class TooLarge:
    """Stands for the value of a row that is larger than a document."""


@dataclass(frozen=True, slots=True)
class Reach:
    """From where on a database is read.

    Attributes:
        full: everything is, in the order of the key column; else from ``since`` on, in the order
            of the column that grows.
        since: how far it was read before, as ``pack_key`` wrote it; None for never.
    """

    full: bool
    since: Any = None


def addresses_of(host: str, port: int, *, tls: bool) -> list[str]:
    """The addresses of a database that may be called.

    Public ones may only with TLS, as calls elsewhere may only by https.

    Raises:
        SourceFault: none may, or the name is unknown.
    """
    try:
        found = plain_addresses(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    except (OSError, UnicodeError):
        raise SourceFault("The database's host name can't be resolved: check it.") from None
    allowed = _targets().allowed(found, "https" if tls else "http")
    if not allowed:
        raise SourceFault(
            "The database's address is not one that the portal may call: the operator lists its "
            "network in SOURCE_NETWORKS, and public addresses need TLS."
        )
    return allowed


@cache
def _targets() -> Targets:
    return Targets.parse(env().source_networks)


def unreachable() -> SourceFault:
    """Nobody answers."""
    return SourceFault(
        "The database can't be reached: check host and port, that it runs, and that it lets the "
        "portal's machines in."
    )


def refused() -> SourceFault:
    """It does not let this user in."""
    return SourceFault("The database refuses the user or the password: check both.")


def no_database() -> SourceFault:
    """It has no such part, or not for this user."""
    return SourceFault("The server has no such database for this user: check its name.")


def no_tls() -> SourceFault:
    """There is no trust in who answers."""
    return SourceFault(
        "The database offers no TLS, or its certificate is not trusted or not its name's: the "
        "operator names its authority in SOURCE_CA_FILE, or TLS is switched off for this source."
    )


def too_slow() -> SourceFault:
    """It was waited for, and for long enough."""
    return SourceFault(
        f"The database takes longer than {STATEMENT_SECONDS} seconds: narrow the query, or give "
        "its key column an index."
    )


def broken_off() -> SourceFault:
    """It was there, and is not any more."""
    return SourceFault("The connection to the database broke off: it is tried again by schedule.")


def bad_query(words: str) -> SourceFault:
    """It says itself what is wrong with what it was asked."""
    first = " ".join(words.strip().splitlines()[:1])[:200]
    return SourceFault(f"The database refuses the query: {first}")


def check_columns(settings: DatabaseSettings, given: Sequence[str]) -> None:
    """Goes on if a query gives every column that is mapped.

    Raises:
        SourceFault: naming the one that it does not give.
    """
    for column in settings.columns:
        if column not in given:
            names = ", ".join(given)[:200]
            raise SourceFault(f"The query gives no column '{column}'; it gives: {names}.")


@dataclass(frozen=True, slots=True)
class Mark:
    """From where on a page of rows is asked for; the row there comes once more.

    Attributes:
        order: a value of the column that orders the rows; None: from the first one.
        key: the key of one of those that share it; None: all of them.
    """

    order: Any = None
    key: Any = None


def paged(
    page: Callable[[Mark], AbstractContextManager[Iterator[Row]]],
    settings: DatabaseSettings,
    reach: Reach,
    position: Position,
) -> Iterator[Batch]:
    """Entries of the rows of one page after the other, until one is not full.

    Raises:
        SourceFault: there are too many rows, or their keys don't tell them apart.
    """
    order = settings.key_column if reach.full else settings.cursor_column
    place = position or {
        "at": None if reach.full else reach.since,
        "key": None,
        "high": reach.since,
    }
    total = 0
    while True:
        begun, count = place, 0
        with page(_mark(place)) as rows:
            for some in chunked(rows):
                count += len(some)
                place = _behind(place, some, settings, order)
                yield Batch([entry_of(row, settings) for row in some], place)
        total += count
        if total > MOST_ENTRIES:
            raise SourceFault(
                f"The query gives more than {MOST_ENTRIES} rows: narrow it, or make several "
                "sources of it."
            )
        if count < PAGE:
            return
        if place == begun:
            raise SourceFault(
                f"Too many rows have the same '{settings.key_column}': name a key column whose "
                "values are unique."
            )


def chunked(rows: Iterator[Row]) -> Iterator[list[Row]]:
    """Rows, a batch at a time."""
    while some := list(islice(rows, BATCH)):
        yield some


def _mark(place: Position) -> Mark:
    return Mark(*(None if p is None else unpack_key(p) for p in (place["at"], place["key"])))


def _behind(
    place: Position, rows: Sequence[Row], settings: DatabaseSettings, order: str
) -> Position:
    """How far one is behind some rows."""
    last, high = rows[-1], place["high"]
    for row in rows if settings.cursor_column else ():
        high = _higher(high, row, settings.cursor_column)
    if last[order] is None or last[settings.key_column] is None:
        return {**place, "high": high}
    at, key = pack_key(last[order]), pack_key(last[settings.key_column])
    return {"at": at, "key": key, "high": high}


def _higher(high: Any, row: Row, column: str) -> Any:
    value = row[column]
    if value is None:
        return high
    if isinstance(value, bool | str | bytes | UUID | TooLarge):
        raise SourceFault(
            f"'{column}' can't be read on from: choose a column of numbers or times that grow."
        )
    packed = pack_key(value)
    return packed if high is None or value > unpack_key(high) else high


# -- rows --------------------------------------------------------------------------------------


def entry_of(row: Row, settings: DatabaseSettings) -> Entry:
    """The document that a row is."""
    key_value = row[settings.key_column]
    key = "" if key_value is None else as_text(key_value)
    if not key or isinstance(key_value, TooLarge) or len(key) > MOST_ITEM_KEY_CHARS:
        return Entry(key[:MOST_ITEM_KEY_CHARS] or _NO_KEY, "", _NO_KEY, _refuse_key)
    named = row[settings.name_column] if settings.name_column else key
    name = " ".join(as_text(named).split())[:_MOST_NAME_CHARS] or key[:_MOST_NAME_CHARS]
    if any(isinstance(row[column], TooLarge) for column in settings.columns):
        return Entry(key, "too large", name, _refuse_size)
    text = _text_of(row, settings.text_columns)
    facts = {c: _fact(row[c]) for c in settings.metadata_columns if row[c] is not None}
    if not text.strip():
        return Entry(key, "no text", name, _refuse_blank)
    said = json.dumps([name, text, facts], sort_keys=True)
    return Entry(key, sha256(said.encode()).hexdigest(), name, lambda: text, facts)


def _text_of(row: Row, columns: Sequence[str]) -> str:
    """One column as it stands; several each behind its name."""
    values = {column: as_text(row[column]) for column in columns}
    if len(values) == 1:
        return next(iter(values.values()))
    return "\n".join(f"{column}: {value}" for column, value in values.items() if value.strip())


def as_text(value: Any) -> str:
    """A value of any type as people read it; nothing for NULL."""
    match value:
        case None:
            return ""
        case str():
            text = value
        case bool():
            text = "true" if value else "false"
        case datetime():
            text = value.isoformat(sep=" ")
        case date():
            text = value.isoformat()
        case Decimal():
            text = f"{value:f}"
        case bytes() | bytearray() | memoryview():
            text = bytes(value).decode(errors="replace")
        case dict() | list():
            text = json.dumps(value, ensure_ascii=False, default=as_text)
        case _:
            text = str(value)
    # What PostgreSQL can't store is no text.
    return text.replace("\0", "").encode(errors="replace").decode()


def _fact(value: Any) -> str | int | float | bool:
    if isinstance(value, Decimal):
        value = int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, bool | int | float) and abs(value) < 1e15:
        return value
    return " ".join(as_text(value).split())[:_MOST_FACT_CHARS]


def _refuse_key() -> NoReturn:
    raise Invalid(
        f"The row's key is empty, or longer than {MOST_ITEM_KEY_CHARS} characters: choose another "
        "key column, or leave such rows out."
    )


def _refuse_blank() -> NoReturn:
    raise Invalid("The row has no text: leave such rows out, or name other columns.")


def _refuse_size() -> NoReturn:
    raise Invalid("The row is larger than 15 MB: leave such rows out, or cut them in the query.")


# -- how far it was read -----------------------------------------------------------------------

# By the names of types, so that MongoDB's are known here without being loaded.
_WRITE: Final[Mapping[str, str]] = {
    "int": "int",
    "float": "float",
    "str": "str",
    "Decimal": "decimal",
    "datetime": "datetime",
    "date": "date",
    "UUID": "uuid",
    "ObjectId": "objectid",
}
_READ: Final[Mapping[str, Any]] = {
    "int": int,
    "float": float,
    "str": str,
    "decimal": Decimal,
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
    "uuid": UUID,
    "objectid": lambda text: import_module("bson").ObjectId(text),
}


def pack_key(value: Any) -> list[str]:
    """A value of a column that is gone on from, as JSON.

    Raises:
        SourceFault: of a type that can't be.
    """
    kind = _WRITE.get(type(value).__name__)
    if kind is None:
        raise SourceFault(
            "A column of this type can't be read on from: choose a key of numbers, text or times."
        )
    return [kind, value.isoformat() if isinstance(value, date) else str(value)]


def unpack_key(packed: Sequence[str]) -> Any:
    """What ``pack_key`` wrote."""
    kind, text = packed
    return _READ[kind](text)
