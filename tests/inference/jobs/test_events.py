"""Events of a job: derived from its row, resumed by their ids."""

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from django.test import AsyncClient
from hypothesis import given
from hypothesis import strategies as st

from inference.jobs import streams
from inference.jobs.events import JobEvent, Position, Snapshot, events_of, is_over
from inference.jobs.streams import SLOTS, EventStream
from inference.models import Job, JobState
from inference.selectors import Place
from portal.core.errors import TooMany
from portal.core.ids import uuid7
from tenants.services import CreatedKey
from tests import factories
from tests.api.callers import key_caller
from tests.factories import Organisation
from tests.inference.bench import Bench
from tests.inference.jobs.support import claimed, submit_jobs, succeed
from tests.servers import SessionServers

ADMITTED = datetime(2026, 3, 14, tzinfo=UTC)
WAITS, RUNS = JobState.QUEUED, JobState.RUNNING


def snapshot(
    state: JobState, *, fence: int = 0, watermark: int = 0, place: int | None = None, at: int = 0
) -> Snapshot:
    """A job as it is ``at`` milliseconds after its admission."""
    job = Job(
        state=state,
        fence=fence,
        attempts=fence,
        watermark=watermark,
        prompt_tokens=5,
        admitted_at=ADMITTED,
        finish_reason="stop" if state == JobState.SUCCEEDED else "",
    )
    found = None if place is None else Place(place, 1.5)
    return Snapshot(job, found, ADMITTED + timedelta(milliseconds=at))


def told(shown: Snapshot, seen: Position | None = None) -> list[tuple[str, Any]]:
    return [(e.name, e.data) for e in events_of(shown, seen)]


def test_a_waiting_job_tells_its_place_and_wait() -> None:
    data = {"state": "queued", "position": 3, "wait_seconds": 1.5}
    assert told(snapshot(WAITS, place=3)) == [("queued", data)]


def test_a_waiting_job_tells_a_new_place_and_not_the_same_one_again() -> None:
    (first,) = events_of(snapshot(WAITS, place=3), None)
    assert told(snapshot(WAITS, place=3, at=1000), first.position) == []
    assert told(snapshot(WAITS, at=1000), first.position) == []
    (second,) = events_of(snapshot(WAITS, place=2, at=1000), first.position)
    assert second.data["position"] == 2
    assert second.position > first.position


def test_a_running_job_tells_how_many_tokens_it_has() -> None:
    (running,) = events_of(snapshot(RUNS, fence=1), None)
    assert (running.name, running.data) == ("running", {"state": "running", "attempt": 1})
    (progress,) = events_of(snapshot(RUNS, fence=1, watermark=7), running.position)
    assert (progress.name, progress.data["completion_tokens"]) == ("progress", 7)
    assert told(snapshot(RUNS, fence=1, watermark=7), progress.position) == []


def test_an_ended_job_tells_its_usage_and_nothing_follows() -> None:
    *_, last = events_of(snapshot(JobState.SUCCEEDED, fence=1, watermark=7), None)
    assert last.name == "succeeded"
    assert last.data == {
        "state": "succeeded",
        "finish_reason": "stop",
        "error": None,
        "usage": {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12},
    }
    assert is_over(last.position)
    assert told(snapshot(JobState.SUCCEEDED, fence=1, watermark=7), last.position) == []


def test_a_job_that_is_lost_and_runs_again_goes_on_ascending() -> None:
    history = [
        snapshot(WAITS, place=2),
        snapshot(RUNS, fence=1, watermark=9, at=1000),
        snapshot(WAITS, fence=1, place=1, at=2000),
        snapshot(RUNS, fence=2, watermark=3, at=3000),
        snapshot(JobState.SUCCEEDED, fence=2, watermark=12, at=4000),
    ]
    names = [event.name for event in watch(history)]
    assert names == ["queued", "running", "progress", "queued", "running", "progress", "succeeded"]


def watch(history: list[Snapshot], seen: Position | None = None) -> list[JobEvent]:
    """What a client hears that looks at each of these moments."""
    heard: list[JobEvent] = []
    for moment in history:
        for event in events_of(moment, seen):
            heard.append(event)
            seen = event.position
    return heard


@st.composite
def histories(draw: st.DrawFn) -> list[Snapshot]:
    """A job's life, as often as anyone looks at it."""
    at, fence, found = 0, 0, []
    for _ in range(draw(st.integers(1, 3))):
        for place in draw(st.lists(st.one_of(st.none(), st.integers(1, 4)), max_size=3)):
            at += draw(st.integers(1, 5000))
            found.append(snapshot(WAITS, fence=fence, place=place, at=at))
        fence += 1
        watermark = 0
        for step in draw(st.lists(st.integers(0, 5), max_size=3)):
            at, watermark = at + 1, watermark + step
            found.append(snapshot(RUNS, fence=fence, watermark=watermark, at=at))
    ended = draw(st.sampled_from([JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED]))
    found.append(snapshot(ended, fence=fence, watermark=draw(st.integers(0, 9)), at=at + 1))
    return found


