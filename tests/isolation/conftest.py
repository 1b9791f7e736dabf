"""Two tenants that have something in every table; nothing here may change either."""

from collections.abc import Iterator

import psycopg
import pytest

from tests import factories
from tests.isolation.rows import Populated, populate
from tests.servers import SessionServers


@pytest.fixture(scope="module")
def full_a(superuser_of_module: psycopg.Connection) -> Populated:
    return populate(superuser_of_module, factories.organisation("acme"))


@pytest.fixture(scope="module")
def full_b(superuser_of_module: psycopg.Connection) -> Populated:
    return populate(superuser_of_module, factories.organisation("globex"))


@pytest.fixture(scope="module")
def superuser_of_module(servers: SessionServers, database: None) -> Iterator[psycopg.Connection]:
    with psycopg.connect(servers.url("superuser"), autocommit=True) as superuser:
        yield superuser
