"""Rules over events: conditions on fields, and on what happened in the minutes before.

A rule has a name, a condition and a weight; rules and model work together, for what the rules
found is handed to the app as ``$findings``. Everything here is a pure function of an event and of
those before it.
"""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

import msgspec

from portal.core.errors import Invalid

MOST_RULES: Final = 20
MOST_MINUTES: Final = 24 * 60
MOST_DEPTH: Final = 5
MOST_CONDITIONS: Final = 50
MOST_NAME_CHARS: Final = 80
LEAST_BASELINE: Final = 5
"""So many events before this one are needed to say how unusual it is."""

Operator = Literal["==", "!=", ">", ">=", "<", "<=", "contains", "in", "exists"]
Order = Literal["==", "!=", ">", ">=", "<", "<="]
Measure = Literal["count", "sum", "avg", "min", "max", "change", "slope", "deviation"]
Value = str | int | float | bool | None


class Compare(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="compare"):
    """Compares a field of the event with a value; what is not there meets no condition.

    Attributes:
        field: a name, or names with dots between for what stands deeper.
        value: for ``in`` a list; for ``exists`` none.
    """

    field: str
    op: Operator
    value: Value | tuple[Value, ...] = None


class Window(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="window"):
    """Compares a measure of the last minutes with a value; the event itself is counted in.

    Attributes:
        measure: ``count`` of events; ``sum``, ``avg``, ``min``, ``max`` of a field; ``change``
            from the first to the last; ``slope`` by least squares, a hour, of three or more;
            ``deviation`` of this event's value from the mean of those before, in their standard
            deviations, of five or more.
        minutes: how far back, 1 to 1,440.
        of: events with the same subject, or all of the stream.
        where: which events are measured.
    """

    measure: Measure
    minutes: int
    op: Order
    value: float
    field: str = ""
    of: Literal["subject", "stream"] = "subject"
    where: tuple[Compare, ...] = ()


class All(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="all"):
    """Holds if every condition in it does."""

    of: tuple["Condition", ...]


class AnyOf(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="any"):
    """Holds if one condition in it does."""

    of: tuple["Condition", ...]


Condition = Compare | Window | All | AnyOf


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A condition by its name, and how much it weighs."""

    name: str
    when: Condition
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Happening:
    """An event as rules see it."""

    subject: str
    at: datetime
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule that holds, and why in words."""

    rule: str
    weight: float
    why: str


# -- reading and checking ----------------------------------------------------------------------


def read_rules(document: Any) -> tuple[Rule, ...]:
    """The rules in what JSON decodes to, checked.

    Raises:
        Invalid: naming what is wrong, and where.
    """
    rules: tuple[Rule, ...] = _read(document, tuple[Rule, ...], "rules")
    if len(rules) > MOST_RULES:
        raise Invalid(f"'rules' may be {MOST_RULES} at most.", param="rules")
    if len({rule.name for rule in rules}) < len(rules):
        raise Invalid("'rules' must have different names.", param="rules")
    for rule in rules:
        if not 1 <= len(rule.name) <= MOST_NAME_CHARS or "\0" in rule.name:
            raise Invalid(f"A rule's name has 1 to {MOST_NAME_CHARS} characters.", param="rules")
        if not 0 < rule.weight <= 1000:
            raise Invalid("A rule's 'weight' must be above 0, and 1000 at most.", param="rules")
        _check(rule.when, "rules")
    return rules


def read_condition(document: Any, param: str) -> Condition:
    """A condition on one object, in which nothing can be asked of the minutes before.

    Raises:
        Invalid: naming what is wrong, and where.
    """
    condition: Condition = _read(document, Condition, param)
    _check(condition, param)
    if any(isinstance(part, Window) for part in _parts(condition)):
        raise Invalid(f"'{param}' can't ask for a window.", param=param)
    return condition


def _read(document: Any, wanted: Any, param: str) -> Any:
    try:
        return msgspec.convert(document, wanted)
    except msgspec.ValidationError as fault:
        raise Invalid(f"'{param}' is wrong: {fault}.", param=param) from None


def _check(condition: Condition, param: str) -> None:
    parts = list(_parts(condition))
    if len(parts) > MOST_CONDITIONS or _depth(condition) > MOST_DEPTH:
        raise Invalid(
            f"A rule may have {MOST_CONDITIONS} conditions, {MOST_DEPTH} deep.", param=param
        )
    for part in parts:
        if isinstance(part, Window):
            _check_window(part, param)
        elif isinstance(part, All | AnyOf):
            if not part.of:
                raise Invalid("'of' of 'all' and 'any' needs conditions.", param=param)
        else:
            _check_compare(part, param)


def _check_compare(compare: Compare, param: str) -> None:
    if not compare.field or len(compare.field) > 200:
        raise Invalid("'field' names a field, in 1 to 200 characters.", param=param)
    if isinstance(compare.value, tuple) != (compare.op == "in"):
        raise Invalid("'value' is a list for 'in', and for nothing else.", param=param)
    if compare.op in _ORDERS and compare.op not in ("==", "!=") and _number(compare.value) is None:
        raise Invalid(f"'value' of '{compare.op}' must be a number.", param=param)


def _check_window(window: Window, param: str) -> None:
    if not 1 <= window.minutes <= MOST_MINUTES:
        raise Invalid(f"'minutes' must be from 1 to {MOST_MINUTES}.", param=param)
    if (window.measure == "count") == bool(window.field):
        raise Invalid("Every measure but 'count' needs a 'field'.", param=param)
    if not math.isfinite(window.value):
        raise Invalid("'value' of a window must be a number.", param=param)
    for compare in window.where:
        _check_compare(compare, param)


