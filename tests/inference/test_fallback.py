"""Fallback: a job that failed before anything was shown goes on elsewhere, once, at its price."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest

from inference.fallback import Move, move_of
from inference.gateway.admission import Admitted
from inference.models import Deployment
from inference.models.jobs import JobState
from inference.payloads import unpack_prompt
from inference.route_services import NewTarget, create_route
from inference.services import set_deployment_enabled
from inference.settlement import Settled, Settlement
from inference.worker.claims import Claimed, Progress
from inference.worker.database import Queue
from portal.core.ids import uuid7
from tests import factories, live
from tests.factories import Organisation, unique
from tests.inference.bench import Bench, claim, credential
from tests.waiting import eventually

DEARER = (5_000_000, 7_000_000)


@dataclass(slots=True)
class Pair:
    """A route over the bench's deployment, then over another that is dearer and reads otherwise."""

    bench: Bench
    name: str
    second: Deployment

    @property
    def first_id(self) -> UUID:
        first: UUID = self.bench.served.deployment_id
        return first

    def admit(self, organisation: Organisation, **options: Any) -> UUID:
        """A job on the first deployment that may fall back on the second."""
        caller = credential(factories.api_key(organisation))
        (verdict,) = self.bench.submit([self.bench.pending_route(caller, self.name, **options)])
        assert isinstance(verdict, Admitted), verdict
        assert verdict.ask is not None
        assert verdict.ask.deployment_id == self.first_id
        return verdict.job_id

    def claim_second(self) -> Claimed:
        (job,) = claim(self.bench.worker, self.second.id, 1, "w2")
        return job

    def live(self, deployment_id: UUID) -> None:
        """Gives a deployment a ready worker."""
        self.bench.superuser.execute(
            "INSERT INTO inference_worker (id, name, deployment_id, version_digest, engine, state, "
            "detail, slots, running, started_at, heartbeat_at) "
            "VALUES (%s, %s, %s, '', 'fake', 'ready', '', 1, 0, now(), now() + interval '1 hour')",
            [uuid7(), unique("w"), deployment_id],
        )

    def kill(self, deployment_id: UUID) -> None:
        """Takes its workers away."""
        self.bench.superuser.execute(
            "DELETE FROM inference_worker WHERE deployment_id = %s", [deployment_id]
        )

    def fallback_events(self, job_id: UUID) -> list[dict[str, Any]]:
        rows = self.bench.rows(
            "SELECT e.reason, b.detail::text AS detail FROM audit_event e "
            "JOIN audit_body b ON b.event_id = e.id "
            "WHERE e.object_id = %s AND e.action = 'inference.fallback'",
            str(job_id),
        )
        return [{"reason": row["reason"], **json.loads(row["detail"])} for row in rows]


@pytest.fixture
def pair(bench: Bench) -> Iterator[Pair]:
    name = unique("second")
    # Another artefact: its prompts are other token ids, and other in number.
    live.deploy(bench.servers, name, engine="openvino", prices=DEARER)
    second = Deployment.objects.get(name=name)
    route = unique("route")
    targets = [NewTarget(bench.served.deployment_id), NewTarget(second.id, tier=1)]
    create_route(context=factories.TESTS, name=route, targets=targets)
    made = Pair(bench, route, second)
    for deployment_id in (made.first_id, second.id):
        made.live(deployment_id)
    yield made
    for deployment_id in (made.first_id, second.id):
        made.kill(deployment_id)
    set_deployment_enabled(context=factories.TESTS, deployment_id=second.id, enabled=False)


def failed(job: Claimed, code: str = "engine_failed", **more: Any) -> Settlement:
    """How a worker ends a job that failed for good with nothing shown."""
    facts: dict[str, Any] = {
        "fence": job.fence, "error_code": code, "error_message": "No.", "shown": False, **more,
    }  # fmt: skip
    return Settlement(job.id, JobState.RUNNING, JobState.DEAD, **facts)


def try_to_move(bench: Bench, settlement: Settlement) -> dict[UUID, str]:
    """What a worker does before it settles."""
    move = move_of(settlement)
    return bench.move(move) if move else {}


