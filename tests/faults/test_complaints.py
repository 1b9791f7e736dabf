"""What users of other gateways complain of, tried on this one: two gateways, one worker.

Each test is named after what is complained of; the trackers and their numbers stand beside it.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from typing import Any

import httpx
import psycopg
import pytest
import redis
from django.db import connection as django_connection
from django.test import Client

from inference.models.jobs import JobState
from tenants.services import revoke_api_key, rotate_api_key, set_quota
from tests import factories, live
from tests.factories import Organisation, unique
from tests.faults.arena import PACE, Arena
from tests.faults.conftest import MakeArena
from tests.inference.bench import Bench, credential
from tests.live import Deployed, Programs, Web
from tests.rollups import roll_up_all
from tests.servers import SessionServers

FAIL = "make the engine fail"


@pytest.fixture(scope="module")
def house(
    servers: SessionServers, gateway: Web, sweeping: None
) -> Iterator[tuple[Programs, Web, Deployed]]:
    """A second gateway, and a deployment with a worker, for the whole module."""
    programs = Programs(servers)
    second = programs.web("complaints-gateway", FREEHOLD_PLANES="data", **PACE)
    options = {"token_ms": 5, "slots": 32, "fail_on": FAIL, "fail_after": 3}
    deployed = live.deploy(servers, unique("complaints"), options=options)
    programs.worker(deployed, **PACE)
    programs.wait_served(second, deployed)
    yield programs, second, deployed
    programs.stop()


@pytest.fixture
def arena(
    servers: SessionServers, gateway: Web, house: tuple[Programs, Web, Deployed]
) -> Iterator[Arena]:
    """A fresh tenant before both gateways."""
    programs, _, deployed = house
    tenant = factories.organisation("complaints")
    token = factories.api_key(tenant).token
    made = Arena(servers, programs, gateway, deployed, tenant, token)
    yield made
    for callers in made.opened:
        callers.close()


@pytest.fixture
def urls(gateway: Web, house: tuple[Programs, Web, Deployed]) -> list[str]:
    """Where both gateways are."""
    return [gateway.url, house[1].url]


def ask(
    url: str, arena: Arena, text: str = "go", token: str | None = None, **body: Any
) -> httpx.Response:
    """One whole answer, or what there is instead of it."""
    asked = {
        "model": arena.deployed.model,
        "messages": [{"role": "user", "content": text}],
        "max_tokens": 5,
        **body,
    }
    headers = {"Authorization": f"Bearer {token or arena.token}"}
    return httpx.post(f"{url}/v1/chat/completions", json=asked, headers=headers, timeout=60)


def window(arena: Arena) -> dict[str, Any]:
    (row,) = arena.rows("SELECT * FROM tenants_quotawindow WHERE tenant_id = %s", arena.tenant.id)
    return row


def limit(arena: Arena, **limits: Any) -> None:
    set_quota(context=factories.TESTS, tenant_id=arena.tenant.id, **limits)


# litellm#34732
def test_a_budget_that_is_checked_by_concurrent_calls_is_not_overspent(
    arena: Arena, urls: list[str]
) -> None:
    assert ask(urls[0], arena).status_code == 200
    (job,) = arena.balance()
    price = job["reserved_cost"]
    spent = window(arena)["cost_total_used"]
    limit(arena, cost_total=spent + 4 * price)
    with ThreadPoolExecutor(40) as pool:
        answers = list(pool.map(lambda url: ask(url, arena).status_code, urls * 20))
    assert sorted(answers) == [200] * 4 + [429] * 36
    arena.balance()
    assert window(arena)["cost_total_used"] <= spent + 4 * price


# litellm#40291
def test_a_limit_is_not_multiplied_by_replicas(arena: Arena, urls: list[str]) -> None:
    limit(arena, requests_day=4)
    answers = [ask(url, arena).status_code for url, _ in zip(cycle(urls), range(8), strict=False)]
    assert answers == [200] * 4 + [429] * 4


# litellm#27639
def test_a_leaked_reservation_does_not_refuse_for_ever(set_arena: MakeArena) -> None:
    arena = set_arena(token_ms=20, slots=4)
    worker = arena.worker()
    limit(arena, concurrency=2)
    callers = arena.callers()
    for call in callers.start(2, stream=True, max_tokens=3000):
        assert call.begun.wait(20)
    assert ask(arena.gateway.url, arena).status_code == 429
    worker.kill()
    callers.wait()
    arena.balance()
    arena.worker()
    assert ask(arena.gateway.url, arena).status_code == 200


# litellm#30460
def test_redis_and_the_database_cannot_disagree_about_what_is_spent(
    arena: Arena, urls: list[str], servers: SessionServers
) -> None:
    limit(arena, requests_day=3)
    assert [ask(url, arena).status_code for url in urls] == [200, 200]
    with redis.Redis.from_url(servers.valkey.url()) as broker:
        broker.flushall()
    assert [ask(urls[0], arena).status_code for _ in range(2)] == [200, 429]
    assert len(arena.balance()) == 3


# new-api#4429
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_what_was_held_is_settled_after_an_error_of_the_engine(
    arena: Arena, urls: list[str], stream: bool
) -> None:
    limit(arena, tokens_total=10_000, concurrency=1)
    for url in urls:
        answer = ask(url, arena, FAIL, stream=stream)
        assert "error" in answer.text
    jobs = arena.balance()
    assert {job["state"] for job in jobs} == {JobState.FAILED}
    assert {job["watermark"] for job in jobs} == ({3} if stream else {0})
    assert ask(urls[0], arena).status_code == 200


# litellm#33872
def test_usage_is_not_forgotten_when_its_commit_fails(
    servers: SessionServers, tenant_a: Organisation, database: None
) -> None:
    with Bench(servers) as bench:
        bench.admit(credential(factories.api_key(tenant_a)))
        (job,) = bench.claim()
        with pytest.raises(psycopg.OperationalError), bench.worker.transaction():
            bench.superuser.execute(
                "SELECT pg_terminate_backend(%s, 20000)", [bench.worker.info.backend_pid]
            )
            bench.end(job, JobState.SUCCEEDED, 5)
        assert bench.charges(job.id) == []
        bench.worker = psycopg.connect(servers.url("gateway"), autocommit=True)
        bench.end(job, JobState.SUCCEEDED, 5)
        bench.end(job, JobState.SUCCEEDED, 5)
        assert bench.charges(job.id) == [(job.prompt_tokens, 5)]


# litellm#27704
def test_no_spend_is_lost_in_a_rolling_deploy(set_arena: MakeArena, programs: Programs) -> None:
    old = programs.web("rolling-old", FREEHOLD_PLANES="data", **PACE)
    old.wait_alive()
    arena = set_arena(served_by=old, token_ms=5, slots=8)
    worker = arena.worker()
    callers = arena.callers()
    before = callers.start(16, stream=True, max_tokens=60)
    for call in before[:4]:
        assert call.begun.wait(20)
    new = programs.web("rolling-new", FREEHOLD_PLANES="data", **PACE)
    new.wait_alive()
    after = arena.callers(new)
    arena.worker()
    worker.stop()
    later = after.start(8, stream=True, max_tokens=20)
    old.stop()
    callers.wait()
    after.wait()
    assert all(call.answered for call in (*before, *later))
    assert [call.tokens for call in before] == [60] * 16
    jobs = arena.balance()
    assert sum(job["watermark"] for job in jobs) == 16 * 60 + 8 * 20


# higress#4145, new-api#5288, litellm#37140
def test_a_disconnect_stops_the_engine_and_is_charged_for_what_was_delivered(
    arena: Arena,
) -> None:
    callers = arena.callers()
    (leaver,) = callers.start(stream=True, max_tokens=3000)
    assert leaver.begun.wait(20)
    leaver.closing.set()
    callers.wait()
    (job,) = arena.balance()
    assert job["state"] == JobState.CANCELLED
    # No less than was seen, and no more than a moment's worth beyond it.
    assert leaver.tokens <= job["watermark"] < leaver.tokens + 400
    (row,) = arena.rows(
        "SELECT prompt_tokens, completion_tokens FROM tenants_ledgerentry WHERE job_id = %s",
        job["id"],
    )
    assert row == {"prompt_tokens": job["prompt_tokens"], "completion_tokens": job["watermark"]}


# litellm#38065
def test_the_usage_of_a_stream_is_never_zero(arena: Arena, urls: list[str]) -> None:
    for url, options in zip(urls, ({"include_usage": True}, None), strict=True):
        answer = ask(url, arena, stream=True, stream_options=options)
        assert answer.text.rstrip().endswith("data: [DONE]")
        assert ('"completion_tokens":5' in answer.text) is (options is not None)
    assert [job["watermark"] for job in arena.balance()] == [5, 5]


# litellm#9820
def test_a_blocked_key_works_on_no_replica(arena: Arena, urls: list[str]) -> None:
    made = factories.api_key(arena.tenant)
    assert [ask(url, arena, token=made.token).status_code for url in urls] == [200, 200]
    revoke_api_key(
        context=arena.tenant.owner.context, api_key_id=made.api_key.id, reason="It leaked."
    )
    assert [ask(url, arena, token=made.token).status_code for url in urls] == [401, 401]


# litellm#27193
def test_a_rotated_key_s_former_secret_works_for_its_grace_on_every_replica_and_no_longer(
    arena: Arena, urls: list[str]
) -> None:
    owner = arena.tenant.owner.context
    first = factories.api_key(arena.tenant)
    second = rotate_api_key(context=owner, api_key_id=first.api_key.id)
    for token in (first.token, second.token):
        assert [ask(url, arena, token=token).status_code for url in urls] == [200, 200]
    third = rotate_api_key(context=owner, api_key_id=first.api_key.id, overlap_seconds=0)
    for token in (first.token, second.token):
        assert [ask(url, arena, token=token).status_code for url in urls] == [401, 401]
    assert [ask(url, arena, token=third.token).status_code for url in urls] == [200, 200]


# litellm#28864
def test_spend_is_listed_to_nobody_of_another_tenant(
    arena: Arena, urls: list[str], tenant_b: Organisation
) -> None:
    assert ask(urls[0], arena).status_code == 200
    (job,) = arena.balance()

    def spent(organisation: Organisation) -> list[dict[str, Any]]:
        client = Client()
        client.force_login(organisation.owner.user)
        items: list[dict[str, Any]] = client.get("/api/v1/usage?group_by=user,key").json()["items"]
        return items

    roll_up_all()
    (mine,) = spent(arena.tenant)
    assert (mine["requests"], mine["completion_tokens"]) == (1, job["watermark"])
    assert spent(tenant_b) == []


# litellm#31620
def test_no_raw_key_is_in_the_audit_trail(arena: Arena, urls: list[str]) -> None:
    secret = arena.token.rpartition("_")[2]
    assert ask(urls[0], arena, user=arena.token).status_code == 200
    ask(urls[1], arena, token=f"{arena.token}x")
    ask(urls[1], arena, model=arena.token)
    httpx.get(f"{urls[0]}/v1/{arena.token}", headers={"x-request-id": arena.token})
    arena.balance()
    for table in ("audit_event", "audit_body", "inference_job", "tenants_apikey"):
        found = arena.rows(
            f"SELECT count(*) AS n FROM {table} t WHERE strpos(t::text, %s) > 0", secret
        )
        assert found == [{"n": 0}], table


# litellm pull request 40733, new-api#7425
def test_a_page_of_the_log_reads_no_more_rows_when_there_are_many_more(
    servers: SessionServers, tenant_a: Organisation, owner_sql: psycopg.Connection
) -> None:
    with Bench(servers) as bench:
        bench.admit(credential(factories.api_key(tenant_a)))
    client = Client()
    client.force_login(tenant_a.auditor.user)
    pages = ("/api/v1/jobs", "/admin/inference/job/", "/api/v1/audit/events")
    few = [rows_read(owner_sql, client, page) for page in pages]
    multiply(owner_sql, tenant_a, 10_000)
    many = [rows_read(owner_sql, client, page) for page in pages]
    # A page holds up to a hundred rows, and others of the portal read now and then.
    grown = {page: (n, m) for page, n, m in zip(pages, few, many, strict=True) if m > n + 1_500}
    assert grown == {}


def rows_read(sql: psycopg.Connection, client: Client, page: str) -> int:
    """How many rows of the log's tables are read to make a page."""
    before = _rows_read(sql)
    assert client.get(page).status_code == 200
    with django_connection.cursor() as cursor:
        cursor.execute("SELECT pg_stat_force_next_flush()")
    return _rows_read(sql) - before


