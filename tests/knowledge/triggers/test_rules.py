"""What rules find: pure functions of an event and those before it."""

import math
import statistics
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowledge.triggers.rules import (
    Happening,
    Window,
    findings,
    holds,
    measure,
    read_condition,
    read_rules,
)
from portal.core.errors import Invalid

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
AN_HOUR = 60


def at(minutes: float, value: Any = 1.0, subject: str = "a") -> Happening:
    """An event so many minutes after noon."""
    return Happening(subject, NOON + timedelta(minutes=minutes), {"value": value})


@pytest.mark.parametrize(
    ("op", "value", "data", "expected"),
    [
        (">", 5, {"f": 6}, True),
        (">", 5, {"f": "6"}, False),
        (">=", 5, {"f": 5}, True),
        ("<", 5, {}, False),
        ("==", 1, {"f": True}, False),
        ("==", True, {"f": True}, True),
        ("!=", "a", {"f": "b"}, True),
        ("!=", "a", {}, False),
        ("contains", "ERR", {"f": "an error"}, True),
        ("contains", "x", {"f": ["x", "y"]}, True),
        ("in", ["a", "b"], {"f": "b"}, True),
        ("in", [1], {"f": True}, False),
        ("exists", None, {"f": 0}, True),
        ("exists", None, {"f": None}, False),
    ],
)
def test_compare_holds_for_what_it_says(
    op: str, value: Any, data: dict[str, Any], expected: bool
) -> None:
    condition = read_condition({"type": "compare", "field": "f", "op": op, "value": value}, "x")
    assert holds(condition, data) is expected


def test_conditions_join_and_reach_into_objects() -> None:
    deep = {"type": "compare", "field": "a.b", "op": "==", "value": 1}
    other = {"type": "compare", "field": "c", "op": "exists"}
    both = read_condition({"type": "all", "of": [deep, other]}, "x")
    one = read_condition({"type": "any", "of": [deep, other]}, "x")
    assert not holds(both, {"a": {"b": 1}})
    assert holds(one, {"a": {"b": 1}})
    assert not holds(one, {"a": 1})


events = st.lists(
    st.builds(
        at,
        st.integers(-120, 30),
        st.floats(-1e6, 1e6, allow_nan=False),
        st.sampled_from(["a", "b"]),
    ),
    max_size=30,
)


@given(events, st.integers(1, 120), st.sampled_from(["subject", "stream"]))
def test_window_measures_the_minutes_before_of_its_own(
    before: list[Happening], minutes: int, of: Any
) -> None:
    now = at(0, 3.0)
    since = now.at - timedelta(minutes=minutes)
    values = [
        one.data["value"]
        for one in [*before, now]
        if since < one.at <= now.at and (of == "stream" or one.subject == "a")
    ]

    def measured(what: Any) -> float | None:
        field = "" if what == "count" else "value"
        return measure(Window(what, minutes, ">", 0, field, of), now, before)

    assert measured("count") == len(values)
    assert measured("sum") == math.fsum(values)
    assert measured("min") == min(values)
    assert measured("max") == max(values)
    assert measured("avg") == statistics.fmean(values)


@given(st.floats(-100, 100), st.lists(st.integers(-59, -1), min_size=2, max_size=10, unique=True))
def test_slope_of_what_rises_evenly_is_its_rise_an_hour(rise: float, when: list[int]) -> None:
    line = [at(minute, rise * minute / 60) for minute in when]
    window = Window("slope", AN_HOUR, ">", 0, "value")
    assert measure(window, at(0, 0.0), line) == pytest.approx(rise, abs=1e-6)


def test_slope_of_one_moment_or_of_two_events_says_nothing() -> None:
    window = Window("slope", AN_HOUR, ">", 0, "value")
    assert measure(window, at(0, 2.0), [at(0, 1.0), at(0, 3.0)]) is None
    assert measure(window, at(0, 2.0), [at(-1, 1.0)]) is None


def test_deviation_needs_a_baseline_and_leaves_the_event_out_of_it() -> None:
    window = Window("deviation", AN_HOUR, ">", 3, "value")
    calm = [at(-n, 10.0 + n % 2) for n in range(1, 7)]
    assert measure(window, at(0, 20.0), calm[:4]) is None
    spread = statistics.stdev([one.data["value"] for one in calm])
    assert measure(window, at(0, 20.0), calm) == pytest.approx(9.5 / spread)
    assert measure(window, at(0, 9.0), [at(-n, 9.0) for n in range(1, 7)]) == 0
    assert measure(window, at(0, 8.0), [at(-n, 9.0) for n in range(1, 7)]) == -math.inf


def test_change_is_from_the_first_to_the_last_and_words_are_no_numbers() -> None:
    window = Window("change", AN_HOUR, ">", 0, "value")
    assert measure(window, at(0, 7.0), [at(-30, 2.0), at(-20, "x"), at(-90, 100.0)]) == 5
    assert measure(window, at(0, "x"), []) is None


def test_window_counts_what_its_condition_lets_through() -> None:
    where = {"type": "compare", "field": "value", "op": ">", "value": 5}
    (rule,) = read_rules(
        [
            {
                "name": "r",
                "weight": 2,
                "when": {
                    "type": "window", "measure": "count", "minutes": 10, "op": ">=", "value": 2,
                    "where": [where],
                },
            }
        ]
    )  # fmt: skip
    before = [at(-1, 6.0), at(-2, 1.0), at(-11, 9.0)]
    assert findings([rule], at(0, 2.0), before) == []
    (found,) = findings([rule], at(0, 9.0), before)
    assert (found.rule, found.weight) == ("r", 2)
    assert found.why == "count in 10 minutes is 2 (>= 2)"


@pytest.mark.parametrize(
    ("when", "told"),
    [
        ({"type": "compare", "field": "", "op": "==", "value": 1}, "names a field"),
        ({"type": "compare", "field": "a", "op": ">", "value": "x"}, "must be a number"),
        ({"type": "compare", "field": "a", "op": "in", "value": 1}, "is a list for 'in'"),
        ({"type": "compare", "field": "a", "op": "like", "value": 1}, "Invalid enum value"),
        ({"type": "window", "measure": "sum", "minutes": 5, "op": ">", "value": 1}, "'field'"),
        ({"type": "window", "measure": "count", "minutes": 0, "op": ">", "value": 1}, "minutes"),
        ({"type": "all", "of": []}, "needs conditions"),
        ({"type": "all", "of": [{"type": "all", "of": []}]}, "needs conditions"),
        ({"type": "sql", "of": []}, "Invalid value"),
        ("x", "Expected"),
    ],
)
def test_read_rules_that_are_wrong_says_what_is(when: Any, told: str) -> None:
    with pytest.raises(Invalid, match=told):
        read_rules([{"name": "r", "when": when}])


def test_read_rules_bounds_their_depth_and_names() -> None:
    when: dict[str, Any] = {"type": "compare", "field": "a", "op": "exists"}
    for _ in range(5):
        when = {"type": "all", "of": [when]}
    with pytest.raises(Invalid, match="5 deep"):
        read_rules([{"name": "r", "when": when}])
    with pytest.raises(Invalid, match="different names"):
        read_rules([{"name": "r", "when": when["of"][0]}] * 2)
    window = {"type": "window", "measure": "count", "minutes": 5, "op": ">", "value": 1}
    with pytest.raises(Invalid, match="can't ask for a window"):
        read_condition(window, "alert_when")
