"""The gateway's ears and its catalogue: one bad entry, broker or artefact stops nothing."""

import asyncio
from collections.abc import Callable
from typing import Any

import redis as redis_client

from inference.gateway.catalogue import Catalogue
from inference.gateway.link import Link
from inference.gateway.reader import ReturnReader
from inference.returns import FIELD, Return, Text, alive_key, encode_returns, stream_key
from portal.core.ids import uuid7
from tests import live
from tests.factories import unique
from tests.inference.bench import Bench
from tests.servers import SessionServers


def text(offset: int) -> Text:
    return Text(b"j" * 16, 1, offset, 1, f"{offset} ")


def _clients(redis: "redis_client.Redis") -> set[str]:
    """Ids of the connections that read a stream now."""
    connections: Any = redis.client_list()
    return {client["id"] for client in connections if client["cmd"] == "xread"}


async def _until(met: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not met():
            await asyncio.sleep(0.01)


async def test_delivers_on_after_an_entry_that_cannot_be_read(
    servers: SessionServers, redis: "redis_client.Redis"
) -> None:
    gateway, heard = uuid7().hex, list[Return]()
    reader = ReturnReader(servers.valkey.url(), gateway, heard.extend)
    redis.xadd(stream_key(gateway), {FIELD: b"\xc1 of another release"})
    redis.xadd(stream_key(gateway), {FIELD: encode_returns([text(0), text(1)])})
    reader.start()
    try:
        await _until(lambda: len(heard) == 2)
        assert redis.exists(alive_key(gateway))
    finally:
        await reader.stop()
    assert heard == [text(0), text(1)]


async def test_misses_nothing_when_its_connection_is_cut(
    servers: SessionServers, redis: "redis_client.Redis"
) -> None:
    gateway, heard = uuid7().hex, list[Return]()
    reader = ReturnReader(servers.valkey.url(), gateway, heard.extend)
    others = _clients(redis)
    reader.start()
    try:
        for n in range(20):
            redis.xadd(stream_key(gateway), {FIELD: encode_returns([text(n)])})
            if n % 5 == 2:
                await _until(lambda: _clients(redis) - others)
                for client in _clients(redis) - others:
                    redis.client_kill_filter(_id=client)
        await _until(lambda: len(heard) == 20)
    finally:
        await reader.stop()
    assert heard == [text(n) for n in range(20)]


async def test_leaves_in_the_broker_what_is_on_its_way_alone(
    servers: SessionServers, redis: "redis_client.Redis"
) -> None:
    gateway, heard = uuid7().hex, list[Return]()
    reader = ReturnReader(servers.valkey.url(), gateway, heard.extend)
    # Each as large as many vectors, so that the broker keeps it apart from the others.
    large = Text(b"j" * 16, 1, 0, 0, "v" * 100_000)
    reader.start()
    try:
        for _ in range(10):
            redis.xadd(stream_key(gateway), {FIELD: encode_returns([large])})
        await _until(lambda: len(heard) == 10)
        await _until(lambda: redis.xlen(stream_key(gateway)) <= 1)
    finally:
        await reader.stop()


def test_serves_other_models_when_one_artefact_is_gone(
    bench: Bench, servers: SessionServers
) -> None:
    broken = live.deploy(servers, unique("broken"))
    bench.superuser.execute(
        "UPDATE inference_modelversion SET path = '/nonexistent' WHERE id = "
        "(SELECT version_id FROM inference_deployment WHERE name = %s)",
        [broken.deployment],
    )

    async def look() -> tuple[object, object]:
        link = Link(servers.url("gateway"), "bench-catalogue")
        try:
            catalogue = Catalogue(link)
            return await catalogue.find(broken.model), await catalogue.find(bench.deployed.model)
        finally:
            await link.close()

    gone, served = bench.run(look())
    assert gone is None
    assert served is not None
