import pytest

from tests.factories import unique
from tests.live import deploy
from tests.servers import SessionServers


@pytest.fixture(scope="module")
def model(servers: SessionServers, database: None) -> str:
    """A model that is served, by nobody as long as the test starts no worker."""
    return deploy(servers, unique("writer")).model