@given(histories(), st.data())
def test_a_client_that_comes_again_hears_what_it_would_have_heard_and_nothing_twice(
    history: list[Snapshot], data: st.DataObject
) -> None:
    whole = watch(history)
    positions = [event.position for event in whole]
    assert positions == sorted(set(positions))
    assert all(Position.parse(str(position)) == position for position in positions)
    assert [is_over(position) for position in positions] == [False] * (len(whole) - 1) + [True]
    # It goes away after any moment and comes back at once, with the id that it saw last.
    cut = data.draw(st.integers(0, len(history)))
    before = watch(history[:cut])
    last = before[-1].position if before else None
    resumed = Position.parse(str(last)) if last else None
    assert before + watch(history[cut:], resumed) == whole


@pytest.mark.parametrize("text", ["", "1", "1.1.1", "0.9.0.0", "a.1.0.0", "1.1.1.1 ", "9" * 400])
def test_an_id_that_is_none_of_ours_is_none(text: str) -> None:
    assert Position.parse(text) is None


# -- streams -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bench(servers: SessionServers, database: None) -> Iterator[Bench]:
    with Bench(servers) as made:
        yield made


@pytest.fixture(autouse=True)
def _quick(database: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "LOOK_SECONDS", 0.02)


@pytest.fixture
def key(tenant_a: Organisation) -> CreatedKey:
    return factories.api_key(tenant_a)


async def next_event(chunks: Any) -> dict[str, str]:
    """The next event of a stream, by field; comments and the retry time are left out."""
    async for chunk in chunks:
        fields = dict(line.split(": ", 1) for line in chunk.decode().strip().split("\n"))
        if "event" in fields:
            found: dict[str, str] = fields
            return found
    return {}


def test_a_stream_follows_a_job_to_its_end_and_is_resumed_where_it_was_left(
    bench: Bench, key: CreatedKey, tenant_a: Organisation
) -> None:
    (job_id,) = submit_jobs(bench, key)

    async def follow() -> None:
        first = EventStream(tenant_a.id, job_id, None)
        chunks: Any = aiter(first)
        queued = await next_event(chunks)
        assert queued["event"] == "queued"
        job = await asyncio.to_thread(claimed, bench, job_id)
        running = await next_event(chunks)
        assert running["event"] == "running"
        await chunks.aclose()
        assert len(SLOTS) == 0
        await asyncio.to_thread(succeed, bench, job, "Hello!", 3)
        second = aiter(EventStream(tenant_a.id, job_id, Position.parse(running["id"])))
        ended = await next_event(second)
        assert ended["event"] == "succeeded"
        usage = json.loads(ended["data"])["usage"]
        assert usage["completion_tokens"] == 3
        assert await next_event(second) == {}

    asyncio.run(follow())
    assert len(SLOTS) == 0


def test_a_stream_with_nothing_new_keeps_the_connection_alive(
    bench: Bench, key: CreatedKey, tenant_a: Organisation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "KEEP_ALIVE_SECONDS", 0.05)
    (job_id,) = submit_jobs(bench, key)

    async def listen() -> bool:
        async for chunk in EventStream(tenant_a.id, job_id, None):
            if chunk == b": keep-alive\n\n":
                return True
        return False

    assert asyncio.run(listen())


def test_a_stream_of_another_tenants_job_shows_nothing(
    bench: Bench, key: CreatedKey, tenant_b: Organisation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "LONGEST_SECONDS", 0.2)
    (job_id,) = submit_jobs(bench, key)

    async def listen() -> list[bytes]:
        return [chunk async for chunk in EventStream(tenant_b.id, job_id, None)]

    assert asyncio.run(listen()) == [b"retry: 2000\n\n"]


def test_one_stream_too_many_is_refused_until_another_is_closed(tenant_a: Organisation) -> None:
    opened = [EventStream(tenant_a.id, uuid7(), None) for _ in range(streams.MOST_OF_A_TENANT)]
    with pytest.raises(TooMany):
        EventStream(tenant_a.id, uuid7(), None)
    opened[0].close()
    opened[0].close()
    opened[0] = EventStream(tenant_a.id, uuid7(), None)
    for stream in opened:
        stream.close()
    assert len(SLOTS) == 0


def test_get_events_streams_them_and_frees_the_slot_when_the_client_goes_away(
    bench: Bench, key: CreatedKey
) -> None:
    (job_id,) = submit_jobs(bench, key)

    async def listen() -> tuple[Any, dict[str, str]]:
        response: Any = await AsyncClient().get(
            f"/api/v1/jobs/{job_id}/events",
            headers={"Accept": "text/event-stream", "Authorization": f"Bearer {key.token}"},
        )
        event = await next_event(response.streaming_content)
        await asyncio.to_thread(response.close)
        return response, event

    response, event = asyncio.run(listen())
    assert (response.status_code, event["event"]) == (200, "queued")
    assert response["Content-Type"] == "text/event-stream; charset=utf-8"
    assert len(SLOTS) == 0


def test_get_events_after_the_end_has_no_content(bench: Bench, key: CreatedKey) -> None:
    (job_id,) = submit_jobs(bench, key)
    succeed(bench, claimed(bench, job_id))
    end = {"Last-Event-ID": "1.3.0.0", "Accept": "text/event-stream"}
    assert key_caller(key.token).get(f"jobs/{job_id}/events", **end).status_code == 204


def test_get_events_of_no_job_is_a_problem_in_json(key: CreatedKey) -> None:
    response = key_caller(key.token).get(f"jobs/{UUID(int=1)}/events", Accept="text/event-stream")
    assert (response.status_code, response["Content-Type"]) == (404, "application/problem+json")
