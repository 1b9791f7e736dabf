"""Jobs admitted on the control plane: by the gateway's rules, with the gateway's rows."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from django.db import connection
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inference.gateway.admission import Refused
from inference.jobs.submission import JobRequest, submit
from inference.models import JobState, Priority
from inference.payloads import unpack_prompt
from inference.services import set_deployment_enabled
from portal.core.errors import Forbidden
from tenants.services import CreatedKey, revoke_api_key, set_quota, suspend_tenant
from tests import factories
from tests.factories import TESTS, Organisation
from tests.inference.bench import Bench, credential
from tests.inference.jobs.support import body, codes, context_of, ids, submit_jobs
from tests.servers import SessionServers


@pytest.fixture(scope="module")
def bench(servers: SessionServers, database: None) -> Iterator[Bench]:
    with Bench(servers) as made:
        yield made


# -- the same as a gateway -----------------------------------------------------------------


def _nothing(bench: Bench, tenant: Organisation, key: CreatedKey) -> None:
    pass


def _limit(**limits: Any) -> Callable[[Bench, Organisation, CreatedKey], None]:
    def apply(bench: Bench, tenant: Organisation, key: CreatedKey) -> None:
        set_quota(context=TESTS, tenant_id=tenant.id, **limits)

    return apply


def _revoke(bench: Bench, tenant: Organisation, key: CreatedKey) -> None:
    revoke_api_key(context=tenant.context, api_key_id=key.api_key.id, reason="test")


def _suspend(bench: Bench, tenant: Organisation, key: CreatedKey) -> None:
    suspend_tenant(context=TESTS, tenant_id=tenant.id, reason="test")


def _alter(change: str) -> Callable[[Bench, Organisation, CreatedKey], None]:
    def apply(bench: Bench, tenant: Organisation, key: CreatedKey) -> None:
        bench.superuser.execute(
            f"UPDATE tenants_apikey SET {change} WHERE id = %s".encode(), [key.api_key.id]
        )

    return apply


def _deactivate(bench: Bench, tenant: Organisation, key: CreatedKey) -> None:
    bench.superuser.execute(
        "UPDATE tenants_user SET is_active = false WHERE id = %s", [key.api_key.user_id]
    )


CASES: dict[str, Callable[[Bench, Organisation, CreatedKey], None]] = {
    "admitted": _nothing,
    "revoked": _revoke,
    "expired": _alter("expires_at = now() - interval '1 hour', created_at = '2020-01-01'"),
    "without the scope": _alter("scopes = '{jobs:read}'"),
    "of another model": _alter("allowed_models = '{another}'"),
    "of another network": _alter("allowed_networks = '{198.51.100.0/24}'"),
    "of a suspended tenant": _suspend,
    "of a deactivated user": _deactivate,
    "no requests left": _limit(requests_day=0),
    "tokens for two": _limit(tokens_minute=40),
    "no budget": _limit(cost_total=0),
    "two at once": _limit(concurrency=2),
}

# What differs by design: ids, times, who waits, and which of the key's secrets was sent.
APART = {
    "id", "event_id", "request_id", "admitted_at", "deadline", "gateway", "kind", "priority",
    "recorded_at", "occurred_at", "xid", "object_id", "action", "tenant_id", "api_key_id",
    "user_id", "actor_id", "quota_ids", "quota_id", "start_tag", "minute_start", "day_start",
    "month_start", "object_label",
}  # fmt: skip
JOBS = "SELECT * FROM inference_job WHERE tenant_id = %s ORDER BY id"
WINDOWS = "SELECT * FROM tenants_quotawindow WHERE tenant_id = %s"
EVENTS = (
    "SELECT e.*, b.detail FROM audit_event e LEFT JOIN audit_body b ON b.event_id = e.id "
    "WHERE (e.tenant_id = %s OR e.request_id = ANY(%s)) AND e.action LIKE 'inference.%%' "
    "ORDER BY e.id"
)


def _written(bench: Bench, tenant: Organisation, requests: list[str]) -> dict[str, Any]:
    def apart(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for row in rows:
            detail = row.get("detail") or {}
            for name in ("key_generation", "priority", "prompt_hmac"):
                detail.pop(name, None)
        return [{k: v for k, v in row.items() if k not in APART} for row in rows]

    return {
        "jobs": apart(bench.rows(JOBS, tenant.id)),
        "windows": apart(bench.rows(WINDOWS, tenant.id)),
        "events": apart(bench.rows(EVENTS, tenant.id, requests)),
    }


@pytest.mark.parametrize("case", CASES)
def test_submit_decides_and_writes_as_the_gateway_does(
    bench: Bench, tenant_a: Organisation, tenant_b: Organisation, case: str
) -> None:
    keys = [factories.api_key(tenant) for tenant in (tenant_a, tenant_b)]
    for tenant, key in zip((tenant_a, tenant_b), keys, strict=True):
        CASES[case](bench, tenant, key)
    caller = replace_address(credential(keys[0]))
    calls = [bench.pending(caller) for _ in range(4)]
    verdicts = bench.submit(calls)
    context = context_of(keys[1])
    outcomes = submit(context=context, requests=[JobRequest(body(bench)) for _ in range(4)])
    assert codes(outcomes) == [
        v.error.error_code if isinstance(v, Refused) else "" for v in verdicts
    ]
    by_gateway = _written(bench, tenant_a, [c.origin.request_id for c in calls])
    by_portal = _written(bench, tenant_b, [context.request_id])
    assert by_portal == by_gateway
    assert len(by_portal["events"]) == 4
    assert (case == "admitted") == (len(by_portal["jobs"]) == 4)


def replace_address(caller: Any) -> Any:
    return type(caller)(caller.public_id, caller.secret, None, "192.0.2.7")


def test_submit_refuses_a_model_that_is_not_served(
    servers: SessionServers, tenant_a: Organisation
) -> None:
    key = factories.api_key(tenant_a)
    with Bench(servers) as own:
        set_deployment_enabled(context=TESTS, deployment_id=own.served.deployment_id, enabled=False)
        outcomes = submit(context=context_of(key), requests=[JobRequest(body(own))])
    assert codes(outcomes) == ["model_not_found"]


@pytest.mark.parametrize(
    ("wrong", "code", "param"),
    [
        ({"temperature": 3}, "decimal_above_max_value", "temperature"),
        ({"tools": [{"type": "custom"}]}, "unsupported_parameter", "tools[0].type"),
        ({"stream": True}, "unsupported_parameter", "stream"),
        ({"max_tokens": 10**6}, "context_length_exceeded", "messages"),
    ],
)
def test_submit_refuses_what_the_gateway_refuses_and_records_it(
    bench: Bench, tenant_a: Organisation, wrong: dict[str, Any], code: str, param: str
) -> None:
    context = context_of(factories.api_key(tenant_a))
    bad = JobRequest(body(bench, **wrong))
    (refused, admitted) = submit(context=context, requests=[bad, JobRequest(body(bench))])
    assert refused.error is not None
    assert (refused.error.error_code, refused.error.param) == (code, param)
    assert admitted.job_id is not None
    events = bench.rows(EVENTS, tenant_a.id, [])
    assert [(e["action"], e["outcome"], e["reason"]) for e in events] == [
        ("inference.job", "failure", code),
        ("inference.job", "requested", ""),
    ]


def test_submit_refuses_what_would_not_begin_in_the_time_it_may_wait(
    bench: Bench, tenant_a: Organisation
) -> None:
    context = context_of(factories.api_key(tenant_a))
    submit(context=context, requests=[JobRequest(body(bench))] * 10)
    (share,) = bench.rows(
        "SELECT virtual_time FROM inference_fairshare WHERE tenant_id = %s", tenant_a.id
    )
    # A token a second: some 200 tokens wait before the next.
    bench.superuser.execute(
        "INSERT INTO inference_queueforecast (deployment_id, read_at, head, pace, shares, ranks) "
        "VALUES (%s, now() + interval '1 minute', %s, 1, jsonb_build_array(jsonb_build_array("
        "%s::bigint, 0.25)), '[]') ON CONFLICT (deployment_id) DO UPDATE SET "
        "read_at = EXCLUDED.read_at, head = EXCLUDED.head, pace = 1, shares = EXCLUDED.shares",
        [bench.served.deployment_id, 0, share["virtual_time"]],
    )
    asked = [JobRequest(body(bench), wait_seconds=seconds) for seconds in (60, 24 * 60 * 60)]
    outcomes = submit(context=context, requests=asked)
    bench.superuser.execute(
        "DELETE FROM inference_queueforecast WHERE deployment_id = %s", [bench.served.deployment_id]
    )
    assert codes(outcomes) == ["queue_too_long", ""]


def test_submit_keeps_the_prompt_encrypted_and_the_job_unclaimed_by_any_gateway(
    bench: Bench, tenant_a: Organisation
) -> None:
    (job_id,) = submit_jobs(bench, factories.api_key(tenant_a), priority=Priority.BATCH)
    job = bench.job(job_id)
    assert (job["gateway"], job["kind"], job["state"], job["priority"]) == ("", "job", 0, 2)
    assert timedelta(hours=23) < job["deadline"] - job["admitted_at"] <= timedelta(hours=24)
    (payload,) = bench.rows("SELECT * FROM inference_jobpayload WHERE job_id = %s", job_id)
    assert payload["result_seconds"] == 24 * 60 * 60
    (found,) = [c for c in bench.claim(100) if c.id == job_id]
    cipher = bench.ciphers.of(found.tenant_id, found.data_key_version, found.data_key)
    prompt = unpack_prompt(cipher.decrypt(found.prompt, row_id=job_id))
    assert prompt.messages[0].content == "hi"
    assert b"hi" not in payload["prompt"]


def test_submit_rings_for_the_queue_once_it_is_committed(
    bench: Bench, tenant_a: Organisation, redis: Any
) -> None:
    queue = bench.served.queue
    redis.set(f"hot:{queue}", "1")
    submit_jobs(bench, factories.api_key(tenant_a))
    assert redis.llen(f"bell:{queue}") == 1


def test_submit_by_a_person_is_refused_with_what_to_do(tenant_a: Organisation) -> None:
    with pytest.raises(Forbidden, match="API key with the scope 'inference'"):
        submit(context=tenant_a.context, requests=[])
    reader = replace(context_of(factories.api_key(tenant_a)), scopes=frozenset({"jobs:read"}))
    with pytest.raises(Forbidden):
        submit(context=reader, requests=[])


def test_submit_in_the_name_of_another_tenants_key_is_refused(
    bench: Bench, tenant_a: Organisation, tenant_b: Organisation
) -> None:
    foreign = factories.api_key(tenant_b).api_key
    context = replace(context_of(factories.api_key(tenant_a)), api_key_id=foreign.id)
    outcomes = submit(context=context, requests=[JobRequest(body(bench))])
    assert codes(outcomes) == ["invalid_api_key"]


def test_submit_without_an_address_does_not_ask_the_keys_networks(
    bench: Bench, tenant_a: Organisation
) -> None:
    key = factories.api_key(tenant_a)
    CASES["of another network"](bench, tenant_a, key)
    requests = [JobRequest(body(bench))]
    assert codes(submit(context=context_of(key), requests=requests)) == ["network_not_allowed"]
    assert codes(submit(context=context_of(key, None), requests=requests)) == [""]


# -- idempotency ---------------------------------------------------------------------------


def keyed(bench: Bench, key: str | None, prompt: str = "hi", **more: Any) -> JobRequest:
    return JobRequest(body(bench, prompt=prompt), idempotency_key=key, **more)


def test_submit_under_a_known_key_gives_the_same_job_and_reserves_once(
    bench: Bench, tenant_a: Organisation
) -> None:
    key = factories.api_key(tenant_a)
    (first,) = submit(context=context_of(key), requests=[keyed(bench, "one")])
    (again,) = submit(context=context_of(key), requests=[keyed(bench, "one")])
    assert (again.job_id, again.replayed, first.replayed) == (first.job_id, True, False)
    assert bench.window(tenant_a.id)["active"] == 1


@pytest.mark.parametrize(
    "other",
    [{"prompt": "bye"}, {"priority": Priority.BATCH}, {"result_seconds": 60}, {"wait_seconds": 60}],
)
def test_submit_under_a_known_key_with_another_body_is_refused(
    bench: Bench, tenant_a: Organisation, other: dict[str, Any]
) -> None:
    context = context_of(factories.api_key(tenant_a))
    submit(context=context, requests=[keyed(bench, "one")])
    (refused,) = submit(context=context, requests=[keyed(bench, "one", **other)])
    assert refused.error is not None
    assert (refused.error.error_status, refused.error.error_code) == (422, "idempotency_key_reused")


def test_submit_under_another_api_keys_idempotency_key_makes_a_job_of_its_own(
    bench: Bench, tenant_a: Organisation
) -> None:
    jobs = {
        ids(submit(context=context_of(factories.api_key(tenant_a)), requests=[keyed(bench, "k")]))[
            0
        ]
        for _ in range(2)
    }
    assert len(jobs) == 2


def test_submit_after_a_refusal_under_the_same_key_is_decided_anew(
    bench: Bench, tenant_a: Organisation
) -> None:
    key = factories.api_key(tenant_a)
    set_quota(context=TESTS, tenant_id=tenant_a.id, requests_day=0)
    (refused,) = submit(context=context_of(key), requests=[keyed(bench, "one")])
    set_quota(context=TESTS, tenant_id=tenant_a.id, requests_day=10)
    (admitted,) = submit(context=context_of(key), requests=[keyed(bench, "one")])
    assert refused.error is not None
    assert admitted.job_id is not None


def test_submit_under_a_key_that_has_expired_makes_a_new_job(
    bench: Bench, tenant_a: Organisation
) -> None:
    context = context_of(factories.api_key(tenant_a))
    (first,) = submit(context=context, requests=[keyed(bench, "one")])
    (kept,) = bench.rows(
        "SELECT expires_at FROM inference_idempotencykey WHERE job_id = %s", first.job_id
    )
    assert kept["expires_at"] > timezone.now() + timedelta(hours=24)
    bench.superuser.execute(
        "UPDATE inference_idempotencykey SET expires_at = now() WHERE job_id = %s", [first.job_id]
    )
    (second,) = submit(context=context, requests=[keyed(bench, "one")])
    assert second.job_id not in (None, first.job_id)


def test_submit_at_once_under_one_key_makes_one_job_and_one_reservation(
    bench: Bench, tenant_a: Organisation
) -> None:
    context = context_of(factories.api_key(tenant_a))
    barrier = threading.Barrier(4)
    found: list[UUID | None] = []

    def post() -> None:
        barrier.wait(10)
        try:
            (outcome,) = submit(context=context, requests=[keyed(bench, "race")])
            found.append(outcome.job_id)
        finally:
            connection.close()

    threads = [threading.Thread(target=post) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(found) == 4
    assert len(set(found)) == 1
    assert bench.window(tenant_a.id)["active"] == 1


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.lists(
            st.tuples(st.sampled_from(["a", "b", "c", None]), st.sampled_from(["hi", "ho"])),
            min_size=1,
            max_size=4,
        ),
        min_size=1,
        max_size=3,
    )
)
def test_submit_makes_one_job_for_each_key_whatever_comes_and_however_it_is_listed(
    bench: Bench, tenant_a: Organisation, posts: list[list[tuple[str | None, str]]]
) -> None:
    api_key = factories.api_key(tenant_a)
    bodies: dict[str, tuple[str, UUID | None]] = {}
    made: set[UUID | None] = set()
    for post in posts:
        outcomes = submit(
            context=context_of(api_key), requests=[keyed(bench, k, p) for k, p in post]
        )
        for (key, prompt), outcome in zip(post, outcomes, strict=True):
            known = bodies.get(key) if key is not None else None
            if known is None:
                assert outcome.job_id is not None
                assert outcome.job_id not in made
                made.add(outcome.job_id)
                if key is not None:
                    bodies[key] = (prompt, outcome.job_id)
            elif known[0] == prompt:
                assert (outcome.job_id, outcome.replayed) == (known[1], True)
            else:
                assert codes([outcome]) == ["idempotency_key_reused"]
    jobs = bench.rows("SELECT id FROM inference_job WHERE api_key_id = %s", api_key.api_key.id)
    assert {row["id"] for row in jobs} == made


# -- what the control plane may do ---------------------------------------------------------


def test_portal_app_reads_no_prompt_and_no_answer_that_nobody_asked_to_keep(
    bench: Bench, tenant_a: Organisation, app_sql: psycopg.Connection
) -> None:
    (job_id,) = submit_jobs(bench, factories.api_key(tenant_a))
    (called,) = bench.admit(credential(factories.api_key(tenant_a)))
    bench.superuser.execute(
        "UPDATE inference_jobpayload SET answer = 'a' WHERE job_id = %s", [called]
    )
    with app_sql.transaction():
        app_sql.execute("SELECT set_config('portal.tenant_id', %s, true)", [str(tenant_a.id)])
        rows = app_sql.execute("SELECT job_id FROM inference_jobpayload").fetchall()
        assert rows == []
        with pytest.raises(psycopg.errors.InsufficientPrivilege), app_sql.transaction():
            app_sql.execute("SELECT prompt FROM inference_jobpayload")
        for change in ("state = 2", "reserved_cost = 0", "gateway = 'g'", "priority = 0"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege), app_sql.transaction():
                app_sql.execute(
                    f"UPDATE inference_job SET {change} WHERE id = %s".encode(), [job_id]
                )
    assert bench.job(job_id)["state"] == JobState.QUEUED
