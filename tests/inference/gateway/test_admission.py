"""Who is let in: by table for each rule, by hypothesis for what must hold of any batch."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.gateway.admission import (
    VIRTUAL_UNIT,
    Admitted,
    Allowed,
    Ask,
    Call,
    Credential,
    KeyFacts,
    Ledger,
    Refused,
    Share,
    Window,
    cost_of,
    decide,
)
from inference.gateway.wire import errors
from inference.gateway.wire.headers import retry_headers
from portal.core.crypto import Peppers
from portal.core.errors import Invalid
from tenants.models.quotas import METRICS, WINDOWS
from tenants.windows import window_end, window_starts

NOW = datetime(2026, 3, 14, 15, 9, 26, 535897, tzinfo=UTC)
PEPPERS = Peppers({1: b"p" * 32, 2: b"q" * 32})
TENANT, OTHER_TENANT = UUID(int=1), UUID(int=2)
USER, OTHER_USER = UUID(int=11), UUID(int=12)
KEY, OTHER_KEY = UUID(int=21), UUID(int=22)
MODEL, OTHER_MODEL = UUID(int=31), UUID(int=32)
DEPLOYMENT = UUID(int=41)
SPANS = ("minute", "day", "month")


def key(public_id: str = "k", **changes: Any) -> KeyFacts:
    """A good key; its secret is ``s``."""
    facts = KeyFacts(
        public_id=public_id,
        id=KEY,
        tenant_id=TENANT,
        user_id=USER,
        name="till",
        kind="standard",
        secret_hmac=PEPPERS.digest(b"s")[1],
        pepper_version=2,
        session_hmac=None,
        scopes=frozenset({"inference"}),
        allowed_models=None,
        expires_at=None,
        revoked_at=None,
        tenant_state="active",
        time_zone="UTC",
        weight=1,
        user_active=True,
        data_key_version=1,
        data_key=b"",
    )
    return replace(facts, **changes)


def ask(prompt: int = 10, completion: int = 20, **changes: Any) -> Ask:
    """A generation; a prompt token costs 2, a completion token 3 thousandths of a micro-unit."""
    return replace(Ask(MODEL, "m", DEPLOYMENT, prompt, completion, 2_000, 3_000), **changes)


def call(public_id: str = "k", **changes: Any) -> Call:
    return replace(Call(Credential(public_id, "s"), ask()), **changes)


def window(limits: Mapping[str, int] | None = None, **changes: Any) -> Window:
    """A tenant's quota, empty and of this moment."""
    facts: dict[str, Any] = {
        "quota_id": UUID(int=100),
        "tenant_id": TENANT,
        "user_id": None,
        "api_key_id": None,
        "model_id": None,
        "limits": dict(limits or {}),
        "starts": window_starts(NOW, "UTC"),
        "taken": {f"{metric}_{span}": 0 for metric in METRICS for span in WINDOWS},
        "active": 0,
        "time_zone": "UTC",
    }
    taken = changes.pop("taken", {})
    made = Window(**{**facts, **changes})
    made.taken.update(taken)
    return made


def ledger(
    *windows: Window, keys: Sequence[KeyFacts] = (), now: datetime = NOW, **changes: Any
) -> Ledger:
    facts: dict[str, Any] = {
        "keys": {k.public_id: k for k in (keys or [key()])},
        "windows": windows,
        "clocks": {DEPLOYMENT: 0},
        "shares": {},
        "now": now,
        "peppers": PEPPERS,
    }
    return Ledger(**{**facts, **changes})


def one(verdicts: Sequence[Any]) -> Any:
    (verdict,) = verdicts
    return verdict


def refusal(verdict: Any) -> tuple[int, str]:
    assert isinstance(verdict, Refused), verdict
    return verdict.error.error_status, verdict.error.error_code


# -- credentials ---------------------------------------------------------------------------


