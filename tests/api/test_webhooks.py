"""Webhooks on the management API: deliveries, trials, the signing secret."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import psycopg
import pytest
from django.db import connection

from inference.webhooks import services
from inference.webhooks.sender import Outcome
from portal.core.ids import uuid7
from tenants.services import CreatedKey
from tests.api.callers import Caller, key_caller, session_caller
from tests.factories import Organisation, api_key
from tests.inference.webhooks.receiver import Receiver
from tests.inference.webhooks.test_signing import verifies
from tests.isolation.rows import insert, new_row


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as made:
        yield made


@pytest.fixture
def developer(tenant_a: Organisation) -> Caller:
    return session_caller(tenant_a.developer.user)


def a_webhook(
    superuser: psycopg.Connection,
    organisation: Organisation,
    served: dict[str, UUID],
    key: CreatedKey | None = None,
    **more: Any,
) -> tuple[UUID, UUID]:
    """A job that has ended and its callback: their ids."""
    key = key or api_key(organisation)
    job = new_row("inference_job", organisation, {**served, "api_key_id": key.api_key.id})
    insert(superuser, "inference_job", job)
    row = new_row("inference_webhookdelivery", organisation, {"job_id": job["id"]})
    insert(superuser, "inference_webhookdelivery", {**row, **more})
    attempt = new_row("inference_webhookattempt", organisation, {"delivery_id": row["id"]})
    insert(superuser, "inference_webhookattempt", attempt)
    return job["id"], row["id"]


def test_list_deliveries_by_job_and_by_state(
    tenant_a: Organisation,
    developer: Caller,
    owner_sql: psycopg.Connection,
    served: dict[str, UUID],
) -> None:
    job, delivered = a_webhook(owner_sql, tenant_a, served)
    _, failed = a_webhook(owner_sql, tenant_a, served, state=3, last_error="It failed.")
    listed = developer.get("webhooks/deliveries").json()["items"]
    assert [item["id"] for item in listed] == [str(failed), str(delivered)]
    assert [item["state"] for item in listed] == ["failed", "delivered"]
    for query, found in (
        (f"job_id={job}", [delivered]),
        ("state=failed", [failed]),
        (f"state=failed&job_id={job}", []),
        (f"job_id={uuid7()}", []),
    ):
        items = developer.get(f"webhooks/deliveries?{query}").json()["items"]
        assert [item["id"] for item in items] == [str(i) for i in found], query
    for query, param in (("state=sent", "state"), ("job_id=7", "job_id")):
        refused = developer.get(f"webhooks/deliveries?{query}")
        assert (refused.status_code, refused.json()["param"]) == (400, param)
    first = developer.get("webhooks/deliveries?limit=1").json()
    following = developer.get(first["next"].removeprefix("/api/v1/")).json()
    assert [i["id"] for i in first["items"] + following["items"]] == [str(failed), str(delivered)]


def test_read_delivery_tells_every_attempt_and_of_the_url_its_origin(
    tenant_a: Organisation, owner_sql: psycopg.Connection, served: dict[str, UUID]
) -> None:
    job, delivery = a_webhook(owner_sql, tenant_a, served)
    caller = key_caller(api_key(tenant_a, scopes=["jobs:read"]).token)
    body = caller.get(f"webhooks/deliveries/{delivery}").json()
    assert (body["job_id"], body["receiver"]) == (str(job), "https://hooks.test")
    assert body["webhook_id"] == f"msg_{delivery.hex}"
    (attempt,) = body["log"]
    assert (attempt["number"], attempt["status"], attempt["error"]) == (1, 204, "")


def test_redeliver_makes_it_due_and_stands_in_the_trail(
    tenant_a: Organisation,
    developer: Caller,
    owner_sql: psycopg.Connection,
    served: dict[str, UUID],
) -> None:
    _, delivery = a_webhook(owner_sql, tenant_a, served, state=3)
    answer = developer.post(f"webhooks/deliveries/{delivery}/redeliver", None)
    assert answer.status_code == 200
    assert (answer.json()["state"], answer.json()["finished_at"]) == ("pending", None)
    assert answer.json()["next_attempt_at"] is not None
    event = owner_sql.execute(
        "SELECT action, actor_label FROM audit_event WHERE object_id = %s", [str(delivery)]
    ).fetchone()
    assert event == ("webhook.redeliver", tenant_a.developer.user.email)


def test_redeliver_by_a_key_reaches_its_own_jobs_alone(
    tenant_a: Organisation, owner_sql: psycopg.Connection, served: dict[str, UUID]
) -> None:
    key = api_key(tenant_a)
    _, own = a_webhook(owner_sql, tenant_a, served, key=key, state=3)
    _, other = a_webhook(owner_sql, tenant_a, served, state=3)
    caller = key_caller(key.token)
    assert caller.post(f"webhooks/deliveries/{own}/redeliver", None).status_code == 200
    assert caller.post(f"webhooks/deliveries/{other}/redeliver", None).status_code == 404


def test_redeliver_what_waits_for_its_job_is_a_conflict(
    tenant_a: Organisation,
    developer: Caller,
    owner_sql: psycopg.Connection,
    served: dict[str, UUID],
) -> None:
    _, delivery = a_webhook(owner_sql, tenant_a, served, state=0)
    assert developer.post(f"webhooks/deliveries/{delivery}/redeliver", None).status_code == 409


def test_make_secret_shows_it_once_and_the_next_generation_beside_it(
    owner: Caller, developer: Caller
) -> None:
    made = owner.post("webhooks/secret", {})
    assert made.status_code == 201
    secret = made.json()["secret"]
    assert secret.startswith("whsec_")
    assert developer.post("webhooks/secret", {}).status_code == 403
    again = owner.post("webhooks/secret", {"overlap_seconds": 60})
    assert (again.status_code, again.json()["generation"]["generation"]) == (201, 2)
    listed = developer.get("webhooks/secret")
    generations = [(g["generation"], g["valid_until"]) for g in listed.json()["items"]]
    assert [g for g, _ in generations] == [2, 1]
    assert generations[0][1] is None
    assert generations[1][1] is not None
    assert secret not in str(listed.json())
    assert again.json()["secret"] not in str(listed.json())


@pytest.mark.parametrize("overlap", [-1, 2_592_001, "x", None])
def test_make_secret_with_a_bad_overlap_names_it(owner: Caller, overlap: Any) -> None:
    refused = owner.post("webhooks/secret", {"overlap_seconds": overlap})
    assert (refused.status_code, refused.json()["param"]) == (400, "overlap_seconds")


def test_send_test_arrives_signed_and_tells_what_came_back(
    tenant_a: Organisation,
    developer: Caller,
    receiver: Receiver,
    owner_sql: psycopg.Connection,
) -> None:
    secret = services.make_webhook_secret(context=tenant_a.context).secret
    answer = developer.post("webhooks/test", {"url": receiver.url("/hook?token=query-key")})
    assert answer.status_code == 200
    body = answer.json()
    assert (body["delivered"], body["status"], body["error"]) == (True, 204, "")
    assert 0 <= body["milliseconds"] < 15_000
    (request,) = receiver.received
    assert request.path == "/hook?token=query-key"
    assert verifies(secret, request)
    assert b'"type":"webhook.test"' in request.body
    trail = owner_sql.execute(
        "SELECT e.action, e.outcome, e.object_label, b.detail, e::text FROM audit_event e "
        "LEFT JOIN audit_body b ON b.event_id = e.id WHERE e.request_id = %s",
        [answer["X-Request-Id"]],
    ).fetchall()
    (sent,) = [row for row in trail if row[0] == "webhook.test"]
    assert sent[1:3] == ("success", f"http://127.0.0.1:{receiver.port}")
    assert sent[3]["status"] == 204
    assert "query-key" not in str(trail)


def test_send_test_tells_in_words_why_it_did_not_arrive(
    tenant_a: Organisation, developer: Caller, receiver: Receiver
) -> None:
    services.make_webhook_secret(context=tenant_a.context)
    receiver.statuses = [500]
    body = developer.post("webhooks/test", {"url": receiver.url()}).json()
    assert (body["delivered"], body["status"]) == (False, 500)
    assert body["error"] == "The receiver answered 500."


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://10.0.0.1/", "webhook_target_refused"),
        ("http://169.254.169.254/latest/meta-data", "webhook_target_refused"),
        ("https://user:secret@127.0.0.1/", "invalid"),
        ("ftp://127.0.0.1/", "invalid"),
        ("", "invalid"),
    ],
)
def test_send_test_where_nothing_may_go_is_refused(
    tenant_a: Organisation, developer: Caller, url: str, code: str
) -> None:
    services.make_webhook_secret(context=tenant_a.context)
    refused = developer.post("webhooks/test", {"url": url})
    assert (refused.status_code, refused.json()["code"]) == (400, code)
    assert refused.json()["param"] == "url"


def test_send_test_without_a_secret_says_what_to_do(developer: Caller, receiver: Receiver) -> None:
    refused = developer.post("webhooks/test", {"url": receiver.url()})
    assert (refused.status_code, refused.json()["code"]) == (409, "no_webhook_secret")
    assert receiver.received == []


def test_send_test_while_another_is_under_way_is_refused(
    tenant_a: Organisation, developer: Caller, receiver: Receiver
) -> None:
    services.make_webhook_secret(context=tenant_a.context)
    receiver.hold()
    with ThreadPoolExecutor(1) as elsewhere:
        first = elsewhere.submit(_test_in_a_thread, tenant_a, receiver.url())
        receiver.wait(1)
        refused = developer.post("webhooks/test", {"url": receiver.url()})
        receiver.free.set()
        assert first.result().delivered
    assert refused.status_code == 429
    assert len(receiver.received) == 1


def _test_in_a_thread(tenant: Organisation, url: str) -> Outcome:
    try:
        return services.send_test_webhook(context=tenant.developer.context, url=url)
    finally:
        connection.close()
