"""Callers of the management API, one of every kind."""

from collections.abc import Iterator
from uuid import UUID

import pytest

from inference.models import Deployment
from inference.route_services import NewTarget, create_route
from inference.services import set_deployment_enabled
from portal.core.actors import PlatformRole, TenantRole
from tenants.permissions import Scope
from tests import factories
from tests.api.callers import Caller, key_caller, session_caller
from tests.factories import Organisation
from tests.live import deploy
from tests.servers import SessionServers


@pytest.fixture(autouse=True)
def _database(database: None) -> None:
    """All of these tests call the portal."""


@pytest.fixture(scope="session")
def served(servers: SessionServers, database: None) -> Iterator[dict[str, UUID]]:
    """What the jobs in these tests ran on."""
    deployed = deploy(servers, factories.unique("api"))
    deployment = Deployment.objects.get(name=deployed.deployment)
    route = create_route(
        context=factories.TESTS, name=factories.unique("api"), targets=[NewTarget(deployment.id)]
    )
    yield {
        "deployment_id": deployment.id,
        "model_id": deployment.model_id,
        "route_id": route.id,
    }
    set_deployment_enabled(context=factories.TESTS, deployment_id=deployment.id, enabled=False)


@pytest.fixture
def owner(tenant_a: Organisation) -> Caller:
    return session_caller(tenant_a.owner.user)


@pytest.fixture
def callers(tenant_a: Organisation) -> dict[str, Caller]:
    """Everyone there is, by name; the platform's administrators have entered tenant a."""
    found = {role.value: session_caller(tenant_a.member(role).user) for role in TenantRole}
    for platform_role in PlatformRole:
        user = factories.administrator(platform_role).user
        found[f"{platform_role.value} administrator"] = session_caller(user, tenant_a.id)
    for scope in Scope:
        token = factories.api_key(tenant_a, scopes=[scope.value]).token
        found[f"key {scope.value}"] = key_caller(token)
    found["nobody"] = Caller()
    return found
