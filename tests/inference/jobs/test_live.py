"""Jobs on a running portal: over HTTP, by a real worker, to the end."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import psycopg
import pytest
import redis as redis_client

from tests import factories
from tests.factories import Organisation
from tests.live import LivePortal
from tests.waiting import eventually


@pytest.fixture
def client(live_portal: LivePortal, tenant_a: Organisation) -> Iterator[httpx.Client]:
    with live_portal.client(factories.api_key(tenant_a).token) as made:
        yield made


def submit(client: httpx.Client, portal: LivePortal, max_tokens: int, **more: Any) -> str:
    body = {
        "model": portal.fake.model,
        "messages": [{"role": "user", "content": "go"}],
        "max_tokens": max_tokens,
        **more,
    }
    response = client.post("/api/v1/jobs", json=body)
    assert response.status_code == 202, response.text
    job_id: str = response.json()["id"]
    return job_id


def events(lines: Iterator[str]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Id, name and data of each event of a stream."""
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif "event" in fields:
            yield fields["id"], fields["event"], json.loads(fields["data"])
            fields = {}


def test_a_job_runs_is_followed_and_its_answer_is_kept_and_charged_once(
    live_portal: LivePortal,
    client: httpx.Client,
    tenant_a: Organisation,
    owner_sql: psycopg.Connection,
    redis: redis_client.Redis,
) -> None:
    job_id = submit(client, live_portal, 1500, priority="batch")
    path = f"/api/v1/jobs/{job_id}"
    with client.stream("GET", f"{path}/events", headers={"Accept": "text/event-stream"}) as stream:
        seen = list(events(stream.iter_lines()))
    names = [name for _, name, _ in seen]
    assert (names.count("running"), names[-1]) == (1, "succeeded")
    assert "progress" in names
    counts = [data["completion_tokens"] for _, name, data in seen if name == "progress"]
    assert counts == sorted(set(counts))
    usage = seen[-1][2]["usage"]
    assert usage["completion_tokens"] == 1500
    answer = client.get(f"{path}/result").json()
    assert (answer["usage"], answer["choices"][0]["finish_reason"]) == (usage, "length")
    assert len(answer["choices"][0]["message"]["content"].split()) == 1500
    (ledger,) = owner_sql.execute(
        "SELECT prompt_tokens, completion_tokens FROM tenants_ledgerentry WHERE job_id = %s",
        [job_id],
    ).fetchall()
    assert ledger == (usage["prompt_tokens"], 1500)
    (payload,) = owner_sql.execute(
        "SELECT prompt, answer FROM inference_jobpayload WHERE job_id = %s", [job_id]
    ).fetchall()
    assert payload[0] == b""
    assert b"token" not in payload[1]
    # Nothing was published for a gateway that does not exist.
    assert redis.exists("returns:") == 0


def test_a_running_job_is_cancelled_within_a_step_and_costs_nothing(
    live_portal: LivePortal, client: httpx.Client, owner_sql: psycopg.Connection
) -> None:
    job_id = submit(client, live_portal, 3500, max_wait=600)
    path = f"/api/v1/jobs/{job_id}"

    def state() -> str:
        found: str = client.get(path).json()["state"]
        return found

    eventually(lambda: state() == "running", within=30, what="the job runs")
    assert client.post(f"{path}/cancel").status_code == 202
    eventually(lambda: state() == "cancelled", within=5, what="the job is cancelled")
    assert client.get(f"{path}/result").status_code == 409
    assert not owner_sql.execute(
        "SELECT 1 FROM tenants_ledgerentry WHERE job_id = %s", [job_id]
    ).fetchall()
    assert not owner_sql.execute(
        "SELECT 1 FROM inference_jobpayload WHERE job_id = %s", [job_id]
    ).fetchall()
