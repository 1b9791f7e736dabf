"""The broker's protocol from an event loop: answers in order, and no wait without an end."""

import asyncio
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from portal.core.resp import FAULTS, Refused, RespConnection, RespLink
from portal.core.supervisor.valkey import EmbeddedValkey


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedValkey]:
    with tempfile.TemporaryDirectory(prefix="fh-") as folder:
        valkey = EmbeddedValkey(Path(folder))
        valkey.start()
        yield valkey
        valkey.stop()


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