def test_admits_a_good_key() -> None:
    verdict = one(decide([call()], ledger(window())))
    assert isinstance(verdict, Admitted)
    assert verdict.quota_ids == (UUID(int=100),)


@pytest.mark.parametrize(
    ("facts", "credential"),
    [
        (key(), None),
        (key(), Credential("unknown", "s")),
        (key(), Credential("k", "wrong")),
        (key(), Credential("k", "")),
        (key(pepper_version=1), Credential("k", "s")),
        (key(pepper_version=9), Credential("k", "s")),
        (key(revoked_at=NOW - timedelta(days=1)), Credential("k", "s")),
        (key(expires_at=NOW - timedelta(microseconds=1)), Credential("k", "s")),
        (key(expires_at=NOW), Credential("k", "s")),
        (key(session_hmac=PEPPERS.digest(b"mine")[1]), Credential("k", "s")),
        (key(session_hmac=PEPPERS.digest(b"mine")[1]), Credential("k", "s", "another")),
        (key(session_hmac=PEPPERS.digest(b"mine")[1]), Credential("k", "s", "")),
    ],
    ids=[
        "none", "unknown", "wrong", "empty", "other-pepper", "lost-pepper", "revoked", "expired",
        "expires-now", "no-session", "other-session", "empty-session",
    ],
)  # fmt: skip
def test_refuses_a_credential_that_proves_nothing(
    facts: KeyFacts, credential: Credential | None
) -> None:
    full = window({"requests_day": 0})
    verdict = one(decide([call(credential=credential)], ledger(full, keys=[facts])))
    assert refusal(verdict) == (401, "invalid_api_key")
    # A stranger learns nothing of the tenant, its limits included.
    assert (verdict.key, verdict.requests, verdict.tokens) == (None, None, None)


def test_admits_a_playground_key_with_its_session() -> None:
    bound = key(session_hmac=PEPPERS.digest(b"mine")[1])
    good = call(credential=Credential("k", "s", "mine"))
    assert isinstance(one(decide([good], ledger(keys=[bound]))), Admitted)


def test_admits_a_key_a_moment_before_it_expires() -> None:
    facts = key(expires_at=NOW + timedelta(microseconds=1))
    assert isinstance(one(decide([call()], ledger(keys=[facts]))), Admitted)


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"tenant_state": "suspended"}, 403, "tenant_not_active"),
        ({"tenant_state": "closed"}, 403, "tenant_not_active"),
        ({"user_active": False}, 403, "user_not_active"),
        ({"scopes": frozenset({"jobs:read"})}, 403, "insufficient_scope"),
        ({"scopes": frozenset()}, 403, "insufficient_scope"),
        ({"allowed_models": frozenset({"another"})}, 404, "model_not_found"),
        ({"allowed_models": frozenset()}, 404, "model_not_found"),
    ],
)
def test_refuses_a_key_that_is_not_entitled(
    changes: dict[str, Any], status: int, code: str
) -> None:
    verdict = one(decide([call()], ledger(window(), keys=[key(**changes)])))
    assert refusal(verdict) == (status, code)
    assert verdict.key is not None


@pytest.mark.parametrize("allowed", [None, frozenset({"m"}), frozenset({"m", "n"})])
def test_admits_an_allowed_model(allowed: frozenset[str] | None) -> None:
    verdict = one(decide([call()], ledger(keys=[key(allowed_models=allowed)])))
    assert isinstance(verdict, Admitted)


def test_tells_of_the_key_before_it_tells_of_the_request() -> None:
    broken = Invalid("bad", code="invalid_value")
    strange = call(credential=Credential("k", "wrong"), refusal=broken)
    suspended = ledger(keys=[key(tenant_state="suspended")])
    assert refusal(one(decide([strange], ledger()))) == (401, "invalid_api_key")
    assert refusal(one(decide([call(refusal=broken)], suspended))) == (403, "tenant_not_active")
    assert refusal(one(decide([call(refusal=broken)], ledger()))) == (400, "invalid_value")


