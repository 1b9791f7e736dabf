"""Statements that travel together and are answered together, over libpq's pipeline mode.

A cursor's ``execute`` flushes and polls the connection for every statement, which costs more than
the statement itself. Here a transaction is two writes and two reads, however many statements it
has. Every statement is prepared, once a connection.

What is sent up to ``finish`` is one transaction, which commits there: PostgreSQL runs all that
comes before a Sync message in one, without BEGIN and COMMIT (its manual, "Pipelining" in the
chapter on the protocol).
"""

import asyncio
import re
import select
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Final

import psycopg
from psycopg import pq
from psycopg.adapt import Transformer
from psycopg.errors import error_from_result

Row = tuple[Any, ...]
Parameters = Sequence[Any] | Mapping[str, Any]

_PLACEHOLDER: Final = re.compile(r"%(?:\((\w+)\))?s")
_BINARY: Final = 1
_FAILED: Final = (pq.ExecStatus.FATAL_ERROR, pq.ExecStatus.PIPELINE_ABORTED)


class Reply:
    """One statement's rows; there once the pipe has been read that far."""

    __slots__ = ("_rows",)

    def __init__(self) -> None:
        self._rows: list[Row] | None = None

    def fetchall(self) -> list[Row]:
        """The rows.

        Raises:
            RuntimeError: they have not been waited for.
        """
        if self._rows is None:
            raise RuntimeError("the statement has not been answered yet")
        return self._rows


class _Pipe:
    """What both kinds of pipe share: no input or output waits here."""

    def __init__(self, connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
        self._pgconn = connection.pgconn
        self._loader = Transformer(connection)
        self._prepared: dict[str, bytes] = {}
        # What will be answered, in order; None where the answer holds nothing.
        self._awaited: list[Reply | None] = []
        self._taken = 0

    def execute(self, query: str, parameters: Parameters = (), *, prepare: bool = True) -> Reply:
        """Adds a statement to what is sent next.

        Args:
            query: with psycopg's placeholders, all positional or all named.
            parameters: text, numbers, ids, and lists of ids or words without punctuation.
            prepare: it always is; the argument makes pipe and connection alike.
        """
        if self._pgconn.pipeline_status == pq.PipelineStatus.OFF:
            self._pgconn.enter_pipeline_mode()
        sql, names = numbered(query)
        name = self._prepared.get(query)
        if name is None:
            name = b"pipe_%d" % len(self._prepared)
            self._prepared[query] = name
            self._pgconn.send_prepare(name, sql)
            self._awaited.append(None)
        values = [parameters[n] for n in names] if isinstance(parameters, Mapping) else parameters
        texts = [_text(value) for value in values]
        self._pgconn.send_query_prepared(name, texts, result_format=_BINARY)
        reply = Reply()
        self._awaited.append(reply)
        return reply

    def _ask(self, *, last: bool) -> None:
        if last:
            self._pgconn.pipeline_sync()
            self._awaited.append(None)
        else:
            self._pgconn.send_flush_request()

    def _take(self) -> bool:
        """Takes the answers that have arrived; whether all are there."""
        pgconn, ended = self._pgconn, False
        pgconn.consume_input()
        while self._taken < len(self._awaited):
            if pgconn.is_busy():
                return False
            result = pgconn.get_result()
            if result is not None:
                ended = False
                self._note(result)
            elif ended:
                # One None ends a statement's results; two, and nothing more will come.
                raise psycopg.OperationalError("the connection to the database was lost")
            else:
                ended = True
        self._awaited, self._taken = [], 0
        return True

    def _note(self, result: pq.abc.PGresult) -> None:
        if result.status in _FAILED:
            if self._pgconn.status == pq.ConnStatus.BAD:
                raise psycopg.OperationalError(result.get_error_message())
            raise error_from_result(result)
        reply = self._awaited[self._taken]
        if reply is not None:
            reply._rows = self._load(result)
        self._taken += 1

    def _load(self, result: pq.abc.PGresult) -> list[Row]:
        if not result.ntuples:
            return []
        self._loader.set_pgresult(result)
        return self._loader.load_rows(0, result.ntuples, tuple)

    def _leave(self) -> None:
        # What follows the last statement's answer is its end, which is read here.
        self._pgconn.exit_pipeline_mode()


class AsyncPipe(_Pipe):
    """A pipe for an event loop. After an error its connection must be discarded."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        super().__init__(connection)
        # A lost connection no longer tells which socket it had.
        self._watched: tuple[asyncio.AbstractEventLoop, int] | None = None
        self._ready: asyncio.Future[None] | None = None

    async def receive(self) -> None:
        """Sends what was added and waits for the answers; the pipeline stays open.

        Raises:
            psycopg.Error: a statement was refused, or the connection failed.
        """
        await self._exchange(last=False)

    async def finish(self) -> None:
        """As ``receive``, and ends the pipeline."""
        await self._exchange(last=True)
        self._leave()

    async def _exchange(self, *, last: bool) -> None:
        try:
            self._ask(last=last)
            loop, descriptor = self._watch()
            unsent = self._pgconn.flush()
            if unsent:
                loop.add_writer(descriptor, self._wake)
            while True:
                self._ready = loop.create_future()
                await self._ready
                self._ready = None
                if unsent and not (unsent := self._pgconn.flush()):
                    loop.remove_writer(descriptor)
                if self._take():
                    return
        except BaseException:
            self.unwatch()
            raise

    def _watch(self) -> tuple[asyncio.AbstractEventLoop, int]:
        """Watches the socket from the first exchange on: to begin and to end costs two calls."""
        if self._watched is None:
            self._watched = asyncio.get_running_loop(), self._pgconn.socket
            loop, descriptor = self._watched
            loop.add_reader(descriptor, self._wake)
        return self._watched

    def unwatch(self) -> None:
        """Forgets the socket: to be called before the connection is closed."""
        watched, self._watched = self._watched, None
        if watched is not None:
            loop, descriptor = watched
            loop.remove_reader(descriptor)
            loop.remove_writer(descriptor)

    def _wake(self) -> None:
        if self._ready is None:
            # Nothing was asked: the server has gone, which the next exchange will find.
            self.unwatch()
        elif not self._ready.done():
            self._ready.set_result(None)


class Pipe(_Pipe):
    """A pipe for a thread. After an error its connection must be discarded."""

    def finish(self) -> None:
        """Sends what was added, waits for the answers and ends the pipeline.

        Raises:
            psycopg.Error: a statement was refused, or the connection failed.
        """
        self._ask(last=True)
        poll, unsent = select.poll(), self._pgconn.flush()
        while True:
            poll.register(self._pgconn.socket, select.POLLIN | (select.POLLOUT if unsent else 0))
            poll.poll()
            if unsent:
                unsent = self._pgconn.flush()
            if self._take():
                self._leave()
                return


Connection = psycopg.Connection[Any] | Pipe
"""What statements can be handed to, and what then holds the rows."""

Answer = psycopg.Cursor[Any] | Reply


@cache
def numbered(query: str) -> tuple[bytes, tuple[str, ...]]:
    """The query with ``$1``, ``$2``, ... for its placeholders, and the names of those that have."""
    names: list[str] = []
    count = 0

    def number(found: re.Match[str]) -> str:
        nonlocal count
        name = found[1]
        if name is None:
            count += 1
            return f"${count}"
        if name not in names:
            names.append(name)
        return f"${names.index(name) + 1}"

    return _PLACEHOLDER.sub(number, query).encode(), tuple(names)


def _text(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, list | tuple):
        return ("{" + ",".join(map(str, value)) + "}").encode()
    return str(value).encode()
