"""What a running portal tells Prometheus of itself."""

import contextlib
import json
import socket
import time
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest

from tests import factories
from tests.factories import Organisation
from tests.live import LivePortal, Programs, deploy
from tests.metrics.scrapes import Scrape, scrape
from tests.waiting import eventually

CHAT = "inference.chat"
HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def client(live_portal: LivePortal) -> Iterator[httpx.Client]:
    key = factories.api_key(factories.organisation("metrics"))
    with live_portal.client(key.token) as made:
        yield made


def chat(**changes: object) -> dict[str, object]:
    return {"model": "fake-chat", "messages": HELLO, "max_tokens": 5, **changes}


def grown(before: Scrape, after: Scrape, name: str, **labels: str) -> float:
    return after.value(name, **labels) - before.value(name, **labels)


def test_read_metrics_in_both_formats_says_the_same_families(live_portal: LivePortal) -> None:
    text = scrape(live_portal.base_url)
    strict = scrape(live_portal.base_url, openmetrics=True)
    assert set(text.families) == set(strict.families)
    assert {family.type for family in text.families.values()} == {"counter", "gauge", "histogram"}
    assert all(family.documentation for family in text.families.values())
    assert text.values("freehold_metrics_source_up") == {
        ("dispatch",): 1, ("rollups",): 1, ("periodic",): 1,
    }  # fmt: skip


def test_answer_whole_and_stream_counts_requests_tokens_and_times(
    live_portal: LivePortal, client: httpx.Client
) -> None:
    before = scrape(live_portal.base_url)
    whole = client.post("/v1/chat/completions", json=chat()).json()["usage"]
    with client.stream("POST", "/v1/chat/completions", json=chat(stream=True)) as answer:
        assert "[DONE]" in answer.read().decode()
    after = scrape(live_portal.base_url)
    model = "fake-chat"
    for name, count in (
        ("freehold_gateway_requests_total", 2),
        ("freehold_gateway_generation_seconds_count", 2),
        ("freehold_gateway_first_token_seconds_count", 1),
        ("freehold_gateway_jobs_ended_total", 2),
        ("freehold_gateway_prompt_tokens_total", 2 * whole["prompt_tokens"]),
        ("freehold_gateway_completion_tokens_total", 2 * whole["completion_tokens"]),
        ("freehold_gateway_admission_batch_size_sum", 2),
    ):
        assert grown(before, after, name) == count, name
    assert grown(before, after, "freehold_gateway_requests_total", action=CHAT, status="200") == 2
    assert grown(before, after, "freehold_gateway_jobs_ended_total", state="succeeded") == 2
    first = grown(before, after, "freehold_gateway_first_token_seconds_sum", model=model)
    both = grown(before, after, "freehold_gateway_generation_seconds_sum", model=model)
    assert 0 < first < both < 60
    assert 1 <= grown(before, after, "freehold_gateway_admission_commit_seconds_count") <= 2
    assert after.value("freehold_gateway_open_generations") == 0


def test_refuse_calls_counts_them_by_code_and_status(
    live_portal: LivePortal, client: httpx.Client
) -> None:
    before = scrape(live_portal.base_url)
    refusals = [
        (httpx.post(f"{live_portal.base_url}/v1/chat/completions", json=chat()), "invalid_api_key"),
        (client.post("/v1/chat/completions", json=chat(model="none")), "model_not_found"),
        (
            client.post("/v1/chat/completions", json=chat(max_tokens=10**7)),
            "context_length_exceeded",
        ),
        (client.get("/v1/nothing"), "unknown_url"),
        (client.get("/v1/chat/completions"), "method_not_allowed"),
        (client.get("/v1/models/none"), "model_not_found"),
    ]
    after = scrape(live_portal.base_url)
    assert [r.json()["error"]["code"] for r, _ in refusals] == [code for _, code in refusals]
    assert grown(before, after, "freehold_gateway_errors_total") == len(refusals)
    assert grown(before, after, "freehold_gateway_errors_total", code="model_not_found") == 2
    assert grown(before, after, "freehold_gateway_requests_total", status="404") == 3
    assert (
        grown(before, after, "freehold_gateway_requests_total", action="inference.unknown_route")
        == 1
    )
    assert grown(before, after, "freehold_gateway_generation_seconds_count") == 0


