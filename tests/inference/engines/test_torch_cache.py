"""Rows, room and beginnings of prompts of torch_batch, without a model."""

from collections.abc import Sequence
from itertools import takewhile

from hypothesis import given, settings
from hypothesis import strategies as st

from inference.engines.torch_batch.cache import BUCKET, CacheBudget
from inference.engines.torch_batch.prefixes import PrefixStore

_needs = st.lists(st.integers(1, 3000), min_size=1, max_size=20)


@given(buckets=st.integers(1, 200), slots=st.integers(1, 16), needs=_needs)
def test_what_fits_has_rows_long_enough_within_the_memory(
    buckets: int, slots: int, needs: list[int]
) -> None:
    budget = CacheBudget(buckets * BUCKET, slots, 2048)
    if budget.fits(needs):
        length = budget.length_for(max(needs))
        assert length >= max(needs)
        assert length * budget.rows_of(length) <= budget.tokens
        assert len(needs) <= budget.rows_of(length) <= slots


@given(buckets=st.integers(1, 200), slots=st.integers(1, 16), need=st.integers(1, 3000))
def test_a_request_alone_fits_exactly_if_the_longest_row_takes_it(
    buckets: int, slots: int, need: int
) -> None:
    budget = CacheBudget(buckets * BUCKET, slots, 2048)
    assert budget.fits([need]) == (need <= min(buckets * BUCKET, 2048))


class Copies:
    """What a store has asked to be kept."""

    def __init__(self) -> None:
        self.sizes: dict[int, int] = {}
        self._next = 0

    def save(self, row: int, tokens: int) -> int:
        self._next += 1
        self.sizes[self._next] = tokens
        return self._next

    def drop(self, handle: int) -> None:
        del self.sizes[handle]

    def store(self, capacity: int) -> PrefixStore:
        return PrefixStore(capacity, save=self.save, drop=self.drop)


_prompts = st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 60)).map(
    lambda parts: [parts[0]] * 20 + [parts[1]] * 10 + [7] * parts[2]
)


@settings(max_examples=100)
@given(
    capacity=st.integers(0, 200),
    calls=st.lists(st.tuples(st.sampled_from(("", "a", "b")), _prompts), max_size=20),
)
def test_store_stays_in_its_bounds_and_finds_only_what_the_scope_added(
    capacity: int, calls: Sequence[tuple[str, list[int]]]
) -> None:
    copies = Copies()
    store = copies.store(capacity)
    added: dict[str, list[list[int]]] = {}
    for scope, prompt in calls:
        handle, common = store.find(scope, prompt)
        known = added.get(scope, []) if scope else []
        longest = max((_common(prompt, other) for other in known), default=0)
        assert common <= longest
        assert common == 0 or common <= copies.sizes[handle]
        store.add(scope, prompt, 0)
        added.setdefault(scope, []).append(prompt)
        if scope and len(prompt) <= capacity:
            assert store.find(scope, prompt)[1] == len(prompt)
        assert sum(copies.sizes.values()) == store.used <= capacity
    store.clear()
    assert copies.sizes == {}


def _common(one: list[int], other: list[int]) -> int:
    pairs = zip(one, other, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def test_store_forgets_the_least_recently_used_first() -> None:
    copies = Copies()
    store = copies.store(90)
    first, second, third = [1] * 30, [2] * 30, [3] * 60
    store.add("a", first, 0)
    store.add("b", second, 0)
    store.find("a", first)
    store.add("c", third, 0)
    assert store.find("a", first)[1] == 30
    assert store.find("b", second) == (0, 0)


def test_store_keeps_the_longer_of_two_with_the_same_beginning() -> None:
    copies = Copies()
    store = copies.store(500)
    store.add("a", [1] * 30, 0)
    store.add("a", [1] * 40, 0)
    store.add("b", [1] * 30, 0)
    store.add("a", [1] * 35, 0)
    assert sorted(copies.sizes.values()) == [30, 40]
