"""The pipe: what it carries, what it raises, and what it leaves behind."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from inference.gateway.link import Link
from inference.pipelining import AsyncPipe, Pipe, numbered
from portal.core.actors import NIL_TENANT
from tests.servers import SessionServers

Connection = psycopg.AsyncConnection[Any]


async def with_pipe(url: str, work: Callable[[AsyncPipe], Awaitable[Any]]) -> Any:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        return await work(AsyncPipe(connection))


@pytest.fixture
def discarded(servers: SessionServers) -> Iterator[psycopg.Connection]:
    """A connection that nobody uses after the test, whatever state the pipe left it in."""
    connection = psycopg.connect(servers.url("gateway"), autocommit=True)
    yield connection
    connection.close()


@pytest.fixture
def url(servers: SessionServers) -> str:
    return servers.url("gateway")


def test_finish_several_statements_answers_each_with_its_own_rows(
    discarded: psycopg.Connection,
) -> None:
    pipe, ids = Pipe(discarded), [uuid4(), uuid4()]
    begin = pipe.execute("BEGIN")
    found = pipe.execute("SELECT unnest(%s::uuid[])", [ids])
    typed = pipe.execute("SELECT %(a)s::integer, %(b)s::text, %(a)s::integer", {"a": 7, "b": "ä%"})
    none = pipe.execute("SELECT 1 WHERE false")
    pipe.execute("COMMIT")
    pipe.finish()

    assert begin.fetchall() == none.fetchall() == []
    assert found.fetchall() == [(ids[0],), (ids[1],)]
    assert typed.fetchall() == [(7, "ä%", 7)]


def test_finish_again_prepares_nothing_twice(discarded: psycopg.Connection) -> None:
    pipe = Pipe(discarded)
    for number in (1, 2):
        answer = pipe.execute("SELECT %s::integer", [number])
        pipe.finish()
        assert answer.fetchall() == [(number,)]

    prepared = discarded.execute("SELECT count(*) FROM pg_prepared_statements").fetchone()
    assert prepared == (1,)


def test_fetch_before_the_answer_has_come_raises(discarded: psycopg.Connection) -> None:
    answer = Pipe(discarded).execute("SELECT 1")

    with pytest.raises(RuntimeError):
        answer.fetchall()


def test_finish_a_refused_statement_raises_its_own_error(discarded: psycopg.Connection) -> None:
    pipe = Pipe(discarded)
    pipe.execute("BEGIN")
    pipe.execute("SELECT 1 / %s::integer", [0])
    pipe.execute("COMMIT")

    with pytest.raises(psycopg.errors.DivisionByZero):
        pipe.finish()


def test_finish_on_a_lost_connection_raises_operational_error(
    discarded: psycopg.Connection,
) -> None:
    pipe = Pipe(discarded)
    pipe.execute("SELECT 1")
    with socket.socket(fileno=discarded.pgconn.socket) as wire:
        wire.shutdown(socket.SHUT_RDWR)
        wire.detach()

    with pytest.raises(psycopg.OperationalError):
        pipe.finish()


async def test_receive_keeps_the_transaction_open_until_it_is_finished(url: str) -> None:
    async def work(pipe: AsyncPipe) -> tuple[int, int]:
        first = pipe.execute("SELECT pg_current_xact_id()::text::bigint")
        await pipe.receive()
        second = pipe.execute("SELECT pg_current_xact_id()::text::bigint")
        await pipe.finish()
        return first.fetchall()[0][0], second.fetchall()[0][0]

    first, second = await with_pipe(url, work)

    assert first == second


async def test_receive_on_a_connection_that_is_ended_leaves_no_socket_watched(
    url: str, servers: SessionServers
) -> None:
    connection = await psycopg.AsyncConnection.connect(url, autocommit=True)
    pipe, descriptor = AsyncPipe(connection), connection.pgconn.socket
    pipe.execute("BEGIN")
    await pipe.receive()
    with psycopg.connect(servers.url("superuser"), autocommit=True) as superuser:
        superuser.execute("SELECT pg_terminate_backend(%s)", [connection.info.backend_pid])
    pipe.execute("SELECT pg_sleep(60)")
    with pytest.raises(psycopg.OperationalError):
        async with asyncio.timeout(20):
            await pipe.finish()
    # Its number goes to the next connection, which would wait for ever.
    assert not asyncio.get_running_loop().remove_reader(descriptor)
    await connection.close()


async def test_link_whose_work_fails_in_a_transaction_leaves_no_socket_watched(url: str) -> None:
    link, descriptors = Link(url, "test"), []

    async def fail(pipe: AsyncPipe) -> None:
        pipe.execute("BEGIN")
        await pipe.receive()
        descriptors.append(pipe._pgconn.socket)
        raise ValueError("between two exchanges")

    async def work(pipe: AsyncPipe) -> list[tuple[Any, ...]]:
        answer = pipe.execute("SELECT 1")
        await pipe.finish()
        return answer.fetchall()

    with pytest.raises(ValueError, match="between"):
        await link.pipe(fail)
    assert not asyncio.get_running_loop().remove_reader(descriptors[0])
    assert await link.pipe(work) == [(1,)]
    await link.close()


async def test_link_whose_server_goes_between_two_uses_stops_watching_and_says_so_at_the_next(
    url: str, servers: SessionServers
) -> None:
    link, pipes, loop = Link(url, "test"), [], asyncio.get_running_loop()

    async def work(pipe: AsyncPipe) -> list[tuple[Any, ...]]:
        pipes.append(pipe)
        answer = pipe.execute("SELECT pg_backend_pid()")
        await pipe.finish()
        return answer.fetchall()

    [(backend,)] = await link.pipe(work)
    with psycopg.connect(servers.url("superuser"), autocommit=True) as superuser:
        superuser.execute("SELECT pg_terminate_backend(%s, 20000)", [backend])
    async with asyncio.timeout(20):
        while pipes[0]._watched is not None:
            await asyncio.sleep(0)
    assert not loop.remove_reader(pipes[0]._pgconn.socket)
    with pytest.raises(psycopg.OperationalError):
        async with asyncio.timeout(20):
            await link.pipe(work)
    assert await link.pipe(work) != [(backend,)]
    last = pipes[-1]._pgconn.socket
    await link.close()
    assert not loop.remove_reader(last)


async def test_finish_commits_all_that_was_sent_and_an_error_none_of_it(
    url: str, servers: SessionServers
) -> None:
    kept, undone = (f"test.{uuid4().hex}" for _ in range(2))
    tell = (
        "INSERT INTO audit_event (id, tenant_id, category, action, outcome, actor_type) "
        "VALUES (gen_random_uuid(), %s, 'call', %s, 'success', 'system')"
    )

    def seen() -> list[str]:
        with psycopg.connect(servers.url("superuser"), autocommit=True) as superuser:
            query = "SELECT action FROM audit_event WHERE action = ANY(%s)"
            return [row[0] for row in superuser.execute(query, [[kept, undone]])]

    async def work(pipe: AsyncPipe) -> None:
        pipe.execute(tell, [NIL_TENANT, kept])
        await pipe.receive()
        assert seen() == []
        pipe.execute("SELECT 1")
        await pipe.finish()
        assert seen() == [kept]
        pipe.execute(tell, [NIL_TENANT, undone])
        await pipe.receive()
        pipe.execute("SELECT 1/0")
        await pipe.finish()

    with pytest.raises(psycopg.errors.DivisionByZero):
        await with_pipe(url, work)
    assert seen() == [kept]


async def test_finish_more_than_the_socket_holds_arrives_whole(url: str) -> None:
    text = "x" * (8 << 20)

    async def work(pipe: AsyncPipe) -> list[tuple[Any, ...]]:
        lengths = [pipe.execute("SELECT length(%s::text), %s::text", [text, text]) for _ in "ab"]
        async with asyncio.timeout(60):
            await pipe.finish()
        return [answer.fetchall()[0] for answer in lengths]

    assert await with_pipe(url, work) == [(len(text), text)] * 2


@pytest.mark.parametrize(
    ("query", "sql", "names"),
    [
        ("SELECT 1", b"SELECT 1", ()),
        ("SELECT %s, %s", b"SELECT $1, $2", ()),
        ("SELECT %(b)s, %(a)s, %(b)s", b"SELECT $1, $2, $1", ("b", "a")),
    ],
)
def test_numbered_placeholders_are_counted_in_order(
    query: str, sql: bytes, names: tuple[str, ...]
) -> None:
    assert numbered(query) == (sql, names)
