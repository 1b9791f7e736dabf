"""A gateway's connections to PostgreSQL: few, dedicated, replaced when they fail."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import psycopg

from inference.pipelining import AsyncPipe

T = TypeVar("T")

# Plans are made once and kept; the pool of statements is small and fixed.
_PREPARED_MAX = 64


class Link:
    """One connection, one user at a time; after any error it is discarded.

    Autocommit: each caller begins and commits what it means to. A link is for ``pipe`` or for
    ``use``: a pipe goes on watching its socket, which psycopg's own waits would undo.

    Attributes:
        opened: connections made so far.
    """

    def __init__(self, url: str, name: str) -> None:
        self._url = url
        self._name = name
        self._connection: psycopg.AsyncConnection[Any] | None = None
        self._pipe: AsyncPipe | None = None
        self._lock = asyncio.Lock()
        self.opened = 0

    async def use(self, work: Callable[[psycopg.AsyncConnection[Any]], Awaitable[T]]) -> T:
        """Runs ``work`` on the connection.

        Raises:
            psycopg.Error: whatever ``work`` or connecting raised; the next use connects anew.
        """
        async with self._lock:
            connection = await self._open()
            try:
                return await work(connection)
            except BaseException:
                # Cancelled or failed midway, its state is unknown: never reuse it.
                await self.close()
                raise

    async def read(self, work: Callable[[psycopg.AsyncConnection[Any]], Awaitable[T]]) -> T:
        """``use`` for what changes nothing: once more if the connection was found dead."""
        try:
            return await self.use(work)
        except psycopg.OperationalError:
            return await self.use(work)

    async def pipe(self, work: Callable[[AsyncPipe], Awaitable[T]]) -> T:
        """Runs ``work`` on the connection's pipe, as ``use`` does on the connection."""

        async def through(connection: psycopg.AsyncConnection[Any]) -> T:
            if self._pipe is None:
                self._pipe = AsyncPipe(connection)
            return await work(self._pipe)

        return await self.use(through)

    async def _open(self) -> psycopg.AsyncConnection[Any]:
        if self._connection is None or self._connection.closed:
            await self.close()
            connection = await psycopg.AsyncConnection.connect(
                self._url, autocommit=True, application_name=self._name, connect_timeout=5
            )
            connection.prepared_max = _PREPARED_MAX
            self.opened += 1
            self._connection, self._pipe = connection, None
        return self._connection

    async def close(self) -> None:
        """Ends the connection; the next use makes another."""
        connection, self._connection = self._connection, None
        if self._pipe is not None:
            self._pipe.unwatch()
        if connection is not None:
            await connection.close()
