"""What a refusal says: which limit it was, of whom, and when the limit begins anew."""

from datetime import UTC, datetime
from typing import Any

import pytest

from inference.gateway.admission import Refused, decide
from inference.gateway.wire.headers import retry_headers
from portal.core.errors import PortalError
from tenants.models.quotas import METRICS
from tenants.windows import window_starts
from tests.inference.gateway.deciding import (
    KEY,
    MODEL,
    NOW,
    USER,
    call,
    key,
    ledger,
    one,
    window,
)

WORDS = {"tokens": "7 tokens", "requests": "7 requests", "cost": "a cost of 0.000000007"}
MINUTE, DAY, MONTH = "2026-03-14T15:10:00Z", "2026-03-15T00:00:00Z", "2026-04-01T00:00:00Z"


def refused(
    limits: dict[str, int], zone: str = "UTC", now: datetime = NOW, **of: Any
) -> PortalError:
    """The refusal of a call to whom one window applies that is full."""
    taken = {name: 7 for name in limits if name != "concurrency"}
    full = window(limits, time_zone=zone, starts=window_starts(now, zone), taken=taken, **of)
    verdict = one(decide([call()], ledger(full, keys=[key(time_zone=zone)], now=now)))
    assert isinstance(verdict, Refused)
    return verdict.error


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("span", "resets_at", "seconds"),
    [("minute", MINUTE, 34), ("day", DAY, 31_834), ("month", MONTH, 1_500_634)],
)
def test_refuse_a_call_over_a_window_names_the_limit_and_its_reset(
    metric: str, span: str, resets_at: str, seconds: int
) -> None:
    error = refused({f"{metric}_{span}": 7})
    assert error.data == {
        "unit": metric, "scope": "tenant", "limit": 7, "window": span, "resets_at": resets_at,
    }  # fmt: skip
    assert f"this tenant: {WORDS[metric]} per {span}. It resets at {resets_at}." in error.message
    assert (b"retry-after", b"%d" % seconds) in retry_headers(error)


@pytest.mark.parametrize("metric", METRICS)
def test_refuse_a_call_over_a_total_says_whom_to_ask(metric: str) -> None:
    error = refused({f"{metric}_total": 7})
    assert error.data == {
        "unit": metric, "scope": "tenant", "limit": 7, "window": "total", "resets_at": None,
    }  # fmt: skip
    assert f"this tenant: {WORDS[metric]} in total. Ask your administrator" in error.message
    assert retry_headers(error) == [(b"x-should-retry", b"false")]


def test_refuse_a_call_over_generations_at_once_says_when_to_try_again() -> None:
    error = refused({"concurrency": 2}, active=2)
    assert error.data == {
        "unit": "requests", "scope": "tenant", "limit": 2, "window": "concurrency",
        "resets_at": None,
    }  # fmt: skip
    assert "this tenant: 2 generations at once. Try again when one has ended." in error.message
    assert retry_headers(error) == [(b"retry-after", b"1")]


@pytest.mark.parametrize(
    ("of", "scope"),
    [
        ({}, "tenant"),
        ({"model_id": MODEL}, "tenant and model"),
        ({"user_id": USER}, "user"),
        ({"user_id": USER, "model_id": MODEL}, "user and model"),
        ({"api_key_id": KEY}, "API key"),
        ({"api_key_id": KEY, "model_id": MODEL}, "API key and model"),
        ({"api_key_id": KEY, "user_id": USER, "model_id": MODEL}, "API key and user and model"),
    ],
)
@pytest.mark.parametrize("limits", [{"tokens_minute": 7}, {"cost_day": 7}, {"concurrency": 0}])
def test_refuse_a_call_names_every_dimension_of_the_quota(
    limits: dict[str, int], of: dict[str, Any], scope: str
) -> None:
    error = refused(limits, **of)
    assert error.data["scope"] == scope
    assert f"this {scope}: " in error.message


# Days of 23 and of 25 hours, a day that begins at one o'clock, and a zone of half an hour.
DAYS = [
    ("Europe/Berlin", "2026-03-28T23:30:00", "2026-03-30T00:00:00+02:00", 22.5),
    ("Europe/Berlin", "2026-10-24T22:30:00", "2026-10-26T00:00:00+01:00", 24.5),
    ("America/Havana", "2026-03-07T17:00:00", "2026-03-08T01:00:00-04:00", 12),
    ("America/Havana", "2026-11-01T04:30:00", "2026-11-02T00:00:00-05:00", 24.5),
    ("Asia/Kolkata", "2026-03-14T18:00:00", "2026-03-15T00:00:00+05:30", 0.5),
]


@pytest.mark.parametrize(("zone", "now", "resets_at", "hours"), DAYS)
def test_refuse_a_call_over_a_day_resets_at_the_tenants_midnight(
    zone: str, now: str, resets_at: str, hours: float
) -> None:
    error = refused({"requests_day": 7}, zone, datetime.fromisoformat(now).replace(tzinfo=UTC))
    assert error.data["resets_at"] == resets_at
    assert f"It resets at {resets_at}." in error.message
    assert error.retry_after == hours * 3600


def test_refuse_a_call_over_a_month_resets_on_the_tenants_first() -> None:
    error = refused({"tokens_month": 7}, "America/New_York")
    assert error.data["resets_at"] == "2026-04-01T00:00:00-04:00"
