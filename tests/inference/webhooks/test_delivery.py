"""Webhooks from the end of a job to the receiver: none is lost, each is tried until it arrives."""

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.test import Client

from inference.models.jobs import JobState
from inference.models.webhooks import WebhookState
from inference.settlement import Settlement, settle
from inference.tasks import deliver_webhooks
from inference.webhooks import store
from inference.webhooks.schedule import MOST_TRIES
from inference.webhooks.selectors import deliveries
from inference.webhooks.services import tell
from inference.webhooks.targets import clean_url
from portal.core.tenancy import tenant_scope
from tests.inference.webhooks.hooks import LOOPBACK, Hooks
from tests.inference.webhooks.receiver import Receiver
from tests.waiting import eventually


def test_end_job_delivers_how_it_ended_and_nothing_that_was_said(
    hooks: Hooks, receiver: Receiver
) -> None:
    job_id = hooks.ended(receiver.url("/hook?key=k1"), finish_reason="stop")
    hooks.deliver()
    (request,) = receiver.received
    job = hooks.bench.job(job_id)
    assert request.path == "/hook?key=k1"
    assert request.headers["content-type"] == "application/json"
    body = json.loads(request.body)
    assert body.pop("timestamp").startswith(job["finished_at"].strftime("%Y-%m-%dT%H:%M:%S"))
    assert body == {
        "type": "job.succeeded",
        "id": request.id,
        "data": {
            "job_id": str(job_id),
            "state": "succeeded",
            "model": job["sku"],
            "finish_reason": "stop",
            "usage": {
                "prompt_tokens": job["prompt_tokens"],
                "completion_tokens": 3,
                "total_tokens": job["prompt_tokens"] + 3,
            },
            "error": None,
            "metadata": {},
        },
    }
    assert hooks.state(job_id) == WebhookState.DELIVERED
    assert hooks.log(job_id) == [(1, 204, "")]


def test_tell_delivers_something_else_than_a_jobs_end(hooks: Hooks, receiver: Receiver) -> None:
    with tenant_scope(hooks.tenant.context):
        tell(
            tenant_id=hooks.tenant.id,
            url=clean_url(receiver.url("/alerts"), LOOPBACK),
            event="trigger.alert",
            data={"run": "7"},
        )
    hooks.deliver()
    (request,) = receiver.received
    body = json.loads(request.body)
    assert body.pop("timestamp")
    assert body == {"type": "trigger.alert", "id": request.id, "data": {"run": "7"}}
    with tenant_scope(hooks.tenant.context):
        (delivery,) = deliveries()
    assert (delivery.state, delivery.job_id) == (WebhookState.DELIVERED, None)
    client = Client()
    client.force_login(hooks.tenant.owner.user)
    (item,) = client.get("/api/v1/webhooks/deliveries").json()["items"]
    assert (item["event"], item["job_id"]) == ("trigger.alert", None)
    page = client.get(f"/admin/inference/webhookdelivery/{delivery.pk}/")
    assert (page.status_code, b"To the job" in page.content) == (200, False)
    assert b"trigger.alert" in client.get("/admin/inference/webhookdelivery/").content


def _by_worker(hooks: Hooks, job_id: Any) -> None:
    hooks.bench.end(hooks.claim(job_id), JobState.SUCCEEDED, tokens=1)


def _by_sweeper_of_the_queue(hooks: Hooks, job_id: Any) -> None:
    hooks.bench.expire(job_id)
    hooks.bench.sweep()


def _by_sweeper_of_leases(hooks: Hooks, job_id: Any) -> None:
    hooks.claim(job_id)
    hooks.bench.lapse(job_id)
    hooks.bench.sweep(max_attempts=1)


def _by_canceller(hooks: Hooks, job_id: Any) -> None:
    hooks.bench.cancel(job_id)


@pytest.mark.parametrize(
    ("ends", "kind", "code"),
    [
        (_by_worker, "job.succeeded", None),
        (_by_sweeper_of_the_queue, "job.failed", "queue_timeout"),
        (_by_sweeper_of_leases, "job.dead", "worker_lost"),
        (_by_canceller, "job.cancelled", "cancelled"),
    ],
)
def test_end_job_by_whoever_makes_its_webhook_due(
    hooks: Hooks, receiver: Receiver, ends: Any, kind: str, code: str | None
) -> None:
    job_id = hooks.job(receiver.url())
    assert hooks.state(job_id) == WebhookState.WAITING
    ends(hooks, job_id)
    assert hooks.state(job_id) == WebhookState.PENDING
    hooks.deliver()
    (body,) = [json.loads(r.body) for r in receiver.received]
    assert body["type"] == kind
    assert (body["data"]["error"] or {}).get("code") == code


def test_requeue_job_leaves_its_webhook_waiting(hooks: Hooks, receiver: Receiver) -> None:
    job_id = hooks.job(receiver.url())
    hooks.claim(job_id)
    hooks.bench.lapse(job_id)
    hooks.bench.sweep()
    assert hooks.state(job_id) == WebhookState.WAITING


