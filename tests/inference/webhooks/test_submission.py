"""``callback_url`` of a submitted job, to the receiver: by hand, and by the product's processes."""

import json

import httpx
import psycopg
import pytest

from inference.jobs.submission import JobRequest, Outcome, submit
from inference.models.webhooks import WebhookState
from inference.webhooks import services
from portal.core.tenancy import tenant_scope
from tests import factories
from tests.factories import Organisation
from tests.inference.jobs.support import body, claimed, codes, context_of, ids, succeed
from tests.inference.webhooks.hooks import Hooks
from tests.inference.webhooks.receiver import Receiver
from tests.inference.webhooks.test_signing import verifies
from tests.live import LivePortal, Programs
from tests.waiting import eventually


def submitted(hooks: Hooks, *urls: str | None, **options: str) -> list[Outcome]:
    """What becomes of jobs of one key, one for each callback URL."""
    key = factories.api_key(hooks.tenant)
    requests = [JobRequest(body(hooks.bench), callback_url=url, **options) for url in urls]  # type: ignore[arg-type]
    return submit(context=context_of(key), requests=requests)


def test_submit_with_callback_tells_the_receiver_how_it_ended(
    hooks: Hooks, receiver: Receiver
) -> None:
    first, second, silent = ids(
        submitted(hooks, receiver.url("/1?key=query-key"), receiver.url("/2"), None)
    )
    assert {hooks.state(first), hooks.state(second)} == {WebhookState.WAITING}
    hooks.bench.cancel(second)
    succeed(hooks.bench, claimed(hooks.bench, first))
    hooks.deliver()
    bodies = {r.path: json.loads(r.body) for r in receiver.received}
    assert set(bodies) == {"/1?key=query-key", "/2"}
    assert bodies["/1?key=query-key"]["data"]["job_id"] == str(first)
    assert bodies["/1?key=query-key"]["type"] == "job.succeeded"
    assert "Hello!" not in str(bodies)
    assert (
        hooks.bench.rows("SELECT 1 FROM inference_webhookdelivery WHERE job_id = %s", silent) == []
    )
    trail = hooks.bench.rows(
        "SELECT b.detail FROM audit_event e JOIN audit_body b ON b.event_id = e.id "
        "WHERE e.object_id = %s AND e.outcome = 'requested'",
        str(first),
    )
    assert trail[0]["detail"]["receiver"] == f"http://127.0.0.1:{receiver.port}"
    assert "query-key" not in str(trail)


def test_submit_with_metadata_carries_it_to_the_receiver(hooks: Hooks, receiver: Receiver) -> None:
    key = factories.api_key(hooks.tenant)
    request = JobRequest(body(hooks.bench), metadata={"order": "7"}, callback_url=receiver.url())
    (job_id,) = ids(submit(context=context_of(key), requests=[request]))
    succeed(hooks.bench, claimed(hooks.bench, job_id))
    hooks.deliver()
    (received,) = receiver.received
    assert json.loads(received.body)["data"]["metadata"] == {"order": "7"}


def test_submit_with_a_bad_callback_refuses_that_job_alone_and_names_it(
    hooks: Hooks, receiver: Receiver
) -> None:
    outcomes = submitted(hooks, "http://10.0.0.1/", receiver.url(), "ftp://x/", "http://u:p@x/")
    assert codes(outcomes) == ["webhook_target_refused", "", "invalid", "invalid"]
    assert [o.error.param for o in outcomes if o.error] == ["callback_url"] * 3


def test_submit_with_callback_before_there_is_a_secret_says_what_to_do(
    hooks: Hooks, receiver: Receiver, tenant_b: Organisation
) -> None:
    key = factories.api_key(tenant_b)
    request = JobRequest(body(hooks.bench), callback_url=receiver.url())
    (outcome,) = submit(context=context_of(key), requests=[request])
    assert codes([outcome]) == ["no_webhook_secret"]


