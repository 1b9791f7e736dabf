"""Fixtures of the gateway's tests."""

from collections.abc import Iterator

import anthropic
import openai
import psycopg
import pytest

from inference.models import Task
from inference.services import create_deployment, register_model_version
from tests import factories
from tests.factories import Organisation
from tests.inference.gateway.tooled_model import ANSWERS, ARGUMENTS
from tests.inference.tooled import THINKING, tooled_artefact
from tests.live import Deployed, LivePortal, deploy
from tests.servers import SessionServers


@pytest.fixture(scope="session")
def tooled(live_portal: LivePortal) -> Deployed:
    """A model that thinks aloud and calls tools in the format of Hermes."""
    servers = live_portal.servers
    manifest, path = tooled_artefact(servers.data_dir / "models", THINKING)
    name = factories.unique("tooled")
    version = register_model_version(
        context=factories.TESTS, name=name, label="1", manifest=manifest, path=path
    )
    create_deployment(
        context=factories.TESTS,
        name=name,
        version_id=version.id,
        queue=f"q-{name}",
        engine="fake",
        options={"token_ms": 0.2, "answers": ANSWERS, "structured_text": ARGUMENTS},
        context_length=4096,
        default_max_tokens=1024,
    )
    deployed = Deployed(name, name, f"q-{name}")
    live_portal.programs.worker(deployed, name=f"worker-{name}")
    live_portal.programs.wait_served(live_portal.web, deployed)
    return deployed


@pytest.fixture(scope="session")
def embedder(live_portal: LivePortal) -> Deployed:
    """The fake engine, which makes vectors out of hashes; a token a byte."""
    deployed = deploy(
        live_portal.servers,
        factories.unique("embedder"),
        options={"token_ms": 0, "dimensions": 6},
        task=Task.EMBED,
    )
    live_portal.programs.worker(deployed)
    live_portal.programs.wait_served(live_portal.web, deployed)
    return deployed


@pytest.fixture(scope="module")
def superuser(servers: SessionServers) -> Iterator[psycopg.Connection]:
    """A connection that no policy binds, for assertions alone."""
    with psycopg.connect(servers.url("superuser"), autocommit=True) as connection:
        yield connection


@pytest.fixture
def token(tenant_a: Organisation) -> str:
    return factories.api_key(tenant_a).token


@pytest.fixture
def client(live_portal: LivePortal, token: str) -> Iterator[openai.OpenAI]:
    url = f"{live_portal.base_url}/v1"
    with openai.OpenAI(base_url=url, api_key=token, max_retries=0) as made:
        yield made


@pytest.fixture
def claude(live_portal: LivePortal, token: str) -> Iterator[anthropic.Anthropic]:
    url = live_portal.base_url
    with anthropic.Anthropic(base_url=url, api_key=token, max_retries=0) as made:
        yield made
