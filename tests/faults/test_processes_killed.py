"""kill -9 of a worker and of a gateway: one end for each job, and books that balance."""

import threading

import httpx
import pytest

from inference.models.jobs import JobState
from tests.faults.stage import Stage
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(240)


def test_answer_without_a_fault_is_charged_in_full(stage: Stage) -> None:
    with stage.stream(max_tokens=20) as stream:
        stream.read()
    assert stream.done
    assert stream.error is None
    assert stream.usage is not None
    (job,) = stage.wait_ended(1)
    assert (job.state, job.watermark) == (JobState.SUCCEEDED, 20)
    assert stream.usage["completion_tokens"] == 20
    stage.assert_books_balance()


def test_kill_worker_mid_stream_ends_the_stream_and_charges_the_watermark(stage: Stage) -> None:
    with stage.stream() as stream:
        stream.read(5)
        # Tokens shown since the last heartbeat are recorded nowhere, and not charged.
        eventually(lambda: stage.jobs()[0].watermark > 0, what="a heartbeat has recorded some")
        stage.worker.kill()
        stream.read()
    assert stream.error is not None
    (job,) = stage.wait_ended(1)
    assert job.state in (JobState.FAILED, JobState.DEAD)
    assert 0 < job.watermark < 400
    stage.assert_books_balance()


def test_kill_worker_with_a_queue_lets_the_next_worker_answer(stage: Stage) -> None:
    answers: list[int] = []

    def ask() -> None:
        with stage.client() as client:
            response = client.post("/v1/chat/completions", json=stage.body(10))
            answers.append(response.status_code)

    with stage.stream() as first, stage.stream() as second:
        first.read(1)
        second.read(1)
        waiting = [threading.Thread(target=ask) for _ in range(3)]
        for thread in waiting:
            thread.start()
        eventually(lambda: len(stage.jobs()) == 5, what=lambda: str(stage.jobs()))
        stage.worker.kill()
        stage.replace_worker()
        for thread in waiting:
            thread.join(60)
    assert answers == [200, 200, 200]
    jobs = stage.wait_ended(5)
    assert [job.state for job in jobs[2:]] == [JobState.SUCCEEDED] * 3
    stage.assert_books_balance()


def test_kill_gateway_mid_stream_ends_the_job_and_charges_the_watermark(stage: Stage) -> None:
    with pytest.raises(httpx.TransportError), stage.stream() as stream:
        stream.read(5)
        stage.web.kill()
        stream.read()
    (job,) = stage.wait_ended(1, within=60)
    assert 0 < job.watermark <= 400
    stage.assert_books_balance()


def test_disconnect_mid_stream_cancels_the_job_at_once(stage: Stage) -> None:
    with stage.stream() as stream:
        stream.read(5)
    (job,) = stage.wait_ended(1, within=3)
    assert job.state == JobState.CANCELLED
    assert 5 <= job.watermark < 100
    stage.assert_books_balance()


def test_stop_worker_politely_lets_it_finish_what_runs(stage: Stage) -> None:
    with stage.stream(max_tokens=60) as stream:
        stream.read(5)
        stopping = threading.Thread(target=stage.worker.stop)
        stopping.start()
        stream.read()
        stopping.join(60)
    assert stream.done
    assert stream.error is None
    (job,) = stage.wait_ended(1)
    assert (job.state, job.watermark) == (JobState.SUCCEEDED, 60)
    stage.assert_books_balance()