def end_or_move(bench: Bench, settlement: Settlement) -> None:
    try_to_move(bench, settlement)
    bench.settle(settlement)


def test_fallback_keeps_the_job_and_charges_once_at_the_price_of_who_served(
    pair: Pair, tenant_a: Organisation
) -> None:
    bench = pair.bench
    job_id = pair.admit(tenant_a, prompt="a little prompt", max_tokens=8)
    before = bench.job(job_id)
    (first,) = bench.claim()
    end_or_move(bench, failed(first))
    row = bench.job(job_id)
    assert (row["state"], row["deployment_id"]) == (JobState.QUEUED, pair.second.id)
    assert row["sku"] == f"{pair.second.model.name}@1"
    assert (row["prompt_price"], row["completion_price"]) == DEARER
    assert (row["reserved_tokens"], row["reserved_cost"]) == (
        before["reserved_tokens"],
        before["reserved_cost"],
    )
    second = pair.claim_second()
    assert (second.id, second.prompt_tokens) == (job_id, row["prompt_tokens"])
    bench.settle(
        Settlement(
            job_id, JobState.RUNNING, JobState.SUCCEEDED, completion_tokens=5, fence=second.fence
        )
    )
    assert bench.charges(job_id) == [(row["prompt_tokens"], 5)]
    (entry,) = bench.rows(
        "SELECT cost, sku, model_id FROM tenants_ledgerentry WHERE job_id = %s", job_id
    )
    assert entry["cost"] == row["prompt_tokens"] * 5_000 + 5 * 7_000
    assert (entry["sku"], entry["model_id"]) == (row["sku"], pair.second.model_id)
    window = bench.window(tenant_a.id)
    held = {name: value for name, value in window.items() if name.endswith("_held")}
    assert (window["active"], set(held.values())) == (0, {0})
    assert window["tokens_day_used"] == row["prompt_tokens"] + 5
    assert window["cost_day_used"] == entry["cost"]
    assert window["requests_day_used"] == 1
    assert bench.payloads(job_id) == 0
    assert bench.outcomes(job_id) == [
        ("requested", ""),
        ("requested", "engine_failed"),
        ("success", ""),
    ]


def test_fallback_is_told_with_from_to_and_why(pair: Pair, tenant_a: Organisation) -> None:
    job_id = pair.admit(tenant_a)
    (first,) = pair.bench.claim()
    end_or_move(pair.bench, failed(first))
    (event,) = pair.fallback_events(job_id)
    assert event["reason"] == "engine_failed"
    deployed = pair.bench.deployed
    assert event["from"] == {"deployment": deployed.deployment, "model": f"{deployed.model}@1"}
    assert event["to"] == {
        "deployment": pair.second.name,
        "model": f"{pair.second.model.name}@1",
    }


def test_fallback_reads_the_prompt_in_the_tokens_of_its_own_artefact(
    pair: Pair, tenant_a: Organisation
) -> None:
    bench = pair.bench
    job_id = pair.admit(tenant_a, prompt="a little prompt")
    (first,) = bench.claim()

    def prompt_of(job: Claimed) -> Any:
        cipher = bench.ciphers.of(job.tenant_id, job.data_key_version, job.data_key)
        return unpack_prompt(cipher.decrypt(job.prompt, row_id=job_id))

    end_or_move(bench, failed(first))
    second = pair.claim_second()
    ours, theirs = prompt_of(first), prompt_of(second)
    assert ours.messages == theirs.messages
    assert list(ours.ids) != list(theirs.ids)
    assert (len(ours.ids), len(theirs.ids)) == (first.prompt_tokens, second.prompt_tokens)


def test_reservation_covers_the_dearer_and_the_longer_target(
    pair: Pair, tenant_a: Organisation
) -> None:
    bench = pair.bench
    caller = credential(factories.api_key(tenant_a))
    pending = bench.pending_route(caller, pair.name, prompt="hi", max_tokens=8)
    assert pending.call.choice is not None
    asks: list[Any] = list(pending.call.choice.asks.values())
    job_id = pair.admit(tenant_a, prompt="hi", max_tokens=8)
    row = bench.job(job_id)
    assert row["reserved_tokens"] == max(a.prompt_tokens for a in asks) + 8
    assert row["reserved_cost"] == max(a.cost for a in asks)
    assert len({a.cost for a in asks}) == 2


