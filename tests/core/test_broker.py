"""The doorbell against a real Valkey, from threads and from an event loop alike."""

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from portal.core.broker import AsyncDoorbell, Doorbell, Ring, sync_client
from portal.core.resp import RespClient, RespLink
from portal.core.supervisor.valkey import EmbeddedValkey

QUEUE = "gpu:a100"


@pytest.fixture
def client(server: EmbeddedValkey) -> Iterator[redis.Redis]:
    with sync_client(server.url()) as connected:
        connected.flushall()
        yield connected


class Both:
    """Rings with either form of the doorbell, in the same words; the rest is the worker's."""

    def __init__(self, worker: Doorbell, ringer: AsyncDoorbell | None) -> None:
        self._worker = worker
        self._ringer = ringer

    async def __call__(self, verb: str, *args: Any) -> Any:
        if verb == "ring" and self._ringer is not None:
            return await self._ringer.ring(*args)
        return getattr(self._worker, verb)(*args)


@pytest.fixture(params=["threads", "loop"])
async def bell(request: pytest.FixtureRequest, server: EmbeddedValkey, client: redis.Redis) -> Any:
    link = RespLink(server.url())
    with RespClient(server.url()) as worker:
        yield Both(Doorbell(worker), AsyncDoorbell(link) if request.param == "loop" else None)
    link.close()


Call = Callable[..., Awaitable[Any]]


async def test_ring_cold_queue_wakes_once(bell: Call, client: redis.Redis) -> None:
    assert [await bell("ring", QUEUE) for _ in range(3)] == [Ring.WAKE, Ring.ASLEEP, Ring.ASLEEP]
    assert await bell("ring", "other") == Ring.WAKE
    assert 0 < client.pttl(f"wake:{QUEUE}") <= 5000
    assert not client.exists(f"bell:{QUEUE}")


async def test_ring_hot_queue_reaches_the_waiting_worker(bell: Call, client: redis.Redis) -> None:
    await bell("keep_hot", QUEUE)
    assert 0 < client.pttl(f"hot:{QUEUE}") <= 1500
    assert await bell("ring", QUEUE) == Ring.BELL
    assert await bell("wait", QUEUE, 1.0) is True
    assert await bell("wait", QUEUE, 0.01) is False
    assert not client.exists(f"wake:{QUEUE}")


async def test_ring_hot_queue_many_times_keeps_the_bell_bounded(
    bell: Call, client: redis.Redis
) -> None:
    await bell("keep_hot", QUEUE, 60_000)
    for _ in range(200):
        assert await bell("ring", QUEUE) == Ring.BELL
    assert client.llen(f"bell:{QUEUE}") == 64
    assert client.pttl(f"bell:{QUEUE}") > 0


async def test_go_cold_lets_the_next_ring_wake(bell: Call, client: redis.Redis) -> None:
    assert await bell("ring", QUEUE) == Ring.WAKE
    await bell("keep_hot", QUEUE)
    await bell("go_cold", QUEUE)
    assert client.keys(f"*:{QUEUE}") == []
    assert await bell("ring", QUEUE) == Ring.WAKE


async def test_ring_after_the_server_forgot_its_scripts_works(
    bell: Call, client: redis.Redis
) -> None:
    await bell("ring", QUEUE)
    client.script_flush()
    assert await bell("ring", QUEUE) == Ring.ASLEEP


async def test_ring_after_the_server_dropped_the_connection_works(
    bell: Call, client: redis.Redis
) -> None:
    await bell("keep_hot", QUEUE, 60_000)
    client.client_kill_filter(_type="normal", skipme=False)
    assert await bell("ring", QUEUE) == Ring.BELL


def test_ring_whose_answer_was_lost_answers_wake_again(
    server: EmbeddedValkey, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost: list[bytes] = []
    read = RespClient._reply

    def lose_first_wake(self: RespClient, connected: socket.socket) -> Any:
        answer = read(self, connected)
        if answer == b"wake" and not lost:
            lost.append(answer)
            raise ConnectionResetError("lost")
        return answer

    monkeypatch.setattr(RespClient, "_reply", lose_first_wake)
    with RespClient(server.url()) as other:
        assert Doorbell(other).ring(QUEUE) == Ring.WAKE
        assert lost
        assert Doorbell(other).ring(QUEUE) == Ring.ASLEEP


def test_ring_from_many_threads_wakes_exactly_once(
    server: EmbeddedValkey, client: redis.Redis
) -> None:
    start = threading.Barrier(8)
    rung: list[Ring] = []
    shared = RespClient(server.url())
    bell = Doorbell(shared)

    def ring() -> None:
        start.wait()
        rung.extend(bell.ring(QUEUE) for _ in range(20))

    threads = [threading.Thread(target=ring) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    shared.close()
    assert (rung.count(Ring.WAKE), rung.count(Ring.ASLEEP)) == (1, 159)


async def test_wait_for_bell_returns_when_rung_from_elsewhere(
    server: EmbeddedValkey, client: redis.Redis
) -> None:
    link = RespLink(server.url())
    with RespClient(server.url()) as worker:
        Doorbell(worker).keep_hot(QUEUE, 60_000)
        waiting = asyncio.create_task(asyncio.to_thread(Doorbell(worker).wait, QUEUE, 4.0))
        assert await AsyncDoorbell(link).ring(QUEUE) == Ring.BELL
        assert await waiting is True
    link.close()


def test_connect_to_a_server_that_is_gone_fails_in_bounded_time(tmp_path: Path) -> None:
    with sync_client(f"unix://{tmp_path}/none.sock", timeout_s=0.2) as gone:
        with pytest.raises(redis.ConnectionError):
            gone.ping()


def test_connect_by_tcp_keeps_the_connection_alive() -> None:
    with sync_client("redis://127.0.0.1:1/2") as client:
        options = client.connection_pool.connection_kwargs
        assert (options["socket_keepalive"], options["db"]) == (True, 2)
        assert options["socket_timeout"] == options["socket_connect_timeout"] == 5.0


@pytest.mark.parametrize("connect", [sync_client, RespLink, RespClient])
def test_connect_with_an_unknown_scheme_is_refused_without_the_url(
    connect: Callable[[str], object],
) -> None:
    with pytest.raises(ValueError, match="must begin with") as raised:
        connect("http://u:password@host")
    assert "password" not in str(raised.value)