def test_submit_again_under_one_key_calls_back_once_and_another_url_is_another_body(
    hooks: Hooks, receiver: Receiver
) -> None:
    key = factories.api_key(hooks.tenant)

    def again(url: str) -> Outcome:
        request = JobRequest(body(hooks.bench), callback_url=url, idempotency_key="once")
        (outcome,) = submit(context=context_of(key), requests=[request])
        return outcome

    first, second = again(receiver.url()), again(receiver.url())
    assert (second.job_id, second.replayed) == (first.job_id, True)
    assert codes([again(receiver.url("/other"))]) == ["idempotency_key_reused"]
    assert first.job_id is not None
    hooks.bench.cancel(first.job_id)
    hooks.deliver()
    assert len(receiver.received) == 1


def test_submit_that_is_rolled_back_leaves_neither_job_nor_callback(
    hooks: Hooks, receiver: Receiver
) -> None:
    key = factories.api_key(hooks.tenant)
    request = JobRequest(body(hooks.bench), callback_url=receiver.url())
    context = context_of(key)
    with pytest.raises(RuntimeError, match="dies"), tenant_scope(context):
        ids(submit(context=context, requests=[request]))
        raise RuntimeError("the process dies here")
    for table in ("inference_job", "inference_webhookdelivery"):
        assert (
            hooks.bench.rows(f"SELECT 1 FROM {table} WHERE tenant_id = %s", hooks.tenant.id) == []
        )


@pytest.fixture
def wanderer(tenant_a: Organisation) -> tuple[str, str]:
    """An API key that submits and reads, and its tenant's signing secret."""
    secret = services.make_webhook_secret(context=tenant_a.context).secret
    key = factories.api_key(tenant_a, scopes=["inference", "jobs:read"])
    return key.token, secret


def _submit(client: httpx.Client, model: str, url: str) -> str:
    answer = client.post(
        "/api/v1/jobs",
        json={
            "model": model,
            "messages": [{"role": "user", "content": "hi"}],
            "max_tokens": 4,
            "metadata": {"order": "7"},
            "callback_url": url,
        },
    )
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def _delivery(client: httpx.Client, job_id: str) -> dict[str, object]:
    items = client.get(f"/api/v1/webhooks/deliveries?job_id={job_id}").json()["items"]
    assert len(items) == 1
    return dict(items[0])


def test_submit_to_a_running_portal_calls_back(
    live_portal: LivePortal, programs: Programs, receiver: Receiver, wanderer: tuple[str, str]
) -> None:
    """Web, worker, beat and an io worker as they are shipped; nothing is moved by hand."""
    token, secret = wanderer
    programs.io(factories.unique("io-hooks"))
    with live_portal.client(token) as client:
        trial = client.post("/api/v1/webhooks/test", json={"url": receiver.url("/trial")})
        assert trial.json()["delivered"], trial.text
        assert verifies(secret, receiver.received.pop())
        job_id = _submit(client, live_portal.fake.model, receiver.url())
        (request,) = receiver.wait(1, within=90)
        assert verifies(secret, request)
        told = json.loads(request.body)
        assert (told["type"], told["data"]["job_id"]) == ("job.succeeded", job_id)
        assert told["data"]["metadata"] == {"order": "7"}
        usage = client.get(f"/api/v1/jobs/{job_id}/result").json()["usage"]
        assert told["data"]["usage"] == usage
        eventually(lambda: _delivery(client, job_id)["state"] == "delivered")


def test_kill_io_worker_in_the_middle_of_a_call_sends_it_again(
    live_portal: LivePortal,
    programs: Programs,
    receiver: Receiver,
    wanderer: tuple[str, str],
    owner_sql: psycopg.Connection,
) -> None:
    token, secret = wanderer
    receiver.hold()
    dying = programs.io(factories.unique("io-dying"))
    with live_portal.client(token) as client:
        job_id = _submit(client, live_portal.fake.model, receiver.url())
        receiver.wait(1, within=90)
        dying.kill()
        receiver.free.set()
        assert _delivery(client, job_id)["state"] == "pending"
        programs.io(factories.unique("io-next"))
        # The lease is a minute; its end is brought forward.
        owner_sql.execute(
            "UPDATE inference_webhookdelivery SET due_at = now(), lease_until = now() "
            "WHERE job_id = %s",
            [job_id],
        )
        first, second = receiver.wait(2, within=90)
        assert (first.id, first.body) == (second.id, second.body)
        assert verifies(secret, second)
        eventually(lambda: _delivery(client, job_id)["state"] == "delivered")
        assert _delivery(client, job_id)["attempts"] == 2
