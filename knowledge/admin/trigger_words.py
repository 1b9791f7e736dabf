"""Conditions of triggers, as people read them."""

import json
from collections.abc import Callable
from typing import Any, Final

from django.utils.functional import Promise
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from knowledge.triggers.rules import All, AnyOf, Compare, Condition, Window

_MEASURES: Final[dict[str, Promise]] = {
    "count": _("number of events"),
    "sum": _("sum of %(field)s"),
    "avg": _("mean of %(field)s"),
    "min": _("smallest %(field)s"),
    "max": _("largest %(field)s"),
    "change": _("change of %(field)s"),
    "slope": _("rise of %(field)s an hour"),
    "deviation": _("deviation of %(field)s from before"),
}
_SIGNS: Final = {"==": "=", "!=": "≠", ">=": "≥", "<=": "≤"}


def condition_in_words(condition: Condition) -> str:
    """A condition in the reader's language."""
    for kind, say in _SAY:
        if isinstance(condition, kind):
            return say(condition)
    raise AssertionError(condition)


def _compare(compare: Compare) -> str:
    if compare.op == "exists":
        return gettext("%(field)s is there") % {"field": compare.field}
    parts = {"field": compare.field, "value": _value(compare.value)}
    if compare.op == "contains":
        return gettext("%(field)s contains %(value)s") % parts
    if compare.op == "in":
        return gettext("%(field)s is one of %(value)s") % parts
    return f"{compare.field} {_SIGNS.get(compare.op, compare.op)} {parts['value']}"


def _window(window: Window) -> str:
    of = {
        "subject": gettext("of the subject in %(minutes)s minutes"),
        "stream": gettext("of the stream in %(minutes)s minutes"),
    }[window.of] % {"minutes": window.minutes}
    measure = str(_MEASURES[window.measure]) % {"field": window.field}
    said = f"{measure} {of} {_SIGNS.get(window.op, window.op)} {window.value:g}"
    where = _joined(gettext(" and "), window.where)
    return gettext("%(said)s, where %(where)s") % {"said": said, "where": where} if where else said


def _joined(word: str, parts: Any) -> str:
    return word.join(
        f"({condition_in_words(part)})"
        if isinstance(part, All | AnyOf)
        else condition_in_words(part)
        for part in parts
    )


def _value(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(_value, value))
    return json.dumps(value, ensure_ascii=False)


_SAY: Final[tuple[tuple[type[Any], Callable[[Any], str]], ...]] = (
    (Compare, _compare),
    (Window, _window),
    (All, lambda condition: _joined(gettext(" and "), condition.of)),
    (AnyOf, lambda condition: _joined(gettext(" or "), condition.of)),
)
