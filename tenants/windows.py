"""When quota windows begin: minutes by the clock, days and months by the tenant's time zone."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo


def window_starts(now: datetime, zone: str) -> dict[str, datetime]:
    """When the minute, day and month that hold ``now`` began, in UTC."""
    local = now.astimezone(ZoneInfo(zone))
    # The offset is worked out anew for each: it may have changed since the first of the month.
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    return {
        "minute": now.astimezone(UTC).replace(second=0, microsecond=0),
        "day": midnight.astimezone(UTC),
        "month": midnight.replace(day=1).astimezone(UTC),
    }
