from collections.abc import Iterator

import pytest

from tests.knowledge.triggers.support import Writer
from tests.servers import SessionServers


@pytest.fixture(scope="module")
def writer(servers: SessionServers, database: None) -> Iterator[Writer]:
    """A model that writes what the test says."""
    made = Writer(servers)
    yield made
    made.close()
