"""A worker that is told to drain, unload, load and resume, in this very process."""

from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest

from inference.models import Deployment, DesiredState, Worker, WorkerState
from inference.models.jobs import JobState
from inference.services import edit_deployment
from inference.worker.runtime import InferenceRuntime
from inference.worker.settings import read_deployment
from inference.worker.succession import take_over
from inference.worker_selectors import get_worker, stale_reasons
from inference.worker_services import WorkerOrder, order_worker, order_workers, refusal_of
from portal.core.env import env
from portal.core.errors import Conflict
from portal.core.ids import uuid7
from tests import factories
from tests.factories import Organisation
from tests.inference.bench import Bench, credential
from tests.waiting import eventually

Start = Callable[..., InferenceRuntime]


@pytest.fixture
def deployment(bench: Bench) -> Deployment:
    found = Deployment.objects.get(pk=bench.served.deployment_id)
    return options(found, token_ms=1, slots=2)


@pytest.fixture
def start(bench: Bench, deployment: Deployment, gateway_alive: None) -> Iterator[Start]:
    """Starts workers of the bench's deployment on threads of this process."""
    started: list[InferenceRuntime] = []

    def begin(name: str = "") -> InferenceRuntime:
        changes = {"drain_seconds": 0.0, "heartbeat_seconds": 0.05}
        assignment = read_deployment(bench.servers.url("gateway"), deployment.name)
        runtime = InferenceRuntime(env().model_copy(update=changes), assignment)
        if name:
            runtime._presence.row["name"] = name
        runtime.start()
        started.append(runtime)
        return runtime

    yield begin
    for runtime in started:
        runtime.drain()


def options(deployment: Deployment, **given: Any) -> Deployment:
    return edit_deployment(
        context=factories.TESTS, deployment_id=deployment.pk, engine="fake", options=given
    )


def row(runtime: InferenceRuntime) -> Worker:
    return get_worker(runtime._presence.row["id"])


def wait_for(runtime: InferenceRuntime, state: WorkerState) -> Worker:
    def arrived() -> Worker | None:
        found = Worker.objects.filter(pk=runtime._presence.row["id"], state=state).first()
        return found and get_worker(found.pk)

    return eventually(arrived, what=f"the worker is {state}")  # type: ignore[return-value]


def tell(runtime: InferenceRuntime, order: WorkerOrder) -> None:
    order_worker(context=factories.TESTS, worker_id=runtime._presence.row["id"], order=order)


def states(bench: Bench, jobs: list[UUID]) -> list[int]:
    rows = bench.rows("SELECT state FROM inference_job WHERE id = ANY(%s)", jobs)
    return [found["state"] for found in rows]


def all_succeeded(bench: Bench, jobs: list[UUID]) -> bool:
    return set(states(bench, jobs)) == {JobState.SUCCEEDED}


def test_drained_worker_finishes_what_runs_claims_no_more_and_resumes(
    bench: Bench, tenant_a: Organisation, start: Start
) -> None:
    runtime = start()
    wait_for(runtime, WorkerState.READY)
    jobs = bench.admit(credential(factories.api_key(tenant_a)), 12, max_tokens=200)
    runtime.wake()
    eventually(lambda: JobState.RUNNING in states(bench, jobs), what="a job runs")
    tell(runtime, WorkerOrder.DRAIN)
    drained = wait_for(runtime, WorkerState.DRAINED)
    found = states(bench, jobs)
    assert JobState.QUEUED in found
    assert set(found) <= {JobState.QUEUED, JobState.SUCCEEDED}
    assert (drained.running, drained.slots, drained.desired_state) == (0, 2, "drained")
    assert drained.loaded is not None
    runtime.wake()
    beat = drained.heartbeat_at
    eventually(lambda: row(runtime).heartbeat_at > beat, what="it beats on")
    assert states(bench, jobs).count(JobState.QUEUED) == found.count(JobState.QUEUED)
    tell(runtime, WorkerOrder.RESUME)
    eventually(lambda: all_succeeded(bench, jobs), within=30, what="all jobs are served")
    assert row(runtime).state == WorkerState.READY


