from collections.abc import Iterator

import pytest

from inference.models import Deployment
from inference.services import set_deployment_enabled
from tests.factories import TESTS
from tests.knowledge.support import Embedder
from tests.servers import SessionServers


@pytest.fixture(scope="module")
def embedder(servers: SessionServers, database: None) -> Iterator[Embedder]:
    """A model that embeds, served while the module's tests run."""
    made = Embedder(servers)
    with made.serving():
        yield made
    deployment = Deployment.objects.get(name=made.deployed.deployment)
    set_deployment_enabled(context=TESTS, deployment_id=deployment.id, enabled=False)
