"""Several choices of one job: one reservation, one charge, one end, whatever befalls its worker."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
import redis as redis_client

from inference.choices import ChoiceAnswer, decode_choices
from inference.engines.base import Message
from inference.gateway.admission import Admitted, Call, Refused
from inference.gateway.calls import CHAT, Pending
from inference.gateway.jobs import statuses
from inference.gateway.requests import prepared
from inference.gateway.wire.common import ParsedRequest
from inference.models.jobs import JobState
from inference.payloads import Extras
from inference.returns import End, Part, Text, decode_returns, stream_key
from inference.worker.runtime import InferenceRuntime
from inference.worker.settings import Assignment
from portal.core.env import env
from tenants.services import set_quota
from tests import factories
from tests.factories import Organisation
from tests.inference.bench import GATEWAY, Bench, credential, origin
from tests.waiting import eventually

MAX_TOKENS = 6
N = 3
TERMINAL = {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.DEAD}
StartRuntime = Callable[..., InferenceRuntime]


@pytest.fixture
def start_runtime(bench: Bench, gateway_alive: None) -> Iterator[StartRuntime]:
    """Starts a worker of the bench's deployment, with the fake engine, on our own threads."""
    started: list[InferenceRuntime] = []

    def start(**options: Any) -> InferenceRuntime:
        served = bench.served
        assignment = Assignment(
            served.deployment_id,
            bench.deployed.deployment,
            served.queue,
            "fake",
            {"token_ms": 0, "slots": 4, **options},
            served.context_length,
            "",
            "digest",
            bench.servers.url("gateway"),
        )
        changes = {"drain_seconds": 0.0, "heartbeat_seconds": 0.1}
        runtime = InferenceRuntime(env().model_copy(update=changes), assignment)
        runtime.start()
        started.append(runtime)
        return runtime

    yield start
    for runtime in started:
        runtime.drain()


def pending(bench: Bench, tenant: Organisation, *, stream: bool, **extras: Any) -> Pending:
    """A chat completion of several choices on its way to the desk, made as a gateway makes it."""
    request = ParsedRequest(
        model=bench.deployed.model,
        messages=(Message("user", extras.pop("prompt", "hi")),),
        stream=stream,
        include_usage=False,
        temperature=None,
        top_p=None,
        max_tokens=extras.pop("max_tokens", MAX_TOKENS),
        stop=(),
        seed=None,
        user=None,
        extras=Extras(**{"n": N, **extras}),
    )
    ids = bench.served.encoder.encode(request.messages)
    generation, ask = prepared(request, bench.served, ids, 600.0)
    caller = credential(factories.api_key(tenant))
    return Pending(CHAT, origin(), Call(caller, ask), datetime.now(UTC), generation)


def admit(bench: Bench, tenant: Organisation, *, stream: bool = False, **extras: Any) -> UUID:
    (verdict,) = bench.submit([pending(bench, tenant, stream=stream, **extras)])
    assert isinstance(verdict, Admitted), verdict
    return verdict.job_id


def ended(bench: Bench, job_id: UUID) -> dict[str, Any]:
    """The job's row once it has ended."""
    eventually(lambda: bench.job(job_id)["state"] in TERMINAL, what="the job has ended")
    return bench.job(job_id)


def sent(redis: "redis_client.Redis", job_id: UUID) -> list[Text | End]:
    entries: Any = redis.xrange(stream_key(GATEWAY))
    events = [event for _, fields in entries for event in decode_returns(fields[b"e"])]
    return [event for event in events if event.job == job_id.bytes]


def all_sent(redis: "redis_client.Redis", job_id: UUID) -> tuple[list[Text], End]:
    """What gateways were told of a job that has ended, and its end."""

    def end() -> End | None:
        return next((e for e in sent(redis, job_id) if isinstance(e, End)), None)

    told = eventually(end, what="its end")
    assert told is not None
    return [e for e in sent(redis, job_id) if isinstance(e, Text)], told