def test_fail_in_the_engine_counts_its_code_and_what_the_worker_did(
    live_portal: LivePortal, programs: Programs
) -> None:
    failing = deploy(live_portal.servers, factories.unique("failing"), options={"fail_on": "boom"})
    mine = {"deployment": failing.deployment}
    programs.worker(failing)
    programs.wait_served(live_portal.web, failing)
    key = factories.api_key(factories.organisation("metrics"))
    before = scrape(live_portal.base_url)
    with live_portal.client(key.token) as caller:
        usage = caller.post("/v1/chat/completions", json=chat(model=failing.model)).json()["usage"]
        body = chat(model=failing.model, messages=[{"role": "user", "content": "boom"}])
        code = caller.post("/v1/chat/completions", json=body).json()["error"]["code"]
    after = scrape(live_portal.base_url)
    assert grown(before, after, "freehold_gateway_errors_total", code=code) == 1
    assert grown(before, after, "freehold_gateway_jobs_ended_total", state="failed") == 1

    def told() -> Scrape | None:
        found = scrape(live_portal.base_url)
        return found if found.value("freehold_worker_jobs_ended_total", **mine) == 2 else None

    found = eventually(told, every=0.2, what="a heartbeat tells of both jobs")
    assert found is not None
    for state in ("succeeded", "failed"):
        assert found.value("freehold_worker_jobs_ended_total", state=state, **mine) == 1
    assert found.value("freehold_worker_claims_total", **mine) == 2
    for name in ("prompt_tokens", "completion_tokens"):
        assert found.value(f"freehold_worker_{name}_total", **mine) == usage[name]


def test_hang_up_counts_a_caller_who_went_away(
    live_portal: LivePortal, client: httpx.Client
) -> None:
    before = scrape(live_portal.base_url)
    with client.stream(
        "POST", "/v1/chat/completions", json=chat(stream=True, max_tokens=3000)
    ) as answer:
        lines = answer.iter_lines()
        next(lines)
        open_now = scrape(live_portal.base_url).values("freehold_gateway_open_generations")
        assert open_now == {("stream",): 1, ("whole",): 0}
    eventually(
        lambda: (
            grown(before, scrape(live_portal.base_url), "freehold_gateway_disconnects_total") == 1
        ),
        what="the caller's leaving is counted",
    )


def test_queue_jobs_without_a_worker_tells_how_many_wait_and_how_long(
    live_portal: LivePortal, tenant_a: Organisation
) -> None:
    idle = deploy(live_portal.servers, factories.unique("idle"))
    token = factories.api_key(tenant_a).token

    def known() -> bool:
        url, headers = (
            f"{live_portal.base_url}/v1/models/{idle.model}",
            {"Authorization": f"Bearer {token}"},
        )
        return httpx.get(url, headers=headers, timeout=30).status_code == 200

    mine = {"deployment": idle.deployment}
    body = json.dumps(chat(model=idle.model)).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
        f"Authorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    at = urlsplit(live_portal.base_url)
    eventually(known, every=0.1, what="the gateway knows the new model")

    def waiting(jobs: int) -> Callable[[], Scrape | None]:
        def told() -> Scrape | None:
            found = scrape(live_portal.base_url)
            return found if found.value("freehold_queue_waiting_jobs", **mine) == jobs else None

        return told

    with contextlib.ExitStack() as callers:
        for _ in range(2):
            caller = callers.enter_context(socket.create_connection((at.hostname, at.port)))
            caller.sendall(head.encode() + body)
        found = eventually(waiting(2), every=0.1, what="both jobs wait")
        assert found is not None
        assert 0 < found.value("freehold_queue_oldest_wait_seconds", **mine) < 60
        assert found.value("freehold_queue_running_jobs", **mine) == 0
        assert found.value("freehold_deployment_enabled", **mine) == 1
        assert found.values("freehold_deployment_ready_workers", **mine) == {(idle.deployment,): 0}
        assert found.values("freehold_queue_drain_seconds", **mine) == {}
    found = eventually(waiting(0), every=0.1, what="nothing waits when the callers have gone")
    assert found is not None
    assert found.values("freehold_queue_oldest_wait_seconds", **mine) == {(idle.deployment,): 0}
    assert found.values("freehold_queue_drain_seconds", **mine) == {(idle.deployment,): 0}


