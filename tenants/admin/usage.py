"""What of a quota is used and held now, ready to be shown."""

from dataclasses import dataclass
from datetime import datetime

from django.utils import formats, timezone
from django.utils.translation import gettext as _

from tenants.levels import level_reached
from tenants.models import METRICS, WARNED_WINDOWS, WINDOWS, Quota, QuotaWindow
from tenants.windows import next_reset, window_starts

NANOS = 1_000_000_000

LEVEL_KINDS = {50: "info", 80: "warning", 100: "danger"}
"""Colours of the levels of a limit."""


def level_text(level: int) -> str:
    """A level that was reached, in words."""
    return _("Limit reached") if level == 100 else _("%(level)s %% reached") % {"level": level}


def amount_text(value: int, limit_name: str) -> str:
    """A number of a limit's unit; cost in units of currency."""
    return _number(value / NANOS if limit_name.startswith("cost_") else value)


@dataclass(frozen=True, slots=True)
class Usage:
    """One limit and how far it is drawn.

    Numbers are tokens, requests, or units of currency; the widths are percent of the bar.
    """

    name: str
    label: str
    limit: int | float | None
    used: int | float
    held: int | float
    resets: str
    level: int | None = None

    @property
    def used_width(self) -> float:
        return _percent(self.used, self.limit)

    @property
    def held_width(self) -> float:
        return min(_percent(self.held, self.limit), 100 - self.used_width)

    @property
    def used_text(self) -> str:
        return _number(self.used)

    @property
    def level_kind(self) -> str:
        return LEVEL_KINDS[self.level] if self.level else ""

    @property
    def level_text(self) -> str:
        return level_text(self.level) if self.level else ""

    @property
    def full(self) -> bool:
        return self.limit is not None and self.used + self.held >= self.limit

    @property
    def text(self) -> str:
        """The numbers in words."""
        values = {"used": _number(self.used), "held": _number(self.held)}
        if self.limit is None:
            return _("%(used)s used, no limit") % values
        values["limit"] = _number(self.limit)
        if self.held:
            return _("%(used)s used and %(held)s held of %(limit)s") % values
        return _("%(used)s used of %(limit)s") % values


def _percent(part: float, whole: float | None) -> float:
    if whole is None:
        return 0.0
    if whole == 0:
        return 100.0
    return round(min(100.0, 100 * part / whole), 2)


def _number(value: float) -> str:
    # A counter's six decimals say enough of a cost; whole numbers have none.
    exact = value if isinstance(value, int) else round(value, 6)
    decimals = 0 if exact == int(exact) else None
    return formats.number_format(exact, decimal_pos=decimals, use_l10n=True, force_grouping=True)


def limit_labels() -> dict[str, str]:
    """What each limit is called, but that on generations at once."""
    return {
        "tokens_minute": _("Tokens a minute"),
        "tokens_day": _("Tokens a day"),
        "tokens_month": _("Tokens a month"),
        "tokens_total": _("Tokens in total"),
        "requests_minute": _("Requests a minute"),
        "requests_day": _("Requests a day"),
        "requests_month": _("Requests a month"),
        "requests_total": _("Requests in total"),
        "cost_minute": _("Cost a minute"),
        "cost_day": _("Cost a day"),
        "cost_month": _("Cost a month"),
        "cost_total": _("Cost in total"),
    }


def every_limit_label() -> dict[str, str]:
    """What each limit is called."""
    return {**limit_labels(), "concurrency": _("Generations at once")}


def reset_text(window: str, now: datetime, zone: str) -> str:
    """When a window begins anew, in words and in the tenant's time."""
    moment = next_reset(window, now, zone)
    if moment is None:
        return _("never begins anew")
    if window == "minute":
        return _("begins anew each minute")
    return _("begins anew %(time)s (%(zone)s)") % {
        "time": formats.date_format(moment, "SHORT_DATETIME_FORMAT"),
        "zone": zone,
    }


def usage_of(quota: Quota, window: QuotaWindow | None, zone: str) -> list[Usage]:
    """Every metric and window of a quota, with counters of windows that have ended as nought."""
    now = timezone.now()
    starts = window_starts(now, zone)
    labels = limit_labels()
    found = []
    for metric in METRICS:
        for span in WINDOWS:
            name = f"{metric}_{span}"
            live = window is not None and (
                span == "total" or getattr(window, f"{span}_start") >= starts[span]
            )
            used = getattr(window, f"{name}_used", 0) if live else 0
            held = getattr(window, f"{name}_held", 0) if live else 0
            limit = getattr(quota, name)
            level = level_reached(used + held, limit) if span in WARNED_WINDOWS else None
            if metric == "cost":
                used, held = used / NANOS, held / NANOS
                limit = None if limit is None else limit / NANOS
            reset = reset_text(span, now, zone)
            found.append(Usage(name, labels[name], limit, used, held, reset, level))
    return found
