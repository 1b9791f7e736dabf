"""Gateways and workers that die, leave or come: nothing lost, nothing charged twice."""

import pytest

from inference.models.jobs import JobState
from tenants.services import set_quota
from tests import factories
from tests.faults.arena import PACE
from tests.faults.conftest import MakeArena
from tests.live import Programs, Web
from tests.waiting import eventually


@pytest.fixture
def second_gateway(programs: Programs) -> Web:
    """Another gateway, for the test to end."""
    web = programs.web("faults-gateway-2", FREEHOLD_PLANES="data", **PACE)
    web.wait_alive()
    return web


def test_admits_a_budget_for_10_of_200_calls_through_two_gateways(
    set_arena: MakeArena, second_gateway: Web
) -> None:
    arena = set_arena(token_ms=2, slots=16)
    arena.worker()
    first, second = arena.callers(), arena.callers(second_gateway)
    (probe,) = first.start(stream=False, max_tokens=5)
    first.wait()
    (job,) = arena.balance()
    assert probe.answered
    budget = 11 * (job["prompt_tokens"] + 5)
    set_quota(context=factories.TESTS, tenant_id=arena.tenant.id, tokens_total=budget)
    calls = [
        call
        for callers in (first, second)
        for stream in (False, True)
        for call in callers.start(50, stream=stream, max_tokens=5)
    ]
    first.wait()
    second.wait()
    assert sum(call.answered for call in calls) == 10
    refused = [call for call in calls if not call.answered]
    assert {(call.status, call.code) for call in refused} == {(429, "insufficient_quota")}
    jobs = arena.balance()
    assert len(jobs) == 11
    assert sum(job["prompt_tokens"] + job["watermark"] for job in jobs) == budget


def test_gives_back_what_was_held_when_answers_are_shorter(set_arena: MakeArena) -> None:
    arena = set_arena(token_ms=0, slots=16, tokens=2)
    arena.worker()
    callers = arena.callers()
    set_quota(context=factories.TESTS, tenant_id=arena.tenant.id, tokens_total=1000)
    for _ in range(3):
        callers.start(30, stream=True, max_tokens=64)
        callers.wait()
    jobs = arena.balance()
    spent = sum(job["prompt_tokens"] + job["watermark"] for job in jobs)
    # Held at once were at most 1000 tokens, and what is not used came back each time.
    assert all(job["watermark"] == 2 for job in jobs)
    assert spent <= 1000 < sum(job["reserved_tokens"] for job in jobs)


def test_ends_streams_and_runs_the_rest_again_when_a_worker_is_killed(
    set_arena: MakeArena,
) -> None:
    arena = set_arena(token_ms=20, slots=6)
    victim = arena.worker()
    callers = arena.callers()
    streams = callers.start(4, stream=True, max_tokens=2000)
    for call in streams:
        assert call.begun.wait(20)
    # Two of these run, the others wait: none has shown anything.
    whole = callers.start(6, stream=False, max_tokens=40)
    eventually(lambda: len(arena.jobs()) == 10, what="all are admitted")
    victim.kill()
    shown = [call.tokens for call in streams]
    arena.worker()
    callers.wait()
    jobs = arena.balance()
    for call in streams:
        assert (call.finished, call.code, call.broken) == (False, "worker_lost", "")
    for call in whole:
        assert (call.answered, call.tokens) == (True, 40), call
    lost = [job for job in jobs if job["stream"]]
    assert {job["state"] for job in lost} == {JobState.FAILED}
    assert {job["attempts"] for job in lost} == {1}
    # What was recorded is charged, and never more than was shown.
    assert sum(job["watermark"] for job in lost) <= sum(call.tokens for call in streams)
    assert min(shown) > 0


def test_cancels_what_runs_for_a_gateway_that_was_killed(
    set_arena: MakeArena, second_gateway: Web
) -> None:
    arena = set_arena(served_by=second_gateway, token_ms=20, slots=2)
    arena.worker()
    callers = arena.callers()
    streams = callers.start(2, stream=True, max_tokens=3000)
    for call in streams:
        assert call.begun.wait(20)
    waiting = callers.start(2, stream=False, max_tokens=3000)
    eventually(lambda: len(arena.jobs()) == 4, what="all are admitted")
    second_gateway.kill()
    callers.wait()
    assert all(call.broken for call in (*streams, *waiting))
    jobs = arena.balance()
    assert {job["state"] for job in jobs} == {JobState.CANCELLED}
    assert all(job["watermark"] < 3000 for job in jobs)


