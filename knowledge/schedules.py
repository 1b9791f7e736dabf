"""When something is due again: every so many minutes, or by five fields of cron.

Cron's fields are read by Celery's own parser and followed in a time zone of the reader's, which
Celery can't do for each schedule: pure functions.
"""

from datetime import UTC, datetime, time, timedelta
from itertools import product
from typing import Final
from zoneinfo import ZoneInfo

from celery.schedules import ParseException, crontab_parser

from portal.core.errors import Invalid

MOST_CHARS: Final = 100
_MOST_MINUTES: Final = 7 * 24 * 60
# February 29 on a given day of the week comes once in 28 years; nobody waits for that.
_MOST_DAYS: Final = 5 * 366
# Of minute, hour, day of the month, month, day of the week: how many, and from where on.
_FIELDS: Final = ((60, 0), (24, 0), (31, 1), (12, 1), (7, 0))


def clean_schedule(text: str) -> str:
    """A schedule as it is kept: empty, minutes, or five fields of cron.

    Raises:
        Invalid: it is none of these, or it never comes.
    """
    words = text.split()
    schedule = " ".join(words)
    if not schedule:
        return ""
    if len(words) == 1 and words[0].isascii() and words[0].isdigit():
        if len(words[0]) <= 5 and 1 <= int(words[0]) <= _MOST_MINUTES:
            return str(int(words[0]))
    elif len(schedule) <= MOST_CHARS and len(words) == len(_FIELDS):
        try:
            next_time(schedule, after=datetime.now(UTC), zone="UTC")
        except (ParseException, ValueError, KeyError, LookupError):
            pass
        else:
            return schedule
    raise Invalid(
        f"'schedule' must be minutes (1 to {_MOST_MINUTES}), or five fields of cron such as "
        "'0 3 * * *' for 3 o'clock each night.",
        param="schedule",
    )


def next_time(schedule: str, *, after: datetime, zone: str) -> datetime:
    """When a schedule that ``clean_schedule`` gave is due next, in UTC.

    An hour that the clocks skip in spring is taken after it; one that comes twice in autumn is
    taken the first time.

    Raises:
        ValueError: it is not due within five years.
    """
    if schedule.isdigit():
        return after + timedelta(minutes=int(schedule))
    minutes, hours, days, months, weekdays = _parsed(schedule)
    local = ZoneInfo(zone)
    first = after.astimezone(local).date()
    for number in range(_MOST_DAYS):
        day = first + timedelta(days=number)
        if day.month not in months or day.day not in days or day.isoweekday() % 7 not in weekdays:
            continue
        for hour, minute in product(hours, minutes):
            due = datetime.combine(day, time(hour, minute), local).astimezone(UTC)
            if due > after:
                return due
    raise ValueError("the schedule never comes")


def _parsed(schedule: str) -> list[list[int]]:
    fields = zip(_FIELDS, schedule.split(), strict=True)
    return [sorted(crontab_parser(most, least).parse(text)) for (most, least), text in fields]
