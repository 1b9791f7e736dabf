"""Fixtures for faults: one gateway for all, workers and tenants of each test's own."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.faults.stage import PACE, Stage, Sweeping, make_stage
from tests.live import Programs, Web
from tests.servers import SessionServers

MakeStage = Callable[..., Stage]


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
def set_stage(
    servers: SessionServers, gateway: Web, sweeping: None, programs: Programs
) -> Iterator[MakeStage]:
    """Makes a stage whose fake engine has the given options."""
    made: list[Stage] = []

    def make(*, served_by: Web | None = None, **options: Any) -> Stage:
        stage = make_stage(servers, programs, served_by or gateway, options)
        made.append(stage)
        return stage

    yield make
    programs.stop()
    for stage in made:
        for callers in stage.opened:
            callers.close()
