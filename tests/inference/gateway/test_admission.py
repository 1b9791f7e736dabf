"""Who is let in: credentials and quotas, by table."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from inference.gateway.admission import Admitted, Allowed, Refused, decide
from inference.gateway.keys import Credential, KeyFacts
from inference.gateway.wire.headers import retry_headers
from portal.core.errors import Invalid
from tenants.models.quotas import METRICS, WINDOWS
from tests.inference.gateway.deciding import (
    KEY,
    MODEL,
    NOW,
    OTHER_KEY,
    OTHER_MODEL,
    OTHER_TENANT,
    OTHER_USER,
    PEPPERS,
    USER,
    call,
    key,
    ledger,
    one,
    refusal,
    window,
)

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


FORMER: dict[str, Any] = {
    "generation": 5,
    "former_secret_hmac": PEPPERS.digest(b"former", 1)[1],
    "former_pepper_version": 1,
}


@pytest.mark.parametrize(
    ("secret", "left", "generation"),
    [
        ("s", timedelta(seconds=1), 5),
        ("s", timedelta(seconds=-1), 5),
        ("former", timedelta(microseconds=1), 4),
        ("former", timedelta(0), None),
        ("former", timedelta(seconds=-1), None),
        ("another", timedelta(seconds=1), None),
    ],
)
def test_admits_the_former_secret_until_its_overlap_ends_and_tells_its_generation(
    secret: str, left: timedelta, generation: int | None
) -> None:
    facts = key(**FORMER, former_until=NOW + left)
    verdict = one(decide([call(credential=Credential("k", secret))], ledger(keys=[facts])))
    if generation is None:
        assert refusal(verdict) == (401, "invalid_api_key")
    else:
        assert isinstance(verdict, Admitted)
        assert verdict.key.generation == generation


@pytest.mark.parametrize("secret", ["s", "former"])
def test_refuses_every_generation_of_a_revoked_key(secret: str) -> None:
    facts = key(**FORMER, former_until=NOW + timedelta(days=1), revoked_at=NOW)
    verdict = one(decide([call(credential=Credential("k", secret))], ledger(keys=[facts])))
    assert refusal(verdict) == (401, "invalid_api_key")


@pytest.mark.parametrize(
    ("networks", "address", "welcome"),
    [
        (None, None, True),
        (None, "192.0.2.7", True),
        (("192.0.2.0/24",), "192.0.2.7", True),
        (("192.0.2.0/24", "2001:db8::/32"), "2001:db8::1", True),
        (("192.0.2.0/24",), "::ffff:192.0.2.7", True),
        (("192.0.2.0/24",), "192.0.3.7", False),
        (("192.0.2.0/24",), "2001:db8::1", False),
        (("0.0.0.0/0", "::/0"), None, False),
    ],
)
def test_admits_a_bound_key_only_from_its_networks(
    networks: tuple[str, ...] | None, address: str | None, welcome: bool
) -> None:
    quota, facts = window(), key(allowed_networks=networks)
    sent = call(credential=Credential("k", "s", address=address))
    verdict = one(decide([sent], ledger(quota, keys=[facts])))
    if welcome:
        assert isinstance(verdict, Admitted)
        return
    assert refusal(verdict) == (403, "network_not_allowed")
    # It stands in the trail of the key's tenant; nothing was reserved.
    assert verdict.key.id == KEY
    assert (quota.added_requests, quota.added_tokens, quota.added_cost) == (0, 0, 0)


def test_tells_of_the_secret_before_it_tells_of_the_network() -> None:
    facts = key(allowed_networks=("198.51.100.0/24",))
    wrong = call(credential=Credential("k", "wrong", address="192.0.2.7"))
    assert refusal(one(decide([wrong], ledger(keys=[facts])))) == (401, "invalid_api_key")


def test_tells_of_the_network_before_it_tells_of_anything_else() -> None:
    sent = call(
        credential=Credential("k", "s", address="192.0.2.7"),
        refusal=Invalid("bad", code="invalid_value"),
    )
    facts = key(allowed_networks=("198.51.100.0/24",), tenant_state="suspended")
    assert refusal(one(decide([sent], ledger(keys=[facts])))) == (403, "network_not_allowed")


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
