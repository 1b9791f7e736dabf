"""Fixtures of the model's floor."""

from collections.abc import Iterator

import pytest

from tests.inference.bench import Bench
from tests.servers import SessionServers


@pytest.fixture
def bench(servers: SessionServers, database: None) -> Iterator[Bench]:
    """A deployment of its own whose jobs the test moves by hand."""
    with Bench(servers) as made:
        yield made
