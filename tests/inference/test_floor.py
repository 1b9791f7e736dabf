"""How far back a worker's claims look."""

from inference.fair_order import earliest_tag
from inference.worker.floor import LAG_SECONDS, LOOK_SECONDS, Floor


def claiming(floor: Floor, *, begin: float, end: float, tag: int) -> float:
    """Claims ten times a second, of tags that are the time in milliseconds above ``tag``."""
    now = begin
    while now < end:
        floor.next(now)
        floor.note(tag + int(now * 1000), now)
        now += 0.1
    return now


def floors(floor: Floor, now: float) -> int:
    """The floor of a claim now that is not the one without."""
    if floor.due(now):
        assert floor.next(now) == 0
    return floor.next(now)


def test_floor_follows_the_claims_of_two_seconds_ago() -> None:
    floor = Floor()
    now = claiming(floor, begin=10.0, end=20.0, tag=0)
    assert earliest_tag(17_700) <= floors(floor, now) <= earliest_tag(18_200)


def test_claims_of_the_first_two_seconds_have_no_floor() -> None:
    floor = Floor()
    now = claiming(floor, begin=10.0, end=10.0 + LAG_SECONDS - 0.2, tag=0)
    assert floors(floor, now) == 0


def test_claim_without_a_floor_is_due_once_a_second() -> None:
    floor = Floor()
    claiming(floor, begin=10.0, end=20.0, tag=0)
    bare = [now for now in range(20_050, 25_050, 50) if floor.next(now / 1000) == 0]
    assert len(bare) == 5 / LOOK_SECONDS


def test_what_was_put_back_beside_a_claimed_job_is_looked_for_at_once() -> None:
    floor = Floor()
    now = claiming(floor, begin=10.0, end=20.0, tag=0)
    floor.note(4_000, now)
    later = claiming(floor, begin=now + 0.1, end=now + LAG_SECONDS - 0.2, tag=0)
    assert floors(floor, later) == earliest_tag(4_000)
    # Once there is nothing more down there, claims skip it again.
    later = claiming(floor, begin=later, end=later + LAG_SECONDS, tag=0)
    assert floors(floor, later) > earliest_tag(17_000)


def test_floor_after_a_pause_is_that_of_the_last_claim() -> None:
    floor = Floor()
    claiming(floor, begin=10.0, end=20.0, tag=0)
    assert earliest_tag(19_800) <= floors(floor, 500.0) <= earliest_tag(20_000)


def test_claim_after_a_pause_raises_the_floor_only_when_the_lag_has_passed() -> None:
    floor = Floor()
    claiming(floor, begin=10.0, end=20.0, tag=0)
    floor.note(400_000, 400.0)
    assert floors(floor, 400.0 + LAG_SECONDS - 0.1) <= earliest_tag(20_000)
    assert floors(floor, 400.0 + LAG_SECONDS + 0.1) == earliest_tag(400_000)
