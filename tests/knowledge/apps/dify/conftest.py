"""A tenant whose apps run in a double of Dify."""

from collections.abc import Iterator

import pytest

from knowledge.applications.dify import portal
from tests.factories import Organisation
from tests.knowledge.apps.dify.bench import AppBench
from tests.knowledge.dify.double import DifyDouble
from tests.knowledge.dify.double.source import KnowledgeSource
from tests.servers import SessionServers


@pytest.fixture
def dify() -> Iterator[DifyDouble]:
    with DifyDouble() as double:
        yield double


@pytest.fixture
def bench(
    servers: SessionServers,
    tenant_a: Organisation,
    dify: DifyDouble,
    model: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[AppBench]:
    """With a portal that Dify is told of, which answers whatever it is asked."""
    with KnowledgeSource("") as source:
        address = source.url.removesuffix("/dify")
        monkeypatch.setattr(portal, "_address", lambda: address)
        made = AppBench(tenant_a, dify, servers.url("gateway"))
        made.model, made.portal = model, address
        yield made
