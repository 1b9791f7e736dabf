"""Which bounds on texts stay where a compiler can hold only so many."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.engines.base import Calls, CallTag, Structure
from inference.engines.schemas import checked_schema
from inference.engines.string_bounds import without_long_bounds
from tests.inference.engines.schema_strategies import schemas


def structure(schema: dict[str, Any]) -> Structure:
    text = msgspec.json.encode(schema).decode()
    return Structure("json_schema", checked_schema(text, "response_format"))


def text(**bounds: int) -> dict[str, Any]:
    return {"type": "string", **bounds}


def test_longest_bounds_go_first_and_the_rest_of_the_schema_stays() -> None:
    members = {
        "name": text(maxLength=40),
        "maxLength": text(minLength=2, maxLength=300),
        "notes": {"type": "array", "maxItems": 3, "items": text(maxLength=80)},
        "either": {"anyOf": [text(minLength=129), {"type": "null"}]},
        "there": {"$ref": "#/$defs/code"},
    }
    given_schema = {"type": "object", "properties": members, "$defs": {"code": text(maxLength=8)}}
    held = without_long_bounds(structure(given_schema), 128)
    members["maxLength"] = text()
    members["either"] = {"anyOf": [text(), {"type": "null"}]}
    assert msgspec.json.decode(held.schema) == msgspec.json.decode(structure(given_schema).schema)


@pytest.mark.parametrize("schema", [{"type": "object"}, text(minLength=1, maxLength=128)])
def test_structure_with_few_enough_stays_the_same(schema: dict[str, Any]) -> None:
    whole = structure(schema)
    assert without_long_bounds(whole, 128) is whole


def test_bounds_of_all_tools_count_together() -> None:
    tags = [CallTag(f"t{n}", "<", structure(text(maxLength=n)).schema, ">") for n in (60, 70, 9)]
    calls = Structure("calls", calls=Calls(tuple(tags)))
    held = without_long_bounds(calls, 128).calls
    assert held is not None
    found = [msgspec.json.decode(tag.schema).get("maxLength") for tag in held.tags]
    assert found == [60, None, 9]


@given(schemas(), st.integers(0, 200))
def test_what_is_held_adds_up_to_no_more(schema: dict[str, Any], most: int) -> None:
    held = without_long_bounds(structure(schema), most)
    assert without_long_bounds(held, most) is held
