"""Jobs on the management API: submitted, read, answered, cancelled."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from django.utils import timezone

from inference.models import JobState
from portal.core.actors import PlatformRole
from portal.core.ids import uuid7
from tenants.services import CreatedKey, set_quota
from tests import factories
from tests.api.callers import Caller, Reply, key_caller, session_caller
from tests.factories import TESTS, Organisation
from tests.inference.bench import Bench, credential
from tests.inference.jobs.support import claimed, succeed
from tests.servers import SessionServers


@pytest.fixture(scope="module")
def bench(servers: SessionServers, database: None) -> Iterator[Bench]:
    with Bench(servers) as made:
        yield made


@pytest.fixture(autouse=True)
def _database(database: None) -> None:
    """All of these tests call the portal."""


@pytest.fixture
def key(tenant_a: Organisation) -> CreatedKey:
    return factories.api_key(tenant_a)


@pytest.fixture
def caller(key: CreatedKey) -> Caller:
    return key_caller(key.token)


def post(caller: Caller, bench: Bench, headers: Any = None, **more: Any) -> Reply:
    body = {
        "model": bench.served.model_name,
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 8,
        **more,
    }
    return caller.post("jobs", body, **(headers or {}))


def submitted(caller: Caller, bench: Bench, **more: Any) -> UUID:
    response = post(caller, bench, **more)
    assert response.status_code == 202, response.content
    return UUID(response.json()["id"])


# -- submitting ----------------------------------------------------------------------------


def test_post_answers_with_the_job_that_waits(caller: Caller, bench: Bench) -> None:
    metadata = {"order": "4711", "secret": "password=hunter2hunter2"}
    response = post(caller, bench, priority="batch", metadata=metadata, temperature=0.5)
    job = response.json()
    assert (response.status_code, job["state"], job["kind"]) == (202, "queued", "job")
    assert (job["priority"], job["result_expires_at"]) == ("batch", None)
    assert response["Location"] == f"/api/v1/jobs/{job['id']}"
    assert job["parameters"]["temperature"] == 0.5
    assert job["parameters"]["metadata"]["order"] == "4711"
    assert caller.get(f"jobs/{job['id']}").json() == job


@pytest.mark.parametrize("role", ["owner", "developer", "viewer"])
def test_post_by_a_browser_session_is_refused_with_what_to_do(
    tenant_a: Organisation, bench: Bench, role: str
) -> None:
    response = post(session_caller(getattr(tenant_a, role).user), bench)
    assert (response.status_code, response.json()["code"]) == (403, "api_key_needed")
    assert "API key with the scope 'inference'" in response.json()["detail"]


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"priority": "urgent"}, "priority"),
        ({"result_ttl": 59}, "result_ttl"),
        ({"result_ttl": 7 * 86400 + 1}, "result_ttl"),
        ({"max_wait": 0}, "max_wait"),
        ({"metadata": {str(n): "" for n in range(17)}}, "metadata"),
        ({"metadata": {"a": "x" * 513}}, "metadata"),
        ({"stream": True}, "stream"),
        ({"messages": []}, "messages"),
        ({"seed": 10**30}, "seed"),
        ({"callback_url": "ftp://example.test"}, "callback_url"),
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "s", "schema": {"not": {}}},
                }
            },
            "response_format.json_schema",
        ),
    ],
)
def test_post_of_what_is_wrong_names_it(
    caller: Caller, bench: Bench, wrong: dict[str, Any], param: str
) -> None:
    response = post(caller, bench, **wrong)
    assert (response.status_code, response.json()["param"]) == (400, param), response.json()


@pytest.mark.parametrize("body", [[], "x", None, {"model": "m"}])
def test_post_of_no_job_is_a_bad_request(caller: Caller, body: Any) -> None:
    assert caller.post("jobs", body).status_code == 400


def test_post_over_a_limit_is_refused_as_the_gateway_would_and_stays_recorded(
    caller: Caller, bench: Bench, tenant_a: Organisation
) -> None:
    set_quota(context=TESTS, tenant_id=tenant_a.id, requests_day=0)
    response = post(caller, bench)
    assert (response.status_code, response.json()["code"]) == (429, "insufficient_quota")
    assert int(response["Retry-After"]) > 0
    events = bench.rows(
        "SELECT outcome, reason FROM audit_event WHERE tenant_id = %s AND action = 'inference.job'",
        tenant_a.id,
    )
    assert events == [{"outcome": "denied", "reason": "insufficient_quota"}]


def test_post_under_one_idempotency_key_is_one_job(
    caller: Caller, bench: Bench, tenant_a: Organisation
) -> None:
    headers = {"Idempotency-Key": "order-4711"}
    first, again = (post(caller, bench, headers) for _ in range(2))
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json()["id"] == again.json()["id"]
    assert ("Idempotent-Replayed" in first, again["Idempotent-Replayed"]) == (False, "true")
    other = post(caller, bench, headers, max_tokens=9)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert bench.window(tenant_a.id)["active"] == 1


@pytest.mark.parametrize("name", ["", "with space", "x" * 256])
def test_post_under_an_unusable_idempotency_key_is_refused(
    caller: Caller, bench: Bench, name: str
) -> None:
    response = post(caller, bench, {"Idempotency-Key": name})
    assert (response.status_code, response.json()["param"]) == (400, "Idempotency-Key")


# -- reading -------------------------------------------------------------------------------


def test_read_shows_a_key_its_own_jobs_and_no_other_of_its_tenant(
    caller: Caller, bench: Bench, tenant_a: Organisation
) -> None:
    job_id = submitted(caller, bench)
    other = key_caller(factories.api_key(tenant_a).token)
    for path in ("", "/events", "/result"):
        assert other.get(f"jobs/{job_id}{path}").status_code == 404
    assert other.post(f"jobs/{job_id}/cancel", {}).status_code == 404
    succeed(bench, claimed(bench, job_id))
    assert caller.get(f"jobs/{job_id}/result").status_code == 200
    assert other.get(f"jobs/{job_id}/result").status_code == 404
    reader = key_caller(factories.api_key(tenant_a, scopes=["jobs:read"]).token)
    assert reader.get(f"jobs/{job_id}").status_code == 200
    assert reader.get(f"jobs/{job_id}/result").status_code == 403
    assert reader.post(f"jobs/{job_id}/cancel", {}).status_code == 403


def test_list_filters_by_kind_and_priority(
    caller: Caller, key: CreatedKey, bench: Bench, tenant_a: Organisation
) -> None:
    job_id = submitted(caller, bench, priority="batch")
    (called,) = bench.admit(credential(key))
    owner = session_caller(tenant_a.owner.user)

    def listed(query: str) -> list[str]:
        return [job["id"] for job in owner.get(f"jobs?{query}").json()["items"]]

    assert listed("kind=job") == listed("priority=batch") == [str(job_id)]
    assert listed("kind=chat") == listed("priority=interactive") == [str(called)]
    for query in ("kind=J%00", "priority=urgent"):
        assert owner.get(f"jobs?{query}").status_code == 400


def test_result_of_each_state_says_what_it_is(caller: Caller, bench: Bench) -> None:
    job_id = submitted(caller, bench, result_ttl=120)
    path = f"jobs/{job_id}/result"

    def told() -> tuple[int, str]:
        response = caller.get(path)
        return response.status_code, response.json().get("code", "")

    assert told() == (404, "result_not_ready")
    job = claimed(bench, job_id)
    assert told() == (404, "result_not_ready")
    succeed(bench, job, "Grüezi", 4)
    response = caller.get(path)
    assert (response.status_code, response["Cache-Control"]) == (200, "no-store")
    answer = response.json()
    assert (answer["object"], answer["model"]) == ("chat.completion", bench.served.model_name)
    (choice,) = answer["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("Grüezi", "stop")
    prompt = job.prompt_tokens
    assert answer["usage"] == {
        "prompt_tokens": prompt, "completion_tokens": 4, "total_tokens": prompt + 4
    }  # fmt: skip
    until = datetime.fromisoformat(caller.get(f"jobs/{job_id}").json()["result_expires_at"])
    assert timedelta(seconds=100) < until - timezone.now() <= timedelta(seconds=120)
    bench.superuser.execute(
        "UPDATE inference_jobpayload SET delete_after = now() WHERE job_id = %s", [job_id]
    )
    assert told() == (410, "result_expired")
    bench.sweep()
    assert bench.payloads(job_id) == 0
    assert told() == (410, "result_expired")
    assert caller.get(f"jobs/{job_id}").json()["result_expires_at"] is None


def test_result_of_a_failed_job_says_how_it_ended(caller: Caller, bench: Bench) -> None:
    job_id = submitted(caller, bench)
    bench.end(claimed(bench, job_id), JobState.FAILED, error_code="x", error_message="It broke.")
    response = caller.get(f"jobs/{job_id}/result")
    assert (response.status_code, response.json()["code"]) == (409, "job_without_result")
    assert "It broke." in response.json()["detail"]
    assert bench.payloads(job_id) == 0


def test_result_of_a_call_that_was_answered_at_once_was_never_kept(
    caller: Caller, key: CreatedKey, bench: Bench
) -> None:
    (called,) = bench.admit(credential(key))
    response = caller.get(f"jobs/{called}/result")
    assert (response.status_code, response.json()["code"]) == (404, "result_not_kept")


def test_result_is_read_by_no_session_and_no_administrator(
    tenant_a: Organisation, caller: Caller, bench: Bench, system_admin: Any
) -> None:
    job_id = submitted(caller, bench)
    succeed(bench, claimed(bench, job_id))
    for user in (tenant_a.owner.user, tenant_a.auditor.user):
        assert session_caller(user).get(f"jobs/{job_id}/result").status_code == 403
    entered = session_caller(factories.administrator(PlatformRole.SYSTEM).user, tenant_a.id)
    assert entered.get(f"jobs/{job_id}").status_code == 200
    assert entered.get(f"jobs/{job_id}/result").status_code == 403


# -- cancelling ----------------------------------------------------------------------------


def cancels(bench: Bench, tenant: Organisation) -> int:
    (row,) = bench.rows(
        "SELECT count(*) AS n FROM audit_event WHERE tenant_id = %s AND action = 'job.cancel'",
        tenant.id,
    )
    return int(row["n"])


def test_cancel_of_a_waiting_job_ends_it_and_gives_back_what_was_reserved(
    caller: Caller, bench: Bench, tenant_a: Organisation
) -> None:
    job_id = submitted(caller, bench)
    for _ in range(2):
        response = caller.post(f"jobs/{job_id}/cancel", {})
        assert response.status_code == 202
    bench.sweep()
    job = caller.get(f"jobs/{job_id}").json()
    assert (job["state"], job["error_code"]) == ("cancelled", "cancelled")
    assert caller.post(f"jobs/{job_id}/cancel", {}).json()["state"] == "cancelled"
    window = bench.window(tenant_a.id)
    assert (window["active"], window["tokens_day_held"], bench.charges(job_id)) == (0, 0, [])
    assert cancels(bench, tenant_a) == 1
    assert caller.get(f"jobs/{job_id}/result").status_code == 409


def test_cancel_of_a_running_job_reaches_its_worker(
    tenant_a: Organisation, caller: Caller, bench: Bench, redis: Any
) -> None:
    job_id = submitted(caller, bench)
    job = claimed(bench, job_id)
    listener = redis.pubsub(ignore_subscribe_messages=True)
    listener.subscribe(f"cancel:{bench.served.queue}")
    listener.get_message(timeout=5)
    owner = session_caller(tenant_a.owner.user)
    assert owner.post(f"jobs/{job_id}/cancel", {}).json()["state"] == "running"
    message = listener.get_message(timeout=5)
    assert message is not None
    assert message["data"] == job_id.bytes
    listener.close()
    assert bench.renew(progress_of(job)) == {job_id: True}
    bench.end(job, JobState.CANCELLED, error_code="cancelled")
    assert bench.charges(job_id) == []


def progress_of(job: Any) -> Any:
    from inference.worker.claims import Progress

    return Progress(job.id, job.fence, 2, timezone.now())


def test_cancel_of_an_ended_job_changes_nothing(
    tenant_a: Organisation, caller: Caller, bench: Bench
) -> None:
    job_id = submitted(caller, bench)
    succeed(bench, claimed(bench, job_id))
    assert caller.post(f"jobs/{job_id}/cancel", {}).json()["state"] == "succeeded"
    assert bench.job(job_id)["cancel_requested_at"] is None
    assert cancels(bench, tenant_a) == 0
    assert len(bench.charges(job_id)) == 1
    assert caller.get(f"jobs/{job_id}/result").status_code == 200


@pytest.mark.parametrize("role", ["developer", "viewer", "auditor"])
def test_cancel_by_who_is_no_owner_is_refused(
    tenant_a: Organisation, caller: Caller, bench: Bench, role: str
) -> None:
    job_id = submitted(caller, bench)
    other = session_caller(getattr(tenant_a, role).user)
    assert other.post(f"jobs/{job_id}/cancel", {}).status_code == 403
    assert bench.job(job_id)["cancel_requested_at"] is None


# -- execution -----------------------------------------------------------------------------


def test_a_job_whose_worker_is_lost_midway_runs_again_and_is_charged_once(
    caller: Caller, bench: Bench
) -> None:
    job_id = submitted(caller, bench)
    first = claimed(bench, job_id)
    bench.renew(progress_of(first))
    assert caller.get(f"jobs/{job_id}").json()["completion_tokens"] == 2
    bench.lapse(job_id)
    bench.sweep()
    assert caller.get(f"jobs/{job_id}").json()["state"] == "queued"
    assert bench.job(job_id)["watermark"] == 0
    second = claimed(bench, job_id)
    # The first worker lives on: its end is not heard.
    assert bench.end(first, JobState.SUCCEEDED, 3) == []
    succeed(bench, second)
    assert bench.charges(job_id) == [(second.prompt_tokens, 3)]


def test_a_job_that_is_put_back_tells_no_progress_of_the_run_that_was_given_up(
    caller: Caller, bench: Bench
) -> None:
    job_id = submitted(caller, bench)
    job = claimed(bench, job_id)
    bench.renew(progress_of(job))
    bench.release(job, forgive=True)
    waiting = caller.get(f"jobs/{job_id}").json()
    assert (waiting["state"], waiting["completion_tokens"], waiting["attempts"]) == ("queued", 0, 0)


def test_a_job_whose_workers_are_all_lost_is_a_dead_letter_and_costs_nothing(
    caller: Caller, bench: Bench
) -> None:
    job_id = submitted(caller, bench)
    for _ in range(3):
        bench.renew(progress_of(claimed(bench, job_id)))
        bench.lapse(job_id)
        bench.sweep()
    job = caller.get(f"jobs/{job_id}").json()
    assert (job["state"], job["attempts"]) == ("dead", 3)
    assert bench.charges(job_id) == []


def test_missing_jobs_are_not_found(caller: Caller) -> None:
    for path in ("", "/result", "/events"):
        assert caller.get(f"jobs/{uuid7()}{path}").status_code == 404
        assert caller.get(f"jobs/nonsense{path}").status_code == 400


# -- pages ---------------------------------------------------------------------------------


def test_pages_show_kind_and_priority_and_an_owner_cancels(
    tenant_a: Organisation, caller: Caller, bench: Bench
) -> None:
    job_id = submitted(caller, bench, priority="batch", metadata={"order": "4711"})
    client = session_caller(tenant_a.owner.user).client
    listing = client.get("/admin/inference/job/?kind=job&priority=2").content.decode()
    assert "Submitted job" in listing
    path = f"/admin/inference/job/{job_id}/"
    page = client.get(path).content.decode()
    assert "Submitted job" in page
    assert "<code>metadata.order</code></dt><dd>4711</dd>" in page
    assert f"{path}cancel/" in page
    assert f"{path}cancel/" not in (
        session_caller(tenant_a.developer.user).client.get(path).content.decode()
    )
    assert client.get(f"{path}cancel/").status_code == 200
    assert client.post(f"{path}cancel/").status_code == 302
    bench.sweep()
    assert bench.job(job_id)["state"] == JobState.CANCELLED
    assert cancels(bench, tenant_a) == 1
    assert client.get(f"{path}cancel/").status_code == 404


def test_page_of_an_answered_job_says_how_long_its_result_is_kept(
    tenant_a: Organisation, caller: Caller, bench: Bench
) -> None:
    job_id = submitted(caller, bench)
    succeed(bench, claimed(bench, job_id))
    client = session_caller(tenant_a.owner.user).client
    assert "Result is kept until" in client.get(f"/admin/inference/job/{job_id}/").content.decode()
