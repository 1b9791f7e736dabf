"""Windows of time, fair order, and what must hold of any batch, by hypothesis."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.fair_order import VIRTUAL_UNIT
from inference.gateway.admission import Admitted, Call, Refused, Share, Window, cost_of, decide
from inference.gateway.keys import KeyFacts
from inference.gateway.wire import errors
from tenants.models.quotas import METRICS, WINDOWS
from tenants.windows import window_end, window_starts
from tests.inference.gateway.deciding import (
    DEPLOYMENT,
    KEY,
    MODEL,
    NOW,
    OTHER_KEY,
    OTHER_MODEL,
    OTHER_TENANT,
    OTHER_USER,
    SPANS,
    TENANT,
    USER,
    ask,
    call,
    key,
    ledger,
    one,
    refusal,
    window,
)

# -- windows of time -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("zone", "now", "day", "month"),
    [
        ("UTC", "2026-03-14T15:09:26", "2026-03-14T00:00", "2026-03-01T00:00"),
        ("Asia/Shanghai", "2026-03-31T15:59:59", "2026-03-30T16:00", "2026-02-28T16:00"),
        ("Asia/Shanghai", "2026-03-31T16:00:00", "2026-03-31T16:00", "2026-03-31T16:00"),
        ("Asia/Kathmandu", "2026-01-01T00:00:00", "2025-12-31T18:15", "2025-12-31T18:15"),
        # The clock goes forward in the night of 29 March, back in that of 25 October.
        ("Europe/Berlin", "2026-03-29T12:00:00", "2026-03-28T23:00", "2026-02-28T23:00"),
        ("Europe/Berlin", "2026-10-25T12:00:00", "2026-10-24T22:00", "2026-09-30T22:00"),
        ("America/New_York", "2026-03-01T04:59:59", "2026-02-28T05:00", "2026-02-01T05:00"),
    ],
)
def test_begins_days_and_months_at_the_tenants_midnight(
    zone: str, now: str, day: str, month: str
) -> None:
    moment = datetime.fromisoformat(now).replace(tzinfo=UTC)
    starts = window_starts(moment, zone)
    assert starts["day"] == datetime.fromisoformat(day).replace(tzinfo=UTC)
    assert starts["month"] == datetime.fromisoformat(month).replace(tzinfo=UTC)
    assert starts["minute"] == moment.replace(second=0)


@pytest.mark.parametrize(
    ("zone", "start", "hours"),
    [
        ("Europe/Berlin", "2026-03-28T23:00", 23),
        ("Europe/Berlin", "2026-10-24T22:00", 25),
        ("Europe/Berlin", "2026-06-01T22:00", 24),
        ("UTC", "2026-03-29T00:00", 24),
    ],
)
def test_ends_a_day_at_the_next_midnight_however_long_it_is(
    zone: str, start: str, hours: int
) -> None:
    begun = datetime.fromisoformat(start).replace(tzinfo=UTC)
    assert window_end(begun, "day", zone) - begun == timedelta(hours=hours)


ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Shanghai", "Australia/Lord_Howe",
         "Asia/Kathmandu", "America/St_Johns", "Pacific/Apia"]  # fmt: skip
moments = st.integers(0, 7 * 365 * 86_400).map(
    lambda seconds: datetime(2024, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
)


@given(moments, st.sampled_from(ZONES))
def test_every_moment_lies_in_its_windows_and_the_next_begins_where_one_ends(
    now: datetime, zone: str
) -> None:
    starts = window_starts(now, zone)
    for span in SPANS:
        end = window_end(starts[span], span, zone)
        assert starts[span] <= now < end
        assert window_starts(end, zone)[span] == end
        assert window_starts(end - timedelta(microseconds=1), zone)[span] == starts[span]
    local = starts["day"].astimezone(ZoneInfo(zone))
    assert (local.hour, local.minute) == (0, 0)


@pytest.mark.parametrize("span", SPANS)
def test_empties_a_window_when_its_time_is_over_and_no_other(span: str) -> None:
    full = window({f"{m}_{s}": 1000 for m in METRICS for s in WINDOWS})
    full.taken = dict.fromkeys(full.taken, 1000)
    later = window_end(full.starts[span], span, "UTC")
    decide([call()], ledger(full, now=later))
    over = {"minute": {"minute"}, "day": {"minute", "day"}, "month": set(SPANS)}[span]
    for name, value in full.taken.items():
        assert value == (0 if name.partition("_")[2] in over else 1000), name


def test_never_rolls_a_window_back_when_the_clock_goes_backwards() -> None:
    full = window({"requests_minute": 1}, taken={"requests_minute": 1})
    verdict = one(decide([call()], ledger(full, now=NOW - timedelta(minutes=2))))
    assert refusal(verdict)[0] == 429
    assert full.starts["minute"] == NOW.replace(second=0, microsecond=0)


# -- fair order ----------------------------------------------------------------------------


def test_starts_an_idle_tenant_at_the_clock() -> None:
    verdict = one(decide([call()], ledger(clocks={DEPLOYMENT: 776})))
    assert verdict.start_tag == 776


def test_starts_a_busy_tenant_where_its_last_call_ends() -> None:
    share = {(TENANT, DEPLOYMENT, 0): Share(5_000)}
    verdicts = decide([call()] * 3, ledger(clocks={DEPLOYMENT: 777}, shares=share))
    step = 30 * VIRTUAL_UNIT
    assert [v.start_tag for v in verdicts if isinstance(v, Admitted)] == [
        5_000,
        5_000 + step,
        5_000 + 2 * step,
    ]
    assert share[TENANT, DEPLOYMENT, 0].virtual_time == 5_000 + 3 * step
    assert share[TENANT, DEPLOYMENT, 0].moved


def test_moves_no_share_for_a_refused_call() -> None:
    share = {(TENANT, DEPLOYMENT, 0): Share(5_000)}
    decide([call()], ledger(window({"requests_day": 0}), shares=share))
    assert (share[TENANT, DEPLOYMENT, 0].virtual_time, share[TENANT, DEPLOYMENT, 0].moved) == (
        5_000,
        False,
    )


@given(st.integers(1, 100), st.integers(1, 100))
def test_shares_a_busy_queue_by_weight(light: int, heavy: int) -> None:
    keys = [key("light", weight=light), key("heavy", weight=heavy, tenant_id=OTHER_TENANT)]
    calls = [call("light")] * 200 + [call("heavy")] * 200
    verdicts = decide(calls, ledger(keys=keys))
    admitted = sorted((v for v in verdicts if isinstance(v, Admitted)), key=lambda v: v.start_tag)
    served = [v.key.public_id for v in admitted[: 200 + 1]]
    wanted = 201 * heavy / (light + heavy)
    if wanted <= 200 and 201 - wanted <= 200:
        assert abs(served.count("heavy") - wanted) <= 2


def test_serves_three_to_one_at_weights_three_and_one() -> None:
    keys = [key("one"), key("three", weight=3, tenant_id=OTHER_TENANT)]
    verdicts = decide([call("one")] * 40 + [call("three")] * 40, ledger(keys=keys))
    order = sorted((v for v in verdicts if isinstance(v, Admitted)), key=lambda v: v.start_tag)
    assert [v.key.public_id for v in order[:40]].count("three") == pytest.approx(30, abs=1)


# -- whatever comes ------------------------------------------------------------------------

NAMES = [f"{metric}_{span}" for metric in METRICS for span in WINDOWS]
small_limits = st.dictionaries(st.sampled_from([*NAMES, "concurrency"]), st.integers(0, 400))
scopes_of_quotas = st.sampled_from([
    {},
    {"user_id": USER},
    {"api_key_id": KEY},
    {"api_key_id": OTHER_KEY},
    {"model_id": MODEL},
    {"user_id": USER, "model_id": OTHER_MODEL},
    {"tenant_id": OTHER_TENANT},
])  # fmt: skip
quotas = st.lists(st.tuples(scopes_of_quotas, small_limits), max_size=5)
callers = st.sampled_from(["k", "other", "foreign", "revoked", "nobody"])
asks = st.builds(
    ask,
    st.integers(1, 60),
    st.integers(1, 60),
    model_id=st.sampled_from([MODEL, OTHER_MODEL]),
    prompt_price=st.integers(0, 5000),
    completion_price=st.integers(0, 5000),
)
batches = st.lists(st.builds(lambda who, what: call(who, ask=what), callers, asks), max_size=12)


def _keys() -> list[KeyFacts]:
    return [
        key("k"),
        key("other", id=OTHER_KEY),
        key("foreign", tenant_id=OTHER_TENANT, user_id=OTHER_USER, id=UUID(int=23)),
        key("revoked", revoked_at=NOW),
    ]


@settings(max_examples=300)
@given(quotas, batches, st.dictionaries(st.sampled_from(NAMES), st.integers(0, 200)))
def test_never_passes_a_limit_and_changes_nothing_for_the_refused(
    made: list[tuple[dict[str, UUID], dict[str, int]]], calls: list[Call], taken: dict[str, int]
) -> None:
    windows = [
        window(limits, quota_id=UUID(int=500 + n), taken=dict(taken), **scope)
        for n, (scope, limits) in enumerate(made)
    ]
    books = ledger(*windows, keys=_keys())
    verdicts = decide(calls, books)
    admitted = [
        (c.ask, v)
        for c, v in zip(calls, verdicts, strict=True)
        if isinstance(v, Admitted) and c.ask
    ]
    for w in windows:
        mine = [a for a, v in admitted if w.quota_id in v.quota_ids]
        assert mine == [a for a, v in admitted if w.applies(v.key, a.model_id)]
        added = {
            "tokens": sum(a.tokens for a in mine),
            "requests": len(mine),
            "cost": sum(a.cost for a in mine),
        }
        assert added == {
            "tokens": w.added_tokens, "requests": w.added_requests, "cost": w.added_cost
        }  # fmt: skip
        for name, limit in w.limits.items():
            if name == "concurrency":
                assert not mine or w.active + len(mine) <= limit
                continue
            metric = name.partition("_")[0]
            assert not mine or w.taken[name] + added[metric] <= limit
    spent = sum(max(1, a.tokens * VIRTUAL_UNIT) for a, v in admitted if v.key.tenant_id == TENANT)
    share = books.shares.get((TENANT, DEPLOYMENT, 0))
    assert (share.virtual_time if share else 0) == spent
    assert len({v.job_id for _, v in admitted}) == len(admitted)


@settings(max_examples=100)
@given(quotas, batches)
def test_decides_a_batch_as_it_would_one_by_one(
    made: list[tuple[dict[str, UUID], dict[str, int]]], calls: list[Call]
) -> None:
    def windows() -> list[Window]:
        return [
            window(limits, quota_id=UUID(int=500 + n), **scope)
            for n, (scope, limits) in enumerate(made)
        ]

    at_once = decide(calls, ledger(*windows(), keys=_keys()))
    books = ledger(*windows(), keys=_keys())
    singly = [one(decide([c], books)) for c in calls]
    assert [type(v) for v in at_once] == [type(v) for v in singly]
    assert [_code(v) for v in at_once] == [_code(v) for v in singly]


def _code(verdict: Any) -> str:
    return verdict.error.error_code if isinstance(verdict, Refused) else ""


@given(*[st.integers(0, 10**7)] * 2, *[st.integers(0, 10**9)] * 2)
def test_rounds_costs_up_by_less_than_one_unit(p: int, c: int, price: int, other: int) -> None:
    cost = cost_of(p, c, price, other)
    exact = p * price + c * other
    assert exact <= cost * 1000 < exact + 1000


def test_words_every_refusal_in_the_apis_shape() -> None:
    full = one(decide([call()], ledger(window({"cost_day": 0}))))
    assert errors.error_type(full.error) == "insufficient_quota"
    busy = one(decide([call()], ledger(window({"tokens_minute": 0}))))
    assert errors.error_type(busy.error) == "tokens"
