"""Bounds of integers are split into ranges that mean the same."""

import json
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from inference.engines.integer_ranges import exact_ranges
from inference.engines.schemas import checked_schema
from portal.core.errors import Invalid

_ends = st.integers(-2000, 2000) | st.integers(-(10**7), 10**7) | st.integers(-(2**53), 2**53)


def inside(value: int, least: int | None, greatest: int | None) -> bool:
    return (least is None or least <= value) and (greatest is None or value <= greatest)


@given(_ends, _ends)
@example(0, 120)
@example(110, 120)
@example(1234, 1456)
@example(-1985, -1960)
def test_ranges_of_two_bounds_are_ordered_and_leave_no_gap(one: int, other: int) -> None:
    least, greatest = sorted((one, other))
    ranges = exact_ranges(least, greatest, 2000)
    if ranges is None:
        assert greatest - least > 100_000
        return
    assert (ranges[0][0], ranges[-1][1]) == (least, greatest)
    for (_, high), (low, _) in pairwise(ranges):
        assert high is not None
        assert low == high + 1
    assert all(exact_ranges(low, high, 1) == [(low, high)] for low, high in ranges)


@given(st.integers(-2000, 2000), st.integers(-3000, 3000))
def test_ranges_of_one_bound_mean_the_same(bound: int, value: int) -> None:
    for least, greatest in ((bound, None), (None, bound)):
        ranges = exact_ranges(least, greatest, 50)
        assert ranges is not None
        assert any(inside(value, *each) for each in ranges) is inside(value, least, greatest)
        assert all(exact_ranges(low, high, 1) == [(low, high)] for low, high in ranges)


def test_check_writes_bounds_as_exact_ranges_beside_the_other_types() -> None:
    schema = {"type": ["integer", "null"], "minimum": 0, "maximum": 120}
    ranges = [(0, 0), (1, 9), (10, 99), (100, 119), (120, 120)]
    options = [{"type": "integer", "minimum": a, "maximum": b} for a, b in ranges]
    expected = {"anyOf": [*options, {"type": ["null"]}]}
    written = checked_schema(json.dumps(schema), "response_format")
    assert json.loads(written) == expected
    assert checked_schema(written, "response_format") == written


@pytest.mark.parametrize(
    ("least", "greatest"),
    [
        (1_200_001, 1_800_001),
        (1_200_000_000_000_001, 1_800_000_000_000_001),
        (-1_800_000_000_000_001, -1_200_000_000_000_001),
    ],
)
def test_check_refuses_bounds_of_too_many_ranges_at_once(least: int, greatest: int) -> None:
    schema = {"type": "integer", "minimum": least, "maximum": greatest}
    with pytest.raises(Invalid, match="'minimum' and 'maximum'"):
        checked_schema(json.dumps(schema), "response_format")
