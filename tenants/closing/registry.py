"""What happens to each kind of a tenant's things when it is closed; apps say so when they start.

Every table of tenants' rows is named here once, as erased or as kept: a test compares this with
the database's catalogue. Higher floors register later, and what was registered later is erased
earlier, for it may refer to what lies below.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final
from uuid import UUID

from django.db import connection
from psycopg import sql

from tenants.models import TenantDataKey

BATCH_ROWS: Final = 5000
"""Rows that one step erases in one transaction."""

DATA_KEYS: Final = TenantDataKey._meta.db_table
"""Erased by the last step itself, with the certificate; nobody registers it."""


class NotYet(Exception):
    """Something outside can't be reached now: the deletion goes on later."""


@dataclass(frozen=True, slots=True)
class Eraser:
    """One kind of a tenant's things.

    Args:
        name: what the step and the certificate call it: the table, or a word for what is no table.
        erase: erases at most so many of a tenant's, inside the open transaction, and returns how
            many it found; 0 once nothing is left. It may be called again after a crash. Raises
            ``NotYet`` where it depends on something that can't be reached; what was registered
            before it waits too.
    """

    name: str
    erase: Callable[[UUID, int], int]


@dataclass(frozen=True, slots=True)
class ExportPart:
    """One file of an export: JSON lines, one a row.

    Args:
        name: of the file.
        query: SELECT of the rows, with ``%(tenant)s``; each becomes one JSON object.
        audit: whether it is read as the audit trail's reader.
    """

    name: str
    query: str
    audit: bool = False


_erasers: dict[str, Eraser] = {}
_kept: dict[str, str] = {}
_parts: dict[str, ExportPart] = {}
_quiesce: dict[str, Callable[[UUID], int]] = {}


def erase_rows(table: str) -> None:
    """Registers that a table's rows are erased; ``portal_platform`` must be allowed to DELETE."""
    _erasers[table] = Eraser(table, lambda tenant, most: _erase_batch(table, tenant, most))


def erase_with(name: str, erase: Callable[[UUID, int], int]) -> None:
    """Registers how something is erased that is no table's rows; see ``Eraser``."""
    _erasers[name] = Eraser(name, erase)


def keep_rows(table: str, *, why: str) -> None:
    """Registers that a table's rows are kept; the certificate says why."""
    _kept[table] = why


def export_part(name: str, query: str, *, audit: bool = False) -> None:
    """Registers a file of the export; see ``ExportPart``."""
    _parts[name] = ExportPart(name, query, audit)


def quiesce_with(name: str, quiesce: Callable[[UUID], int]) -> None:
    """Registers what stops work under way.

    Args:
        quiesce: is called again and again while the tenant is closing, outside any transaction of
            its own, until it returns 0: nothing of the tenant's runs, and nothing can begin.
    """
    _quiesce[name] = quiesce


def erasers() -> tuple[Eraser, ...]:
    """In the order in which a tenant's things are erased."""
    return tuple(reversed(_erasers.values()))


def kept() -> Mapping[str, str]:
    """Table -> why its rows are kept."""
    return MappingProxyType(_kept)


def export_parts() -> tuple[ExportPart, ...]:
    """The files of an export, in their order."""
    return tuple(_parts.values())


def live_work(tenant_id: UUID) -> int:
    """Asks all work under way of a tenant to end; how much is left."""
    return sum(quiesce(tenant_id) for quiesce in _quiesce.values())


def _erase_batch(table: str, tenant_id: UUID, most: int) -> int:
    # By place on the page, so that it needs no key and is bounded whatever the table is.
    statement = sql.SQL(
        "DELETE FROM {table} WHERE tenant_id = %s AND ctid = ANY(ARRAY("
        "SELECT ctid FROM {table} WHERE tenant_id = %s LIMIT %s))"
    ).format(table=sql.Identifier(table))
    with connection.cursor() as cursor:
        cursor.execute(statement, [tenant_id, tenant_id, most])
        return int(cursor.rowcount)
