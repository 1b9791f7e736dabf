"""How PostgreSQL reaches the rows of the hot statements: by an index, however large a table is.

The gateway's plans are made once a connection and kept, so they must be right on small tables and
on large ones, and may not depend on statistics.
"""

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from inference.fallback import MOVE
from inference.gateway import store
from inference.metrics import QUEUES, RUNNING
from inference.pipelining import numbered
from inference.settlement import LOCK_WINDOWS, SETTLE, SETTLE_KEEPING
from inference.worker.claims import CLAIM, CLAIM_LIGHTLY, RELEASE, RENEW
from tests.factories import Organisation, api_key
from tests.inference.bench import Bench, credential

STATEMENTS = {
    "read keys": store.READ_KEYS,
    "read windows": store.READ_WINDOWS,
    "write": store.WRITE,
    "write, with fallbacks": store.WRITE_FALLBACKS,
    "lock windows": LOCK_WINDOWS,
    "settle": SETTLE,
    "settle, keeping answers": SETTLE_KEEPING,
    "claim": CLAIM,
    "claim lightly": CLAIM_LIGHTLY,
    "renew": RENEW,
    "release": RELEASE,
    "move": MOVE,
}

# Enough that a plan that walks a table would be chosen nowhere by chance.
ROWS = 2000

FILL = (
    """
    INSERT INTO inference_job (id, tenant_id, deployment_id, model_id, api_key_id, user_id, sku,
        kind, state, stream, parameters, request_id, gateway, quota_ids, prompt_tokens,
        reserved_tokens, reserved_cost, prompt_price, completion_price, currency, start_tag,
        attempts, fence, worker, admitted_at, deadline, finished_at, watermark, finish_reason,
        error_code, error_message)
    SELECT gen_random_uuid(), j.tenant_id, gen_random_uuid(), j.model_id, j.api_key_id, j.user_id,
        j.sku, j.kind, 2, false, '{}', 'r', 'g', j.quota_ids, 1, 1, 0, 0, 0, 'USD', n, 1, 1, 'w',
        now(), now(), now(), 1, 'stop', '', ''
      FROM inference_job j, generate_series(1, %(rows)s) n WHERE j.id = %(job)s
    """,
    """
    INSERT INTO inference_jobpayload (job_id, tenant_id, data_key_version, prompt)
    SELECT id, tenant_id, 1, '' FROM inference_job
     WHERE tenant_id = (SELECT tenant_id FROM inference_job WHERE id = %(job)s)
    ON CONFLICT DO NOTHING
    """,
    """
    INSERT INTO tenants_quota (id, tenant_id, api_key_id, created_at)
    SELECT gen_random_uuid(), tenant_id, gen_random_uuid(), now()
      FROM inference_job j, generate_series(1, %(rows)s)
     WHERE j.id = %(job)s
    """,
    """
    INSERT INTO inference_fairshare (tenant_id, deployment_id, virtual_time)
    SELECT tenant_id, gen_random_uuid(), 0 FROM inference_job j, generate_series(1, %(rows)s)
     WHERE j.id = %(job)s
    """,
)
FILLED = ("inference_job", "inference_jobpayload", "tenants_quota", "inference_fairshare")


@pytest.fixture
def filled(bench: Bench, tenant_a: Organisation, owner_sql: psycopg.Connection) -> Iterator[None]:
    """Tables of the queue with thousands of rows, and statistics that know it."""
    (job,) = bench.admit(credential(api_key(tenant_a)))
    # Keys that the quotas name need not be there: only their number matters.
    owner_sql.execute("SET session_replication_role = replica")
    for statement in FILL:
        owner_sql.execute(statement, {"rows": ROWS, "job": job})
    owner_sql.execute("RESET session_replication_role")
    for table in FILLED:
        owner_sql.execute(f"ANALYZE {table}".encode())
    yield
    # Rows of no real job: nothing else may come upon them.
    tenant = "(SELECT tenant_id FROM inference_job WHERE id = %(job)s)"
    parameters = {"job": job}
    owner_sql.execute(
        f"DELETE FROM inference_fairshare WHERE tenant_id = {tenant}".encode(), parameters
    )
    owner_sql.execute("SET session_replication_role = replica")
    owner_sql.execute(
        f"DELETE FROM tenants_quota q WHERE tenant_id = {tenant} AND NOT EXISTS "
        "(SELECT 1 FROM tenants_quotawindow w WHERE w.quota_id = q.id)".encode(),
        parameters,
    )
    owner_sql.execute("RESET session_replication_role")
    owner_sql.execute(
        f"DELETE FROM inference_job WHERE id <> %(job)s AND tenant_id = {tenant}".encode(),
        parameters,
    )


