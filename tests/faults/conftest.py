"""Fixtures for faults: a stage with its own processes, and arenas that share one gateway."""

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from inference.models import Deployment
from inference.services import set_deployment_enabled
from tests import factories
from tests.factories import Organisation
from tests.faults.arena import PACE, Arena, Sweeping, make_arena
from tests.faults.stage import IMPATIENT, Stage
from tests.live import LivePortal, Programs, Web, deploy
from tests.servers import SessionServers

MakeArena = Callable[..., Arena]


@pytest.fixture(scope="package")
def gateway(servers: SessionServers, database: None) -> Iterator[Web]:
    """A data plane of its own process."""
    programs = Programs(servers)
    web = programs.web("faults-gateway", FREEHOLD_PLANES="data", **PACE)
    web.wait_alive()
    yield web
    programs.stop()


@pytest.fixture(scope="package")
def sweeping(servers: SessionServers, database: None) -> Iterator[None]:
    """The sweeper's rounds."""
    rounds = Sweeping(servers)
    yield
    rounds.stop()


@pytest.fixture
def set_arena(
    servers: SessionServers, gateway: Web, sweeping: None, programs: Programs
) -> Iterator[MakeArena]:
    """Makes an arena whose fake engine has the given options."""
    made: list[Arena] = []

    def make(*, served_by: Web | None = None, **options: Any) -> Arena:
        arena = make_arena(servers, programs, served_by or gateway, options)
        made.append(arena)
        return arena

    yield make
    programs.stop()
    for arena in made:
        for callers in arena.opened:
            callers.close()


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