def test_reserve_for_every_choice_and_charge_the_prompt_once(
    bench: Bench, tenant_a: Organisation, start_runtime: StartRuntime
) -> None:
    job_id = admit(bench, tenant_a)
    job = bench.job(job_id)
    prompt = job["prompt_tokens"]
    assert job["reserved_tokens"] == prompt + N * MAX_TOKENS
    prices = (job["prompt_price"], job["completion_price"])
    cost = -(-(prompt * prices[0] + N * MAX_TOKENS * prices[1]) // 1000)
    assert job["reserved_cost"] == cost
    window = bench.window(tenant_a.id)
    assert (window["active"], window["tokens_total_held"]) == (1, prompt + N * MAX_TOKENS)
    start_runtime()
    assert ended(bench, job_id)["state"] == JobState.SUCCEEDED
    assert bench.charges(job_id) == [(prompt, N * MAX_TOKENS)]
    window = bench.window(tenant_a.id)
    assert (window["active"], window["tokens_total_held"]) == (0, 0)
    assert window["tokens_total_used"] == prompt + N * MAX_TOKENS
    assert bench.outcomes(job_id) == [("requested", ""), ("success", "")]


def test_refuse_choices_that_do_not_fit_a_quota_where_one_would(
    bench: Bench, tenant_a: Organisation
) -> None:
    prompt = len(bench.served.encoder.encode((Message("user", "hi"),)))
    limit = prompt + N * MAX_TOKENS - 1
    set_quota(context=factories.TESTS, tenant_id=tenant_a.id, tokens_day=limit)
    several, one = bench.submit([pending(bench, tenant_a, stream=False, n=n) for n in (N, 1)])
    assert isinstance(several, Refused)
    assert isinstance(one, Admitted)


def test_answer_whole_holds_every_choice(
    bench: Bench,
    tenant_a: Organisation,
    redis: "redis_client.Redis",
    start_runtime: StartRuntime,
) -> None:
    job_id = admit(bench, tenant_a, logprobs=1)
    start_runtime()
    ended(bench, job_id)
    (text,), end = all_sent(redis, job_id)
    assert text.tokens == end.completion_tokens == N * MAX_TOKENS
    choices = decode_choices(text.text, N)
    assert [c.reason for c in choices] == ["length"] * N
    assert all(len(c.text.split()) == len(c.logprobs) == MAX_TOKENS for c in choices)
    assert all(len(entry.top) == 1 for c in choices for entry in c.logprobs)


def test_keep_every_choice_while_the_broker_is_away(
    bench: Bench, tenant_a: Organisation, start_runtime: StartRuntime
) -> None:
    job_id = admit(bench, tenant_a)
    runtime = start_runtime(first_token_ms=300)
    runtime._publisher._client.close()
    runtime._publisher._client = _Away()  # type: ignore[assignment]
    ended(bench, job_id)
    status = bench.run(statuses(bench.link, bench.ciphers, [job_id]))[job_id]
    assert status.answer is not None
    assert [len(c.text.split()) for c in decode_choices(status.answer, N)] == [MAX_TOKENS] * N
    assert bench.charges(job_id)[0][1] == N * MAX_TOKENS


class _Away:
    """A broker that can't be reached."""

    def call_all(self, commands: Any) -> Any:
        raise ConnectionError("the broker is away")

    def close(self) -> None:
        """Nothing is open."""


def test_stream_tells_each_choice_apart_and_counts_one_watermark(
    bench: Bench,
    tenant_a: Organisation,
    redis: "redis_client.Redis",
    start_runtime: StartRuntime,
) -> None:
    job_id = admit(bench, tenant_a, stream=True)
    start_runtime(token_ms=1)
    job = ended(bench, job_id)
    parts, end = all_sent(redis, job_id)
    offset = 0
    tokens = dict.fromkeys(range(N), 0)
    for part in parts:
        assert isinstance(part, Part)
        assert part.offset == offset
        offset += part.tokens
        tokens[part.choice] += part.tokens
    assert tokens == dict.fromkeys(range(N), MAX_TOKENS)
    assert sorted(p.choice for p in parts if isinstance(p, Part) and p.reason) == [*range(N)]
    assert job["watermark"] == offset == end.completion_tokens


def test_cancel_ends_every_choice_and_charges_what_was_shown(
    bench: Bench,
    tenant_a: Organisation,
    redis: "redis_client.Redis",
    start_runtime: StartRuntime,
) -> None:
    job_id = admit(bench, tenant_a, stream=True, max_tokens=1000)
    runtime = start_runtime(token_ms=2)
    eventually(lambda: len(sent(redis, job_id)) > 6, what="text flows")
    bench.cancel(job_id)
    job = ended(bench, job_id)
    assert job["state"] == JobState.CANCELLED
    shown = sum(e.tokens for e in sent(redis, job_id) if isinstance(e, Text))
    assert bench.charges(job_id) == [(job["prompt_tokens"], shown)]
    assert shown == job["watermark"]
    assert runtime._engine is not None
    engine = runtime._engine
    eventually(lambda: engine.stats().running + engine.stats().waiting == 0, what="all are ended")


@pytest.mark.parametrize("stream", [False, True])
def test_engine_that_dies_runs_a_job_again_unless_it_has_shown_a_choice(
    bench: Bench,
    tenant_a: Organisation,
    start_runtime: StartRuntime,
    monkeypatch: pytest.MonkeyPatch,
    stream: bool,
) -> None:
    job_id = admit(bench, tenant_a, stream=stream, prompt="it breaks")
    (job,) = bench.claim()
    bench.release(job)
    # The worker of a dead engine ends its process, which is ours here.
    monkeypatch.setattr("inference.worker.runtime.os.kill", lambda pid, signum: None)
    start_runtime(fail_on="breaks", fail_after=2, fail_code="engine_failed")
    eventually(
        lambda: (row := bench.job(job_id))["fence"] > job.fence and row["state"] != 1,
        what="the job is ended or given back",
    )
    row = bench.job(job_id)
    if stream:
        assert row["state"] == JobState.FAILED
        assert bench.charges(job_id)[0][1] == row["watermark"] > 0
    else:
        assert row["state"] == JobState.QUEUED
        assert bench.charges(job_id) == []


def test_claim_nothing_while_choices_take_every_slot(
    bench: Bench, tenant_a: Organisation, start_runtime: StartRuntime
) -> None:
    first = admit(bench, tenant_a, max_tokens=3000)
    runtime = start_runtime(token_ms=20, slots=N)
    eventually(lambda: runtime._running.slots == N, what="one job runs")
    assert runtime._capacity() == 0
    second = admit(bench, tenant_a, n=1)
    assert bench.job(second)["state"] == JobState.QUEUED
    bench.cancel(first)
    assert ended(bench, second)["state"] == JobState.SUCCEEDED
    eventually(lambda: runtime._running.slots == 0, what="its slots are free again")


def test_document_of_nothing_is_an_empty_choice_each() -> None:
    assert decode_choices("", 2) == [ChoiceAnswer(), ChoiceAnswer()]
