"""The worker's runtime in this very process: what it does when a neighbour fails it."""

import base64
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from uuid import UUID

import pytest
import redis as redis_client
from msgspec.structs import replace
from pydantic import SecretStr

from inference.gateway.jobs import statuses
from inference.models.dispatch import WorkerState
from inference.models.jobs import JobState
from inference.returns import End, Text, decode_returns, stream_key
from inference.settlement import Settled, Settlement
from inference.worker.claims import Claimed
from inference.worker.database import Queue
from inference.worker.runtime import InferenceRuntime
from inference.worker.settings import Assignment
from portal.core.env import env
from portal.core.resp import Command, RespClient
from tests import factories
from tests.factories import Organisation
from tests.inference.bench import GATEWAY, Bench, credential
from tests.waiting import eventually

NOBODY = "unix:///nonexistent/valkey.sock?db=0"
TERMINAL = {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.DEAD}
StartRuntime = Callable[..., InferenceRuntime]


@pytest.fixture
def start_runtime(bench: Bench) -> Iterator[StartRuntime]:
    """Starts a worker of the bench's deployment, with the fake engine, on our own threads."""
    started: list[InferenceRuntime] = []

    def start(*, redis_url: str | None = None, **options: Any) -> InferenceRuntime:
        changes: dict[str, Any] = {"drain_seconds": 0.0, "heartbeat_seconds": 0.1}
        if redis_url is not None:
            changes["redis_url"] = SecretStr(redis_url)
        served = bench.served
        assignment = Assignment(
            served.deployment_id,
            bench.deployed.deployment,
            served.queue,
            options.pop("engine", "fake"),
            {"token_ms": 0, "slots": 4, **options},
            served.context_length,
            "",
            "digest",
            bench.servers.url("gateway"),
        )
        runtime = InferenceRuntime(env().model_copy(update=changes), assignment)
        runtime.start()
        started.append(runtime)
        return runtime

    yield start
    for runtime in started:
        runtime.drain()


def all_ended(bench: Bench, job_ids: list[UUID]) -> bool:
    rows = bench.rows("SELECT state FROM inference_job WHERE id = ANY(%s)", job_ids)
    return {row["state"] for row in rows} <= TERMINAL


def sent(redis: "redis_client.Redis", job_id: UUID) -> list[Text | End]:
    """What gateways were told of a job, in order."""
    entries: Any = redis.xrange(stream_key(GATEWAY))
    events = [event for _, fields in entries for event in decode_returns(fields[b"e"])]
    return [event for event in events if event.job == job_id.bytes]


class Flaky:
    """A client of the broker whose next writes fail when told to."""

    def __init__(self, client: RespClient) -> None:
        self._client = client
        self.failures = 0

    def call_all(self, commands: Sequence[Command]) -> list[Any]:
        if self.failures:
            self.failures -= 1
            raise ConnectionError("the broker is away")
        return self._client.call_all(commands)

    def close(self) -> None:
        self._client.close()


def test_serves_whole_answers_from_postgresql_while_the_broker_is_away(
    bench: Bench, tenant_a: Organisation, start_runtime: StartRuntime
) -> None:
    jobs = bench.admit(credential(factories.api_key(tenant_a)), 24, max_tokens=5)
    start_runtime(redis_url=NOBODY)
    eventually(lambda: all_ended(bench, jobs), within=30, what="all jobs have ended")
    found = bench.run(statuses(bench.link, bench.ciphers, jobs))
    assert len(found) == len(jobs)
    for job_id in jobs:
        status = found[job_id]
        assert status.end is not None
        assert status.end.state == JobState.SUCCEEDED
        assert len(status.answer.split()) == status.end.completion_tokens == 5
        assert [completion for _, completion in bench.charges(job_id)] == [5]


def test_ends_streams_uncharged_when_the_broker_was_away_from_the_start(
    bench: Bench, tenant_a: Organisation, start_runtime: StartRuntime
) -> None:
    jobs = bench.admit(credential(factories.api_key(tenant_a)), 6, stream=True)
    start_runtime(redis_url=NOBODY)
    eventually(lambda: all_ended(bench, jobs), within=30, what="all streams have ended")
    for job_id in jobs:
        assert bench.job(job_id)["error_code"] == "broker_lost"
        assert bench.charges(job_id) == []
    assert bench.window(tenant_a.id)["active"] == 0


def test_sends_nothing_more_of_a_stream_after_a_piece_was_lost(
    bench: Bench,
    tenant_a: Organisation,
    redis: "redis_client.Redis",
    start_runtime: StartRuntime,
) -> None:
    (job_id,) = bench.admit(credential(factories.api_key(tenant_a)), stream=True, max_tokens=2000)
    runtime = start_runtime(token_ms=1)
    flaky = Flaky(runtime._publisher._client)
    runtime._publisher._client = flaky  # type: ignore[assignment]
    eventually(lambda: len(sent(redis, job_id)) > 3, what="text flows")
    flaky.failures = 1
    eventually(lambda: all_ended(bench, [job_id]), what="the stream has ended")
    end = eventually(
        lambda: next((e for e in sent(redis, job_id) if isinstance(e, End)), None), what="its end"
    )
    offset = 0
    for event in sent(redis, job_id):
        if isinstance(event, Text):
            assert event.offset == offset
            offset += event.tokens
    row = bench.job(job_id)
    assert (row["state"], row["error_code"]) == (JobState.FAILED, "broker_lost")
    assert end is not None
    assert row["watermark"] == end.completion_tokens == offset
    assert [completion for _, completion in bench.charges(job_id)] == [offset]


