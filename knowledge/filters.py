"""Conditions on documents' metadata, in the words of Dify's External Knowledge API."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from django.db import connection

from portal.core.errors import Invalid

NAME: Final = "document_name"
"""Stands for the document's name, which every document has."""

MOST_CONDITIONS: Final = 20

Value = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Condition:
    """One comparison of a document's metadata with a value."""

    name: str
    operator: str
    value: Value = None


# Each is true, false or NULL of a document; %(t)s stands for what it has there as a text.
_TEXT: Final[Mapping[str, str]] = {
    "contains": "strpos(lower({t}), lower({v})) > 0",
    "not contains": "coalesce(strpos(lower({t}), lower({v})), 0) = 0",
    "start with": "starts_with(lower({t}), lower({v}))",
    "end with": "right(lower({t}), length({v})) = lower({v})",
    "is": "{t} = {v}",
    "is not": "{t} IS DISTINCT FROM {v}",
    "before": "{t} < {v}",
    "after": "{t} > {v}",
}
_NUMBER: Final[Mapping[str, str]] = {
    "=": "{n} = {v}",
    "≠": "{n} IS DISTINCT FROM {v}",
    ">": "{n} > {v}",
    "<": "{n} < {v}",
    "≥": "{n} >= {v}",
    "≤": "{n} <= {v}",
}
_NOTHING: Final[Mapping[str, str]] = {
    "empty": "coalesce({t}, '') = ''",
    "not empty": "coalesce({t}, '') <> ''",
}
OPERATORS: Final = (*_TEXT, *_NUMBER, *_NOTHING)


def matching_documents(
    knowledge_base_id: UUID, conditions: Sequence[Condition], *, any_of: bool
) -> list[UUID] | None:
    """The documents of which the conditions hold; None if there are none to hold.

    Raises:
        Invalid: too many, or naming one that can't be asked.
    """
    if not conditions:
        return None
    if len(conditions) > MOST_CONDITIONS:
        raise Invalid(
            f"At most {MOST_CONDITIONS} conditions can be asked.", param="metadata_condition"
        )
    values: list[Any] = [knowledge_base_id]
    parts: list[str] = []
    for condition in conditions:
        part, more = _part(condition)
        parts.append(f"({part})")
        values += more
    together = (" OR " if any_of else " AND ").join(parts)
    statement = (
        "SELECT d.id FROM knowledge_document d WHERE d.tenant_id = current_tenant() "
        f"AND d.knowledge_base_id = %s AND ({together})"
    )
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        return [found for (found,) in cursor.fetchall()]


def _part(condition: Condition) -> tuple[str, list[Any]]:
    """The condition in SQL, with its parameters in the order in which they stand there."""
    operator, value = condition.operator, condition.value
    kinds: tuple[tuple[Mapping[str, str], Callable[[Value], Any]], ...] = (
        (_TEXT, _as_text),
        (_NUMBER, _as_number),
        (_NOTHING, lambda _value: None),
    )
    for forms, read in kinds:
        if operator in forms:
            return _filled(forms[operator], condition.name, read(value))
    raise Invalid(
        f"'comparison_operator' must be one of: {', '.join(OPERATORS)}.",
        param="metadata_condition",
    )


def _filled(form: str, name: str, value: Any) -> tuple[str, list[Any]]:
    text = "d.name" if name == NAME else "(d.metadata ->> %s)"
    # What is no number is not compared; a cast of it would fail.
    number = (
        "CASE WHEN jsonb_typeof(d.metadata -> %s) = 'number' THEN (d.metadata ->> %s)::numeric END"
    )
    places = {
        "{t}": (text, [] if name == NAME else [name]),
        "{n}": (f"({number})", [name, name]),
        "{v}": ("%s::numeric" if isinstance(value, int | float) else "%s::text", [value]),
    }
    statement, values = "", []
    while form:
        place = next((p for p in places if form.startswith(p)), None)
        if place is None:
            statement, form = statement + form[0], form[1:]
            continue
        statement += places[place][0]
        values += places[place][1]
        form = form.removeprefix(place)
    return statement, values


def _as_text(value: Value) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _as_number(value: Value) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise Invalid(
            "A metadata condition compares with what is no number.", param="metadata_condition"
        ) from None