def test_failure_on_the_last_target_ends_the_job_and_releases_everything(
    pair: Pair, tenant_a: Organisation
) -> None:
    bench = pair.bench
    job_id = pair.admit(tenant_a)
    (first,) = bench.claim()
    end_or_move(bench, failed(first))
    end_or_move(bench, failed(pair.claim_second()))
    assert bench.job(job_id)["state"] == JobState.DEAD
    assert bench.charges(job_id) == []
    window = bench.window(tenant_a.id)
    assert (window["active"], window["tokens_day_held"], window["cost_day_held"]) == (0, 0, 0)
    assert bench.payloads(job_id) == 0


def test_settling_after_the_move_changes_nothing(pair: Pair, tenant_a: Organisation) -> None:
    bench = pair.bench
    job_id = pair.admit(tenant_a)
    (first,) = bench.claim()
    assert try_to_move(bench, failed(first)) == {job_id: pair.second.queue}
    assert bench.settle(failed(first)) == []
    assert try_to_move(bench, failed(first)) == {}
    assert bench.window(tenant_a.id)["active"] == 1
    assert len(pair.fallback_events(job_id)) == 1


@pytest.mark.parametrize("code", ["request_refused", "invalid_prompt", "context_length_exceeded"])
def test_callers_own_fault_never_falls_back(pair: Pair, tenant_a: Organisation, code: str) -> None:
    job_id = pair.admit(tenant_a)
    (first,) = pair.bench.claim()
    end_or_move(pair.bench, failed(first, code))
    assert pair.bench.job(job_id)["state"] == JobState.DEAD
    assert pair.fallback_events(job_id) == []


def test_stream_that_has_shown_a_token_never_falls_back(pair: Pair, tenant_a: Organisation) -> None:
    bench = pair.bench
    job_id = pair.admit(tenant_a, stream=True)
    (first,) = bench.claim()
    assert try_to_move(bench, failed(first, shown=True)) == {}
    # The database knows it too, whoever asks: a sweeper that finds the worker gone.
    told = bench.rows("SELECT now() AS now")[0]["now"]
    bench.renew(Progress(job_id, first.fence, 0, told))
    assert try_to_move(bench, failed(first)) == {}
    bench.lapse(job_id)
    pair.kill(pair.first_id)
    assert bench.sweep().moved == 0
    assert bench.job(job_id)["state"] == JobState.FAILED


def test_worker_that_settles_moves_the_job_and_rings_where_it_waits_now(
    pair: Pair, tenant_a: Organisation
) -> None:
    bench = pair.bench
    job_id = pair.admit(tenant_a)
    (first,) = bench.claim()
    rung: list[set[str]] = []
    told: list[tuple[list[Settled], list[Settlement]]] = []
    queue = Queue(
        bench.servers.url("gateway"),
        deployment_id=pair.first_id,
        worker="w1",
        lease_seconds=60,
        capacity=lambda: 0,
        on_claimed=lambda claimed: None,
        on_settled=lambda ended, asked: told.append((ended, asked)),
        on_more=lambda: None,
        on_moved=rung.append,
    )
    queue.start()
    settlement = failed(first)
    queue.settle([settlement])
    eventually(lambda: bool(rung), what="the queue of the other deployment was rung")
    queue.stop()
    assert rung == [{pair.second.queue}]
    # The slot is free, and nobody is told of an end.
    assert told == [([], [settlement])]
    assert bench.job(job_id)["deployment_id"] == pair.second.id


def test_stale_claim_moves_nothing(pair: Pair, tenant_a: Organisation) -> None:
    bench = pair.bench
    job_id = pair.admit(tenant_a)
    (first,) = bench.claim()
    bench.release(first)
    (again,) = bench.claim()
    assert try_to_move(bench, failed(first)) == {}
    assert try_to_move(bench, failed(again)) == {job_id: pair.second.queue}


