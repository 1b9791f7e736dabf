"""Signatures, verified by code that shares nothing with ours, and secrets that are changed."""

import base64
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC

from inference.models import WebhookSecret
from inference.models.webhooks import WebhookState
from inference.webhooks import services, signing
from portal.core.errors import Conflict, Forbidden, Invalid, NotFound
from portal.core.tenancy import tenant_scope
from tests.factories import Organisation
from tests.inference.webhooks.hooks import Hooks
from tests.inference.webhooks.receiver import Received, Receiver
from tests.start.checkouts import REPOSITORY


def verifies(secret: str, request: Received) -> bool:
    """Whether one of the request's signatures is the secret's, by the scheme's text."""
    key = base64.b64decode(secret.split("_", 1)[1])
    mac = HMAC(key, SHA256())
    headers = request.headers
    mac.update(f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + request.body)
    wanted = "v1," + base64.b64encode(mac.finalize()).decode()
    return wanted in headers["webhook-signature"].split(" ")


def documented_verify() -> Any:
    """The function that docs/api.md shows to receivers."""
    page = (REPOSITORY / "docs" / "api.md").read_text()
    (sample,) = re.findall(r"```python\n((?:(?!```).)*?def verify_webhook.*?)```", page, re.DOTALL)
    names: dict[str, Any] = {}
    exec(sample, names)  # noqa: S102  (what readers run is run here)
    return names["verify_webhook"]


def test_sign_a_known_message_gives_the_schemes_own_example() -> None:
    """The example of the Standard Webhooks specification's reference libraries."""
    headers = signing.signed_headers(
        ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
        webhook_id="msg_p5jXN8AQM9LWM0D4loKWxJek",
        timestamp=1614265330,
        body=b'{"test": 2432232314}',
    )
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_deliver_signs_so_that_another_implementation_verifies(
    hooks: Hooks, receiver: Receiver
) -> None:
    hooks.ended(receiver.url())
    hooks.deliver()
    (request,) = receiver.received
    assert verifies(hooks.secret, request)
    assert not verifies(signing.new_secret(), request)
    sent_at = datetime.fromtimestamp(int(request.headers["webhook-timestamp"]), UTC)
    assert abs(datetime.now(UTC) - sent_at) < timedelta(minutes=1)
    assert re.fullmatch(r"msg_[0-9a-f]{32}", request.id)


def test_documented_sample_takes_a_real_delivery_and_refuses_what_was_changed(
    hooks: Hooks, receiver: Receiver
) -> None:
    verify = documented_verify()
    hooks.ended(receiver.url())
    hooks.deliver()
    (request,) = receiver.received
    event = verify(hooks.secret, request.headers, request.body)
    assert (event["type"], event["id"]) == ("job.succeeded", request.id)
    stale = str(int(request.headers["webhook-timestamp"]) - 301)
    for headers, body in (
        (request.headers, request.body + b" "),
        ({**request.headers, "webhook-id": "msg_another"}, request.body),
        ({**request.headers, "webhook-timestamp": stale}, request.body),
        ({**request.headers, "webhook-signature": "v1,AAAA v2,x"}, request.body),
    ):
        with pytest.raises(ValueError):  # noqa: PT011  (the sample's own words)
            verify(hooks.secret, headers, body)
    with pytest.raises(ValueError, match="signature"):
        verify(signing.new_secret(), request.headers, request.body)


def test_rotate_secret_signs_with_both_until_the_overlap_ends(
    hooks: Hooks, receiver: Receiver
) -> None:
    former = hooks.secret
    new = services.make_webhook_secret(context=hooks.tenant.context, overlap_seconds=3600).secret
    hooks.ended(receiver.url())
    hooks.deliver()
    (request,) = receiver.received
    assert len(request.headers["webhook-signature"].split(" ")) == 2
    assert verifies(former, request)
    assert verifies(new, request)
    assert documented_verify()(former, request.headers, request.body)
    hooks.bench.superuser.execute(
        "UPDATE inference_webhooksecret SET valid_until = clock_timestamp() "
        "WHERE tenant_id = %s AND valid_until IS NOT NULL",
        [hooks.tenant.id],
    )
    hooks.ended(receiver.url())
    hooks.deliver()
    assert not verifies(former, receiver.received[1])
    assert verifies(new, receiver.received[1])


def test_rotate_secret_twice_keeps_two_generations_at_most(
    hooks: Hooks, receiver: Receiver
) -> None:
    secrets = [hooks.secret]
    secrets += [
        services.make_webhook_secret(context=hooks.tenant.context, overlap_seconds=60).secret
        for _ in range(2)
    ]
    hooks.ended(receiver.url())
    hooks.deliver()
    (request,) = receiver.received
    assert [verifies(secret, request) for secret in secrets] == [False, True, True]
    with tenant_scope(hooks.tenant.context):
        rows = list(WebhookSecret.objects.values_list("generation", flat=True))
    assert rows == [3, 2]


def test_rotate_secret_without_overlap_ends_the_former_at_once(
    hooks: Hooks, receiver: Receiver
) -> None:
    new = services.make_webhook_secret(context=hooks.tenant.context, overlap_seconds=0).secret
    hooks.ended(receiver.url())
    hooks.deliver()
    (request,) = receiver.received
    assert verifies(new, request)
    assert not verifies(hooks.secret, request)