def _parts(condition: Condition) -> Iterable[Condition]:
    yield condition
    if isinstance(condition, All | AnyOf):
        for part in condition.of:
            yield from _parts(part)


def _depth(condition: Condition) -> int:
    if isinstance(condition, All | AnyOf):
        return 1 + max((_depth(part) for part in condition.of), default=0)
    return 1


def minutes_of(rules: Sequence[Rule], of: str) -> int:
    """How far back rules look at a subject or at the stream; 0 for not at all."""
    parts = (part for rule in rules for part in _parts(rule.when))
    return max((p.minutes for p in parts if isinstance(p, Window) and p.of == of), default=0)


# -- judging -----------------------------------------------------------------------------------


def findings(rules: Sequence[Rule], event: Happening, before: Sequence[Happening]) -> list[Finding]:
    """The rules that hold for an event.

    Args:
        before: others of its stream, in any order; those that are later than the event, and
            those of other subjects where a window is of one, are passed over.
    """
    found = []
    for rule in rules:
        why: list[str] = []
        if _holds(rule.when, event, before, why):
            found.append(Finding(rule.name, rule.weight, "; ".join(why)))
    return found


def holds(condition: Condition, data: Mapping[str, Any]) -> bool:
    """Whether a condition holds for one object."""
    return _holds(condition, Happening("", datetime.max.replace(tzinfo=UTC), data), (), [])


def _holds(
    condition: Condition, event: Happening, before: Sequence[Happening], why: list[str]
) -> bool:
    """Whether it holds; what made it hold is put into ``why``."""
    if isinstance(condition, Compare):
        found = value_at(event.data, condition.field)
        if not _compares(condition, found):
            return False
        why.append(f"{condition.field} is {_said(found)}")
        return True
    if isinstance(condition, Window):
        measured = measure(condition, event, before)
        if measured is None or not _ORDERS[condition.op](measured, condition.value):
            return False
        of = f" of {condition.field}" if condition.field else ""
        why.append(
            f"{condition.measure}{of} in {condition.minutes} minutes is {measured:.6g} "
            f"({condition.op} {condition.value:.6g})"
        )
        return True
    told: list[str] = []
    held = [_holds(part, event, before, told) for part in condition.of]
    if not (all(held) if isinstance(condition, All) else any(held)):
        return False
    why += told
    return True


def measure(window: Window, event: Happening, before: Sequence[Happening]) -> float | None:
    """What a window measures; None where there is nothing to measure it of."""
    since = event.at - timedelta(minutes=window.minutes)
    seen = [
        one
        for one in (*before, event)
        if since < one.at <= event.at
        and (window.of == "stream" or one.subject == event.subject)
        and all(_compares(c, value_at(one.data, c.field)) for c in window.where)
    ]
    if window.measure == "count":
        return float(len(seen))
    # By time alone: of one moment the event itself is the last.
    points = [(one, value_at(one.data, window.field)) for one in sorted(seen, key=_at)]
    numbers = [(one, number) for one, v in points if (number := _number(v)) is not None]
    if not numbers:
        return None
    values = [number for _, number in numbers]
    if window.measure == "deviation":
        return _deviation(event, numbers)
    if window.measure == "slope":
        return _slope([((one.at - since).total_seconds() / 3600, v) for one, v in numbers])
    return _SIMPLE[window.measure](values)


_SIMPLE: Final[Mapping[str, Callable[[Sequence[float]], float]]] = {
    "sum": math.fsum,
    "avg": statistics.fmean,
    "min": min,
    "max": max,
    "change": lambda values: values[-1] - values[0],
}


def _at(one: Happening) -> datetime:
    return one.at


def _slope(points: Sequence[tuple[float, float]]) -> float | None:
    if len(points) < 3 or points[0][0] == points[-1][0]:
        return None
    return statistics.linear_regression(*zip(*points, strict=True)).slope


def _deviation(event: Happening, numbers: Sequence[tuple[Happening, float]]) -> float | None:
    own = next((value for one, value in numbers if one is event), None)
    others = [value for one, value in numbers if one is not event]
    if own is None or len(others) < LEAST_BASELINE:
        return None
    away = own - statistics.fmean(others)
    spread = statistics.stdev(others)
    if spread == 0:
        return 0.0 if away == 0 else math.copysign(math.inf, away)
    return away / spread


def value_at(data: Any, path: str) -> Any:
    """What stands at a path; None where nothing does."""
    for name in path.split("."):
        if not isinstance(data, Mapping) or name not in data:
            return None
        data = data[name]
    return data


def _compares(compare: Compare, found: Any) -> bool:
    if compare.op == "exists":
        return found is not None
    if found is None:
        return False
    if compare.op == "contains":
        if isinstance(found, str):
            return isinstance(compare.value, str) and compare.value.lower() in found.lower()
        return isinstance(found, list) and compare.value in found
    if compare.op == "in":
        assert isinstance(compare.value, tuple), "checked when it was read"
        return any(_equal(found, one) for one in compare.value)
    if compare.op in ("==", "!="):
        return _equal(found, compare.value) is (compare.op == "==")
    number, bound = _number(found), _number(compare.value)
    return number is not None and bound is not None and _ORDERS[compare.op](number, bound)


def _equal(found: Any, value: Any) -> bool:
    # To Python true is 1, to whoever writes a rule it is not.
    return isinstance(found, bool) is isinstance(value, bool) and bool(found == value)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


_ORDERS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
}


def _said(value: Any) -> str:
    return msgspec.json.encode(value).decode()[:120]
