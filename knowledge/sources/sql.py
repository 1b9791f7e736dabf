"""Reads what a SELECT gives, from PostgreSQL, MySQL and MariaDB.

The query is a part of ours, which names the columns that are mapped, bounds what they hold, and
orders by the column that a crash or the next run goes on from. It runs page by page in transactions
that may not write, and a page comes through a cursor on the server.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

from knowledge.extraction.checks import MOST_BYTES
from knowledge.sources.database import PAGE, Mark, Reach, Row, TooLarge, check_columns, paged
from knowledge.sources.reading import Batch, Position
from knowledge.sources.settings import DatabaseSettings


class Server(Protocol):
    """A database, by its driver; every method raises ``SourceFault`` alone."""

    def quote(self, column: str) -> str:
        """A column's name as it stands in a statement."""
        ...

    def size(self, column: str) -> str:
        """An expression for how many bytes a quoted column holds."""
        ...

    def columns(self, statement: str) -> list[str]:
        """The names of what a statement gives, which takes no parameters."""
        ...

    def rows(
        self, statement: str, values: Sequence[Any]
    ) -> AbstractContextManager[Iterator[tuple[Any, ...]]]:
        """What a statement gives, row by row, from a transaction that may not write."""
        ...


class SqlReader:
    """Gives the rows of a query as entries."""

    def __init__(self, server: Server, settings: DatabaseSettings, reach: Reach) -> None:
        self._server = server
        self._settings = settings
        self._reach = reach

    def batches(self, position: Position) -> Iterator[Batch]:
        """Rows from ``position`` on, that with its very value once more: others may share it.

        Raises:
            SourceFault: the database, in words that say what to do.
        """
        given = self._server.columns(f"SELECT * FROM {self._inner()} LIMIT 0")
        check_columns(self._settings, given)
        yield from paged(self._page, self._settings, self._reach, position)

    @contextmanager
    def _page(self, mark: Mark) -> Iterator[Iterator[Row]]:
        with self._server.rows(*self._statement(mark)) as found:
            yield map(self._row, found)

    def _inner(self) -> str:
        query = self._settings.query.strip().rstrip(";")
        # A comment at its end must not take ours with it.
        return f"({query}\n) AS freehold_rows".replace("%", "%%")

    def _statement(self, mark: Mark) -> tuple[str, list[Any]]:
        settings, quote = self._settings, self._server.quote
        shown = ", ".join(self._bounded(column) for column in settings.columns)
        key = quote(settings.key_column)
        order = key if self._reach.full else quote(settings.cursor_column)
        where, values = "", []
        if mark.order is not None:
            where, values = f" WHERE {order} >= %s", [mark.order]
            if order != key and mark.key is not None:
                where = f" WHERE {order} > %s OR ({order} = %s AND {key} >= %s)"
                values = [mark.order, mark.order, mark.key]
        by = order if order == key else f"{order}, {key}"
        statement = f"SELECT {shown} FROM {self._inner()}{where} ORDER BY {by} LIMIT {PAGE}"
        return statement, values

    def _bounded(self, column: str) -> str:
        """Two columns: the value unless it is too large, and whether it is."""
        name = self._server.quote(column)
        size = self._server.size(name)
        return (
            f"CASE WHEN {size} <= {MOST_BYTES} THEN {name} END, coalesce({size} > {MOST_BYTES}, "
            "false)"
        )

    def _row(self, values: tuple[Any, ...]) -> Row:
        pairs = zip(values[::2], values[1::2], strict=True)
        read = [TooLarge() if too_large else value for value, too_large in pairs]
        return dict(zip(self._settings.columns, read, strict=True))
