"""Figures of a process: each observation in its bucket, each family as Prometheus reads it."""

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.exposition import generate_latest

from portal.core.metrics import Families, Histogram, counter, gauge, histogram
from tests.metrics.scrapes import parse

BOUNDS = (0.1, 1, 2.5, 10)


class Collected:
    def __init__(self, *families: Families) -> None:
        self._families = [family for group in families for family in group]

    def collect(self) -> Families:
        return self._families


@given(st.lists(st.floats(0, 100) | st.sampled_from(BOUNDS)))
def test_observe_values_counts_each_under_every_bound_that_holds_it(values: list[float]) -> None:
    found = Histogram(BOUNDS)
    for value in values:
        found.observe(value)
    expected = [(f"{bound:g}", sum(v <= bound for v in values)) for bound in BOUNDS]
    assert found.buckets() == [*expected, ("+Inf", len(values))]
    assert found.total == sum(values)


@given(st.text(max_size=20), st.integers(0, 2**53))
def test_render_any_label_reads_back_as_it_was(label: str, value: int) -> None:
    seen = Histogram(BOUNDS)
    seen.observe(2)
    families: Families = [
        counter("a", "A counter.", ("model",), [((label,), value)]),
        gauge("b", "A gauge.", ("model",), [((label,), value)]),
        histogram("c", "A histogram.", ("model",), {(label,): seen}),
    ]
    found = parse(generate_latest(Collected(families)).decode())
    assert found.values("a_total", model=label) == {(label,): value}
    assert found.values("b", model=label) == {(label,): value}
    assert found.value("c_bucket", model=label, le="1") == 0
    assert found.value("c_bucket", model=label, le="2.5") == 1
    assert found.value("c_count", model=label) == 1
    assert set(found.families) == {"a_total", "b", "c"}


def test_render_family_without_samples_still_says_what_it_is() -> None:
    families: Families = [
        histogram("c", "A histogram.", ("model",), {}),
        counter("a", "A.", (), []),
    ]
    found = parse(generate_latest(Collected(families)).decode())
    assert set(found.families) == {"c", "a_total"}
