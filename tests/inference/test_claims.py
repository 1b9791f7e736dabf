"""Claims, leases and fences: who works on a job, and when nobody does any more."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from threading import Barrier

import psycopg
import pytest

from inference.models.jobs import JobState
from inference.settlement import Settlement
from inference.sweeper import Sweeper
from inference.worker.claims import Claimed, Progress
from portal.core.ids import uuid7
from tests import factories
from tests.factories import Organisation
from tests.inference.bench import Bench, claim, credential


def progress(job: Claimed, watermark: int = 0, first: datetime | None = None) -> Progress:
    return Progress(job.id, job.fence, watermark, first)


def one_claimed(bench: Bench, tenant: Organisation, *, stream: bool = False) -> Claimed:
    """A job of this tenant, claimed."""
    bench.admit(credential(factories.api_key(tenant)), stream=stream)
    (job,) = bench.claim()
    return job


def test_claims_the_first_job_of_a_quiet_tenant_while_another_has_200(
    bench: Bench, tenant_a: Organisation, tenant_b: Organisation
) -> None:
    bench.admit(credential(factories.api_key(tenant_a)), 200)
    (late,) = bench.admit(credential(factories.api_key(tenant_b)))
    first_cycle = bench.claim(8)
    second_cycle = bench.claim(8)
    assert late in {job.id for job in (*first_cycle, *second_cycle)[:9]}
    assert sum(job.tenant_id == tenant_a.id for job in first_cycle) >= 7


def test_claims_in_order_of_admission_within_a_tenant(bench: Bench, tenant_a: Organisation) -> None:
    admitted = bench.admit(credential(factories.api_key(tenant_a)), 20)
    assert [job.id for job in bench.claim(20)] == admitted


def test_admits_an_idle_tenant_at_the_clock_and_not_in_the_past(
    bench: Bench, tenant_a: Organisation, tenant_b: Organisation
) -> None:
    bench.admit(credential(factories.api_key(tenant_a)), 50)
    latest = bench.claim(50)[-1].start_tag
    (newcomer,) = bench.admit(credential(factories.api_key(tenant_b)))
    assert bench.job(newcomer)["start_tag"] == latest > 0


def test_claims_each_job_once_with_four_claimers_at_a_time(
    bench: Bench, tenant_a: Organisation
) -> None:
    admitted = bench.admit(credential(factories.api_key(tenant_a)), 120)
    together = Barrier(4)

    def claimer(name: str) -> list[Claimed]:
        mine: list[Claimed] = []
        with psycopg.connect(bench.servers.url("gateway"), autocommit=True) as connection:
            together.wait(timeout=20)
            while taken := claim(connection, bench.served.deployment_id, 7, name):
                mine += taken
        return mine

    with ThreadPoolExecutor(4) as pool:
        taken = [job for jobs in pool.map(claimer, "abcd") for job in jobs]
    assert sorted(job.id for job in taken) == sorted(admitted)
    assert {job.fence for job in taken} == {1}


def test_claims_a_newcomer_s_first_job_next_behind_200_of_another(
    bench: Bench, tenant_a: Organisation, tenant_b: Organisation
) -> None:
    bench.admit(credential(factories.api_key(tenant_a)), 200)
    bench.claim(8)
    (newcomer,) = bench.admit(credential(factories.api_key(tenant_b)))
    assert newcomer in [job.id for job in bench.claim(2)]


def test_claims_nothing_of_another_deployment(
    bench: Bench, tenant_a: Organisation, gateway_sql: psycopg.Connection
) -> None:
    bench.admit(credential(factories.api_key(tenant_a)))
    assert claim(gateway_sql, uuid7(), 8) == []


def test_claims_a_requeued_job_below_the_floor_only_without_one(
    bench: Bench, tenant_a: Organisation
) -> None:
    bench.admit(credential(factories.api_key(tenant_a)), 3)
    jobs = bench.claim(3)
    bench.release(jobs[0])
    assert bench.claim(3, floor=jobs[2].start_tag) == []
    assert [job.id for job in bench.claim(3)] == [jobs[0].id]


@pytest.mark.parametrize("stale", ["settle", "renew", "release"])
def test_changes_nothing_when_a_zombie_writes_with_an_old_fence(
    bench: Bench, tenant_a: Organisation, stale: str
) -> None:
    zombie = one_claimed(bench, tenant_a, stream=True)
    bench.lapse(zombie.id)
    bench.sweep()
    (heir,) = bench.claim(worker="w2")
    before = bench.job(zombie.id)
    assert (heir.id, heir.fence) == (zombie.id, zombie.fence + 1)
    if stale == "settle":
        assert bench.end(zombie, JobState.SUCCEEDED, 5) == []
    elif stale == "renew":
        assert bench.renew(progress(zombie, 5)) == {}
    else:
        bench.release(zombie)
    assert bench.job(zombie.id) == before
    assert bench.charges(zombie.id) == []
    (ended,) = bench.end(heir, JobState.SUCCEEDED, 3)
    assert ended.completion_tokens == 3
    assert len(bench.charges(zombie.id)) == 1


def test_changes_nothing_when_a_claim_was_undone_by_a_crash_and_its_worker_lives_on(
    bench: Bench, tenant_a: Organisation
) -> None:
    bench.admit(credential(factories.api_key(tenant_a)), 1)
    (lost,) = claim(bench.worker, bench.served.deployment_id, 1, lightly=True)
    # What a crash leaves behind: the row as it was.
    bench.superuser.execute(
        "UPDATE inference_job SET state = 0, fence = 0, attempts = 0, worker = '', "
        "claimed_at = NULL, lease_until = NULL WHERE id = %s",
        [lost.id],
    )
    assert bench.end(lost, JobState.SUCCEEDED, 5) == []
    (heir,) = claim(bench.worker, bench.served.deployment_id, 1, worker="w2", lightly=True)
    assert (heir.id, heir.attempts) == (lost.id, 1)
    assert heir.fence != lost.fence
    assert bench.renew(progress(lost, 5)) == {}
    assert bench.end(lost, JobState.SUCCEEDED, 5) == []
    (ended,) = bench.end(heir, JobState.SUCCEEDED, 3)
    assert ended.completion_tokens == 3


@pytest.mark.parametrize(("lightly", "waits"), [(False, "on"), (True, "off")])
def test_waits_for_the_disk_unless_it_only_claims(
    bench: Bench, tenant_a: Organisation, lightly: bool, waits: str
) -> None:
    bench.admit(credential(factories.api_key(tenant_a)), 1)
    with bench.worker.transaction():
        assert claim(bench.worker, bench.served.deployment_id, 1, lightly=lightly)
        assert bench.worker.execute("SHOW synchronous_commit").fetchone() == (waits,)
    assert bench.worker.execute("SHOW synchronous_commit").fetchone() == ("on",)


def test_settles_once_when_the_same_settlement_comes_twice(
    bench: Bench, tenant_a: Organisation
) -> None:
    job = one_claimed(bench, tenant_a)
    assert len(bench.end(job, JobState.SUCCEEDED, 4)) == 1
    assert bench.end(job, JobState.SUCCEEDED, 4) == []
    assert bench.charges(job.id) == [(job.prompt_tokens, 4)]
    assert bench.outcomes(job.id) == [("requested", ""), ("success", "")]
    assert bench.payloads(job.id) == 0


def test_renews_a_job_that_is_locked_elsewhere_without_waiting_or_losing_it(
    bench: Bench, tenant_a: Organisation, gateway_sql: psycopg.Connection
) -> None:
    bench.admit(credential(factories.api_key(tenant_a)), 2)
    held, free = bench.claim(2)
    with gateway_sql.transaction():
        gateway_sql.execute("SELECT 1 FROM inference_job WHERE id = %s FOR UPDATE", [held.id])
        bench.worker.execute("SET lock_timeout = '2s'")
        still = bench.renew(progress(held, 1), progress(free, 1))
    assert still == {held.id: False, free.id: False}
    assert bench.job(free.id)["watermark"] == 1
    assert bench.job(held.id)["watermark"] == 0


def test_never_lowers_a_watermark(bench: Bench, tenant_a: Organisation) -> None:
    job = one_claimed(bench, tenant_a, stream=True)
    bench.renew(progress(job, 7))
    bench.renew(progress(job, 3))
    assert bench.job(job.id)["watermark"] == 7


def test_requeues_a_lapsed_job_that_has_shown_nothing(bench: Bench, tenant_a: Organisation) -> None:
    job = one_claimed(bench, tenant_a)
    # A whole answer is shown at its end, however many tokens were made.
    bench.renew(progress(job, 0, datetime.now(UTC)))
    bench.lapse(job.id)
    bench.sweep()
    row = bench.job(job.id)
    assert (row["state"], row["worker"], row["first_token_at"]) == (JobState.QUEUED, "", None)
    assert bench.payloads(job.id) == 1
    assert bench.window(tenant_a.id)["active"] == 1


@pytest.mark.parametrize("watermark", [0, 6])
def test_ends_a_lapsed_stream_at_its_watermark_once_a_token_was_made(
    bench: Bench, tenant_a: Organisation, watermark: int
) -> None:
    job = one_claimed(bench, tenant_a, stream=True)
    bench.renew(progress(job, watermark, datetime.now(UTC)))
    bench.lapse(job.id)
    bench.sweep()
    row = bench.job(job.id)
    assert (row["state"], row["error_code"]) == (JobState.FAILED, "worker_lost")
    assert row["watermark"] == watermark
    assert bench.charges(job.id) == ([(job.prompt_tokens, 6)] if watermark else [])
    window = bench.window(tenant_a.id)
    assert (window["active"], window["tokens_day_held"]) == (0, 0)


def test_leaves_a_job_alone_whose_worker_renewed_while_the_sweeper_looked(
    bench: Bench, tenant_a: Organisation
) -> None:
    job = one_claimed(bench, tenant_a, stream=True)
    bench.renew(progress(job, 2))
    late = Settlement(
        job.id, JobState.RUNNING, JobState.FAILED, completion_tokens=2, fence=job.fence, lapsed=True
    )
    assert bench.settle(late) == []
    assert bench.job(job.id)["state"] == JobState.RUNNING


def test_ends_a_job_as_dead_letter_with_its_reason_after_the_last_attempt(
    bench: Bench, tenant_a: Organisation
) -> None:
    (job_id,) = bench.admit(credential(factories.api_key(tenant_a)))
    for attempt in (1, 2, 3):
        (job,) = bench.claim()
        assert (job.id, job.attempts) == (job_id, attempt)
        bench.lapse(job.id)
        bench.sweep(max_attempts=3)
    row = bench.job(job_id)
    assert (row["state"], row["error_code"]) == (JobState.DEAD, "worker_lost")
    assert row["error_message"] == "Every worker that tried was lost."
    assert bench.charges(job_id) == []
    assert bench.outcomes(job_id) == [("requested", ""), ("failure", "worker_lost")]
    assert bench.payloads(job_id) == 0


def test_does_not_count_an_attempt_when_a_drained_worker_puts_a_job_back(
    bench: Bench, tenant_a: Organisation
) -> None:
    job = one_claimed(bench, tenant_a)
    bench.release(job, forgive=True)
    (again,) = bench.claim()
    assert (again.id, again.attempts, again.fence) == (job.id, 1, 2)


def test_counts_an_attempt_when_a_broken_engine_gives_a_job_back(
    bench: Bench, tenant_a: Organisation
) -> None:
    job = one_claimed(bench, tenant_a)
    bench.release(job, forgive=False)
    (again,) = bench.claim()
    assert again.attempts == 2


def test_ends_a_queued_job_after_its_deadline(bench: Bench, tenant_a: Organisation) -> None:
    (job_id,) = bench.admit(credential(factories.api_key(tenant_a)))
    bench.expire(job_id)
    bench.sweep()
    assert bench.outcomes(job_id)[-1] == ("failure", "queue_timeout")
    assert bench.job(job_id)["state"] == JobState.FAILED
    assert bench.window(tenant_a.id)["active"] == 0


def test_asks_to_cancel_a_running_job_after_its_deadline(
    bench: Bench, tenant_a: Organisation
) -> None:
    job = one_claimed(bench, tenant_a)
    bench.expire(job.id)
    bench.sweep()
    assert bench.renew(progress(job)) == {job.id: True}


def test_ends_a_queued_job_at_once_when_it_is_cancelled(
    bench: Bench, tenant_a: Organisation
) -> None:
    (job_id,) = bench.admit(credential(factories.api_key(tenant_a)))
    bench.cancel(job_id)
    assert bench.job(job_id)["state"] == JobState.CANCELLED
    assert bench.claim() == []
    assert bench.charges(job_id) == []
    assert bench.outcomes(job_id)[-1] == ("failure", "cancelled")


def test_tells_the_worker_when_a_running_job_is_cancelled(
    bench: Bench, tenant_a: Organisation
) -> None:
    job = one_claimed(bench, tenant_a, stream=True)
    bench.cancel(job.id)
    assert bench.broker.published == [(f"cancel:{bench.served.queue}", job.id.bytes)]
    assert bench.renew(progress(job, 4)) == {job.id: True}
    (ended,) = bench.end(job, JobState.CANCELLED, 4)
    assert bench.charges(job.id) == [(job.prompt_tokens, 4)]
    assert ended.state is JobState.CANCELLED


def test_ends_a_cancelled_job_as_cancelled_when_only_the_sweeper_is_left(
    bench: Bench, tenant_a: Organisation
) -> None:
    (job_id,) = bench.admit(credential(factories.api_key(tenant_a)))
    bench.superuser.execute(
        "UPDATE inference_job SET cancel_requested_at = now() WHERE id = %s", [job_id]
    )
    bench.sweep()
    row = bench.job(job_id)
    assert (row["state"], row["error_code"]) == (JobState.CANCELLED, "cancelled")


def test_claims_a_job_that_is_marked_as_cancelled_and_says_so(
    bench: Bench, tenant_a: Organisation
) -> None:
    (job_id,) = bench.admit(credential(factories.api_key(tenant_a)))
    bench.superuser.execute(
        "UPDATE inference_job SET cancel_requested_at = now() WHERE id = %s", [job_id]
    )
    (job,) = bench.claim()
    assert job.cancel_requested


def test_names_queues_with_waiting_jobs_so_that_they_are_rung(
    bench: Bench, tenant_a: Organisation
) -> None:
    assert bench.served.queue not in bench.sweep().waiting_queues
    bench.admit(credential(factories.api_key(tenant_a)))
    assert bench.rung == [{bench.served.queue}]
    assert bench.served.queue in bench.sweep().waiting_queues


def test_sweeps_on_over_a_fresh_connection_after_its_own_was_cut(bench: Bench) -> None:
    sweeper = Sweeper(bench.servers.url("gateway"), bench.servers.valkey.url(), max_attempts=3)
    sweeper.sweep()
    bench.superuser.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'sweeper'"
    )
    with pytest.raises(psycopg.OperationalError):
        sweeper.sweep()
    assert sweeper.sweep().ended >= 0
    sweeper.close()
