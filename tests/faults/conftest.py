"""The stage on which faults are played, with the session's own io worker and beat behind it."""

from collections.abc import Iterator

import psycopg
import pytest

from inference.models import Deployment
from inference.services import set_deployment_enabled
from tests import factories
from tests.factories import Organisation
from tests.faults.stage import IMPATIENT, Stage
from tests.live import LivePortal, Programs, deploy


@pytest.fixture
def stage(
    live_portal: LivePortal,
    programs: Programs,
    tenant_a: Organisation,
    owner_sql: psycopg.Connection,
) -> Iterator[Stage]:
    """A gateway and a worker of one slot's pace: 20 ms a token, two at once."""
    name = factories.unique("fault")
    deployed = deploy(live_portal.servers, name, options={"token_ms": 20, "slots": 2})
    web = programs.web(factories.unique("gateway"), FREEHOLD_PLANES="data")
    worker = programs.worker(deployed, **IMPATIENT)
    programs.wait_served(web, deployed)
    token = factories.api_key(tenant_a).token
    yield Stage(programs, deployed, web, worker, tenant_a, token, owner_sql)
    deployment = Deployment.objects.get(name=name)
    set_deployment_enabled(context=factories.TESTS, deployment_id=deployment.id, enabled=False)