def test_beat_during_which_the_last_job_ends_does_not_call_it_running_and_the_worker_drained(
    bench: Bench, tenant_a: Organisation, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = start()
    wait_for(runtime, WorkerState.READY)
    heartbeat, presence = runtime._heartbeat, runtime._presence
    figures = heartbeat._figures
    waited: list[bool] = []

    def slow_figures() -> dict[str, Any]:
        if presence.state == WorkerState.DRAINING and not waited:
            waited.append(True)
            eventually(lambda: presence.state == WorkerState.DRAINED, what="all jobs end")
        return figures()

    monkeypatch.setattr(heartbeat, "_figures", slow_figures)
    bench.admit(credential(factories.api_key(tenant_a)), 2, max_tokens=200)
    runtime.wake()
    eventually(lambda: len(runtime._running) == 2, what="both jobs run")
    tell(runtime, WorkerOrder.DRAIN)
    assert wait_for(runtime, WorkerState.DRAINED).running == 0


def test_unloaded_worker_holds_nothing_and_loads_what_was_edited_meanwhile(
    bench: Bench, tenant_a: Organisation, start: Start, deployment: Deployment
) -> None:
    runtime = start()
    assert stale_reasons(wait_for(runtime, WorkerState.READY)) == []
    options(deployment, token_ms=0, slots=5)
    assert stale_reasons(row(runtime)) == ["options"]
    jobs = bench.admit(credential(factories.api_key(tenant_a)), 6)
    tell(runtime, WorkerOrder.UNLOAD)
    unloaded = wait_for(runtime, WorkerState.UNLOADED)
    assert (unloaded.slots, unloaded.version_digest, unloaded.loaded) == (0, "", None)
    assert runtime._engine is None
    more = bench.admit(credential(factories.api_key(tenant_a)), 6)
    tell(runtime, WorkerOrder.LOAD)
    loaded = wait_for(runtime, WorkerState.READY)
    assert (loaded.slots, stale_reasons(loaded)) == (5, [])
    eventually(lambda: all_succeeded(bench, jobs + more), within=30, what="nothing is lost")


def test_load_of_a_serving_worker_loads_again_and_loses_nothing(
    bench: Bench, tenant_a: Organisation, start: Start, deployment: Deployment
) -> None:
    first, second = start("rolling@here:first"), start("rolling@here:second")
    for runtime in (first, second):
        wait_for(runtime, WorkerState.READY)
    jobs = bench.admit(credential(factories.api_key(tenant_a)), 20, max_tokens=100)
    options(deployment, token_ms=0, slots=7)
    told = order_workers(
        context=factories.TESTS, deployment_id=deployment.pk, order=WorkerOrder.LOAD
    )
    assert len(told) == 2
    for runtime in (first, second):
        eventually(lambda r=runtime: row(r).slots == 7, what="it has loaded again")  # type: ignore[misc]
    eventually(lambda: all_succeeded(bench, jobs), within=30, what="all jobs are served")


def test_failed_load_says_why_and_load_tries_again(
    bench: Bench, start: Start, deployment: Deployment
) -> None:
    broken = "UPDATE inference_deployment SET options = '{\"slots\": 0}' WHERE id = %s"
    with psycopg.connect(bench.servers.url("superuser"), autocommit=True) as connection:
        connection.execute(broken, [deployment.pk])
    runtime = start()
    failed = wait_for(runtime, WorkerState.FAILED)
    assert "slots" in failed.detail
    assert failed.loaded is None
    tell(runtime, WorkerOrder.LOAD)
    eventually(lambda: row(runtime).state_since > failed.state_since, what="it has tried again")
    assert wait_for(runtime, WorkerState.FAILED).load_generation == 1
    options(deployment, slots=3)
    tell(runtime, WorkerOrder.LOAD)
    assert wait_for(runtime, WorkerState.READY).slots == 3


def test_worker_in_place_of_one_that_ended_goes_on_as_it_was_told(
    start: Start, deployment: Deployment
) -> None:
    first = start()
    wait_for(first, WorkerState.READY)
    tell(first, WorkerOrder.UNLOAD)
    wait_for(first, WorkerState.UNLOADED)
    first.drain()
    second = start()
    unloaded = wait_for(second, WorkerState.UNLOADED)
    assert unloaded.desired_state == DesiredState.UNLOADED
    assert not Worker.objects.filter(pk=first._presence.row["id"]).exists()
    third = start(f"{deployment.name}@here:1")
    assert wait_for(third, WorkerState.READY).desired_state == DesiredState.SERVING


def test_worker_that_was_killed_hands_on_only_on_its_host(
    bench: Bench, deployment: Deployment
) -> None:
    # No process has so high an id.
    gone, pid = f"{deployment.name}@here:4194305", f"{deployment.name}@here:2"
    with psycopg.connect(bench.servers.url("superuser"), autocommit=True) as connection:
        connection.execute(
            "INSERT INTO inference_worker (id, name, deployment_id, version_digest, engine, state,"
            " detail, slots, running, desired_state, load_generation, started_at, heartbeat_at)"
            " VALUES (%s, %s, %s, '', 'fake', 'drained', '', 1, 0, 'drained', 4, now(), now())",
            [uuid7(), gone, deployment.pk],
        )
    with psycopg.connect(bench.servers.url("gateway"), autocommit=True) as connection:
        elsewhere = f"{deployment.name}@there:2"
        assert take_over(connection, deployment_id=deployment.pk, name=elsewhere) is None
        assert take_over(connection, deployment_id=deployment.pk, name=pid) == ("drained", 4)
        assert take_over(connection, deployment_id=deployment.pk, name=pid) is None


def test_orders_that_make_no_sense_are_refused_in_words(
    start: Start, deployment: Deployment
) -> None:
    runtime = start()
    worker = wait_for(runtime, WorkerState.READY)
    assert "nothing to resume" in refusal_of(worker, WorkerOrder.RESUME)
    with pytest.raises(Conflict, match="nothing to resume"):
        tell(runtime, WorkerOrder.RESUME)
    tell(runtime, WorkerOrder.DRAIN)
    with pytest.raises(Conflict, match="drained already"):
        tell(runtime, WorkerOrder.DRAIN)
    tell(runtime, WorkerOrder.UNLOAD)
    for order, words in (
        (WorkerOrder.UNLOAD, "unloaded already"),
        (WorkerOrder.DRAIN, "nothing to drain"),
        (WorkerOrder.RESUME, "load it instead"),
    ):
        with pytest.raises(Conflict, match=words):
            tell(runtime, order)
    runtime.drain()
    with pytest.raises(Conflict, match="not up"):
        tell(runtime, WorkerOrder.UNLOAD)
    with pytest.raises(Conflict, match="No worker of the deployment"):
        order_workers(context=factories.TESTS, deployment_id=deployment.pk, order=WorkerOrder.DRAIN)
    # What the next one is to be can be taken back.
    tell(runtime, WorkerOrder.LOAD)
    assert row(runtime).desired_state == DesiredState.SERVING
