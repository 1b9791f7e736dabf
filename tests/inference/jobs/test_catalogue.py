"""What the control plane reads to know what a submitted name leads to."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog.testing

from inference.artefacts import import_byte_level
from inference.services import create_deployment, register_model_version, set_deployment_enabled
from tests import factories
from tests.factories import TESTS, Organisation, unique
from tests.inference.bench import Bench
from tests.inference.jobs.support import submit_jobs
from tests.servers import SessionServers


@pytest.fixture(scope="module")
def bench(servers: SessionServers, database: None) -> Iterator[Bench]:
    with Bench(servers) as made:
        yield made


@pytest.fixture
def unreadable(tmp_path: Path) -> Iterator[None]:
    """Another model is served, whose artefact is not on this machine."""
    name = unique("elsewhere")
    version = register_model_version(
        context=TESTS,
        name=name,
        label="1",
        manifest=import_byte_level(tmp_path, context_length=4096),
        path=tmp_path / "elsewhere",
    )
    deployment = create_deployment(context=TESTS, name=name, version_id=version.id)
    yield
    set_deployment_enabled(context=TESTS, deployment_id=deployment.id, enabled=False)


def test_submit_reads_no_artefact_but_those_its_names_lead_to(
    bench: Bench, unreadable: None, tenant_a: Organisation
) -> None:
    with structlog.testing.capture_logs() as logs:
        submit_jobs(bench, factories.api_key(tenant_a))
    assert [line for line in logs if line["event"] == "deployment.unreadable"] == []
