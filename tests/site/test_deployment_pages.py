"""Pages of models, versions and deployments: the system administrator's, and nobody else's."""

from collections.abc import Iterator
from datetime import UTC, datetime

import psycopg
import pytest
from django.test import Client

from inference.models import Deployment, ModelVersion
from portal.core.actors import PlatformRole
from portal.core.ids import uuid7
from tests import factories
from tests.factories import Organisation, unique
from tests.live import deploy
from tests.servers import SessionServers

LIST = "/admin/inference/deployment/"


@pytest.fixture
def deployment(servers: SessionServers, database: None) -> Deployment:
    name = unique("pages")
    deploy(servers, name)
    return Deployment.objects.get(name=name)


@pytest.fixture
def system(database: None) -> Client:
    client = Client()
    client.force_login(factories.administrator(PlatformRole.SYSTEM).user)
    return client


@pytest.fixture
def superuser(servers: SessionServers) -> Iterator[psycopg.Connection]:
    with psycopg.connect(servers.url("superuser"), autocommit=True) as connection:
        yield connection


def fields(deployment: Deployment, **more: str) -> dict[str, str]:
    """What a browser sends."""
    return {
        "version_id": str(deployment.version_id),
        "engine": "fake",
        "options": "{}",
        "context_length": "100",
        "default_max_tokens": "10",
        **more,
    }


def test_deployment_is_made_edited_and_deleted_on_its_pages(
    system: Client, deployment: Deployment
) -> None:
    name = unique("made")
    answer = system.post(f"{LIST}add/", fields(deployment, name=name, enabled="on"))
    assert answer.status_code == 302, answer.content.decode()
    page = system.get(answer["Location"]).content.decode()
    assert "No worker serves this queue: start one" in page
    assert f"WORKER_DEPLOYMENT={name} " in page
    assert f"-Q {name} " in page
    path = answer["Location"]
    edited = system.post(f"{path}edit/", fields(deployment, options='{"slots": 3}'))
    assert edited.status_code == 302
    assert Deployment.objects.get(name=name).options == {"slots": 3}
    assert system.post(f"{path}delete/").status_code == 302
    assert not Deployment.objects.filter(name=name).exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("[1]", "Options are a JSON object"),
        ("{", "valid JSON"),
        ('{"slots": 0}', "$.slots"),
        ('{"nonsense": 1}', "nonsense"),
    ],
)
def test_wrong_options_are_refused_beside_their_field(
    system: Client, deployment: Deployment, options: str, said: str
) -> None:
    answer = system.post(f"{LIST}{deployment.pk}/edit/", fields(deployment, options=options))
    assert answer.status_code == 400
    assert said in answer.content.decode()
    assert Deployment.objects.get(pk=deployment.pk).options == {}


def test_worker_shows_its_state_its_figures_and_that_it_is_stale(
    system: Client, deployment: Deployment, superuser: psycopg.Connection
) -> None:
    now, worker = datetime.now(UTC), uuid7()
    superuser.execute(
        "INSERT INTO inference_worker (id, name, deployment_id, version_digest, engine, state,"
        " detail, slots, running, loaded, tokens_per_second, resident_bytes, started_at,"
        " heartbeat_at) VALUES (%s, %s, %s, 'old', 'fake', 'draining', 'Releasing the model.', 4,"
        " 3, '{}', 12.5, 1048576, %s, %s)",
        [worker, unique("worker"), deployment.pk, now, now],
    )
    superuser.execute(
        'UPDATE inference_worker SET loaded = \'{"engine": "x"}\' WHERE id = %s', [worker]
    )
    live = system.get(f"{LIST}{deployment.pk}/live/").content.decode()
    assert "<html" not in live
    for text in ("Draining", "Releasing the model.", "3 left", "stale", "12.5", "1.0", "3 / 4"):
        assert text in live
    assert "unload/" in live
    told = system.post(f"/admin/inference/worker/{worker}/drain/")
    assert told.status_code == 302
    refused = system.post(f"/admin/inference/worker/{worker}/drain/")
    assert refused.status_code == 409
    assert "drained already" in refused.content.decode()
    assert "Desired state" in system.get(f"/admin/inference/worker/{worker}/").content.decode()


def test_live_part_leaves_no_event_in_the_trail(
    system: Client, deployment: Deployment, superuser: psycopg.Connection
) -> None:
    count = "SELECT count(*) FROM audit_event WHERE action = 'platform.scope' AND actor_id = %s"
    actor = system.session["_auth_user_id"]
    before = superuser.execute(count, [actor]).fetchone()
    assert system.get(f"{LIST}{deployment.pk}/live/").status_code == 200
    assert superuser.execute(count, [actor]).fetchone() == before


def test_version_is_registered_and_priced_on_its_pages(
    system: Client, deployment: Deployment
) -> None:
    name = unique("model")
    body = {
        "name": name,
        "label": "7",
        "artefact": deployment.version.path.rpartition("/")[2],
        "title": "A title",
    }
    made = system.post("/admin/inference/model/add/", body)
    assert made.status_code == 302, made.content.decode()
    version = ModelVersion.objects.get(model__name=name)
    edited = system.post(f"{made['Location']}edit/", {"title": "Another", "description": "For us"})
    assert edited.status_code == 302
    assert "Another" in system.get(made["Location"]).content.decode()
    path = f"/admin/inference/modelversion/{version.pk}/"
    price = {"prompt": "1.5", "completion": "2", "currency": "EUR"}
    assert system.post(f"{path}price/", price).status_code == 302
    assert version.prices.get().prompt_micros_per_million == 1_500_000
    assert "1.5 EUR" in system.get(path).content.decode()


def test_nobody_else_sees_workers_or_gives_orders(
    deployment: Deployment, tenant_a: Organisation
) -> None:
    people = [tenant_a.owner.user, *(factories.administrator(r).user for r in PlatformRole)]
    for user in people[:1] + people[2:]:
        client = Client()
        client.force_login(user)
        for page in ("", f"{deployment.pk}/", f"{deployment.pk}/live/", f"{deployment.pk}/drain/"):
            assert client.get(f"{LIST}{page}").status_code in (403, 404), (user.email, page)
