"""A scrape when what it reads is away, and how seldom it reads."""

import httpx
import psycopg
from pydantic import SecretStr
from starlette.applications import Starlette

from inference.gateway.metrics import GatewayMetrics
from portal.core.env import Env, env
from portal.core.periodic import note_run, read_periodic
from portal.core.resp import RespClient, RespLink
from portal.metrics import Metrics, metrics_routes
from tests.factories import unique
from tests.metrics.scrapes import Scrape, parse
from tests.servers import SessionServers

NOWHERE = "postgresql://portal_app@/portal?host=/nonexistent"
NOBODY = "unix:///nonexistent/valkey.sock?db=0"


async def scrape_control(metrics: Metrics) -> Scrape:
    """What a control plane's process tells."""
    transport = httpx.ASGITransport(
        Starlette(routes=metrics_routes(metrics)), client=("127.0.0.1", 1)
    )
    async with httpx.AsyncClient(transport=transport, base_url="http://portal") as client:
        response = await client.get("/metrics")
    assert response.status_code == 200
    return parse(response.text)


def changed(**changes: str) -> Env:
    return env().model_copy(update={name: SecretStr(value) for name, value in changes.items()})


async def test_scrape_without_database_and_broker_says_which_are_away(database: None) -> None:
    metrics = Metrics(changed(database_url_app=NOWHERE, redis_url=NOBODY), None, control=True)
    found = await scrape_control(metrics)
    assert found.values("freehold_metrics_source_up") == {("rollups",): 0, ("periodic",): 0}
    assert "freehold_usage_last_rollup_timestamp_seconds" not in found.families
    assert found.value("process_resident_memory_bytes") > 0
    await metrics.close()


async def test_scrape_again_at_once_reads_nothing_again(
    database: None, owner_sql: psycopg.Connection
) -> None:
    metrics = Metrics(env(), None, control=True)
    first = await scrape_control(metrics)
    # A new connection would be refused by this name; the second answer needs none.
    await metrics.close()
    owner_sql.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE application_name = 'metrics-control'"
    )
    opened = [link.opened for link in metrics._links]
    second = await scrape_control(metrics)
    assert [link.opened for link in metrics._links] == opened == [1]
    name = "freehold_audit_partitions_until_timestamp_seconds"
    assert second.values(name) == first.values(name) != {}
    await metrics.close()


async def test_note_runs_tells_the_last_success_and_counts_failures(
    servers: SessionServers,
) -> None:
    task, other = unique("task"), unique("other")
    url = servers.valkey.url()
    with RespClient(url) as broker:
        note_run(broker, task, succeeded=True)
        note_run(broker, task, succeeded=False)
        note_run(broker, task, succeeded=False)
    link = RespLink(url)
    families = {f.name: f for f in await read_periodic(link, {task: 5.0, other: 7.0})}
    link.close()
    last = families["freehold_periodic_task_last_success_timestamp_seconds"].samples
    assert [sample.labels["task"] for sample in last] == [task]
    failed = families["freehold_periodic_task_failures"].samples
    assert {s.labels["task"]: s.value for s in failed} == {task: 2, other: 0}
    intervals = families["freehold_periodic_task_interval_seconds"].samples
    assert {s.labels["task"]: s.value for s in intervals} == {task: 5, other: 7}


def test_note_run_without_a_broker_fails_no_task() -> None:
    with RespClient(NOBODY) as broker:
        note_run(broker, "inference.sweep", succeeded=True)


def test_fail_with_codes_of_anothers_making_counts_no_more_than_so_many() -> None:
    metrics = GatewayMetrics()
    for number in range(1000):
        metrics.failed(f"code-{number}")
        metrics.failed("code-0")
    assert len(metrics.errors) == 101
    assert (metrics.errors["code-0"], metrics.errors["other"]) == (1001, 900)