def plan_of(gateway: psycopg.Connection, query: str) -> dict[str, Any]:
    """The plan that every execution gets, whatever its parameters."""
    sql, _ = numbered(query)
    result = gateway.pgconn.exec_(b"EXPLAIN (GENERIC_PLAN, FORMAT JSON) " + sql)
    value = result.get_value(0, 0)
    assert value is not None, result.get_error_message()
    plan: dict[str, Any] = json.loads(value)[0]["Plan"]
    return plan


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All nodes of a plan."""
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


def walks(plan: dict[str, Any]) -> list[str]:
    """The scans of tables that no index condition bounds."""
    return [
        f"{node['Node Type']} on {node['Relation Name']}"
        for node in nodes(plan)
        if node["Node Type"].endswith("Scan")
        and "Relation Name" in node
        and not ("Index Cond" in node and node["Node Type"].startswith("Index"))
    ]


@pytest.mark.parametrize("name", STATEMENTS)
def test_plans_a_hot_statement_on_large_tables_reaches_rows_by_index_alone(
    filled: None, gateway_sql: psycopg.Connection, name: str
) -> None:
    assert walks(plan_of(gateway_sql, STATEMENTS[name])) == []


@pytest.mark.parametrize("name", STATEMENTS)
def test_plans_a_hot_statement_never_scans_a_table_in_sequence(
    gateway_sql: psycopg.Connection, name: str
) -> None:
    kinds = {node["Node Type"] for node in nodes(plan_of(gateway_sql, STATEMENTS[name]))}
    assert not kinds & {"Seq Scan", "Bitmap Heap Scan", "Hash Join", "Merge Join"}


def test_plans_a_claim_by_the_index_of_fair_order(
    filled: None, gateway_sql: psycopg.Connection
) -> None:
    used = [node.get("Index Name") for node in nodes(plan_of(gateway_sql, CLAIM))]

    assert used.count("job_claim_order") == 1
    assert "job_leases" not in used


def test_plans_a_settlement_around_the_indexes_on_state(
    filled: None, gateway_sql: psycopg.Connection
) -> None:
    used = {node.get("Index Name") for node in nodes(plan_of(gateway_sql, SETTLE))}

    assert not used & {"job_claim_order", "job_leases"}


@pytest.mark.parametrize(("query", "index"), [(QUEUES, "job_claim_order"), (RUNNING, "job_leases")])
def test_plans_a_scrape_by_the_indexes_of_live_jobs(
    filled: None, gateway_sql: psycopg.Connection, query: str, index: str
) -> None:
    of_jobs = [
        node["Index Name"]
        for node in nodes(plan_of(gateway_sql, query))
        if node.get("Relation Name") == "inference_job"
    ]

    assert of_jobs == [index]


def looks_at_others(gateway: psycopg.Connection) -> list[str]:
    """The looks for a key's quotas that would find some of other keys or users."""
    looks = [
        node.get("Index Cond", "none")
        for node in nodes(plan_of(gateway, store.READ_WINDOWS))
        if node.get("Relation Name") == "tenants_quota"
    ]
    # Those of the tenant, of the user, of the key, of both, and each by its id.
    assert len(looks) == 5

    def own(look: str) -> bool:
        of_one = any(f"({name} = " in look for name in ("id", "user_id", "api_key_id"))
        return of_one or all(f"({name} IS NULL)" in look for name in ("user_id", "api_key_id"))

    return [look for look in looks if not own(look)]


def test_plans_the_windows_of_a_key_without_reading_those_of_other_keys(
    gateway_sql: psycopg.Connection,
) -> None:
    assert looks_at_others(gateway_sql) == []


def test_plans_the_windows_of_a_key_on_large_tables_without_reading_those_of_other_keys(
    filled: None, gateway_sql: psycopg.Connection
) -> None:
    assert looks_at_others(gateway_sql) == []