def test_make_secret_keeps_it_encrypted_and_out_of_the_trail(
    hooks: Hooks, owner_sql: psycopg.Connection
) -> None:
    new = services.make_webhook_secret(context=hooks.tenant.context, overlap_seconds=60).secret
    tenant = hooks.tenant.id
    stored = owner_sql.execute(
        "SELECT sealed FROM inference_webhooksecret WHERE tenant_id = %s", [tenant]
    ).fetchall()
    trail = str(
        owner_sql.execute(
            "SELECT e.*, b.* FROM audit_event e LEFT JOIN audit_body b ON b.event_id = e.id "
            "WHERE e.tenant_id = %s",
            [tenant],
        ).fetchall()
    )
    for secret in (hooks.secret, new):
        for form in (secret.encode(), base64.b64decode(secret.removeprefix("whsec_"))):
            assert all(form not in bytes(sealed) for (sealed,) in stored)
        assert secret.removeprefix("whsec_") not in trail
    for sealed in (bytes(row[0]).hex() for row in stored):
        assert sealed not in trail
    assert "webhook.create_secret" in trail
    assert "webhook.rotate_secret" in trail
    assert "inference.webhooksecret.insert" in trail


def test_make_secret_belongs_to_the_owner(tenant_a: Organisation) -> None:
    for member in (tenant_a.developer, tenant_a.viewer, tenant_a.auditor):
        with pytest.raises(Forbidden):
            services.make_webhook_secret(context=member.context)


@pytest.mark.parametrize("overlap", [-1, services.MOST_OVERLAP_SECONDS + 1])
def test_make_secret_with_an_overlap_out_of_bounds_is_refused(
    tenant_a: Organisation, overlap: int
) -> None:
    with pytest.raises(Invalid):
        services.make_webhook_secret(context=tenant_a.context, overlap_seconds=overlap)


def test_lose_the_secret_sends_nothing_unsigned(hooks: Hooks, receiver: Receiver) -> None:
    job_id = hooks.ended(receiver.url())
    hooks.bench.superuser.execute(
        "UPDATE inference_webhooksecret SET sealed = 'x' WHERE tenant_id = %s", [hooks.tenant.id]
    )
    hooks.deliver()
    assert receiver.received == []
    assert hooks.state(job_id) == WebhookState.PENDING


def test_register_callback_keeps_the_url_encrypted(
    hooks: Hooks, receiver: Receiver, owner_sql: psycopg.Connection
) -> None:
    job_id = hooks.job(receiver.url("/services/T0/path-key?token=query-key"))
    row = hooks.delivery(job_id)
    assert row["origin"] == f"http://127.0.0.1:{receiver.port}"
    assert b"-key" not in bytes(row["sealed_url"])


def test_redeliver_sends_it_again_under_the_same_id(hooks: Hooks, receiver: Receiver) -> None:
    job_id = hooks.ended(receiver.url())
    hooks.deliver()
    delivery = hooks.delivery(job_id)
    services.redeliver_webhook(context=hooks.tenant.developer.context, delivery_id=delivery["id"])
    hooks.deliver()
    first, second = receiver.received
    assert (first.id, first.body) == (second.id, second.body)
    assert hooks.state(job_id) == WebhookState.DELIVERED
    assert [number for number, *_ in hooks.log(job_id)] == [1, 2]


def test_redeliver_after_giving_up_begins_all_tries_anew(hooks: Hooks, receiver: Receiver) -> None:
    receiver.statuses = [410, 500]
    job_id = hooks.ended(receiver.url())
    hooks.deliver()
    assert hooks.state(job_id) == WebhookState.FAILED
    delivery_id = hooks.delivery(job_id)["id"]
    services.redeliver_webhook(context=hooks.tenant.context, delivery_id=delivery_id)
    hooks.deliver()
    row = hooks.delivery(job_id)
    assert (row["state"], row["tries"], row["attempts"]) == (WebhookState.PENDING, 1, 2)
    events = hooks.bench.rows(
        "SELECT action FROM audit_event WHERE object_id = %s ORDER BY recorded_at",
        str(delivery_id),
    )
    assert [e["action"] for e in events] == ["webhook.deliver", "webhook.redeliver"]


def test_redeliver_is_refused_while_the_job_runs_and_while_it_is_sent(
    hooks: Hooks, receiver: Receiver
) -> None:
    waiting = hooks.delivery(hooks.job(receiver.url()))["id"]
    under_way = hooks.delivery(hooks.ended(receiver.url()))["id"]
    hooks.bench.superuser.execute(
        "UPDATE inference_webhookdelivery SET lease_until = clock_timestamp() + interval '1 hour', "
        "due_at = clock_timestamp() + interval '1 hour' WHERE id = %s",
        [under_way],
    )
    for delivery_id in (waiting, under_way):
        with pytest.raises(Conflict):
            services.redeliver_webhook(context=hooks.tenant.context, delivery_id=delivery_id)


def test_redeliver_another_tenants_is_not_found(
    hooks: Hooks, receiver: Receiver, tenant_b: Organisation
) -> None:
    delivery_id = hooks.delivery(hooks.ended(receiver.url()))["id"]
    with pytest.raises(NotFound):
        services.redeliver_webhook(context=tenant_b.context, delivery_id=delivery_id)
