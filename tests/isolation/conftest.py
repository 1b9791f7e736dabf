"""Two tenants that have something in every table; nothing here may change either."""

from collections.abc import Iterator
from uuid import UUID

import psycopg
import pytest

from inference.models import Deployment
from inference.route_services import NewTarget, create_route
from inference.services import set_deployment_enabled
from tests import factories
from tests.isolation.rows import Populated, populate
from tests.live import deploy
from tests.servers import SessionServers


@pytest.fixture(scope="module")
def full_a(superuser_of_module: psycopg.Connection, served: dict[str, UUID]) -> Populated:
    return populate(superuser_of_module, factories.organisation("tenant-a"), served)


@pytest.fixture(scope="module")
def full_b(superuser_of_module: psycopg.Connection, served: dict[str, UUID]) -> Populated:
    return populate(superuser_of_module, factories.organisation("tenant-b"), served)


@pytest.fixture(scope="module")
def served(servers: SessionServers, database: None) -> Iterator[dict[str, UUID]]:
    """What both tenants' jobs ran on."""
    deployed = deploy(servers, factories.unique("isolation"))
    deployment = Deployment.objects.get(name=deployed.deployment)
    route = create_route(
        context=factories.TESTS,
        name=factories.unique("isolation"),
        targets=[NewTarget(deployment.id)],
    )
    yield {
        "deployment_id": deployment.id,
        "model_id": deployment.model_id,
        "route_id": route.id,
    }
    set_deployment_enabled(context=factories.TESTS, deployment_id=deployment.id, enabled=False)


@pytest.fixture(scope="module")
def superuser_of_module(servers: SessionServers, database: None) -> Iterator[psycopg.Connection]:
    with psycopg.connect(servers.url("superuser"), autocommit=True) as superuser:
        yield superuser
