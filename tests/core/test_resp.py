"""The broker's protocol from an event loop: answers in order, and no wait without an end."""

import asyncio
import socket
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from portal.core.resp import FAULTS, Address, Refused, RespClient, RespConnection, RespLink
from portal.core.supervisor.valkey import EmbeddedValkey


@pytest.fixture
async def connection(server: EmbeddedValkey) -> AsyncIterator[RespConnection]:
    opened = await RespConnection.open(server.url())
    yield opened
    opened.close()


async def test_send_many_at_once_answers_each_in_order(connection: RespConnection) -> None:
    replies = [connection.send("ECHO", f"{n}" * 5000) for n in range(50)]
    assert await asyncio.gather(*replies) == [f"{n}".encode() * 5000 for n in range(50)]


async def test_call_refused_command_raises_and_goes_on(connection: RespConnection) -> None:
    with pytest.raises(Refused, match="unknown command"):
        await connection.call("NONSENSE", timeout_s=5)
    assert await connection.call("PING", timeout_s=5) == b"PONG"


async def test_call_whose_caller_gave_up_does_not_shift_the_answers(
    connection: RespConnection,
) -> None:
    first = connection.send("ECHO", "first")
    first.cancel()
    assert await connection.call("ECHO", "second", timeout_s=5) == b"second"


async def test_call_silent_server_fails_in_time_and_closes(connection: RespConnection) -> None:
    behind = connection.send("BLPOP", "nothing", 30)
    with pytest.raises(TimeoutError):
        await connection.call("PING", timeout_s=0.05)
    assert connection.closed
    with pytest.raises(ConnectionError):
        await behind
    with pytest.raises(ConnectionError):
        connection.send("PING")


async def test_link_opens_anew_after_its_connection_was_cut(server: EmbeddedValkey) -> None:
    link = RespLink(server.url())
    other = await RespConnection.open(server.url())
    try:
        number = await link.call("CLIENT", "ID")
        assert await other.call("CLIENT", "KILL", "ID", number, timeout_s=5) == 1
        assert await link.call("CLIENT", "ID") > number
    finally:
        link.close()
        other.close()


async def test_link_without_a_server_fails_as_it_says(tmp_path: Path) -> None:
    link = RespLink(f"unix://{tmp_path}/none.sock")
    with pytest.raises(FAULTS):
        await link.call("PING")


async def test_connection_to_something_else_closes() -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        connection = await RespConnection.open(f"redis://127.0.0.1:{stranger.getsockname()[1]}")
        peer, _ = stranger.accept()
        with peer:
            peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            with pytest.raises(FAULTS):
                await connection.call("PING", timeout_s=5)
        assert connection.closed


async def test_open_by_tcp_keeps_the_connection_alive() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        connection = await RespConnection.open(f"redis://127.0.0.1:{server.getsockname()[1]}")
        assert connection._transport is not None
        peer = connection._transport.get_extra_info("socket")
        assert peer.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        connection.close()


def test_client_sends_many_together_and_answers_each(server: EmbeddedValkey) -> None:
    with RespClient(server.url()) as client:
        words = [f"{n}" * 5000 for n in range(50)]
        assert client.call_all([("ECHO", word) for word in words]) == [w.encode() for w in words]


def test_client_refused_command_raises_and_the_others_are_done(server: EmbeddedValkey) -> None:
    with RespClient(server.url()) as client:
        with pytest.raises(Refused, match="unknown command"):
            client.call_all([("SET", "a", 1), ("NONSENSE",), ("SET", "b", 2)])
        assert client.call("MGET", "a", "b") == [b"1", b"2"]


def test_client_connects_anew_after_its_connection_was_cut(server: EmbeddedValkey) -> None:
    with RespClient(server.url()) as client, RespClient(server.url()) as other:
        number = client.call("CLIENT", "ID")
        other.call("CLIENT", "KILL", "ID", number)
        assert client.call("CLIENT", "ID") > number


def test_client_silent_server_fails_in_time_and_is_not_misread_later(
    server: EmbeddedValkey,
) -> None:
    with RespClient(server.url(), timeout_s=0.05) as client:
        with pytest.raises(TimeoutError):
            client.call("BLPOP", "nothing", 0.3)
        assert client.call("ECHO", "mine") == b"mine"


def test_client_waits_for_a_server_that_restarts(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="fh-") as folder:
        valkey = EmbeddedValkey(Path(folder))
        with RespClient(valkey.url()) as client:
            with pytest.raises(FAULTS):
                client.call("PING")
            valkey.start()
            assert client.call("PING") == b"PONG"
            valkey.stop()
            valkey.start()
            assert client.call("PING") == b"PONG"
            valkey.stop()


def test_address_tells_where_and_how_to_log_in_but_shows_no_password() -> None:
    at = Address.of("rediss://u:p%40ss@broker.example:7000/3")
    assert (at.path, at.host, at.port, at.tls) == ("", "broker.example", 7000, True)
    assert at.login == (("AUTH", "u", "p@ss"), ("SELECT", "3"))
    assert "p@ss" not in repr(at)
    socketed = Address.of("unix://:secret@/run/valkey.sock?db=2")
    assert (socketed.path, socketed.tls) == ("/run/valkey.sock", False)
    assert socketed.login == (("AUTH", "default", "secret"), ("SELECT", "2"))
