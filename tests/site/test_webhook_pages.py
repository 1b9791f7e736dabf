"""The pages of webhooks: the log, delivering again, a trial, the signing secret."""

import html
from collections.abc import Iterator
from uuid import UUID

import psycopg
import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from inference.models import Deployment, WebhookDelivery, WebhookSecret, WebhookState
from inference.webhooks import services
from portal.core.tenancy import tenant_scope
from tests import factories
from tests.api.test_webhooks import a_webhook
from tests.factories import Organisation
from tests.inference.webhooks.receiver import Receiver
from tests.inference.webhooks.test_signing import verifies
from tests.live import deploy
from tests.servers import SessionServers
from tests.site.test_pages import client_of

LIST = "/admin/inference/webhookdelivery/"
SECRETS = "/admin/inference/webhooksecret/"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as made:
        yield made


@pytest.fixture(scope="module")
def served(servers: SessionServers, database: None) -> dict[str, UUID]:
    deployed = deploy(servers, factories.unique("hooks"))
    deployment = Deployment.objects.get(name=deployed.deployment)
    return {"deployment_id": deployment.id, "model_id": deployment.model_id}


@pytest.fixture
def owner(tenant_a: Organisation) -> Client:
    return client_of(tenant_a.owner.user)


def text(client: Client, path: str) -> str:
    answer = client.get(path)
    assert answer.status_code == 200, path
    return html.unescape(answer.content.decode())


def test_open_empty_log_says_what_to_do_and_offers_a_trial(owner: Client) -> None:
    page = text(owner, LIST)
    assert "No webhook yet" in page
    assert f'href="{LIST}add/"' in page
    assert "No signing secret yet" in text(owner, SECRETS)


def test_open_log_filters_by_state_and_asks_as_much_for_many_as_for_one(
    tenant_a: Organisation,
    owner: Client,
    owner_sql: psycopg.Connection,
    served: dict[str, UUID],
) -> None:
    _, first = a_webhook(owner_sql, tenant_a, served)
    text(owner, LIST)
    with CaptureQueriesContext(connection) as of_one:
        text(owner, LIST)
    failed = [a_webhook(owner_sql, tenant_a, served, state=3)[1] for _ in range(5)]
    with CaptureQueriesContext(connection) as of_many:
        page = text(owner, LIST)
    assert len(of_many) == len(of_one)
    assert all(str(i) in page for i in (first, *failed))
    page = text(owner, f"{LIST}?state__exact=3")
    assert all(str(i) in page for i in failed)
    assert str(first) not in page


def test_open_delivery_tells_every_attempt_in_the_readers_language(
    tenant_a: Organisation,
    owner: Client,
    owner_sql: psycopg.Connection,
    served: dict[str, UUID],
) -> None:
    job, delivery = a_webhook(
        owner_sql, tenant_a, served, state=3, last_error="The receiver answered 503."
    )
    page = text(owner, f"{LIST}{delivery}/")
    assert "https://hooks.test" in page
    assert f"/admin/inference/job/{job}/" in page
    assert f"msg_{delivery.hex}" in page
    assert "The receiver answered 503." in page
    owner.cookies["django_language"] = "zh-hans"
    assert "接收方返回 503。" in text(owner, f"{LIST}{delivery}/")


def test_deliver_again_makes_it_due(
    tenant_a: Organisation,
    owner: Client,
    owner_sql: psycopg.Connection,
    served: dict[str, UUID],
) -> None:
    _, delivery = a_webhook(owner_sql, tenant_a, served, state=3)
    assert "redeliver/" in text(owner, f"{LIST}{delivery}/")
    answer = owner.post(f"{LIST}{delivery}/redeliver/")
    assert (answer.status_code, answer["Location"]) == (302, f"{LIST}{delivery}/")
    with tenant_scope(tenant_a.context):
        assert WebhookDelivery.objects.get(pk=delivery).state == WebhookState.PENDING


def test_deliver_again_is_not_offered_before_the_job_has_ended(
    tenant_a: Organisation,
    owner: Client,
    owner_sql: psycopg.Connection,
    served: dict[str, UUID],
) -> None:
    _, delivery = a_webhook(owner_sql, tenant_a, served, state=0)
    assert "redeliver/" not in text(owner, f"{LIST}{delivery}/")
    assert owner.post(f"{LIST}{delivery}/redeliver/").status_code == 404


def test_send_test_shows_what_came_back(
    tenant_a: Organisation, owner: Client, receiver: Receiver
) -> None:
    services.make_webhook_secret(context=tenant_a.context)
    page = owner.post(f"{LIST}add/", {"url": receiver.url()}).content.decode()
    assert "The receiver has taken the test event." in page
    receiver.statuses = [404]
    page = owner.post(f"{LIST}add/", {"url": receiver.url()}).content.decode()
    assert "The receiver answered 404." in page
    assert len(receiver.received) == 2


def test_send_test_where_nothing_may_go_is_refused_beside_the_field(owner: Client) -> None:
    owner.cookies["django_language"] = "zh-hans"
    answer = owner.post(f"{LIST}add/", {"url": "http://169.254.169.254/"})
    assert answer.status_code == 400
    assert "不允许向接收方的地址发送网络钩子" in html.unescape(answer.content.decode())


def test_make_secret_shows_it_once_and_it_signs(
    tenant_a: Organisation, owner: Client, receiver: Receiver
) -> None:
    answer = owner.post(f"{SECRETS}add/", {"overlap_seconds": "3600"})
    assert answer.status_code == 200
    assert "no-store" in answer["Cache-Control"]
    secret = html.unescape(answer.content.decode().split('<code id="secret">')[1].split("<")[0])
    owner.post(f"{LIST}add/", {"url": receiver.url()})
    assert verifies(secret, receiver.received[0])
    again = owner.post(f"{SECRETS}add/", {"overlap_seconds": "3600"})
    assert again.status_code == 200
    page = text(owner, SECRETS)
    assert "Signs beside the present one" in page
    assert "whsec_" not in page


def test_make_secret_is_the_owners_and_others_may_not_see_it_offered(
    tenant_a: Organisation,
) -> None:
    developer = client_of(tenant_a.developer.user)
    assert f"{SECRETS}add/" not in text(developer, SECRETS)
    assert developer.post(f"{SECRETS}add/", {"overlap_seconds": "3600"}).status_code == 403
    viewer = client_of(tenant_a.viewer.user)
    for path in (LIST, SECRETS, f"{LIST}add/"):
        assert viewer.get(path).status_code == 403
    with tenant_scope(tenant_a.context):
        assert not WebhookSecret.objects.exists()
