"""Routes as admission sees them: weights, tiers, overrides, and that no name is a way round."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from inference.gateway.admission import Admitted, Allowed, Ask, Call, decide
from inference.gateway.keys import Credential
from inference.gateway.routing import MOST_FALLBACKS, Choice, Meaning, Target, in_order
from inference.gateway.wire import errors
from portal.core.errors import PortalError
from tests.inference.gateway.deciding import (
    MODEL,
    OTHER_MODEL,
    OTHER_TENANT,
    ask,
    key,
    ledger,
    one,
    refusal,
    window,
)

A, B, C = UUID(int=51), UUID(int=52), UUID(int=53)
MODELS = {A: (MODEL, "m"), B: (OTHER_MODEL, "n"), C: (MODEL, "m")}
CLOCKS = {A: 0, B: 0, C: 0}


def asks(**changes: Any) -> dict[UUID, Ask | PortalError]:
    """What one call needs on each deployment."""
    return {
        deployment: ask(
            model_id=model_id,
            model_name=name,
            deployment_id=deployment,
            room=100,
            currency="USD",
            **changes,
        )
        for deployment, (model_id, name) in MODELS.items()
    }


def targets(*found: UUID, tiers: Sequence[int] | None = None) -> tuple[Target, ...]:
    ranks = tiers or range(len(found))
    return tuple(Target(d, MODELS[d][1], tier=tier) for d, tier in zip(found, ranks, strict=True))


def routed(
    default: tuple[Target, ...],
    overrides: Mapping[UUID, tuple[Target, ...]] | None = None,
    *,
    needs: Mapping[UUID, Ask | PortalError] | None = None,
    draw: float = 0.0,
) -> Call:
    choice = Choice(
        Meaning("chat", default, overrides or {}), draw, asks() if needs is None else needs
    )
    return Call(Credential("k", "s"), choice=choice)


def served(verdict: Any) -> tuple[UUID, list[UUID]]:
    """The deployment that serves an admitted call, and its fallbacks."""
    assert isinstance(verdict, Admitted), verdict
    assert verdict.ask is not None
    return verdict.ask.deployment_id, [f.deployment_id for f in verdict.fallbacks]


# -- order ------------------------------------------------------------------------------------

weights = st.lists(st.integers(1, 1000), min_size=1, max_size=6)


@settings(deadline=None, max_examples=40)
@given(weights)
def test_draw_over_many_calls_shares_them_by_weight(given_weights: list[int]) -> None:
    found = [Target(UUID(int=n), "m", weight=w) for n, w in enumerate(given_weights)]
    calls = 500
    # Evenly spaced draws: each share is then within one call of what it should be.
    first = Counter(in_order(found, n / calls)[0].deployment_id for n in range(calls))
    total = sum(given_weights)
    for target in found:
        assert abs(first[target.deployment_id] - calls * target.weight / total) <= 1


@settings(deadline=None, max_examples=40)
@given(weights)
def test_draw_the_second_is_shared_by_weight_too(given_weights: list[int]) -> None:
    found = [Target(UUID(int=n), "m", weight=w) for n, w in enumerate(given_weights)]
    calls = 1000
    second = Counter(
        order[1].deployment_id for n in range(calls) if len(order := in_order(found, n / calls)) > 1
    )
    total = sum(given_weights)
    for target in found:
        expected = sum(
            other.weight / total * target.weight / (total - other.weight)
            for other in found
            if other != target
        )
        assert abs(second[target.deployment_id] - calls * expected) <= 2 * len(found) ** 2


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 1000), st.integers(0, 9)), min_size=1, max_size=8),
    st.floats(0, 1, exclude_max=True),
)
def test_order_holds_every_target_once_tier_by_tier_and_repeats_itself(
    facts: list[tuple[int, int]], draw: float
) -> None:
    found = [Target(UUID(int=n), "m", weight=w, tier=t) for n, (w, t) in enumerate(facts)]
    order = in_order(found, draw)
    assert sorted(order, key=lambda t: t.deployment_id) == found
    assert [t.tier for t in order] == sorted(t.tier for t in found)
    assert in_order(found, draw) == order


# -- choosing ---------------------------------------------------------------------------------


def test_choose_takes_the_first_tier_and_falls_back_in_order() -> None:
    verdict = one(decide([routed(targets(A, B, C))], ledger(clocks=CLOCKS)))
    assert served(verdict) == (A, [B, C])


def test_choose_with_one_target_has_no_fallback() -> None:
    assert served(one(decide([routed(targets(A))], ledger(clocks=CLOCKS)))) == (A, [])


@settings(deadline=None)
@given(st.floats(0, 1, exclude_max=True))
def test_override_of_a_tenant_never_changes_anothers(draw: float) -> None:
    facts = [key(), key("o", tenant_id=OTHER_TENANT)]
    plain = routed(targets(A, C, tiers=[0, 0]), draw=draw)
    overridden = routed(targets(A, C, tiers=[0, 0]), {OTHER_TENANT: targets(B)}, draw=draw)
    before = one(decide([plain], ledger(keys=facts, clocks=CLOCKS)))
    mine = one(decide([overridden], ledger(keys=facts, clocks=CLOCKS)))
    assert served(mine) == served(before)
    theirs = replace(overridden, credential=Credential("o", "s"))
    assert served(one(decide([theirs], ledger(keys=facts, clocks=CLOCKS)))) == (B, [])


def test_name_that_is_anothers_override_alone_does_not_exist() -> None:
    call = routed((), {OTHER_TENANT: targets(B)})
    assert refusal(one(decide([call], ledger(clocks=CLOCKS)))) == (404, "model_not_found")
    lookup = routed((), {OTHER_TENANT: targets(B)}, needs={})
    assert refusal(one(decide([lookup], ledger(clocks=CLOCKS)))) == (404, "model_not_found")


def test_disabled_target_is_passed_over() -> None:
    verdict = one(decide([routed(targets(A, B))], ledger(clocks={B: 0})))
    assert served(verdict) == (B, [])


def test_every_target_disabled_is_not_available() -> None:
    verdict = one(decide([routed(targets(A, B))], ledger(clocks={})))
    assert refusal(verdict) == (503, "model_not_available")
    assert "chat" in verdict.error.message


def test_target_without_live_worker_is_passed_over_while_another_has_one() -> None:
    verdict = one(decide([routed(targets(A, B))], ledger(clocks=CLOCKS, live=frozenset({B}))))
    # It stays a fallback: who is live is asked again when one is needed.
    assert served(verdict) == (B, [A])


def test_no_live_worker_anywhere_queues_at_the_first() -> None:
    verdict = one(decide([routed(targets(A, B))], ledger(clocks=CLOCKS, live=frozenset())))
    assert served(verdict) == (A, [B])


def test_target_whose_context_is_too_short_is_passed_over() -> None:
    short = errors.context_length_exceeded(context=8, prompt_tokens=10, max_tokens=None)
    call = routed(targets(A, B), needs={**asks(), A: short})
    assert served(one(decide([call], ledger(clocks=CLOCKS)))) == (B, [])
    nowhere = routed(targets(A), needs={A: short})
    verdict = one(decide([nowhere], ledger(clocks=CLOCKS)))
    assert refusal(verdict) == (400, "context_length_exceeded")


# -- no way round -----------------------------------------------------------------------------


def test_allow_list_passes_over_models_that_are_not_on_it() -> None:
    keys = [key(allowed_models=frozenset({"n"}))]
    verdict = one(decide([routed(targets(A, B, C))], ledger(keys=keys, clocks=CLOCKS)))
    assert served(verdict) == (B, [])


def test_allow_list_that_names_the_alias_alone_lets_nothing_through() -> None:
    keys = [key(allowed_models=frozenset({"chat"}))]
    verdict = one(decide([routed(targets(A, B))], ledger(keys=keys, clocks=CLOCKS)))
    assert refusal(verdict) == (404, "model_not_found")


def test_lookup_follows_the_allow_list() -> None:
    lookup = routed(targets(A), needs={})
    found = decide([lookup], ledger(keys=[key(allowed_models=frozenset({"m"}))]))
    assert isinstance(one(found), Allowed)
    hidden = decide([lookup], ledger(keys=[key(allowed_models=frozenset({"n"}))]))
    assert refusal(one(hidden)) == (404, "model_not_found")


def test_quota_of_the_model_that_serves_holds_under_an_alias() -> None:
    quota = window({"tokens_day": 29}, model_id=MODEL)
    verdict = one(decide([routed(targets(A))], ledger(quota, clocks=CLOCKS)))
    assert refusal(verdict) == (429, "insufficient_quota")


def test_fallback_never_crosses_into_a_model_with_a_quota_of_its_own() -> None:
    quota = window({"tokens_day": 10_000}, model_id=OTHER_MODEL)
    verdict = one(decide([routed(targets(A, B, C))], ledger(quota, clocks=CLOCKS)))
    assert served(verdict) == (A, [C])


def test_fallback_leaves_no_quota_that_counts_the_model_it_was_admitted_for() -> None:
    quota = window({"tokens_day": 10_000}, model_id=MODEL)
    verdict = one(decide([routed(targets(A, B, C))], ledger(quota, clocks=CLOCKS)))
    assert served(verdict) == (A, [C])


# -- reservation ------------------------------------------------------------------------------


def test_reservation_covers_the_dearest_target_and_the_longest_prompt() -> None:
    needs = asks()
    longer, dearer = needs[B], needs[C]
    assert isinstance(longer, Ask)
    assert isinstance(dearer, Ask)
    needs[B] = replace(longer, prompt_tokens=17)
    needs[C] = replace(dearer, completion_price=9_000)
    quota = window({"tokens_day": 10_000})
    verdict = one(decide([routed(targets(A, B, C), needs=needs)], ledger(quota, clocks=CLOCKS)))
    assert served(verdict) == (A, [B, C])
    assert quota.added_tokens == 17 + 20
    assert quota.added_cost == 10 * 2 + 20 * 9


def test_call_that_fits_its_limit_only_without_fallback_is_admitted_without() -> None:
    needs = asks()
    longer = needs[B]
    assert isinstance(longer, Ask)
    needs[B] = replace(longer, prompt_tokens=17)
    quota = window({"tokens_day": 30})
    verdict = one(decide([routed(targets(A, B), needs=needs)], ledger(quota, clocks=CLOCKS)))
    assert served(verdict) == (A, [])
    assert quota.added_tokens == 30


def test_fallback_has_room_for_the_answer_and_the_same_currency() -> None:
    needs = asks()
    narrow, foreign = needs[B], needs[C]
    assert isinstance(narrow, Ask)
    assert isinstance(foreign, Ask)
    needs[B] = replace(narrow, room=19)
    needs[C] = replace(foreign, currency="EUR")
    verdict = one(decide([routed(targets(A, B, C), needs=needs)], ledger(clocks=CLOCKS)))
    assert served(verdict) == (A, [])


def test_fallbacks_are_few() -> None:
    many = [UUID(int=100 + n) for n in range(9)]
    needs: dict[UUID, Ask | PortalError] = {
        d: ask(deployment_id=d, room=100, currency="USD") for d in many
    }
    found = tuple(Target(d, "m", tier=n) for n, d in enumerate(many))
    verdict = one(decide([routed(found, needs=needs)], ledger(clocks=dict.fromkeys(many, 0))))
    assert served(verdict) == (many[0], many[1 : 1 + MOST_FALLBACKS])
