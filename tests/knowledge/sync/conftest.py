"""A tenant whose knowledge stands in a double of Dify."""

from collections.abc import Iterator

import pytest

from tests.factories import Organisation
from tests.knowledge.dify.double import DifyDouble
from tests.knowledge.sync.bench import Bench
from tests.servers import SessionServers


@pytest.fixture
def dify() -> Iterator[DifyDouble]:
    with DifyDouble() as double:
        yield double


@pytest.fixture
def bench(servers: SessionServers, tenant_a: Organisation, dify: DifyDouble) -> Bench:
    return Bench(tenant_a, dify, servers.url("gateway"))