def _rows_read(sql: psycopg.Connection) -> int:
    row = sql.execute(
        "SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0)) FROM pg_stat_user_tables "
        "WHERE relname ~ '^(inference_job|audit_event|audit_body)'"
    ).fetchone()
    assert row is not None
    return int(row[0])


def multiply(sql: psycopg.Connection, organisation: Organisation, count: int) -> None:
    """So many copies of a tenant's job, ended, and of one of its events; and as many of others.

    Of others, a few each: what is true of tenants on the average is not true of this one.
    """
    with sql.transaction():
        # The others exist in these rows alone.
        sql.execute("SET LOCAL session_replication_role = replica")
        for table, changes in (
            ("inference_job", "'state', 2, 'finished_at', now()"),
            ("audit_event", "'recorded_at', clock_timestamp()"),
        ):
            for whose in ("t.one -> 'tenant_id'", "to_jsonb(md5((n / 5)::text)::uuid)"):
                sql.execute(
                    f"INSERT INTO {table} SELECT r.* FROM generate_series(1, %s) n, "
                    f"(SELECT to_jsonb(t) AS one FROM {table} t WHERE tenant_id = %s LIMIT 1) t, "
                    f"LATERAL jsonb_populate_record(NULL::{table}, t.one || jsonb_build_object("
                    f"'id', uuidv7(), 'request_id', 'copy-' || n, 'tenant_id', {whose}, "
                    f"{changes})) r",
                    [count, organisation.id],
                )
    for table in ("inference_job", "audit_event"):
        sql.execute(f"ANALYZE {table}")
    # What was read to make the copies is counted now, not within a page's count.
    sql.execute("SELECT pg_stat_force_next_flush()")