def test_frees_the_engine_within_one_step_when_the_caller_goes_away(set_arena: MakeArena) -> None:
    arena = set_arena(token_ms=50, slots=1)
    arena.worker()
    callers = arena.callers()
    (leaver,) = callers.start(stream=True, max_tokens=3000)
    assert leaver.begun.wait(20)
    (queued,) = callers.start(stream=True, max_tokens=3)
    eventually(lambda: len(arena.jobs()) == 2, what="both are admitted")
    leaver.closing.set()
    callers.wait(10)
    assert queued.answered
    left, _ = arena.balance()
    assert left["state"] == JobState.CANCELLED
    assert left["watermark"] < 200
    freed = (left["finished_at"] - left["cancel_requested_at"]).total_seconds()
    # A step is 50 ms; the rest is what two busy cores take to write it down.
    assert freed < 1.0


def test_never_runs_a_queued_job_whose_caller_goes_away(set_arena: MakeArena) -> None:
    arena = set_arena(token_ms=5, slots=1)
    callers = arena.callers()
    impatient = arena.callers()
    impatient._client.timeout = 0.5
    calls = impatient.start(5, stream=False, max_tokens=3)
    impatient.wait()
    assert all("Timeout" in call.broken for call in calls)
    jobs = arena.balance()
    assert {(job["state"], job["attempts"]) for job in jobs} == {(JobState.CANCELLED, 0)}
    arena.worker()
    (next_one,) = callers.start(stream=False, max_tokens=3)
    callers.wait()
    assert next_one.answered


def test_drains_a_worker_on_sigterm(set_arena: MakeArena) -> None:
    arena = set_arena(token_ms=10, slots=2)
    leaving = arena.worker()
    callers = arena.callers()
    streams = callers.start(2, stream=True, max_tokens=150)
    for call in streams:
        assert call.begun.wait(20)
    queued = callers.start(3, stream=False, max_tokens=5)
    eventually(lambda: len(arena.jobs()) == 5, what="all are admitted")
    assert leaving.stop() == 0, leaving.tail()
    assert all(call.tokens == 150 for call in streams)
    jobs = arena.jobs()
    assert [(job["state"], job["attempts"]) for job in jobs[2:]] == [(JobState.QUEUED, 0)] * 3
    arena.worker()
    callers.wait()
    assert all(call.answered for call in (*streams, *queued))
    assert {job["attempts"] for job in arena.balance()} == {1}


def test_puts_back_what_has_shown_nothing_when_the_drain_takes_too_long(
    set_arena: MakeArena,
) -> None:
    arena = set_arena(token_ms=10, slots=2)
    leaving = arena.worker(DRAIN_SECONDS="0.3")
    callers = arena.callers()
    (stream,) = callers.start(stream=True, max_tokens=3000)
    (whole,) = callers.start(stream=False, max_tokens=300)
    assert stream.begun.wait(20)
    eventually(lambda: arena.in_state(JobState.RUNNING) == 2, what="both run")
    assert leaving.stop() == 0, leaving.tail()
    arena.worker()
    callers.wait()
    assert (stream.finished, stream.code) == (False, "drained")
    assert (whole.answered, whole.tokens) == (True, 300)
    jobs = arena.balance()
    assert next(job for job in jobs if job["stream"])["watermark"] == stream.tokens
    # A drain is no fault of the job's: its first attempt does not count.
    assert next(job for job in jobs if not job["stream"])["attempts"] == 1


def test_finishes_running_answers_when_a_gateway_is_told_to_stop(
    set_arena: MakeArena, second_gateway: Web
) -> None:
    arena = set_arena(served_by=second_gateway, token_ms=10, slots=4)
    arena.worker()
    callers = arena.callers()
    calls = callers.start(2, stream=True, max_tokens=120)
    for call in calls:
        assert call.begun.wait(20)
    calls += callers.start(1, stream=False, max_tokens=50)
    eventually(lambda: len(arena.jobs()) == 3, what="all are admitted")
    second_gateway.stop()
    callers.wait()
    assert all(call.answered for call in calls), calls
    assert {job["state"] for job in arena.balance()} == {JobState.SUCCEEDED}


def test_shares_a_queue_between_two_workers(set_arena: MakeArena) -> None:
    arena = set_arena(token_ms=10, slots=2)
    arena.worker()
    arena.worker()
    callers = arena.callers()
    calls = callers.start(40, stream=False, max_tokens=10)
    callers.wait()
    assert all(call.answered for call in calls)
    jobs = arena.balance()
    assert {job["attempts"] for job in jobs} == {1}
    assert len({job["worker"] for job in jobs}) == 2
