"""A long queue as its callers meet it: how long they are told to wait, and how long they do."""

import statistics
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

import httpx
import psycopg
import pytest

from inference.models import Deployment
from inference.services import set_deployment_enabled
from tests import factories
from tests.factories import Organisation
from tests.live import Deployed, LivePortal, Programs, deploy
from tests.waiting import eventually

SEEDED = 90
PATIENCE = 0.2


@dataclass(frozen=True, slots=True)
class Crowd:
    """A deployment of two slots, and a tenant that keeps them busy."""

    deployed: Deployed
    client: httpx.Client
    pool: ThreadPoolExecutor
    sql: psycopg.Connection

    def ask(
        self,
        max_tokens: int,
        headers: dict[str, Any] | None = None,
        client: httpx.Client | None = None,
    ) -> Any:
        body = {
            "model": self.deployed.model,
            "messages": [{"role": "user", "content": "go"}],
            "max_tokens": max_tokens,
        }
        return (client or self.client).post("/v1/chat/completions", json=body, headers=headers)

    def later(self, max_tokens: int, headers: dict[str, Any] | None = None) -> Future[Any]:
        return self.pool.submit(self.ask, max_tokens, headers)

    def refused(self, sent: list[Future[Any]]) -> Any:
        """The refusal of a call that waits for nothing; what was sent for it is added to ``sent``.

        A gateway learns how fast work is taken a moment after its workers were full first.
        """
        for _ in range(30):
            sent.append(self.later(5, {"X-Request-Timeout": str(PATIENCE)}))
            done, _ = wait([sent[-1]], timeout=1)
            if done and sent[-1].result().status_code != 200:
                return sent[-1].result()
        raise AssertionError("Nobody is refused.")

    def count(self, condition: str) -> int:
        row = self.sql.execute(
            "SELECT count(*) FROM inference_job j JOIN inference_deployment d "
            f"ON d.id = j.deployment_id WHERE d.name = %s AND {condition}",
            [self.deployed.deployment],
        ).fetchone()
        assert row is not None
        return int(row[0])

    def waited(self, response: httpx.Response) -> float:
        """How long an answered call waited for its claim, in seconds."""
        row = self.sql.execute(
            "SELECT extract(epoch FROM claimed_at - admitted_at) FROM inference_job "
            "WHERE request_id = %s",
            [response.headers["x-request-id"]],
        ).fetchone()
        assert row is not None
        return float(row[0])


@pytest.fixture
def crowd(
    live_portal: LivePortal,
    programs: Programs,
    tenant_a: Organisation,
    owner_sql: psycopg.Connection,
) -> Iterator[Crowd]:
    name = factories.unique("crowd")
    deployed = deploy(live_portal.servers, name, options={"token_ms": 10, "slots": 2})
    programs.worker(deployed)
    programs.wait_served(live_portal.web, deployed)
    token = factories.api_key(tenant_a).token
    limits = httpx.Limits(max_connections=200)
    with live_portal.client(token, limits=limits) as client, ThreadPoolExecutor(150) as pool:
        yield Crowd(deployed, client, pool, owner_sql)
    deployment = Deployment.objects.get(name=name)
    set_deployment_enabled(context=factories.TESTS, deployment_id=deployment.id, enabled=False)


def test_retry_after_is_within_a_quarter_of_the_wait_in_the_median_and_fair_to_others(
    crowd: Crowd, live_portal: LivePortal, tenant_b: Organisation
) -> None:
    seeds = [crowd.later(10 + number * 17 % 40) for number in range(SEEDED)]
    sent: list[Future[Any]] = []
    pairs = []
    for ended in (12, 20, 28, 36, 44):
        eventually(
            lambda ended=ended: crowd.count("j.state = 2") >= ended,  # type: ignore[misc]
            within=60,
            every=0.05,
            what=f"{ended} jobs have ended",
        )
        refused = crowd.refused(sent)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "queue_too_long")
        pairs.append((int(refused.headers["retry-after"]) + PATIENCE, crowd.later(5)))

    # Whoever has sent nothing begins at once, and is not refused.
    with live_portal.client(factories.api_key(tenant_b).token) as other:
        light = crowd.ask(5, {"X-Request-Timeout": "5"}, other)
    assert light.status_code == 200
    assert crowd.count("j.state = 0") > 10
    assert crowd.waited(light) < 2

    answers = [seed.result(timeout=60) for seed in seeds]
    assert {answer.status_code for answer in answers} == {200}
    ratios = [told / crowd.waited(asked.result(timeout=60)) for told, asked in pairs]
    assert 0.75 <= statistics.median(ratios) <= 1.25, ratios
    # What was refused left nothing behind.
    admitted = [asked for asked in sent if asked.result(timeout=60).status_code == 200]
    assert crowd.count("true") == SEEDED + len(pairs) + 1 + len(admitted)


def test_answers_400_to_a_timeout_that_is_no_number_of_seconds(crowd: Crowd) -> None:
    for told in ("soon", "0", "-1", "1e9", "99999999999", "nan", "٣"):
        refused = crowd.ask(5, {"X-Request-Timeout": told.encode()})
        error = refused.json()["error"]
        assert (refused.status_code, error["param"]) == (400, "X-Request-Timeout"), told
    # What OpenAI's clients say by themselves is never the caller's fault.
    assert crowd.ask(5, {"X-Stainless-Read-Timeout": "None"}).status_code == 200
    assert crowd.ask(5, {"X-Stainless-Read-Timeout": "600"}).status_code == 200