def test_allows_a_call_without_a_generation_to_any_good_key() -> None:
    full = window({"requests_day": 0})
    verdict = one(decide([call(ask=None)], ledger(full)))
    assert isinstance(verdict, Allowed)
    assert full.added_requests == 0


def test_hides_a_model_that_the_key_may_not_see() -> None:
    looking = call(ask=None, model_name="m")
    hidden = ledger(keys=[key(allowed_models=frozenset({"n"}))])
    assert refusal(one(decide([looking], hidden))) == (404, "model_not_found")
    assert isinstance(one(decide([looking], ledger())), Allowed)


def test_refuses_a_model_whose_deployment_was_switched_off() -> None:
    verdict = one(decide([call()], ledger(window(), clocks={})))
    assert refusal(verdict) == (503, "model_not_available")
    assert verdict.error.retry_after is not None


# -- quotas --------------------------------------------------------------------------------

SCOPES = {
    "tenant": {},
    "user": {"user_id": USER},
    "key": {"api_key_id": KEY},
    "model": {"model_id": MODEL},
    "user-model": {"user_id": USER, "model_id": MODEL},
    "key-model": {"api_key_id": KEY, "model_id": MODEL},
}
NEEDS = {"tokens": 30, "requests": 1, "cost": 80}


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("span", WINDOWS)
def test_refuses_what_does_not_fit_and_admits_what_just_does(
    scope: str, metric: str, span: str
) -> None:
    name = f"{metric}_{span}"
    taken = {name: 100}
    fits = window({name: 100 + NEEDS[metric]}, taken=dict(taken), **SCOPES[scope])
    full = window({name: 100 + NEEDS[metric] - 1}, taken=dict(taken), **SCOPES[scope])
    assert isinstance(one(decide([call()], ledger(fits))), Admitted)
    verdict = one(decide([call()], ledger(full)))
    code = "rate_limit_exceeded" if span == "minute" else "insufficient_quota"
    assert refusal(verdict) == (429, code)
    assert verdict.error.data["limit"] == 100 + NEEDS[metric] - 1
    assert (full.added_tokens, full.added_requests, full.added_cost) == (0, 0, 0)


@pytest.mark.parametrize(
    "foreign",
    [
        {"tenant_id": OTHER_TENANT},
        {"user_id": OTHER_USER},
        {"api_key_id": OTHER_KEY},
        {"model_id": OTHER_MODEL},
        {"user_id": USER, "model_id": OTHER_MODEL},
        {"user_id": OTHER_USER, "model_id": MODEL},
    ],
)
def test_leaves_a_quota_alone_that_is_not_the_calls(foreign: dict[str, UUID]) -> None:
    other = window({"requests_day": 0, "concurrency": 0}, quota_id=UUID(int=101), **foreign)
    mine = window({"requests_day": 5})
    verdict = one(decide([call()], ledger(other, mine)))
    assert isinstance(verdict, Admitted)
    assert verdict.quota_ids == (UUID(int=100),)
    assert other.added_requests == 0


def test_reserves_in_every_quota_that_applies_or_in_none() -> None:
    tenant = window({"tokens_day": 1000}, quota_id=UUID(int=101))
    mine = window({"tokens_day": 40}, quota_id=UUID(int=102), api_key_id=KEY)
    first, second = decide([call(), call()], ledger(tenant, mine))
    assert isinstance(first, Admitted)
    assert set(first.quota_ids) == {UUID(int=101), UUID(int=102)}
    assert refusal(second) == (429, "insufficient_quota")
    assert isinstance(second, Refused)
    assert second.error.data["scope"] == "API key"
    assert tenant.added_tokens == mine.added_tokens == 30