def test_settle_and_roll_back_leaves_the_webhook_waiting_and_the_next_settlement_makes_it_due(
    hooks: Hooks, receiver: Receiver
) -> None:
    """The settlement's transaction dies with its worker: job and webhook stay as they were."""
    job_id = hooks.job(receiver.url())
    claimed = hooks.claim(job_id)
    end = Settlement(job_id, JobState.RUNNING, JobState.SUCCEEDED, 2, fence=claimed.fence)
    with psycopg.connect(hooks.bench.servers.url("gateway")) as worker:
        settle(worker, [end])
        assert worker.execute(
            "SELECT state FROM inference_webhookdelivery WHERE job_id = %s", [job_id]
        ).fetchone() == (WebhookState.PENDING.value,)
        worker.rollback()
    assert hooks.state(job_id) == WebhookState.WAITING
    hooks.deliver()
    assert receiver.received == []
    hooks.bench.settle(end)
    hooks.deliver()
    assert [json.loads(r.body)["type"] for r in receiver.received] == ["job.succeeded"]


def test_fail_attempts_tries_again_under_one_id_until_it_arrives(
    hooks: Hooks, receiver: Receiver
) -> None:
    receiver.statuses = [500, 302, 404]
    receiver.headers = {"location": receiver.url("/elsewhere")}
    job_id = hooks.ended(receiver.url())
    for tries in (1, 2, 3):
        hooks.deliver()
        delivery = hooks.delivery(job_id)
        assert (delivery["state"], delivery["tries"]) == (WebhookState.PENDING, tries)
        assert delivery["due_at"] > delivery["last_attempt_at"]
        # Not due: another round sends nothing.
        hooks.deliver()
        assert len(receiver.received) == tries
        hooks.make_due(job_id)
    hooks.deliver()
    assert hooks.state(job_id) == WebhookState.DELIVERED
    assert hooks.log(job_id) == [
        (1, 500, "The receiver answered 500."),
        (2, 302, "The receiver answered 302; redirects are not followed."),
        (3, 404, "The receiver answered 404."),
        (4, 204, ""),
    ]
    assert {r.path for r in receiver.received} == {"/hook"}
    assert len({r.id for r in receiver.received}) == 1
    assert len({r.body for r in receiver.received}) == 1


def test_fail_every_attempt_gives_up_in_the_end_and_says_so_in_the_trail(
    hooks: Hooks, receiver: Receiver
) -> None:
    receiver.statuses = [503] * 100
    job_id = hooks.ended(receiver.url("/hook/path-key?key=query-key"))
    for _ in range(MOST_TRIES + 2):
        hooks.deliver()
        hooks.make_due(job_id)
    assert len(receiver.received) == MOST_TRIES
    assert hooks.state(job_id) == WebhookState.FAILED
    (event,) = hooks.bench.rows(
        "SELECT e.*, b.detail FROM audit_event e JOIN audit_body b ON b.event_id = e.id "
        "WHERE e.object_id = %s",
        str(hooks.delivery(job_id)["id"]),
    )
    assert (event["action"], event["outcome"]) == ("webhook.deliver", "failure")
    assert event["tenant_id"] == hooks.tenant.id
    assert event["reason"] == "The receiver answered 503."
    assert event["detail"] == {
        "job": str(job_id),
        "receiver": f"http://127.0.0.1:{receiver.port}",
        "status": 503,
        "attempts": MOST_TRIES,
    }
    assert "-key" not in str(event)


def test_answer_gone_is_not_tried_again(hooks: Hooks, receiver: Receiver) -> None:
    receiver.statuses = [410]
    job_id = hooks.ended(receiver.url())
    hooks.deliver()
    assert hooks.state(job_id) == WebhookState.FAILED


@pytest.mark.parametrize("raw", [b"", b"SSH-2.0-x\r\n", b"HTTP/1.1 200 OK\r\nx: " + b"y" * 300_000])
def test_answer_that_is_no_answer_is_tried_again(
    hooks: Hooks, receiver: Receiver, raw: bytes
) -> None:
    receiver.raw = raw
    job_id = hooks.ended(receiver.url())
    hooks.deliver()
    assert hooks.state(job_id) == WebhookState.PENDING
    ((number, status, error),) = hooks.log(job_id)
    assert (number, status) == (1, None)
    assert error


def test_answer_with_an_endless_body_is_delivered_by_its_status(
    hooks: Hooks, receiver: Receiver
) -> None:
    receiver.raw = b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\nx"
    job_id = hooks.ended(receiver.url())
    hooks.deliver()
    assert hooks.state(job_id) == WebhookState.DELIVERED


def test_send_to_a_port_where_nobody_listens_says_so(hooks: Hooks) -> None:
    with Receiver() as closed:
        url = closed.url()
    job_id = hooks.ended(url)
    hooks.deliver()
    assert hooks.log(job_id) == [(1, None, "The receiver can't be reached.")]


