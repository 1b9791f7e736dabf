"""Fixtures of the model's floor."""

from collections.abc import Iterator

import pytest
import redis as redis_client

from inference.returns import alive_key
from tests.inference.bench import GATEWAY, Bench
from tests.servers import SessionServers


@pytest.fixture
def bench(servers: SessionServers, database: None) -> Iterator[Bench]:
    """A deployment of its own whose jobs the test moves by hand."""
    with Bench(servers) as made:
        yield made


@pytest.fixture
def gateway_alive(redis: "redis_client.Redis") -> Iterator[None]:
    """Lets the bench's gateway be alive: for one that is gone nothing is generated."""
    redis.set(alive_key(GATEWAY), b"1")
    yield
    redis.delete(alive_key(GATEWAY))
