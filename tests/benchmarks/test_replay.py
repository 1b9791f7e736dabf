"""The replay that judges limits: it must see what is wrong, and nothing else."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from benchmarks.lib.limits import Case
from benchmarks.lib.replay import Job, replay

NOON = datetime(2026, 3, 14, 12, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def case(limit: str, value: int) -> Case:
    return Case(UUID(int=1), "", "tenant", limit, value)


def job(admitted: float, finished: float | None, charged: int = 4) -> Job:
    """A call that reserves 10 tokens, and is charged fewer."""
    end = None if finished is None else at(finished)
    return Job(at(admitted), end, 10, 10_000, charged, charged * 1_000)


def judged(limit: str, value: int, jobs: list[Job], *refusals: float) -> tuple[int, int]:
    verdict = replay(case(limit, value), jobs, [at(second) for second in refusals])
    return verdict.overspent, verdict.phantoms


@pytest.mark.parametrize("limit", ["tokens_day", "requests_total", "cost_month", "concurrency"])
def test_replay_of_nothing_finds_nothing(limit: str) -> None:
    assert judged(limit, 1, []) == (0, 0)


def test_replay_sees_a_reservation_too_many() -> None:
    assert judged("tokens_day", 19, [job(0, 9), job(1, 9)]) == (1, 0)
    assert judged("tokens_day", 20, [job(0, 9), job(1, 9)]) == (0, 0)
    assert judged("cost_total", 19_000, [job(0, 9), job(1, 9)]) == (1, 0)


def test_replay_gives_back_what_was_not_charged_once_a_call_has_ended() -> None:
    assert judged("tokens_total", 14, [job(0, 1), job(2, 3)]) == (0, 0)
    assert judged("tokens_total", 14, [job(0, 3), job(2, 3)]) == (1, 0)


def test_replay_sees_a_refusal_of_what_fitted() -> None:
    jobs = [job(0, 2)]
    assert judged("tokens_day", 14, jobs, 1.0) == (0, 0)
    assert judged("tokens_day", 14, jobs, 3.0) == (0, 1)
    assert judged("requests_day", 1, jobs, 3.0) == (0, 0)
    assert judged("concurrency", 1, jobs, 1.0) == (0, 0)
    assert judged("concurrency", 1, jobs, 3.0) == (0, 1)


def test_replay_counts_generations_at_once() -> None:
    assert judged("concurrency", 2, [job(0, 5), job(1, 5), job(5, None)]) == (0, 0)
    assert judged("concurrency", 2, [job(0, 5), job(1, 5), job(4.9, None)]) == (1, 0)


def test_replay_empties_a_minute_at_its_end_and_leaves_it_alone_when_a_call_ends_later() -> None:
    across = [job(59, 61), job(60.5, 62)]
    assert judged("tokens_minute", 10, across) == (0, 0)
    assert judged("tokens_hour", 10, across) == (1, 0)
    # What the first gives back belongs to a minute that is over.
    assert judged("tokens_minute", 10, [*across, job(61.5, 70)]) == (1, 0)


def test_replay_tells_what_has_not_ended() -> None:
    assert replay(case("tokens_day", 99), [job(0, None)], []).unsettled == 1