def test_serve_a_deployment_tells_its_workers(live_portal: LivePortal) -> None:
    found = scrape(live_portal.base_url)
    mine = {"deployment": live_portal.fake.deployment}
    assert found.value("freehold_deployment_ready_workers", **mine) == 1
    ((labels, up),) = found.values("freehold_worker_up", **mine).items()
    assert up == 1
    assert labels[1].startswith("fake-chat@")
    assert found.value("freehold_worker_slots", **mine) == 64
    assert found.value("freehold_worker_state", **mine) == 1
    assert found.value("freehold_worker_state", state="ready", **mine) == 1
    assert 0 <= found.value("freehold_worker_heartbeat_age_seconds", **mine) < 10
    assert time.time() - found.value("freehold_worker_start_timestamp_seconds", **mine) < 3600


def test_run_tasks_by_the_clock_tells_their_last_success(live_portal: LivePortal) -> None:
    name = "freehold_periodic_task_last_success_timestamp_seconds"

    def succeeded() -> Scrape | None:
        found = scrape(live_portal.base_url)
        tasks = ("inference.sweep", "tenants.roll_up_usage", "tenants.warn_of_quotas")
        return found if all(found.values(name, task=task) for task in tasks) else None

    found = eventually(succeeded, within=60, every=0.5, what="each task has succeeded")
    assert found is not None
    for task in ("inference.sweep", "tenants.roll_up_usage"):
        late = time.time() - found.value(name, task=task)
        assert 0 <= late < found.value("freehold_periodic_task_interval_seconds", task=task) + 60
    # Other tests stop the servers of this portal, so it may have failed meanwhile.
    failures = found.values("freehold_periodic_task_failures_total", task="inference.sweep")
    assert set(failures) == {("inference.sweep",)}
    assert time.time() - found.value("freehold_usage_last_rollup_timestamp_seconds") < 60
    ahead = found.value("freehold_audit_partitions_until_timestamp_seconds") - time.time()
    assert ahead > 80 * 86400


def test_read_a_page_counts_its_view_and_its_time_in_the_database(live_portal: LivePortal) -> None:
    before = scrape(live_portal.base_url)
    with live_portal.client() as caller:
        assert caller.get("/admin/login/").status_code == 200
        assert caller.get("/api/v1/tenants").status_code == 401
        assert caller.get(f"/nothing-{factories.unique('x')}").status_code == 404
    after = scrape(live_portal.base_url)
    for view, status in (("admin:login", "200"), ("tenants", "401"), ("none", "404")):
        labels = {"view": view, "status": status}
        assert grown(before, after, "freehold_http_requests_total", **labels) == 1, view
    seconds = grown(before, after, "freehold_http_request_seconds_sum", view="tenants")
    database = grown(before, after, "freehold_http_database_seconds_total", view="tenants")
    assert 0 < database < seconds


def test_scrape_leaves_no_event(live_portal: LivePortal, owner_sql: psycopg.Connection) -> None:
    scrape(live_portal.base_url)
    row = owner_sql.execute(
        "SELECT count(*) FROM audit_event WHERE action LIKE '%metrics%' "
        "OR (action = 'platform.scope' AND reason LIKE '%metrics%')"
    ).fetchone()
    assert row == (0,)


def test_scrape_shows_no_tenant_and_no_key(live_portal: LivePortal, tenant_a: Organisation) -> None:
    key = factories.api_key(tenant_a)
    with live_portal.client(key.token) as caller:
        assert caller.post("/v1/chat/completions", json=chat()).status_code == 200
        assert caller.get("/api/v1/keys").status_code == 403
        text = httpx.get(f"{live_portal.base_url}/metrics", timeout=30).text
    marks = (str(tenant_a.id), tenant_a.tenant.slug, tenant_a.tenant.name, key.api_key.public_id)
    assert [mark for mark in marks if mark in text] == []


def test_planes_of_their_own_tell_each_their_own(programs: Programs) -> None:
    token = "a-token-of-the-monitoring"
    data = programs.web("data", FREEHOLD_PLANES="data", METRICS_TOKEN=token)
    control = programs.web("control", FREEHOLD_PLANES="control")
    for web in (data, control):
        web.wait_alive()
    gateway, portal = scrape(data.url, token), scrape(control.url)
    assert {"freehold_gateway_requests_total", "freehold_worker_up"} <= set(gateway.families)
    assert {"freehold_http_requests_total", "freehold_usage_last_rollup_timestamp_seconds"} <= set(
        portal.families
    )
    shared = {name for name in gateway.families if not name.startswith("process_")}
    assert shared & set(portal.families) == {
        "freehold_metrics_source_up", "freehold_metrics_refused_total",
    }  # fmt: skip
