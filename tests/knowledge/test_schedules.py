"""Schedules: what is taken for one, and when it is due where clocks change."""

from datetime import UTC, datetime

import pytest

from knowledge.schedules import clean_schedule, next_time
from portal.core.errors import Invalid


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("", ""),
        (" 15 ", "15"),
        ("007", "7"),
        ("0  3 * * *", "0 3 * * *"),
        ("*/5 8-17 * * mon-fri",) * 2,
    ],
)
def test_schedule_is_kept_in_one_form(given: str, kept: str) -> None:
    assert clean_schedule(given) == kept


@pytest.mark.parametrize(
    "given",
    [
        "0",
        "-5",
        "99999",
        "soon",
        "61 * * * *",
        "* * * *",
        "0 0 31 2 *",
        "* * * * * *",
        "x y z a b",
    ],
)
def test_what_is_no_schedule_is_refused(given: str) -> None:
    with pytest.raises(Invalid, match="cron"):
        clean_schedule(given)


@pytest.mark.parametrize(
    ("schedule", "zone", "after", "due"),
    [
        ("15", "UTC", "2026-03-01T10:07:30", "2026-03-01T10:22:30"),
        ("0 3 * * *", "Asia/Shanghai", "2026-03-01T10:00", "2026-03-01T19:00"),
        ("0 3 * * *", "Asia/Shanghai", "2026-03-01T19:00", "2026-03-02T19:00"),
        ("30 9 * * mon", "UTC", "2026-03-03T00:00", "2026-03-09T09:30"),
        ("0 0 1 1 *", "UTC", "2026-01-01T00:00", "2027-01-01T00:00"),
        # The hour that is skipped in spring, and the one that comes twice in autumn.
        ("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00", "2026-03-29T01:30"),
        ("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00", "2026-10-25T00:30"),
        ("30 2 * * *", "Europe/Berlin", "2026-10-25T00:30", "2026-10-26T01:30"),
    ],
)
def test_next_time_is_in_the_tenants_zone(schedule: str, zone: str, after: str, due: str) -> None:
    assert next_time(schedule, after=at(after), zone=zone) == at(due)