def test_two_senders_at_once_send_each_attempt_once(hooks: Hooks, receiver: Receiver) -> None:
    jobs = [hooks.ended(receiver.url(f"/{n}")) for n in range(12)]
    others = [hooks.deliverer() for _ in range(4)]

    async def together() -> None:
        await asyncio.gather(*(d.round() for d in others))
        await asyncio.gather(*(d.idle() for d in others))
        await asyncio.gather(*(d.close() for d in others))

    hooks.bench.run(together())
    assert sorted(r.path for r in receiver.received) == sorted(f"/{n}" for n in range(12))
    assert {hooks.state(job_id) for job_id in jobs} == {WebhookState.DELIVERED}


def test_claim_of_another_sender_that_has_not_committed_is_skipped(
    hooks: Hooks, receiver: Receiver
) -> None:
    job_id = hooks.ended(receiver.url())
    claim = {"busy": "{}", "a_tenant": 8, "slots": 64, "lease": 60.0}
    with psycopg.connect(hooks.bench.servers.url("gateway")) as other:
        claimed = other.execute(store.CLAIM, claim).fetchall()
        assert job_id in [row[2] for row in claimed]
        hooks.deliver()
        assert receiver.received == []
        other.rollback()
    hooks.deliver()
    assert len(receiver.received) == 1


def test_sender_dies_and_another_follows_once_the_lease_has_run_out(
    hooks: Hooks, receiver: Receiver
) -> None:
    receiver.hold()
    job_id = hooks.ended(receiver.url())

    async def die() -> None:
        dying = hooks.deliverer()
        await dying.round()
        await asyncio.to_thread(receiver.wait, 1)
        await dying.close()

    hooks.bench.run(die())
    receiver.free.set()
    # Under lease it is nobody else's.
    hooks.deliver()
    assert len(receiver.received) == 1
    hooks.make_due(job_id)
    hooks.deliver()
    assert len(receiver.received) == 2
    assert receiver.received[0].id == receiver.received[1].id
    assert hooks.state(job_id) == WebhookState.DELIVERED
    assert hooks.log(job_id) == [(2, 204, "")]


def test_sender_that_lost_its_lease_changes_nothing_but_the_log(
    hooks: Hooks, receiver: Receiver
) -> None:
    """The slow sender's outcome comes after another one has delivered."""
    overtaken = threading.Event()
    receiver.arrived = lambda _: overtaken.wait() if len(receiver.received) == 1 else None
    receiver.statuses = [204, 500]
    job_id = hooks.ended(receiver.url())

    async def overtake() -> None:
        slow, quick = hooks.deliverer(), hooks.deliverer()
        await slow.round()
        await asyncio.to_thread(receiver.wait, 1)
        hooks.make_due(job_id)
        await quick.round()
        await quick.idle()
        overtaken.set()
        await slow.idle()
        await asyncio.gather(slow.close(), quick.close())

    hooks.bench.run(overtake())
    assert hooks.log(job_id) == [(1, 500, "The receiver answered 500."), (2, 204, "")]
    delivery = hooks.delivery(job_id)
    assert (delivery["state"], delivery["last_status"]) == (WebhookState.DELIVERED, 204)


def test_slow_receiver_holds_no_more_than_its_tenants_share(
    hooks: Hooks, receiver: Receiver, tenant_b: Any
) -> None:
    other = Hooks(hooks.bench, tenant_b)
    with Receiver() as slow:
        slow.hold()
        for _ in range(5):
            hooks.ended(slow.url())
        quick = [other.ended(receiver.url()) for _ in range(3)]

        async def both() -> None:
            deliverer = hooks.deliverer(slots=3, slots_a_tenant=2)
            await deliverer.round()
            await asyncio.to_thread(receiver.wait, 3)
            await asyncio.to_thread(
                eventually, lambda: {other.state(j) for j in quick} == {WebhookState.DELIVERED}
            )
            assert len(slow.received) == 2
            await deliverer.close()

        hooks.bench.run(both())


def test_many_due_are_all_sent_by_one_round(hooks: Hooks, receiver: Receiver) -> None:
    jobs = [hooks.ended(receiver.url()) for _ in range(7)]

    async def one_round() -> None:
        deliverer = hooks.deliverer(slots=2, slots_a_tenant=1)
        await deliverer.round()
        await deliverer.idle()
        await deliverer.close()

    hooks.bench.run(one_round())
    assert {hooks.state(job_id) for job_id in jobs} == {WebhookState.DELIVERED}
    assert len(receiver.received) == 7


def test_end_job_that_a_gateway_waits_for_runs_no_trigger(hooks: Hooks, receiver: Receiver) -> None:
    """The hot path pays the trigger's condition and nothing else."""
    (job_id,) = hooks.bench.admit(hooks.caller)
    hooks.register(job_id, receiver.url())
    hooks.bench.end(hooks.claim(job_id), JobState.SUCCEEDED, tokens=1)
    assert hooks.state(job_id) == WebhookState.WAITING


def test_deliver_webhooks_round_after_round_opens_no_more_than_the_first(database: None) -> None:
    deliver_webhooks()
    threads, files = threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(4):
        deliver_webhooks()
    assert threading.active_count() <= threads
    assert len(list(Path("/proc/self/fd").iterdir())) <= files
