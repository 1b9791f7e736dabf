"""What a source is told, checked: a structure for each kind."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from knowledge.models import SourceKind
from portal.core.env import env
from portal.core.errors import Invalid

MOST_PATH_CHARS: Final = 400
MOST_PATTERN_CHARS: Final = 400
MOST_QUERY_CHARS: Final = 10_000
MOST_HOST_CHARS: Final = 253
MOST_COLUMN_CHARS: Final = 120
MOST_COLUMNS: Final = 30
_HOST: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*|[0-9A-Fa-f:.]{2,45}")
_SELECT: Final = re.compile(r"\s*(select|with)\b", re.IGNORECASE)


class FolderSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A folder below the root that the operator gave to the tenant.

    Attributes:
        path: below the root; empty for the root itself.
        include: patterns of names or paths, by commas; empty for every file.
    """

    path: str = ""
    include: str = ""


class DatabaseSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A database, and what of it becomes documents.

    Attributes:
        tls: whether the connection is encrypted, with a certificate that is trusted.
        query: a SELECT; of MongoDB ``{"find": "collection", "filter": {...}}``.
        key_column: what tells a row from all others, for good.
        text_columns: what the document says; several stand each behind its name.
        name_column: the document's name; empty for the key.
        metadata_columns: what can be filtered by.
        cursor_column: a number or time that only grows; a run goes on from there. Empty: every
            run reads everything.
        full_hours: after so many hours everything is read all the same, which finds what was
            removed; 0 for never.
    """

    host: str
    port: int
    database: str
    user: str
    query: str
    key_column: str
    text_columns: tuple[str, ...]
    tls: bool = True
    name_column: str = ""
    metadata_columns: tuple[str, ...] = ()
    cursor_column: str = ""
    full_hours: int = 24

    @property
    def columns(self) -> list[str]:
        """Every column that is mapped, once."""
        named = (self.key_column, self.name_column, self.cursor_column)
        return list(
            dict.fromkeys(c for c in (*named, *self.text_columns, *self.metadata_columns) if c)
        )

    @property
    def login(self) -> tuple[Any, ...]:
        """Where the password is sent, and whose it is."""
        return (self.host, self.port, self.database, self.user, self.tls)


Settings = FolderSettings | DatabaseSettings
KINDS: Final[Mapping[str, type[Settings]]] = {
    SourceKind.FOLDER: FolderSettings,
    SourceKind.POSTGRESQL: DatabaseSettings,
    SourceKind.MYSQL: DatabaseSettings,
    SourceKind.MONGODB: DatabaseSettings,
}


def read_settings(kind: str, given: Mapping[str, Any]) -> Settings:
    """The settings of a source of this kind.

    Raises:
        Invalid: naming what is wrong.
    """
    if kind not in KINDS:
        raise Invalid(f"'kind' must be one of {', '.join(KINDS)}.", param="kind")
    try:
        settings: Settings = msgspec.convert(given, KINDS[kind])
    except msgspec.ValidationError as fault:
        raise Invalid(
            f"'settings' are not those of this kind: {fault}.", param="settings"
        ) from None
    if isinstance(settings, FolderSettings):
        return _folder(settings)
    _check_database(settings)
    if kind == SourceKind.MONGODB:
        mongo_query(settings.query)
    elif not _SELECT.match(settings.query):
        raise Invalid("'query' must begin with SELECT or WITH.", param="query")
    return settings


def _folder(settings: FolderSettings) -> FolderSettings:
    for name, most in (("path", MOST_PATH_CHARS), ("include", MOST_PATTERN_CHARS)):
        value = getattr(settings, name)
        if len(value) > most or not value.isprintable():
            raise Invalid(f"'{name}' may have {most} printable characters.", param=name)
    if ".." in settings.path.split("/"):
        raise Invalid("'path' must lead downwards: it may not hold '..'.", param="path")
    return msgspec.structs.replace(
        settings, path=settings.path.strip().strip("/"), include=settings.include.strip()
    )


def _check_database(settings: DatabaseSettings) -> None:
    if len(settings.host) > MOST_HOST_CHARS or not _HOST.fullmatch(settings.host):
        raise Invalid("'host' must be the name or the address of a machine.", param="host")
    if not 1024 <= settings.port <= 65535:
        raise Invalid("'port' must be from 1024 to 65535.", param="port")
    if not 0 <= settings.full_hours <= 8760:
        raise Invalid("'full_hours' must be from 0 to 8760.", param="full_hours")
    for name in ("database", "user"):
        value = getattr(settings, name)
        if not 1 <= len(value) <= MOST_COLUMN_CHARS or not value.isprintable():
            raise Invalid(
                f"'{name}' must have 1 to {MOST_COLUMN_CHARS} printable characters.", param=name
            )
    if len(settings.query) > MOST_QUERY_CHARS or "\0" in settings.query:
        raise Invalid(f"'query' may have {MOST_QUERY_CHARS} characters.", param="query")
    _check_columns(settings)


def _check_columns(settings: DatabaseSettings) -> None:
    if not settings.key_column:
        raise Invalid("Name the column that tells a row from all others.", param="key_column")
    if not settings.text_columns:
        raise Invalid("Name the columns whose text is searched.", param="text_columns")
    if len(settings.columns) > MOST_COLUMNS:
        raise Invalid(f"At most {MOST_COLUMNS} columns can be used.", param="text_columns")
    for column in settings.columns:
        if len(column) > MOST_COLUMN_CHARS or not column.isprintable():
            raise Invalid(
                f"A column's name may have {MOST_COLUMN_CHARS} printable characters.",
                param="text_columns",
            )


def mongo_query(text: str) -> tuple[str, dict[str, Any]]:
    """The collection and the filter of a query of MongoDB.

    Raises:
        Invalid: it is none, or it names an operator that runs code on the server.
    """
    try:
        query = json.loads(text)
    except ValueError:
        query = None
    known = isinstance(query, dict) and {"find"} <= query.keys() <= {"find", "filter"}
    if not known or not isinstance(query["find"], str) or not query["find"]:
        raise Invalid(
            """'query' must be JSON such as {"find": "tickets", "filter": {"open": true}}.""",
            param="query",
        )
    chosen = query.get("filter", {})
    if not isinstance(chosen, dict) or _runs_code(chosen):
        raise Invalid("'filter' must be an object, without $where and $function.", param="query")
    return query["find"], chosen


def _runs_code(value: Any) -> bool:
    if isinstance(value, dict):
        named = {"$where", "$function", "$accumulator"} & value.keys()
        return bool(named) or any(map(_runs_code, value.values()))
    return isinstance(value, list) and any(map(_runs_code, value))


def folder_root(slug: str) -> Path:
    """The root below which a tenant may name folders.

    Raises:
        Invalid: the operator gave it none.
    """
    root = env().source_roots.get(slug)
    if root is None:
        raise Invalid(
            "This tenant may watch no folder: the operator gives it one in SOURCE_FOLDERS.",
            param="path",
        )
    return root
