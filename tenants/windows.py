"""When quota windows begin and end: minutes by the clock, days and months where the tenant is."""

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo


@lru_cache(maxsize=4096)
def _midnights(year: int, month: int, day: int, zone: str) -> tuple[datetime, datetime]:
    tz = ZoneInfo(zone)
    return (
        datetime(year, month, day, tzinfo=tz).astimezone(UTC),
        datetime(year, month, 1, tzinfo=tz).astimezone(UTC),
    )


def window_starts(now: datetime, zone: str) -> dict[str, datetime]:
    """When the minute, day and month that hold ``now`` began, in UTC."""
    local = now.astimezone(ZoneInfo(zone))
    day, month = _midnights(local.year, local.month, local.day, zone)
    return {
        "minute": now.astimezone(UTC).replace(second=0, microsecond=0),
        "day": day,
        "month": month,
    }


def window_end(start: datetime, span: str, zone: str) -> datetime:
    """When the window that began at ``start`` ends, in UTC."""
    if span == "minute":
        return start + timedelta(minutes=1)
    local = start.astimezone(ZoneInfo(zone))
    if span == "day":
        # A day can have 23 or 25 hours: the next midnight, not 24 hours on.
        after = local.date() + timedelta(days=1)
        return _midnights(after.year, after.month, after.day, zone)[0]
    year, month = (local.year + 1, 1) if local.month == 12 else (local.year, local.month + 1)
    return _midnights(year, month, 1, zone)[0]


def next_reset(span: str, now: datetime, zone: str) -> datetime | None:
    """When the window of ``now`` ends, in the tenant's own time; None for one that never does."""
    if span == "total":
        return None
    end = window_end(window_starts(now, zone)[span], span, zone)
    return end.astimezone(ZoneInfo(zone))