def test_cancelled_and_overdue_jobs_stay(pair: Pair, tenant_a: Organisation) -> None:
    bench = pair.bench
    cancelled, overdue = pair.admit(tenant_a), pair.admit(tenant_a)
    jobs = {job.id: job for job in bench.claim(2)}
    bench.superuser.execute(
        "UPDATE inference_job SET cancel_requested_at = now() WHERE id = %s", [cancelled]
    )
    bench.expire(overdue)
    for job in jobs.values():
        assert try_to_move(bench, failed(job)) == {}


def test_target_that_is_dead_or_disabled_is_no_fallback(pair: Pair, tenant_a: Organisation) -> None:
    bench = pair.bench
    job_id = pair.admit(tenant_a)
    (first,) = bench.claim()
    pair.kill(pair.second.id)
    assert try_to_move(bench, failed(first)) == {}
    pair.live(pair.second.id)
    set_deployment_enabled(context=factories.TESTS, deployment_id=pair.second.id, enabled=False)
    assert try_to_move(bench, failed(first)) == {}
    set_deployment_enabled(context=factories.TESTS, deployment_id=pair.second.id, enabled=True)
    assert try_to_move(bench, failed(first)) == {job_id: pair.second.queue}


def test_sweep_moves_a_job_whose_every_worker_was_lost(pair: Pair, tenant_a: Organisation) -> None:
    bench = pair.bench
    job_id = pair.admit(tenant_a)
    bench.claim()
    # Beside a portal that another test keeps running either sweep may be first: to both it is lost.
    bench.superuser.execute("UPDATE inference_job SET attempts = 99 WHERE id = %s", [job_id])
    bench.lapse(job_id)

    def moved() -> bool:
        waiting = bench.sweep(max_attempts=1).waiting_queues
        here = bench.job(job_id)["deployment_id"] == pair.second.id
        return here and pair.second.queue in waiting

    eventually(moved)
    assert [e["reason"] for e in pair.fallback_events(job_id)] == ["worker_lost"]


def test_sweep_moves_a_job_that_waits_where_nobody_works(
    pair: Pair, tenant_a: Organisation
) -> None:
    bench = pair.bench
    waiting, lost = pair.admit(tenant_a), pair.admit(tenant_a)
    (job,) = bench.admit(credential(factories.api_key(tenant_a)))
    bench.sweep()
    assert bench.job(waiting)["deployment_id"] == pair.first_id
    (claimed,) = bench.claim()
    assert claimed.id == waiting
    bench.lapse(waiting)
    pair.kill(pair.first_id)
    bench.sweep()
    for moved in (waiting, lost):
        assert bench.job(moved)["deployment_id"] == pair.second.id
        assert bench.job(moved)["state"] == JobState.QUEUED
    # One without a fallback waits on.
    assert bench.job(job)["deployment_id"] == pair.first_id


def test_moved_jobs_queue_behind_what_their_tenant_has_there(
    pair: Pair, tenant_a: Organisation
) -> None:
    bench = pair.bench
    ids = [pair.admit(tenant_a) for _ in range(3)]
    pair.kill(pair.first_id)
    bench.sweep()
    tags = [bench.job(job_id)["start_tag"] for job_id in ids]
    reserved = bench.job(ids[0])["reserved_tokens"]
    assert tags == [tags[0] + n * reserved * 1000 for n in range(3)]


def test_move_of_another_tenants_job_is_told_in_its_own_trail(
    pair: Pair, tenant_a: Organisation, tenant_b: Organisation
) -> None:
    bench = pair.bench
    ours, theirs = pair.admit(tenant_a), pair.admit(tenant_b)
    bench.move(*(Move(job_id, JobState.QUEUED, "worker_lost") for job_id in (ours, theirs)))
    rows = bench.rows(
        "SELECT object_id, tenant_id FROM audit_event WHERE action = 'inference.fallback' "
        "AND object_id = ANY(%s)",
        [str(ours), str(theirs)],
    )
    assert {(row["object_id"], row["tenant_id"]) for row in rows} == {
        (str(ours), tenant_a.id),
        (str(theirs), tenant_b.id),
    }