def test_ends_a_job_whose_payload_cannot_be_read_and_serves_its_neighbours(
    bench: Bench, tenant_a: Organisation, start_runtime: StartRuntime
) -> None:
    bad, good = bench.admit(credential(factories.api_key(tenant_a)), 2)
    bench.superuser.execute(
        "UPDATE inference_jobpayload SET prompt = '\\x01020304' WHERE job_id = %s", [bad]
    )
    start_runtime()
    eventually(lambda: all_ended(bench, [bad, good]), what="both have ended")
    assert bench.job(bad)["error_code"] == "payload_unreadable"
    assert bench.job(good)["state"] == JobState.SUCCEEDED


def test_says_why_when_the_engine_cannot_be_loaded(
    bench: Bench, start_runtime: StartRuntime
) -> None:
    runtime = start_runtime(engine="fake", token_ms="slow")
    eventually(lambda: runtime._presence.row["state"] == WorkerState.FAILED, what="it has failed")
    assert "token_ms" in runtime._presence.row["detail"]
    registered = eventually(
        lambda: bench.rows(
            "SELECT detail FROM inference_worker WHERE deployment_id = %s AND state = 'failed'",
            bench.served.deployment_id,
        )
    )
    assert "token_ms" in registered[0]["detail"]


def test_settles_the_others_and_lets_go_of_a_job_whose_settlement_is_refused(
    bench: Bench, tenant_a: Organisation
) -> None:
    bench.admit(credential(factories.api_key(tenant_a)), 3)
    jobs = bench.claim(3)
    let_go: list[UUID] = []

    def note(ended: list[Settled], asked: list[Settlement]) -> None:
        let_go.extend(s.job_id for s in asked)

    queue = Queue(
        bench.servers.url("gateway"),
        deployment_id=bench.served.deployment_id,
        worker="w1",
        lease_seconds=60,
        capacity=lambda: 0,
        on_claimed=lambda claimed: None,
        on_settled=note,
        on_moved=lambda queues: None,
        on_more=lambda: None,
    )
    queue.start()
    try:
        queue.settle([_succeeded(job, "stop" if job is not jobs[1] else "x" * 99) for job in jobs])
        eventually(lambda: len(let_go) == 3, what="all three are let go")
    finally:
        queue.stop()
    states = [bench.job(job.id)["state"] for job in jobs]
    assert states == [JobState.SUCCEEDED, JobState.RUNNING, JobState.SUCCEEDED]
    assert sorted(let_go) == sorted(job.id for job in jobs)


def test_settle_many_large_answers_takes_a_few_at_a_time(
    bench: Bench, tenant_a: Organisation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thousands of vectors are kept as megabytes: one statement must not hold all of them."""
    monkeypatch.setattr("inference.worker.database._MOST_ANSWER_CHARS", 10)
    bench.admit(credential(factories.api_key(tenant_a)), 3)
    jobs = bench.claim(3)
    together: list[int] = []
    queue = Queue(
        bench.servers.url("gateway"),
        deployment_id=bench.served.deployment_id,
        worker="w1",
        lease_seconds=60,
        capacity=lambda: 0,
        on_claimed=lambda claimed: None,
        on_settled=lambda ended, asked: together.append(len(ended)),
        on_moved=lambda queues: None,
        on_more=lambda: None,
    )
    queue.start()
    try:
        answer = base64.b64encode(bytes(6)).decode()
        queue.settle([replace(_succeeded(job, "stop"), answer=answer) for job in jobs])
        eventually(lambda: sum(together) == 3, what="all three are settled")
    finally:
        queue.stop()
    assert together == [1, 1, 1]


def _succeeded(job: Claimed, reason: str) -> Settlement:
    return Settlement(
        job.id,
        JobState.RUNNING,
        JobState.SUCCEEDED,
        completion_tokens=2,
        fence=job.fence,
        finish_reason=reason,
    )


def test_answers_nothing_of_a_kept_answer_that_cannot_be_decrypted(
    bench: Bench, tenant_a: Organisation
) -> None:
    bench.admit(credential(factories.api_key(tenant_a)))
    (job,) = bench.claim()
    bench.end(job, JobState.SUCCEEDED, 4, answer="AAECAwQF")
    found = bench.run(statuses(bench.link, bench.ciphers, [job.id]))
    assert found[job.id].end is not None
    assert found[job.id].answer is None
