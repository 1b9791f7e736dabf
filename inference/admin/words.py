"""Spans and amounts in the words of the pages."""

from datetime import timedelta

from django.utils import formats
from django.utils.translation import gettext


def duration_text(span: timedelta) -> str:
    """A span in the unit a person would use."""
    seconds = span.total_seconds()
    if seconds < 1:
        return gettext("%(n)s ms") % {"n": round(seconds * 1000)}
    if seconds < 60:
        return gettext("%(n)s s") % {"n": formats.number_format(seconds, 2)}
    minutes, rest = divmod(round(seconds), 60)
    return gettext("%(m)s min %(s)s s") % {"m": minutes, "s": rest}


def about(seconds: float) -> str:
    """A span that was foretold, in words."""
    return gettext("about %(span)s") % {"span": duration_text(timedelta(seconds=round(seconds)))}


def money(nanos: int, currency: str) -> str:
    """An amount of nano-units in words."""
    amount = f"{nanos / 1_000_000_000:.6f}".rstrip("0").rstrip(".")
    return f"{amount or '0'} {currency}"