@pytest.mark.parametrize(
    ("active", "limit", "admitted"), [(0, 0, 0), (0, 3, 3), (2, 3, 1), (5, 3, 0)]
)
def test_bounds_generations_at_once(active: int, limit: int, admitted: int) -> None:
    busy = window({"concurrency": limit}, active=active)
    verdicts = decide([call()] * 4, ledger(busy))
    assert sum(isinstance(v, Admitted) for v in verdicts) == admitted
    last = verdicts[-1]
    assert refusal(last) == (429, "rate_limit_exceeded")
    assert isinstance(last, Refused)
    assert last.error.retry_after == 1


def test_admits_without_limits_when_a_quota_sets_none() -> None:
    verdict = one(decide([call()], ledger(window())))
    assert (verdict.requests, verdict.tokens) == (None, None)


# -- what is said of limits ------------------------------------------------------------------


def test_says_how_long_a_full_minute_lasts() -> None:
    verdict = one(decide([call()], ledger(window({"requests_minute": 0}))))
    assert verdict.error.retry_after == pytest.approx(33.464103)
    assert (b"retry-after", b"34") in retry_headers(verdict.error)
    assert verdict.error.data["resets_at"] == "2026-03-14T15:10:00Z"


def test_says_that_a_spent_budget_is_not_to_be_retried() -> None:
    verdict = one(decide([call()], ledger(window({"tokens_month": 0}))))
    headers = dict(retry_headers(verdict.error))
    assert headers[b"x-should-retry"] == b"false"
    assert verdict.error.data["resets_at"] == "2026-04-01T00:00:00Z"


def test_names_no_reset_of_a_lifetime_budget() -> None:
    verdict = one(decide([call()], ledger(window({"cost_total": 0}))))
    assert refusal(verdict) == (429, "insufficient_quota")
    assert verdict.error.retry_after is None
    assert "administrator" in verdict.error.message


def test_tells_what_is_left_under_the_nearest_limit_after_this_call() -> None:
    roomy = window({"requests_day": 50, "tokens_minute": 500}, quota_id=UUID(int=101))
    tight = window(
        {"requests_minute": 9, "tokens_day": 400},
        quota_id=UUID(int=102),
        api_key_id=KEY,
        taken={"requests_minute": 4, "tokens_day": 100},
    )
    verdict = one(decide([call()], ledger(roomy, tight)))
    assert (verdict.requests.limit, verdict.requests.remaining) == (9, 4)
    assert verdict.requests.reset_seconds == pytest.approx(33.464103)
    assert (verdict.tokens.limit, verdict.tokens.remaining) == (400, 270)


def test_never_tells_less_than_nothing_when_a_limit_was_lowered() -> None:
    verdict = one(decide([call()], ledger(window({"tokens_day": 5}, taken={"tokens_day": 90}))))
    assert (verdict.tokens.limit, verdict.tokens.remaining) == (5, 0)


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
    verdict = one(decide([call()], ledger(clocks={DEPLOYMENT: 777})))
    assert verdict.start_tag == 777


def test_starts_a_busy_tenant_where_its_last_call_ends() -> None:
    share = {(TENANT, DEPLOYMENT): Share(5_000)}
    verdicts = decide([call()] * 3, ledger(clocks={DEPLOYMENT: 777}, shares=share))
    step = 30 * VIRTUAL_UNIT
    assert [v.start_tag for v in verdicts if isinstance(v, Admitted)] == [
        5_000,
        5_000 + step,
        5_000 + 2 * step,
    ]
    assert share[TENANT, DEPLOYMENT].virtual_time == 5_000 + 3 * step
    assert share[TENANT, DEPLOYMENT].moved


def test_moves_no_share_for_a_refused_call() -> None:
    share = {(TENANT, DEPLOYMENT): Share(5_000)}
    decide([call()], ledger(window({"requests_day": 0}), shares=share))
    assert (share[TENANT, DEPLOYMENT].virtual_time, share[TENANT, DEPLOYMENT].moved) == (
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
    share = books.shares.get((TENANT, DEPLOYMENT))
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
